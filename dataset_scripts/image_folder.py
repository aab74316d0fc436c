"""Your own image folder: `images/` and a CSV, with your own label names.

Raw folder → `list_own_images` → builder. The CSV (the only one in the folder, or `labels.csv`) has a column
`image` (file name below `images/`), and may have `patient`, `split` (train, validation or test), `age_years`,
`sex` and `view`. Every other column is a label: 1 present, 0 absent, empty not annotated; its name is the
label's name. docs/data.md says which tables and spellings are read.
Without `split`, a tenth of the patients is held out for test and a tenth for validation, stratified by label.
Without `patient`, every image is its own patient (`no_patient` in the build report): two films of one person
can then stand in training and test.

Stands also in the merge (`list_for_cocktail`): a folder `own_images` beside the other sources joins the
cocktail, with those of its labels that are ChestX-ray14's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import datasets

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import IMAGES_FOLDER, NoFile, match_names
from dataset_scripts.build.label_rows import (
    LabelRow,
    merge_rows,
    parse_label,
    person_column,
    read_patient,
    read_person,
    report_similar_patients,
)
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing, scan_folder
from dataset_scripts.build.tables import Row, Table, read_table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS, NOT_ANNOTATED, make_features
from dataset_scripts.leakage.guard import remove_leaks
from dataset_scripts.splits import stratified_patients

SPLIT_NAMES = ("train", "validation", "test")

KNOWN_COLUMNS = ("image", "patient", "split", "age_years", "sex", "view")

_SPLIT_WORDS = {**{name: name for name in SPLIT_NAMES}, "val": "validation", "valid": "validation"}


def read_label_names(scan: FolderScan) -> list[str]:
    """Return the label columns of the folder's CSV, in their order.

    Raises:
        DataLayoutError: there is no CSV, or several.
        LabelFileError: it cannot be read as a table; there is no `image` column, or no label column.
    """
    return _label_names(_read_own_table(scan))


def list_own_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with all labels of their CSV."""
    table = _read_own_table(scan)
    return _list_images(scan, config, table, _label_names(table))


def list_for_cocktail(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images with the labels of ChestX-ray14; other label columns are named and left out."""
    table = _read_own_table(scan)
    own_names = _label_names(table)
    listing = _list_images(scan, config, table, FINDINGS)
    for name in own_names:
        if name not in FINDINGS:
            listing.report("unknown_finding", name, "a label column that is none of the cocktail's labels")
    return listing


def missing_splits(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Say which of the wanted splits an own folder has no image for, and what to do; empty if it has all.

    Raises:
        DataLayoutError: the folder has no image, or no CSV.
        LabelFileError: the CSV cannot be read.
    """
    scan = scan_folder(folder)
    listing = list_own_images(scan, SourceConfig())
    missing = [split for split in wanted if not listing.splits.get(split)]
    if not missing:
        return []
    name = _label_file(scan)
    rows = _read_own_table(scan).rows
    if any(row.get("split") for row in rows):
        named = {_SPLIT_WORDS.get(row.get("split").lower()) for row in rows}
        return [
            f"{name} has rows with split {split}, but none of their images is in the folder"
            if split in named
            else f"{name} has no row with split {split}: give some patients this split, or leave the column "
            "split out, and a tenth of the patients is held out for validation and another for test"
            for split in missing
        ]
    patients = {read_patient(row.get("patient")) or row.get("image") for row in rows}
    if len(patients) == 1:
        who = f"one patient cannot be split: every row of {name} is of patient {patients.pop()!r}"
    else:
        who = f"{len(patients)} patients of {name} are too few to hold one out for {' and '.join(missing)}"
    return [
        f"{who}. A patient stands in one split alone; add other patients, or leave the column patient empty "
        "where each image shows another one"
    ]


def _label_file(scan: FolderScan) -> str:
    beside = [path for path in scan.files if "/" not in path]
    names = [path for path in beside if path.lower().endswith((".csv", ".tsv"))]
    preferred = [path for path in names if path.lower() == "labels.csv"]
    for chosen in (preferred, names):
        if len(chosen) == 1:
            return chosen[0]
    sheets = [path for path in beside if path.lower().endswith((".xlsx", ".xls", ".ods"))]
    advice = f" {sheets} is a spreadsheet: save it as CSV UTF-8." if sheets else ""
    raise DataLayoutError(
        f"{scan.root.name}: wanted one CSV beside images/, or one named labels.csv; found {names or 'none'}. "
        "Write one with a column 'image' and a column for each label, or point data_dir elsewhere."
        f"{advice}"
    )


def _read_own_table(scan: FolderScan) -> Table:
    return read_table(scan.root / _label_file(scan), ("image",), _own_column)


def _own_column(column: str) -> str:
    known = column.lower()
    if known in ("image", "patient", "split"):
        return known
    return "patient" if known in ("patient_id", "patient id", "patientid") else person_column(column)


def _label_names(table: Table) -> list[str]:
    labels = [column for column in table.columns if column not in KNOWN_COLUMNS]
    if not labels:
        raise LabelFileError(
            f"{table.name}: wanted a column 'image' and at least one label column, each once; found "
            f"{list(table.columns)}."
        )
    for row in table.rows:
        for column in labels:
            if parse_label(row.get(column)) is None:
                raise LabelFileError(
                    f"{table.name}, line {row.line}: column {column!r} holds {row.get(column)!r}. A label is "
                    "1 (present), 0 (absent) or empty (not annotated). If this column is no label, delete "
                    f"it, or rename it to what it holds of {list(KNOWN_COLUMNS)}: no other column is allowed."
                )
    return labels


def _list_images(scan: FolderScan, config: SourceConfig, table: Table, names: Sequence[str]) -> SourceListing:
    listing = SourceListing(SOURCE, scan.root)
    paths = _index_images(scan, table.name, listing)
    others = {path.removeprefix(IMAGES_FOLDER): path for path in scan.files} | paths
    named = [row for row in table.rows if row.get("image")]
    for row in table.rows:
        if not row.get("image"):
            listing.report("bad_line", table.name, f"line {row.line} names no image")
    found = match_names((row.get("image") for row in named), paths, scan, others, table.name)
    key_of = {name: name if isinstance(file, NoFile) else file for name, file in found.items()}
    rows: dict[str, list[LabelRow]] = {}
    for row in named:
        key = key_of[row.get("image")]
        rows.setdefault(key, []).append(_parse_row(row, key, names, listing))
    given = _given_splits(table.name, named, key_of)
    merged = {key: one for key, several in rows.items() if (one := merge_rows(key, several, listing))}
    splits = given or _assign_splits(merged, len(names), config.validation_fraction)
    named_patients = {read_patient(row.get("patient")) for row in named}
    report_similar_patients(
        {row.patient: splits[key] for key, row in merged.items() if row.patient in named_patients}, listing
    )
    for key, facts in merged.items():
        file = found.get(key, key)
        if isinstance(file, NoFile):
            listing.report(file.kind, file.path or key, file.detail, splits[key])
            continue
        if facts.patient == _patient_of_one_image(key):
            listing.report("no_patient", key, "its row names no patient: it counts as one of its own")
        record = ImageRecord(
            image_id=f"{SOURCE.name}/{key}",
            source=SOURCE.name,
            patient_id=f"{SOURCE.name}/{facts.patient}",
            path=others[key],
            labels=facts.labels,
            age_years=facts.age_years,
            sex=facts.sex,
            view=facts.view,
        )
        listing.splits.setdefault(splits[key], []).append(record)
    for key in sorted(paths.keys() - rows.keys()):
        listing.report("not_listed", paths[key], f"in the folder, not in {table.name}")
    listing.report_passed_over(scan)
    return listing


def _index_images(scan: FolderScan, table_name: str, listing: SourceListing) -> dict[str, str]:
    """Map the path below images/ → the path in the folder, for each picture."""
    paths: dict[str, str] = {}
    for path in sorted(scan.images(), key=lambda path: not path.startswith(IMAGES_FOLDER)):
        known = paths.setdefault(path.removeprefix(IMAGES_FOLDER), path)
        if known != path:
            listing.report("same_name", path, f"the same name as {known}, which is used")
    if not paths:
        raise DataLayoutError(
            f"{scan.root.name}: no image found. Wanted images/ with PNG, JPEG, TIFF, BMP, WebP, GIF or DICOM "
            f"files beside {table_name}; point data_dir at the folder that holds both.{scan.links_advice()}"
        )
    return paths


def _parse_row(row: Row, key: str, names: Sequence[str], listing: SourceListing) -> LabelRow:
    labels = [parse_label(row.get(name)) for name in names]
    return LabelRow(
        row.line,
        read_patient(row.get("patient")) or _patient_of_one_image(key),
        tuple(NOT_ANNOTATED if label is None else label for label in labels),
        *read_person(row.cells, key, listing),
    )


def _patient_of_one_image(key: str) -> str:
    return f"image {key}"


def _given_splits(file_name: str, rows: Sequence[Row], key_of: Mapping[str, str]) -> dict[str, str]:
    """Return the split of each image by the column `split`; empty where no row fills it in.

    Raises:
        LabelFileError: a row has another split, or none; a patient or an image has two.
    """
    if not any(row.get("split") for row in rows):
        return {}
    wrong = sorted({row.get("split") for row in rows if row.get("split").lower() not in _SPLIT_WORDS})
    if wrong:
        raise LabelFileError(f"{file_name}: split holds {wrong}; wanted {list(SPLIT_NAMES)} in every row.")
    given: dict[str, str] = {}
    split_of: dict[str, str] = {}
    crossing = set()
    for row in rows:
        key, split = key_of[row.get("image")], _SPLIT_WORDS[row.get("split").lower()]
        patient = read_patient(row.get("patient")) or _patient_of_one_image(key)
        if given.setdefault(key, split) != split or split_of.setdefault(patient, split) != split:
            crossing.add(patient)
    if crossing:
        raise LabelFileError(
            f"{file_name}: {len(crossing)} patients stand in more than one split, for example "
            f"{sorted(crossing)[:5]}. Give each patient one split."
        )
    return given


def _assign_splits(rows: Mapping[str, LabelRow], label_count: int, fraction: float) -> dict[str, str]:
    """Return the split of each image: a share of the patients is held out for test and for validation."""
    counts: dict[str, list[float]] = {}
    for row in rows.values():
        sums = counts.setdefault(row.patient, [0.0] * (label_count + 1))
        sums[-1] += 1  # images without any label are shared out too
        for index, value in enumerate(row.labels):
            sums[index] += value == 1.0
    test = stratified_patients(counts, fraction)
    rest = {patient: sums for patient, sums in counts.items() if patient not in test}
    validation = stratified_patients(rest, fraction / (1 - fraction))
    return {
        key: "test" if row.patient in test else "validation" if row.patient in validation else "train"
        for key, row in rows.items()
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
        features = make_features(names, is_raw=self.config.is_raw, has_regions=bool(self.config.contours))
        return datasets.DatasetInfo(description=type(self).__doc__ or "", features=features)

    def _remove_leaks(
        self, listings: list[SourceListing], log_dir: Path | None, num_proc: int | None
    ) -> list[SourceListing]:
        return remove_leaks(listings, log_dir, num_proc, self.config)
