"""Your own images: a table with your labels, class folders, or pictures alone.

Raw folder → `list_own_images` → builder. What lies in the folder says how it is read:

- a table (the only CSV, or `labels.csv`): a column `image` (file name below `images/`), perhaps `patient`,
  `split` (train, validation or test), `age_years`, `sex` and `view`. Every other column is a label: 1
  present, 0 absent, empty not annotated (own/table.py).
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
from dataset_scripts.build.records import FolderScan, Source, SourceListing, scan_folder
from dataset_scripts.findings import FINDINGS, make_features
from dataset_scripts.own.class_folders import (
    ClassFolders,
    find_classes,
    list_classes,
    spelling,
    why_missing_folders,
)
from dataset_scripts.own.table import (
    find_table,
    label_columns,
    list_table,
    read_own_table,
    why_missing_rows,
)


@dataclass(frozen=True, slots=True)
class OwnLabels:
    """The labels of an own folder.

    Attributes:
        names: in order; FINDINGS, not annotated, where the pictures have none.
        is_exclusive: each picture has exactly one of them.
    """

    names: tuple[str, ...]
    is_exclusive: bool = False


def read_labels(scan: FolderScan) -> OwnLabels:
    """Return the labels that the folder's table or folders name.

    Raises:
        DataLayoutError: there are several tables, or the folders cannot be read as classes.
        LabelFileError: the table cannot be read; there is no `image` column, or no label column.
    """
    if find_table(scan) is not None:
        return OwnLabels(tuple(label_columns(read_own_table(scan))))
    return _folder_labels(find_classes(scan))


def _folder_labels(found: ClassFolders) -> OwnLabels:
    return OwnLabels(found.names, is_exclusive=True) if found.names else OwnLabels(FINDINGS)


def list_own_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with all their labels."""
    listing = SourceListing(SOURCE, scan.root)
    if find_table(scan) is not None:
        table = read_own_table(scan)
        list_table(scan, config, table, label_columns(table), listing)
    else:
        found = find_classes(scan)
        list_classes(scan, config, found, _folder_labels(found).names, listing)
    return listing


def list_for_cocktail(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with the labels of ChestX-ray14; other labels are named and left out.

    A table's columns are spelled as ChestX-ray14's; the folder of a class may be PNEUMONIA.
    """
    listing = SourceListing(SOURCE, scan.root)
    if find_table(scan) is not None:
        table = read_own_table(scan)
        unknown = [name for name in label_columns(table) if name not in FINDINGS]
        list_table(scan, config, table, FINDINGS, listing)
    else:
        found = find_classes(scan)
        findings = set(map(spelling, FINDINGS))
        unknown = [name for name in found.names if spelling(name) not in findings]
        list_classes(scan, config, found, FINDINGS, listing)
    for name in unknown:
        listing.report("unknown_finding", name, "a label that is none of the cocktail's")
    return listing


def is_own_folder(folder: Path, others: Sequence[Source]) -> bool:
    """Whether a folder holds a user's own images, and not the folders of sources.

    Args:
        folder: as a command's --data_dir names it; what was built is not to be asked of.
        others: every source that is known.
    """
    folders = {source.folder for source in others}
    if not folder.is_dir() or (folder.name in folders and folder.name != SOURCE.folder):
        return False
    if (folder / "images").is_dir():
        return True
    if any((folder / name).is_dir() for name in folders):
        return False
    return bool(scan_folder(folder).images())


def missing_splits(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Say which of the wanted splits an own folder has no image for, and what to do; empty if it has all.

    Raises:
        DataLayoutError: the folder has no image, or several tables.
        LabelFileError: the table cannot be read.
    """
    scan = scan_folder(folder)
    listing = list_own_images(scan, SourceConfig())
    missing = [split for split in wanted if not listing.splits.get(split)]
    if not missing:
        return []
    if find_table(scan) is not None:
        return why_missing_rows(scan, missing)
    return why_missing_folders(find_classes(scan), listing, missing)


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
        labels = read_labels(scan_folder(Path(self.config.data_dir)))
        features = make_features(
            labels.names,
            is_exclusive=labels.is_exclusive,
            is_raw=self.config.is_raw,
            has_regions=bool(self.config.contours),
        )
        return datasets.DatasetInfo(description=type(self).__doc__ or "", features=features)
