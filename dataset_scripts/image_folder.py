"""Your own image folder: `images/` and a CSV, with your own label names.

Raw folder → `list_own_images` → builder. The CSV (the only one in the folder, or `labels.csv`) has a column
`image` (file name below `images/`), and may have `patient`, `split` (train, validation or test), `age_years`,
`sex` and `view`. Every other column is a label: 1 present, 0 absent, empty not annotated; its name is the
label's name.
Without `split`, a tenth of the patients is held out for test and a tenth for validation, stratified by label.
Without `patient`, every image is its own patient.

Stands also in the merge (`list_for_cocktail`): a folder `own_images` beside the other sources joins the
cocktail, with those of its labels that are ChestX-ray14's.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import datasets

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import (
    FolderScan,
    ImageRecord,
    Source,
    SourceListing,
    read_text,
    scan_folder,
)
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS, NOT_ANNOTATED, make_features
from dataset_scripts.splits import stratified_patients

SPLIT_NAMES = ("train", "validation", "test")

KNOWN_COLUMNS = ("image", "patient", "split", "age_years", "sex", "view")

_VALUES = {"": NOT_ANNOTATED, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}

Row = dict[str, str]


def read_label_names(scan: FolderScan) -> list[str]:
    """Return the label columns of the folder's CSV, in their order.

    Raises:
        DataLayoutError: there is no CSV, or several.
        LabelFileError: there is no `image` column, or no label column.
    """
    return _label_names(*_read_rows(scan))


def list_own_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with all labels of their CSV."""
    return _list_images(scan, config, read_label_names(scan))


def list_for_cocktail(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with the labels of ChestX-ray14; other label columns are named and left out."""
    listing = _list_images(scan, config, FINDINGS)
    for name in read_label_names(scan):
        if name not in FINDINGS:
            listing.report("unknown_finding", name, "a label column that is none of the cocktail's labels")
    return listing


def _label_file(scan: FolderScan) -> str:
    names = [path for path in scan.files if path.lower().endswith(".csv") and "/" not in path]
    if "labels.csv" in names:
        return "labels.csv"
    if len(names) == 1:
        return names[0]
    raise DataLayoutError(
        f"{scan.root.name}: wanted one CSV beside images/, or one named labels.csv; found {names or 'none'}. "
        "Write one with a column 'image' and a column for each label, or point data_dir elsewhere."
    )


def _read_rows(scan: FolderScan) -> tuple[str, list[str], list[Row]]:
    name = _label_file(scan)
    reader = csv.DictReader(io.StringIO(read_text(scan.root / name)))
    header = [column.strip() for column in reader.fieldnames or []]
    reader.fieldnames = header
    rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    return name, header, rows


def _label_names(file_name: str, header: list[str], rows: list[Row]) -> list[str]:
    labels = [column for column in header if column and column not in KNOWN_COLUMNS]
    if "image" not in header or not labels or len(set(header)) < len(header):
        raise LabelFileError(
            f"{file_name}: wanted a column 'image' and at least one label column, each once; found {header}."
        )
    for number, row in enumerate(rows, start=2):
        for column in labels:
            if row.get(column, "") not in _VALUES:
                raise LabelFileError(
                    f"{file_name}, line {number}: column {column!r} holds {row[column]!r}. A label is 1 "
                    "(present), 0 (absent) or empty (not annotated); columns that are no labels are "
                    f"{list(KNOWN_COLUMNS)}."
                )
    return labels


def _list_images(scan: FolderScan, config: SourceConfig, names: Sequence[str]) -> SourceListing:
    listing = SourceListing(SOURCE, scan.root)
    file_name, header, rows = _read_rows(scan)
    _label_names(file_name, header, rows)
    paths = {path.removeprefix("images/"): path for path in scan.images()}
    if not paths:
        raise DataLayoutError(
            f"{scan.root.name}: no image found. Wanted images/ with png, jpg, tif, bmp or dcm files beside "
            f"{file_name}; point data_dir at the folder that holds both."
        )
    for link in scan.links_out:
        listing.report("link_out_of_folder", link, "its target lies outside the folder; not followed")
    unique: dict[str, Row] = {}
    for row in rows:
        if row["image"] in unique:
            listing.report("duplicate_row", row["image"], "named twice; the first row is used")
        unique.setdefault(row["image"], row)
    patients = {image: row.get("patient") or f"image {image}" for image, row in unique.items()}
    splits = _splits(file_name, unique, patients, names, config.validation_fraction)
    for image, row in unique.items():
        if image not in paths:
            listing.report("absent", image, f"named in {file_name}, not in the folder", splits[image])
            continue
        record = ImageRecord(
            image_id=f"{SOURCE.name}/{image}",
            source=SOURCE.name,
            patient_id=f"{SOURCE.name}/{patients[image]}",
            path=paths[image],
            labels=tuple(_VALUES[row.get(name, "")] for name in names),
            age_years=_age(row.get("age_years", "")),
            sex=row.get("sex", ""),
            view=row.get("view", ""),
        )
        listing.splits.setdefault(splits[image], []).append(record)
    for image in sorted(paths.keys() - unique.keys()):
        listing.report("not_listed", paths[image], f"in the folder, not in {file_name}")
    return listing


def _age(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else math.nan


def _splits(
    file_name: str, rows: dict[str, Row], patients: dict[str, str], names: Sequence[str], fraction: float
) -> dict[str, str]:
    """Return the split of each image: its own column, or stratified by patient."""
    given = {image: row.get("split", "") for image, row in rows.items()}
    if any(given.values()):
        wrong = sorted({split for split in given.values() if split not in SPLIT_NAMES})
        if wrong:
            raise LabelFileError(
                f"{file_name}: split holds {wrong}; wanted {list(SPLIT_NAMES)} in every row."
            )
        split_of: dict[str, str] = {}
        crossing = {p for i, p in patients.items() if split_of.setdefault(p, given[i]) != given[i]}
        if crossing:
            raise LabelFileError(
                f"{file_name}: {len(crossing)} patients stand in more than one split, for example "
                f"{sorted(crossing)[:5]}. Give each patient one split."
            )
        return given
    counts: dict[str, list[float]] = {}
    for image, row in rows.items():
        sums = counts.setdefault(patients[image], [0.0] * (len(names) + 1))
        sums[-1] += 1  # images without any label are shared out too
        for index, name in enumerate(names):
            sums[index] += _VALUES[row.get(name, "")] == 1.0
    test = stratified_patients(counts, fraction)
    rest = {patient: sums for patient, sums in counts.items() if patient not in test}
    validation = stratified_patients(rest, fraction / (1 - fraction))
    return {
        image: "test" if patient in test else "validation" if patient in validation else "train"
        for image, patient in patients.items()
    }


SOURCE = Source(
    name="image folder",
    folder="own_images",
    list_images=list_for_cocktail,
    title="the user's own images",
    description="Your own image folder: `images/` and a CSV with your labels, patients and splits.",
    license="Yours to state.",
    label_names=None,
    held_out_splits=("validation", "test"),
)


class ImageFolder(SourceBuilder):
    """Builder of your own image folder; `data_dir` is the folder described above."""

    SOURCES = (replace(SOURCE, list_images=list_own_images),)

    def _info(self) -> datasets.DatasetInfo:
        names = read_label_names(scan_folder(Path(self.config.data_dir)))
        return datasets.DatasetInfo(description=type(self).__doc__ or "", features=make_features(names))
