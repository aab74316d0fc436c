"""The table of a user's own folder: the images that it names, with labels, patients and splits.

`read_own_table` → `list_table` → image_folder.py; docs/data.md says which tables and spellings are read.
"""

from collections.abc import Mapping, Sequence

from dataset_scripts.build.atomic_files import read_json
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import (
    IMAGES_FOLDER,
    NoFile,
    find_other_folder,
    match_names,
    without_folder,
)
from dataset_scripts.build.label_rows import (
    LabelRow,
    merge_rows,
    patient_of_one_image,
    read_patient,
    read_person,
    report_similar_patients,
)
from dataset_scripts.build.layout import NOT_READ_FILE
from dataset_scripts.build.records import FolderScan, ImageRecord, SourceListing
from dataset_scripts.build.tables import Row, Table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.own.labels import (
    KNOWN_COLUMNS,
    PERSON_COLUMNS,
    OwnLabels,
    may_name_person,
    person_advice,
    person_candidates,
)
from dataset_scripts.own.splits import (
    SPLIT_FOLDERS,
    SPLIT_NAMES,
    SPLIT_WORDS,
    check_training,
    complete_splits,
    draw_splits,
)


def list_table(
    scan: FolderScan,
    config: SourceConfig,
    table: Table,
    labels: OwnLabels,
    names: Sequence[str],
    listing: SourceListing,
) -> None:
    """List the images that the table names, with its labels, patients and splits.

    Args:
        scan: of the folder.
        config: of the build.
        table: of the folder.
        labels: what it, or its images' folders, say.
        names: the labels wanted, in order; those that are none of `labels` are not annotated.
        listing: takes records and reports.

    Raises:
        DataLayoutError: the folder has no picture, or train lacks a class.
        LabelFileError: the splits cannot be meant.
    """
    paths = _index_images(scan, table, listing)
    _report_columns(scan, table, labels, config, listing)
    others = {path.removeprefix(IMAGES_FOLDER): path for path in scan.files} | paths
    named = _naming_rows(table, listing)
    found = _find_files(table, named, paths, others, scan, listing)
    key_of = {name: name if isinstance(file, NoFile) else file for name, file in found.items()}
    rows: dict[str, list[LabelRow]] = {}
    classes: dict[str, set[str]] = {}
    for row in named:
        key = key_of[row.get("image")]
        classes.setdefault(key, set()).add(labels.class_of(others.get(key, key), row))
        values = labels.values(others.get(key, key), row)
        rows.setdefault(key, []).append(_parse_row(row, key, values, labels.column, listing))
    merged = {key: one for key, several in rows.items() if (one := merge_rows(key, several, listing))}
    there = {key: each for key, each in classes.items() if not isinstance(found.get(key, key), NoFile)}
    class_of = {key: each.pop() for key, each in there.items() if len(each) == 1}
    splits = _find_splits(table.name, named, key_of, merged, class_of, config.validation_fraction, listing)
    named_patients = {read_patient(row.get("patient")) for row in named}
    report_similar_patients(
        {row.patient: splits[key] for key, row in merged.items() if row.patient in named_patients}, listing
    )
    source = listing.source.name
    for key, facts in merged.items():
        if isinstance(file := found.get(key, key), NoFile):
            listing.report(file.kind, file.path or key, file.detail, splits[key])
            continue
        if facts.patient == patient_of_one_image(key):
            listing.report("no_patient", key, "its row names no patient: it counts as one of its own")
        record = ImageRecord(
            f"{source}/{key}", source, f"{source}/{facts.patient}", others[key],
            labels.choose(facts.labels, names),
            age_years=facts.age_years, sex=facts.sex, view=facts.view,
            class_name=class_of.get(key, ""),
        )  # fmt: skip
        listing.splits.setdefault(splits[key], []).append(record)
    for key in sorted(paths.keys() - rows.keys()):
        listing.report("not_listed", paths[key], f"in the folder, not in {table.name}")
    listing.report_passed_over(scan)


def _find_files(
    table: Table,
    rows: Sequence[Row],
    paths: Mapping[str, str],
    others: Mapping[str, str],
    scan: FolderScan,
    listing: SourceListing,
) -> dict[str, str | NoFile]:
    """Map each name to its file, or to why it has none; whole paths of another machine lose their folder."""
    names = list(dict.fromkeys(row.get("image") for row in rows))
    found = match_names(names, paths, scan, others, table.name)
    if any(isinstance(file, str) for file in found.values()):
        return found
    if not (folder := find_other_folder(names, [*paths, *paths.values()])):
        return found
    short = {name: without_folder(name, folder) for name in names}
    files = match_names(short.values(), paths, scan, others, table.name)
    name = next((name for name in names if isinstance(files[short[name]], str)), None)
    if name is None:
        return found
    listing.report(
        "other_folder", table.name,
        f"{table.name}: its names start with {folder!r}, and the rest of each is read from the folder of the "
        f"table: {name!r} is {others[str(files[short[name]])]}",
    )  # fmt: skip
    return {name: files[short[name]] for name in names}


def _naming_rows(table: Table, listing: SourceListing) -> list[Row]:
    """Return the rows that name an image, and report the others."""
    for row in table.rows:
        if not row.get("image"):
            listing.report("bad_line", table.name, f"line {row.line} names no image")
    return [row for row in table.rows if row.get("image")]


def _report_columns(
    scan: FolderScan, table: Table, labels: OwnLabels, config: SourceConfig, listing: SourceListing
) -> None:
    """Say in words which columns were passed over, and which was taken for the class without being named."""
    if table.passed_over:
        listing.report(
            "column_passed_over", table.name,
            f"{table.name}: the columns {list(table.passed_over)} hold lists, objects or bytes and are not "
            "read",
        )  # fmt: skip
    if labels.column:
        names = [name for name in table.columns if name not in (*KNOWN_COLUMNS, labels.column)]
        _report_not_read(table.name, names, person_candidates(table, names), listing)
    of_dataset = read_json(scan.root / NOT_READ_FILE) or {}
    names = [f"{name} ({kind})" for name, kind in of_dataset.items()]
    persons = [] if "patient" in table.columns else [name for name in of_dataset if may_name_person(name)]
    _report_not_read("the dataset", names, persons, listing)
    if labels.column and not config.label_column:
        shown = ", ".join(labels.names[:10]) + (", …" if len(labels.names) > 10 else "")
        listing.report(
            "class_column", table.name,
            f"{table.name}: the column {labels.column!r} holds each image's one class ({shown}); a finding "
            "that images show or do not has a column of its own name, with 1 and 0",
        )  # fmt: skip


def _report_not_read(
    where: str, columns: Sequence[str], persons: Sequence[str], listing: SourceListing
) -> None:
    if columns:
        advice = f"{person_advice(persons)} A column of classes is named by --label_column"
        listing.report(
            "column_passed_over", where, f"{where}: the columns {list(columns)} are not read.{advice}"
        )


def _index_images(scan: FolderScan, table: Table, listing: SourceListing) -> dict[str, str]:
    """Map the path below images/ → the path in the folder, for each picture."""
    paths: dict[str, str] = {}
    for path in sorted(scan.images(), key=lambda path: not path.startswith(IMAGES_FOLDER)):
        known = paths.setdefault(path.removeprefix(IMAGES_FOLDER), path)
        if known != path:
            listing.report("same_name", path, f"the same name as {known}, which is used")
    if not paths:
        raise no_pictures(scan, table)
    return paths


def no_pictures(scan: FolderScan, table: Table) -> DataLayoutError:
    """Return what to raise where a table names images and the folder has none."""
    named = next((f", and names {row.get('image')!r}" for row in table.rows if row.get("image")), "")
    return DataLayoutError(
        f"{scan.root.name}: no image found. {table.name} is there{named}: the images lie in the folder of "
        "the table or below it, in images/ for example, and are named from there. Wanted PNG, JPEG, TIFF, "
        "BMP, WebP, GIF or DICOM files; copy them there, or move the table to the folder that holds them."
        f"{scan.links_advice()}"
    )


def _parse_row(
    row: Row, key: str, labels: tuple[float, ...], class_column: str, listing: SourceListing
) -> LabelRow:
    cells = row.cells
    if class_column in PERSON_COLUMNS:  # it says the class, in words that need be no sex or view
        cells = {column: cell for column, cell in cells.items() if column != class_column}
    return LabelRow(
        row.line,
        read_patient(row.get("patient")) or patient_of_one_image(key),
        labels,
        *read_person(cells, key, listing),
    )


def _find_splits(
    table_name: str,
    rows: Sequence[Row],
    key_of: Mapping[str, str],
    merged: Mapping[str, LabelRow],
    class_of: Mapping[str, str],
    fraction: float,
    listing: SourceListing,
) -> dict[str, str]:
    """Return the split of each image: as the rows say, or the images' folders, or drawn by patient."""
    words, is_by_folder = _split_words(rows, key_of)
    splits = _given_splits(table_name, rows, words, key_of)
    given = {key: split for key, split in splits.items() if key in merged}
    pictures = {(split, class_of[key]) for key, split in given.items() if class_of.get(key)}
    check_training(table_name, pictures, "delete its rows")
    if is_by_folder:
        return complete_splits(merged, given, fraction, listing)
    return splits or draw_splits(merged, fraction, listing)


def _split_words(rows: Sequence[Row], key_of: Mapping[str, str]) -> tuple[list[str], bool]:
    """Return what each row says of its split, and whether its image's folder said it.

    The column `split` counts where any row fills it in; else the first folders, where all name a split.
    """
    words = [row.get("split").lower() for row in rows]
    if any(words):
        return words, False
    tops = [key_of[row.get("image")].rpartition("/")[0].split("/")[0].lower() for row in rows]
    if tops and all(top in SPLIT_FOLDERS for top in tops):
        return [SPLIT_FOLDERS[top] for top in tops], True
    return [], False


def _given_splits(
    file_name: str, rows: Sequence[Row], words: Sequence[str], key_of: Mapping[str, str]
) -> dict[str, str]:
    """Return the split of each image; empty where nothing says it.

    Args:
        file_name: of the table.
        rows: that name an image.
        words: the split of each row, in lower case; none where no row says it.
        key_of: the image that a name means.

    Raises:
        LabelFileError: a row has another split, or none; a patient or an image has two.
    """
    if wrong := sorted(
        {row.get("split") for row, word in zip(rows, words, strict=False) if word not in SPLIT_WORDS}
    ):
        raise LabelFileError(f"{file_name}: split holds {wrong}; wanted {list(SPLIT_NAMES)} in every row.")
    given: dict[str, str] = {}
    split_of: dict[str, str] = {}
    crossing = set()
    for row, word in zip(rows, words, strict=False):
        key, split = key_of[row.get("image")], SPLIT_WORDS[word]
        patient = read_patient(row.get("patient")) or patient_of_one_image(key)
        if given.setdefault(key, split) != split or split_of.setdefault(patient, split) != split:
            crossing.add(patient)
    if crossing:
        raise LabelFileError(
            f"{file_name}: {len(crossing)} patients stand in more than one split, for example "
            f"{sorted(crossing)[:5]}. Give each patient one split."
        )
    return given


def why_missing_rows(table: Table, missing: Sequence[str]) -> list[str]:
    """Say of each split without an image why it has none, and what to do.

    Args:
        table: of the folder.
        missing: the splits, at least one.
    """
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
