"""The table of a user's own folder: the images that it names, with labels, patients and splits.

A scanned folder → `read_own_table` → `list_table` → image_folder.py. The table is the only CSV in the folder,
or `labels.csv`; docs/data.md says which tables and spellings are read.
"""

from collections.abc import Mapping, Sequence

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
from dataset_scripts.build.records import FolderScan, ImageRecord, SourceListing
from dataset_scripts.build.tables import Row, Table, read_table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import NOT_ANNOTATED
from dataset_scripts.own.splits import SPLIT_NAMES, SPLIT_WORDS, assign_splits, patient_of_one_image

KNOWN_COLUMNS = ("image", "patient", "split", "age_years", "sex", "view")


def find_table(scan: FolderScan) -> str | None:
    """Return the name of the folder's table; None where it has none.

    Raises:
        DataLayoutError: it has several, or a spreadsheet alone.
    """
    beside = [path for path in scan.files if "/" not in path]
    names = [path for path in beside if path.lower().endswith((".csv", ".tsv"))]
    preferred = [path for path in names if path.lower() == "labels.csv"]
    for chosen in (preferred, names):
        if len(chosen) == 1:
            return chosen[0]
    sheets = [path for path in beside if path.lower().endswith((".xlsx", ".xls", ".ods"))]
    if not names and not sheets:
        return None
    advice = f" {sheets} is a spreadsheet: save it as CSV UTF-8." if sheets else ""
    raise DataLayoutError(
        f"{scan.root.name}: wanted one CSV beside images/, or one named labels.csv; found {names or 'none'}. "
        "Write one with a column 'image' and a column for each label, or point data_dir elsewhere."
        f"{advice}"
    )


def read_own_table(scan: FolderScan) -> Table:
    """Read the folder's table.

    Raises:
        DataLayoutError: see `find_table`.
        LabelFileError: it cannot be read, or has no column `image`.
    """
    return read_table(scan.root / (find_table(scan) or ""), ("image",), _own_column)


def _own_column(column: str) -> str:
    known = column.lower()
    if known in ("image", "patient", "split"):
        return known
    return "patient" if known in ("patient_id", "patient id", "patientid") else person_column(column)


def label_columns(table: Table) -> list[str]:
    """Return the label columns of the table, in their order.

    Raises:
        LabelFileError: there is none, or a cell of one is no label.
    """
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


def list_table(
    scan: FolderScan, config: SourceConfig, table: Table, names: Sequence[str], listing: SourceListing
) -> None:
    """List the images that the table names, with its labels, patients and splits.

    Args:
        scan: of the folder.
        config: of the build.
        table: of the folder.
        names: the labels wanted, in order; those that the table has no column for are not annotated.
        listing: takes records and reports.

    Raises:
        DataLayoutError: the folder has no picture.
        LabelFileError: the splits cannot be meant.
    """
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
    splits = given or assign_splits(merged, config.validation_fraction)
    named_patients = {read_patient(row.get("patient")) for row in named}
    report_similar_patients(
        {row.patient: splits[key] for key, row in merged.items() if row.patient in named_patients}, listing
    )
    source = listing.source.name
    for key, facts in merged.items():
        file = found.get(key, key)
        if isinstance(file, NoFile):
            listing.report(file.kind, file.path or key, file.detail, splits[key])
            continue
        if facts.patient == patient_of_one_image(key):
            listing.report("no_patient", key, "its row names no patient: it counts as one of its own")
        record = ImageRecord(
            image_id=f"{source}/{key}",
            source=source,
            patient_id=f"{source}/{facts.patient}",
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
        read_patient(row.get("patient")) or patient_of_one_image(key),
        tuple(NOT_ANNOTATED if label is None else label for label in labels),
        *read_person(row.cells, key, listing),
    )


def _given_splits(file_name: str, rows: Sequence[Row], key_of: Mapping[str, str]) -> dict[str, str]:
    """Return the split of each image by the column `split`; empty where no row fills it in.

    Raises:
        LabelFileError: a row has another split, or none; a patient or an image has two.
    """
    if not any(row.get("split") for row in rows):
        return {}
    wrong = sorted({row.get("split") for row in rows if row.get("split").lower() not in SPLIT_WORDS})
    if wrong:
        raise LabelFileError(f"{file_name}: split holds {wrong}; wanted {list(SPLIT_NAMES)} in every row.")
    given: dict[str, str] = {}
    split_of: dict[str, str] = {}
    crossing = set()
    for row in rows:
        key, split = key_of[row.get("image")], SPLIT_WORDS[row.get("split").lower()]
        patient = read_patient(row.get("patient")) or patient_of_one_image(key)
        if given.setdefault(key, split) != split or split_of.setdefault(patient, split) != split:
            crossing.add(patient)
    if crossing:
        raise LabelFileError(
            f"{file_name}: {len(crossing)} patients stand in more than one split, for example "
            f"{sorted(crossing)[:5]}. Give each patient one split."
        )
    return given


def why_missing_rows(scan: FolderScan, missing: Sequence[str]) -> list[str]:
    """Say of each split without an image why it has none, and what to do.

    Args:
        scan: of the folder.
        missing: the splits, at least one.
    """
    table = read_own_table(scan)
    name, rows = table.name, table.rows
    if any(row.get("split") for row in rows):
        named = {SPLIT_WORDS.get(row.get("split").lower()) for row in rows}
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
