"""Your own images: a table with your labels, class folders, or pictures alone.

Raw folder → `list_own_images` → builder. What lies in the folder says how it is read:

- a table (the only CSV, `labels.csv`, `metadata.csv`, `metadata.jsonl` or `metadata.parquet`): a column
  `image` or `file_name`, perhaps `patient`, `split` (train, validation or test), `age_years`, `sex` and
  `view`. Every other column is a label: 1 present, 0 absent, empty not annotated; or one column names each
  image's class (own/labels.py).
- class folders, with or without train, validation and test above them: one exclusive label
  (own/class_folders.py). Patients are read from the files' names where these follow a known rule.
- pictures alone: no label, for pre-training.

What is not held out by the folder is held out here: a tenth of the patients for test and a tenth for
validation, stratified by label. An image without a patient is its own (`no_patient` in the build report): two
films of one person can then stand in training and test.

Stands also in the merge (`list_for_cocktail`): a folder `own_images` beside the other sources joins the
cocktail, with those of its labels that are ChestX-ray14's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.label_rows import spelling
from dataset_scripts.build.layout import ORIGIN_FILE
from dataset_scripts.build.origin import DatasetOrigin, read_origin
from dataset_scripts.build.records import FolderScan, Source, SourceListing, scan_folder
from dataset_scripts.build.tables import Table
from dataset_scripts.errors import DataLayoutError, UserError
from dataset_scripts.findings import FINDINGS, make_features
from dataset_scripts.leakage.guard import remove_leaks
from dataset_scripts.own.class_folders import ClassFolders, find_classes, list_classes, why_missing_folders
from dataset_scripts.own.labels import NOT_NAMED, Columns, OwnLabels, table_labels
from dataset_scripts.own.table import list_table, no_pictures, why_missing_rows
from dataset_scripts.own.table_files import read_own_table


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """What lies in an own folder.

    Attributes:
        labels: of its images.
        table: that names them; None where the folders say everything.
        folders: of the images; None where a table with labels names them.
    """

    labels: OwnLabels
    table: Table | None = None
    folders: ClassFolders | None = None


def read_folder(scan: FolderScan, columns: Columns = NOT_NAMED) -> OwnFolder:
    """Read the table or the folders; a table without any label has the classes of its images' folders.

    Args:
        scan: of the folder.
        columns: of the table, where it is said what they mean.

    Raises:
        DataLayoutError: there are several tables, or no image, or the folders cannot be read as classes.
        LabelFileError: the table cannot be read, or a cell of it is no label.
    """
    table = read_own_table(scan, columns)
    if table is None and columns != NOT_NAMED:
        named = columns.image or columns.label or columns.patient
        raise DataLayoutError(f"{scan.root.name} has no table, so no column {named!r}.")
    labels = OwnLabels() if table is None else table_labels(table, columns.label)
    if table is not None and labels.names:
        return OwnFolder(labels, table)
    if table is not None and not scan.images():
        raise no_pictures(scan, table)
    found = find_classes(scan)
    return OwnFolder(found.labels, table, found)


def list_own_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with all their labels."""
    own = read_folder(scan, Columns.of(config))
    return _list(scan, config, own, own.labels.names or FINDINGS)


def _list(scan: FolderScan, config: SourceConfig, own: OwnFolder, names: Sequence[str]) -> SourceListing:
    listing = SourceListing(SOURCE, scan.root, label_names=tuple(names))
    if own.table is not None:
        list_table(scan, config, own.table, own.labels, names, listing)
    elif own.folders is not None:
        list_classes(scan, config, own.folders, names, listing)
    return listing


def list_for_cocktail(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with the labels of ChestX-ray14; other labels are named and left out.

    A column of 1 and 0 is spelled as ChestX-ray14's; a class may be PNEUMONIA.
    """
    own = read_folder(scan)
    listing = _list(scan, config, own, FINDINGS)
    findings = {spelling(name) for name in FINDINGS} if own.labels.is_exclusive else set(FINDINGS)
    for name in own.labels.names:
        if (spelling(name) if own.labels.is_exclusive else name) not in findings:
            listing.report("unknown_finding", name, "a label that is none of the cocktail's")
    return listing


def is_own_folder(folder: Path, others: Sequence[Source]) -> bool:
    """Whether a folder holds a user's own images, and not the folders of sources.

    Args:
        folder: as a command's --data_dir names it; what was built is not to be asked of.
        others: every source that is known.

    Raises:
        DataLayoutError: a source's folder lies deeper in it, or it lies in one: what the source holds out
            would be split anew.
    """
    folders = {source.folder for source in others}
    if not folder.is_dir() or (folder.name in folders and folder.name != SOURCE.folder):
        return False
    if any((folder / name).is_dir() for name in folders):
        return False
    scan = scan_folder(folder)
    images = scan.images()
    # What was copied out of a dataset (own/dataset_rows.py) may lie anywhere.
    sources = set() if (folder / ORIGIN_FILE).is_file() else folders - {SOURCE.folder}
    within = [parent for parent in scan.root.parents[:5] if parent.name in sources]
    holding = {path.rpartition("/")[0] for path in images}
    below = (
        top for each in sorted(holding) for top in (Path(each), *Path(each).parents) if top.name in sources
    )
    source = within[0] if within else next((scan.root / found for found in below), None)
    if source is not None:
        raise DataLayoutError(
            f"{folder} is {'in' if within else 'above'} {source}, by its name a source's folder: read as "
            "your own images, its test images would be among those of training. Point data_dir at "
            f"{source.parent} if it is; if these pictures are your own, give that folder another name."
        )
    return bool(images) or _holds_table(scan)


def _holds_table(scan: FolderScan) -> bool:
    """Whether a folder without an image has a table that names some: listing it says where they belong."""
    try:
        return read_own_table(scan, NOT_NAMED) is not None
    except UserError:  # a table of anything else
        return False


def missing_splits(folder: Path, wanted: Sequence[str], columns: Columns = NOT_NAMED) -> list[str]:
    """Say which of the wanted splits an own folder has no image for, and what to do; empty if it has all.

    Raises:
        DataLayoutError: the folder has no image, or several tables.
        LabelFileError: the table cannot be read.
    """
    scan = scan_folder(folder)
    own = read_folder(scan, columns)
    listing = _list(scan, SourceConfig(), own, own.labels.names or FINDINGS)
    missing = [split for split in wanted if not listing.splits.get(split)]
    if not missing:
        return []
    if own.table is not None:
        return why_missing_rows(own.table, missing)
    assert own.folders is not None
    return why_missing_folders(own.folders, listing, missing)


SOURCE = Source(
    name="image folder",
    folder="own_images",
    list_images=list_for_cocktail,
    title="the user's own images",
    description="Your own images: a table with your labels, patients and splits, or class folders.",
    license="Yours to state.",
    label_names=None,
    held_out_splits=("validation", "test"),
)


class ImageFolder(SourceBuilder):
    """Builder of your own image folder; `data_dir` is the folder described above."""

    SOURCES = (replace(SOURCE, list_images=list_own_images),)

    def _info(self) -> datasets.DatasetInfo:
        labels = read_folder(scan_folder(Path(self.config.data_dir)), Columns.of(self.config)).labels
        self.has_labels = bool(labels.names)
        self.config.is_exclusive = labels.is_exclusive
        features = make_features(
            labels.names or FINDINGS,
            is_exclusive=labels.is_exclusive,
            is_raw=self.config.is_raw,
            has_regions=bool(self.config.contours),
        )
        return datasets.DatasetInfo(description=type(self).__doc__ or "", features=features)

    def find_origin(self) -> DatasetOrigin:
        """What names the folder: a note, a card in it, or its own name."""
        return read_origin(Path(self.config.data_dir))

    def _remove_leaks(
        self, listings: list[SourceListing], log_dir: Path | None, num_proc: int | None
    ) -> list[SourceListing]:
        return remove_leaks(listings, log_dir, num_proc, self.config)
