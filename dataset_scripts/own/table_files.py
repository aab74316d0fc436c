"""The tables of a user's own folder: found, and read as one.

A scanned folder → `read_own_table` → own/table.py. Beside the images lies one table, `labels.csv` or another
CSV, or `metadata.csv`, `.jsonl` or `.parquet` as the datasets library's imagefolder has them; or each split's
folder holds a metadata file of its own, whose names start there.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from pyarrow import parquet

from dataset_scripts.build.label_rows import person_column
from dataset_scripts.build.records import FolderScan, read_text
from dataset_scripts.build.tables import OWN_TABLE, Row, Table, read_table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.own.labels import CLASS_COLUMNS, KNOWN_COLUMNS, NOT_NAMED, Columns
from dataset_scripts.own.splits import SPLIT_FOLDERS

IMAGE_COLUMNS = ("image", "file_name", "filename")
"""What the column of file names may be called, in any case."""

_PATIENT_COLUMNS = frozenset(
    "patient patientid patientnumber patientno subject subjectid participant participantid personid mrn "
    "medicalrecordnumber".split()
)
"""What the column of patients may be called, without spaces and signs, in any case: `Subject ID`."""

_TABLES = (".csv", ".tsv", ".jsonl")

_PARQUET = "metadata.parquet"
"""The only Parquet beside images that is a table of them: others may hold features or predictions."""

_PREFERRED = (("labels.csv",), ("metadata.csv", "metadata.jsonl", _PARQUET))

_LABEL_COLUMNS = (*CLASS_COLUMNS, "labels", "classes")
"""What holds lists under such a name are labels, and not passed over."""

NAMELESS = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name in Parquet."""

_SHEETS = (".xlsx", ".xls", ".ods")


def find_tables(scan: FolderScan) -> list[str]:
    """Return the path of the folder's table, or of its splits' metadata files; empty where it has none.

    Raises:
        DataLayoutError: it has several that could be meant, or a spreadsheet alone.
    """
    beside = [path for path in scan.files if "/" not in path]
    names = [path for path in beside if path.lower().endswith(_TABLES) or path.lower() == _PARQUET]
    for preferred in _PREFERRED:
        if len(chosen := [path for path in names if path.lower() in preferred]) == 1:
            return chosen
    if len(names) == 1:
        return names
    sheets = [path for path in beside if path.lower().endswith(_SHEETS)]
    if names or sheets:
        advice = f" {sheets} is a spreadsheet: save it as CSV UTF-8." if sheets else ""
        raise DataLayoutError(
            f"{scan.root.name}: wanted one CSV beside images/, or one named labels.csv; found "
            f"{names or 'none'}. Write one with a column 'image' and a column for each label, or point "
            f"data_dir elsewhere.{advice}"
        )
    return _split_tables(scan)


def _split_tables(scan: FolderScan) -> list[str]:
    """Return the metadata files of the splits' folders.

    Raises:
        DataLayoutError: a split has two, or one has none.
    """
    found: dict[str, list[str]] = {}
    for path in scan.files:
        folder, _, name = path.partition("/")
        if folder.lower() in SPLIT_FOLDERS and name.lower() in _PREFERRED[1]:
            found.setdefault(folder, []).append(path)
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        raise DataLayoutError(f"{scan.root.name}: wanted one metadata file in each split; found {twice[0]}.")
    tops = {path.split("/")[0] for path in scan.images() if "/" in path}
    lacking = sorted(top for top in tops if found and top.lower() in SPLIT_FOLDERS and top not in found)
    if lacking:
        raise DataLayoutError(
            f"{scan.root.name}: {sorted(found)} have a metadata file and {lacking} have none; wanted one in "
            "each, or one beside them with a column split."
        )
    return [path for paths in found.values() for path in paths]


def read_own_table(scan: FolderScan, columns: Columns) -> Table | None:
    """Read the folder's table, or those of its splits as one; None where it has none.

    The column of file names becomes `image`; names in a split's table start at the folder.

    Args:
        scan: of the folder.
        columns: what its columns mean, where that is said.

    Raises:
        DataLayoutError: see `find_tables`.
        LabelFileError: one cannot be read, or has no column of file names; or they have other columns.
    """
    paths = find_tables(scan)
    if not paths:
        return None
    tables = [_read(scan.root / path, columns) for path in paths]
    header = tables[0].columns
    rows: list[Row] = []
    for path, table in zip(paths, tables, strict=True):
        if set(table.columns) != set(header):
            raise LabelFileError(
                f"{path} has the columns {list(table.columns)}, and {paths[0]} has {list(header)}. Wanted "
                f"the same in each split. {OWN_TABLE}"
            )
        top = f"{path.rpartition('/')[0]}/".lstrip("/")
        rows += [
            Row(
                row.line, row.cells | {"image": f"{top}{row.get('image')}"} if row.get("image") else row.cells
            )
            for row in table.rows
        ]
    passed_over = dict.fromkeys(column for table in tables for column in table.passed_over)
    return Table(" and ".join(paths), header, tuple(rows), tuple(passed_over))


def _read(path: Path, columns: Columns) -> Table:
    def rename(column: str) -> str:
        return own_column(column, columns)

    if path.suffix.lower() == ".jsonl":
        table = _table_of(path.name, _json_lines(path), rename, columns.label)
    elif path.suffix.lower() == ".parquet":
        table = _table_of(path.name, _parquet_rows(path), rename, columns.label)
    else:
        table = read_table(path, ("image",), rename)
    if columns.patient and "patient" not in table.columns:
        raise LabelFileError(f"{path.name} has no column {columns.patient!r}, the --patient_column.")
    return table


def own_column(column: str, columns: Columns = NOT_NAMED) -> str:
    """Return what a column is known by; one that is named for it, before what its name says."""
    if column and column in (columns.image, columns.patient):
        return "image" if column == columns.image else "patient"
    if column == columns.label:
        return column
    known = column.lower()
    if known in IMAGE_COLUMNS:
        return "image"
    if known == "split":
        return known
    is_patient = re.sub(r"[\W_]", "", known) in _PATIENT_COLUMNS
    if is_patient and (not columns.patient or known == "patient"):
        return "patient"
    return column if is_patient else person_column(column)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line that holds anything, and its object."""
    for number, line in enumerate(read_text(path, OWN_TABLE).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise LabelFileError(f"{path.name}, line {number} is no JSON ({error}). {OWN_TABLE}") from error
        if not isinstance(content, dict):
            raise LabelFileError(f"{path.name}, line {number} is no object in braces. {OWN_TABLE}")
        yield number, content


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row's number and content, a class of the datasets library's by its name."""
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise LabelFileError(f"{path.name} cannot be read as Parquet ({error}). {OWN_TABLE}") from error
    names: dict[str, list[str]] = {}
    if b"huggingface" in (table.schema.metadata or {}):
        features = datasets.Features.from_arrow_schema(table.schema)
        names = {key: kind.names for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, row in enumerate(table.to_pylist(), start=1):
        known = {key: row[key] for key in names if row[key] is not None}
        classes = {key: names[key][value] if value >= 0 else "" for key, value in known.items()}
        content = row | classes  # -1 is the datasets library's "not labeled"
        yield number, {key: value for key, value in content.items() if not NAMELESS.fullmatch(key)}


def _table_of(
    name: str, objects: Iterable[tuple[int, dict[str, Any]]], rename: Callable[[str], str], label: str
) -> Table:
    """Make a table of objects; a key that one lacks, and null, are empty cells.

    Args:
        name: of the file.
        objects: each with its line or row, counted from 1.
        rename: returns the name that a key is known by.
        label: the column that holds each image's class, where it is named.

    Raises:
        LabelFileError: a label, or another column that is read, is a list or an object; no key names an
            image, or two mean the same. The message names the line.
    """
    columns: dict[str, None] = {}
    passed_over: dict[str, None] = {}
    rows: list[Row] = []
    for number, content in objects:
        cells: dict[str, str] = {}
        for key, value in content.items():
            if not (column := rename(key)):
                continue  # as in a CSV, a column without a name means nothing
            if isinstance(value, list | dict | bytes):
                is_label = key == label if label else key.lower() in _LABEL_COLUMNS
                if is_label or column in KNOWN_COLUMNS:
                    raise LabelFileError(
                        f"{name}, line {number}: {key!r} holds {str(value)[:40]}; wanted a text or a number. "
                        "Where an image may have several labels, write a column for each, with 1 and 0; or "
                        f"name another column by --label_column. {OWN_TABLE}"
                    )
                passed_over[column] = None
                continue
            if column in cells:
                raise LabelFileError(f"{name}, line {number}: {key!r} is there twice. {OWN_TABLE}")
            cells[column] = cell_text(value)
        columns |= dict.fromkeys(cells)
        rows.append(Row(number, cells))
    if "image" not in columns:
        raise LabelFileError(f"{name} has no key 'file_name' or 'image'; found {list(columns)}. {OWN_TABLE}")
    return Table(
        name, tuple(key for key in columns if key not in passed_over), tuple(rows), tuple(passed_over)
    )


def cell_text(value: Any) -> str:
    """Return what a value would be in a CSV: null and NaN are empty, true is 1."""
    if value is None or value != value:  # NaN
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
