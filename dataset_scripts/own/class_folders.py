"""Pictures in folders that say their class, with or without folders of splits above, or that say nothing.

    train/NORMAL/1.png    NORMAL/1.png    train/1.png    1.png
    test/NORMAL/2.png     SICK/2.png      test/2.png     any/place/2.png

A scanned folder → `find_classes` → `list_classes` → image_folder.py. A class is one exclusive label: each
picture has exactly one. Folders are classes where all pictures lie one folder deep (below their split's), in
two to MOST_CLASSES folders; else the pictures have no labels, and are for pre-training.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import IMAGES_FOLDER
from dataset_scripts.build.label_rows import LabelRow, patient_of_one_image, spelling
from dataset_scripts.build.layout import CARD_FILE, ORIGIN_FILE
from dataset_scripts.build.records import FolderScan, ImageRecord, SourceListing, as_text
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.own.labels import OwnLabels
from dataset_scripts.own.patient_names import patients_by_name
from dataset_scripts.own.same_files import report_same_files
from dataset_scripts.own.splits import SPLIT_FOLDERS, check_training, complete_splits, draw_splits
from dataset_scripts.reading.image_files import is_hidden

MOST_CLASSES = 100
"""More folders than these are patients, studies or dates."""

_NAMED_AT_MOST = 5

_WANTED = (
    "Wanted train, validation and test, or some of them, each with a folder for each class; or class folders "
    "alone; or pictures without classes. A table of your own says more (docs/data.md)."
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies: its split by its folder ("" without any), the folders below, down to its own."""

    split: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Pictures by their folders.

    Attributes:
        places: of each picture, by its path; their folders as text, which the path itself may not be.
        names: the classes, sorted; empty where the folders are none.
    """

    places: dict[str, Place]
    names: tuple[str, ...]

    @property
    def labels(self) -> OwnLabels:
        """Each picture's class by its folder; none where the folders are no classes."""
        if not self.names:
            return OwnLabels()
        classes = {path: place.folders[0] for path, place in self.places.items()}
        return OwnLabels(self.names, is_exclusive=True, classes=classes)


def find_classes(scan: FolderScan) -> ClassFolders:
    """Read splits and classes from the folders of the pictures.

    Raises:
        DataLayoutError: there is no picture; pictures lie beside split or class folders, or a class has two
            spellings, or no picture in train.
    """
    paths = scan.images()
    if not paths:
        raise DataLayoutError(f"{scan.root.name}: no image found. {_WANTED}{scan.links_advice()}")
    folders = {path: tuple(as_text(path).split("/")[:-1]) for path in paths}
    if all(parts[:1] == (IMAGES_FOLDER.rstrip("/"),) for parts in folders.values()):
        folders = {path: parts[1:] for path, parts in folders.items()}
    places = _read_splits(scan, folders)
    depths = {len(place.folders) for place in places.values()}
    names = sorted({place.folders[0] for place in places.values() if place.folders})
    if 1 in depths and len(depths) > 1:
        shallow = [path for path, place in places.items() if len(place.folders) != 1]
        raise DataLayoutError(
            f"{scan.root.name}: {len(shallow)} pictures do not lie in a class folder as the others do, for "
            f"example {shallow[:_NAMED_AT_MOST]}; the folders are {names[:_NAMED_AT_MOST]}. Move them. "
            f"{_WANTED}"
        )
    if depths != {1} or not 2 <= len(names) <= MOST_CLASSES:
        return ClassFolders(places, ())
    _check_spelling(scan, names)
    pictures = {(place.split, place.folders[0]) for place in places.values()}
    check_training(scan.root.name, pictures, "move its folder out of data_dir")
    return ClassFolders(places, tuple(names))


def _read_splits(scan: FolderScan, folders: dict[str, tuple[str, ...]]) -> dict[str, Place]:
    """Return the place of each picture, its split taken from the first folder where that names one.

    Raises:
        DataLayoutError: pictures lie beside the split folders; two folders name one split.
    """
    tops = {parts[0] if parts else "" for parts in folders.values()}
    splits = {top: SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in SPLIT_FOLDERS}
    if not splits:
        return {path: Place("", parts) for path, parts in folders.items()}
    if outside := [path for path, parts in folders.items() if not parts or parts[0] not in splits]:
        raise DataLayoutError(
            f"{scan.root.name}: {len(outside)} pictures lie beside the folders {sorted(splits)}, for example "
            f"{outside[:_NAMED_AT_MOST]}. Move them into one, or out of data_dir. {_WANTED}"
        )
    if len(set(splits.values())) < len(splits):
        raise DataLayoutError(f"{scan.root.name}: {sorted(splits)} name one split twice. {_WANTED}")
    return {path: Place(splits[parts[0]], parts[1:]) for path, parts in folders.items()}


def _check_spelling(scan: FolderScan, names: Sequence[str]) -> None:
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(spelling(name), []).append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            raise DataLayoutError(
                f"{scan.root.name}: the class folders {alike} differ only in letter case, spaces, "
                "underscores or Unicode form. If they are one class, give them one name; else names that "
                "tell them apart."
            )


def list_classes(
    scan: FolderScan, config: SourceConfig, found: ClassFolders, names: Sequence[str], listing: SourceListing
) -> None:
    """List the pictures with their splits, classes and patients.

    Args:
        scan: of the folder.
        config: of the build.
        found: what its folders say.
        names: the labels wanted, in order and in any spelling; those that are no class are not annotated.
        listing: takes records and reports.
    """
    left_out = report_same_files(
        scan,
        {path: (place.split, "/".join(place.folders)) for path, place in found.places.items()},
        listing,
    )
    places = {path: place for path, place in found.places.items() if path not in left_out}
    rows = _label(places, found.labels, listing)
    given = {path: place.split for path, place in places.items()}
    if any(given.values()):
        splits = complete_splits(rows, _without_patients_of_test(rows, given, config, listing),
                                 config.validation_fraction, listing)  # fmt: skip
    else:
        splits = draw_splits(rows, config.validation_fraction, listing)
    source, labels = listing.source.name, found.labels
    for path, split in splits.items():
        row = rows[path]
        if row.patient == patient_of_one_image(path):
            listing.report("no_patient", path, "its name says no patient: it counts as one of its own")
        listing.splits.setdefault(split, []).append(
            ImageRecord(
                f"{source}/{path}",
                source,
                f"{source}/{row.patient}",
                path,
                labels.choose(row.labels, names),
                class_name=labels.class_of(path, None),
            )  # fmt: skip
        )
    _report_folders(scan, found, listing)
    listing.report_passed_over(scan)


def _label(places: dict[str, Place], labels: OwnLabels, listing: SourceListing) -> dict[str, LabelRow]:
    """Return each picture's patient and the folder's own labels: by these it is split, whatever is wanted."""
    by_name = patients_by_name([path.rsplit("/", 1)[-1] for path in places])
    rows = {}
    for path in places:
        patient = by_name.patients.get(path.rsplit("/", 1)[-1]) or patient_of_one_image(path)
        rows[path] = LabelRow(0, patient, labels.values(path, None))
    if by_name.rule:
        example = next(path for path, row in rows.items() if row.patient != patient_of_one_image(path))
        listing.report(
            "patient_by_name",
            example.rsplit("/", 1)[-1],
            f"patients are told by the names of the files ({by_name.rule}): {len(rows):,} images of "
            f"{len({row.patient for row in rows.values()}):,} patients, the first of them of "
            f"{rows[example].patient}",
        )
    return rows


def _without_patients_of_test(
    rows: dict[str, LabelRow], given: dict[str, str], config: SourceConfig, listing: SourceListing
) -> dict[str, str]:
    """Leave out who is held out too: from train and validation for test, from train for validation."""
    kept = dict(given)
    for split in ("test", "validation"):
        held_out = {rows[path].patient for path, given_split in kept.items() if given_split == split}
        others = ("train", "validation") if split == "test" else ("train",)
        for path in [path for path, other in kept.items() if other in others]:
            if (patient := rows[path].patient) not in held_out:
                continue
            if config.allow_leakage:
                listing.report("straddling_patient", path, f"{patient!r} is in {split} too", kept[path])
            else:
                kind = "patient_in_test" if split == "test" else "patient_in_validation"
                listing.report(kind, path, f"its patient {patient!r} is in {split}", kept[path])
                del kept[path]
    return kept


def _report_folders(scan: FolderScan, found: ClassFolders, listing: SourceListing) -> None:
    """Name files that are no pictures, folders without a picture, and folders that are no classes."""
    for path in scan.files:
        if path not in found.places and path not in (CARD_FILE, ORIGIN_FILE):
            listing.report("no_picture", path, "a file that is no picture; passed over")
    holding = {part for path in found.places for part in _folders_above(path)}
    for folder, below, _ in os.walk(scan.root):
        below[:] = [name for name in below if not is_hidden(name)]
        path = os.path.relpath(folder, scan.root).replace(os.sep, "/")
        if path != "." and path not in holding:
            listing.report("empty_folder", path, "a folder without any picture")
            below.clear()
    if not found.names:
        depth = max(len(place.folders) for place in found.places.values())
        if depth:
            listing.report(
                "no_class", scan.root.name,
                f"its folders are not read as classes: wanted 2 to {MOST_CLASSES} of them, and every picture "
                "in one; the pictures have no labels",
            )  # fmt: skip


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def why_missing_folders(found: ClassFolders, listing: SourceListing, missing: Sequence[str]) -> list[str]:
    """Say why the folders give no image for some splits, and what to do.

    Args:
        found: what the folders say.
        listing: what came of them.
        missing: the splits, at least one.
    """
    name, splits = listing.root.name, {place.split for place in found.places.values()}
    if "train" in missing and any(splits):
        there = sorted(splits)
        return [f"{name} has folders for {there} and no picture in train to learn from: add a folder train"]
    patients = {record.patient_id for part in listing.splits.values() for record in part}
    return [
        f"the {len(found.places)} pictures of {len(patients)} patients in {name} are too few to hold some "
        f"out for {' and '.join(missing)}: add other patients, or a folder for each split"
    ]
