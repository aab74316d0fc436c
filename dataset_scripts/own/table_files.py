"""The tables of a user's own folder: found, and read as one.

A scanned folder → `read_own_table` → own/table.py. Beside the images lies one table, `labels.csv` or another
CSV, or `metadata.csv` or `metadata.jsonl` as the datasets library's imagefolder has them; or each split's
folder holds a metadata file of its own, whose names start there.
"""

import json
from collections.abc import Callable
from pathlib import Path

from dataset_scripts.build.label_rows import person_column
from dataset_scripts.build.records import FolderScan, read_text
from dataset_scripts.build.tables import OWN_TABLE, Row, Table, read_table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.own.labels import NOT_NAMED, Columns
from dataset_scripts.own.splits import SPLIT_FOLDERS

IMAGE_COLUMNS = ("image", "file_name", "filename")
"""What the column of file names may be called, in any case."""

_TABLES = (".csv", ".tsv", ".jsonl")

_PREFERRED = (("labels.csv",), ("metadata.csv", "metadata.jsonl"))

_SHEETS = (".xlsx", ".xls", ".ods")


def find_tables(scan: FolderScan) -> list[str]:
    """Return the path of the folder's table, or of its splits' metadata files; empty where it has none.

    Raises:
        DataLayoutError: it has several that could be meant, or a spreadsheet alone.
    """
    beside = [path for path in scan.files if "/" not in path]
    names = [path for path in beside if path.lower().endswith(_TABLES)]
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
    return Table(" and ".join(paths), header, tuple(rows))


def _read(path: Path, columns: Columns) -> Table:
    def rename(column: str) -> str:
        return own_column(column, columns)

    if path.suffix.lower() == ".jsonl":
        table = read_json_lines(path, rename)
    else:
        table = read_table(path, ("image",), rename)
    if columns.patient and "patient" not in table.columns:
        raise LabelFileError(f"{path.name} has no column {columns.patient!r}, the patient_column.")
    return table


def own_column(column: str, columns: Columns = NOT_NAMED) -> str:
    """Return what a column is known by; one that is named for it, before what its name says."""
    if column in (columns.image, columns.patient):
        return "image" if column == columns.image else "patient"
    if column == columns.label:
        return column
    known = column.lower()
    if known in IMAGE_COLUMNS:
        return "image"
    if known in ("patient", "split"):
        return known
    return "patient" if known in ("patient_id", "patient id", "patientid") else person_column(column)


def read_json_lines(path: Path, rename: Callable[[str], str]) -> Table:
    """Read a table of one JSON object a line; a key that a line lacks, and null, are empty cells.

    Args:
        path: the file.
        rename: returns the name that a key is known by.

    Raises:
        LabelFileError: a line is no object, or a value is a list or an object; no line names an image. The
            message names the line.
    """
    columns: dict[str, None] = {}
    rows: list[Row] = []
    for number, line in enumerate(read_text(path, OWN_TABLE).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise LabelFileError(f"{path.name}, line {number} is no JSON ({error}). {OWN_TABLE}") from error
        if not isinstance(content, dict):
            raise LabelFileError(f"{path.name}, line {number} is no object in braces. {OWN_TABLE}")
        cells: dict[str, str] = {}
        for key, value in content.items():
            column = rename(key)
            if isinstance(value, list | dict):
                raise LabelFileError(
                    f"{path.name}, line {number}: {key!r} holds {str(value)[:40]}; wanted a text or a "
                    f"number. Leave such a column out. {OWN_TABLE}"
                )
            if column in cells:
                raise LabelFileError(f"{path.name}, line {number}: {key!r} is there twice. {OWN_TABLE}")
            cells[column] = _as_text(value)
        columns |= dict.fromkeys(cells)
        rows.append(Row(number, cells))
    if "image" not in columns:
        raise LabelFileError(
            f"{path.name} has no key 'file_name' or 'image'; found {list(columns)}. {OWN_TABLE}"
        )
    return Table(path.name, tuple(columns), tuple(rows))


def _as_text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
