"""A table as people save it → rows with their lines; what cannot be read for certain is refused.

A CSV of a source or of the user's own → `read_table` → a source's `list_images`. One line is one row: a cell
never runs over a line's end, so a stray quote cannot swallow the rows below it. The separator is a comma,
semicolon or tab, whichever parts the header; the encoding is UTF-8, or what a byte-order mark says. Nothing
is guessed: Windows-1252 and Latin-1 cannot be told apart by their bytes.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_scripts.build.records import read_text
from dataset_scripts.errors import LabelFileError

OWN_TABLE = "Mend the table, then run this again."
"""What to do about a table that the user wrote."""

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}

_SEPARATOR_HINT = re.compile(r"sep=(.)", re.IGNORECASE)  # Excel's own first line

_SHOWN = 60  # letters of a faulty line


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it stands in, counted from 1, and its cells by column, stripped."""

    line: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """Return a cell; "" where the table has no such column."""
        return self.cells.get(column, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table's columns in their order, without those that have no name, and its rows that hold anything.

    `passed_over` are columns that hold more than a text or a number, and are not read.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    passed_over: tuple[str, ...] = ()


def read_table(
    path: Path,
    required: Sequence[str],
    rename: Callable[[str], str] = str,
    advice: str = OWN_TABLE,
) -> Table:
    """Read a table with a header.

    Args:
        path: the file.
        required: columns without which it is not the table that is wanted.
        rename: returns the name that a column of the header is known by.
        advice: what the user can do about a fault of the file.

    Raises:
        LabelFileError: it is no text; a quote is not closed; a row has another number of cells than the
            header; a column is missing or stands twice; there is no row. The message names the line.
    """
    lines = read_text(path, advice).split("\n")
    start, separators = _find_header(lines)
    if start == len(lines):
        raise LabelFileError(f"{path.name} is empty. Wanted a header with {list(required)}. {advice}")
    headers = _split_header(path.name, lines, start, separators, advice)
    separator, header = _choose_header(path.name, headers, required, rename, advice)
    width = max(index for index, column in enumerate(header) if column) + 1
    rows = []
    for line, cells in split_lines(path.name, lines, separator, advice, start + 1):
        if not any(cells):
            continue
        if len(cells) < width or any(cells[width:]):
            raise LabelFileError(
                f"{path.name}, line {line} has {len(cells)} cells, and the header {width}: "
                f"{_shown(separator.join(cells))}. A row has one cell for each column, if only an empty one; "
                f"a cell that holds a {SEPARATORS[separator]} stands in double quotes. {advice}"
            )
        rows.append(Row(line, {name: cell for name, cell in zip(header, cells, strict=False) if name}))
    if not rows:
        raise LabelFileError(f"{path.name} has a header and no row below it. {advice}")
    return Table(path.name, tuple(column for column in header if column), tuple(rows))


def read_cells(path: Path, advice: str = OWN_TABLE) -> list[tuple[int, list[str]]]:
    """Read the lines of a table whose cells count by position, its header (if any) among them.

    Args:
        path: the file.
        advice: what the user can do about a fault of the file.

    Returns:
        (line, stripped cells) of each line that holds anything, parted by the separator that parts the first
        one most.

    Raises:
        LabelFileError: it is no text, or the quotes of a line do not match. The message names the line.
    """
    lines = read_text(path, advice).split("\n")
    start, separators = _find_header(lines)
    if start == len(lines):
        return []
    first = _split_header(path.name, lines, start, separators, advice)
    separator = max(first, key=lambda separator: len(first[separator]))
    return [row for row in split_lines(path.name, lines, separator, advice, start) if any(row[1])]


def split_lines(
    name: str, lines: Sequence[str], separator: str, advice: str, start: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, stripped cells) of each line from the one with index `start`; lines count from 1.

    Raises:
        LabelFileError: the quotes of a line do not match.
    """
    for number, line in enumerate(lines[start:], start=start + 1):
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True), [])
            fault = "" if line.count('"') % 2 == 0 else "a double quote stands inside a cell"
        except csv.Error as error:
            fault = (
                "a double quote opens here and is not closed before the cell ends"
                if '"' in line
                else str(error)
            )
        if fault:
            raise LabelFileError(
                f"{name}, line {number}: {fault}: {_shown(line)}. A cell that holds a quote or a separator "
                f'is written in quotes, each quote inside doubled (""), and in one line. {advice}'
            )
        yield number, [_clean(cell) for cell in cells]


def _clean(cell: str) -> str:
    return cell.replace("\ufeff", "").replace("\u200b", "").strip()


def _shown(line: str) -> str:
    return repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")


def _find_header(lines: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Return the index of the first line that holds anything, and the separators that it may have."""
    separators: Sequence[str] = tuple(SEPARATORS)
    for index, line in enumerate(lines):
        hint = _SEPARATOR_HINT.fullmatch(_clean(line).strip('"'))
        if hint is not None and hint[1] in SEPARATORS:
            separators = (hint[1],)
        elif _clean(line).strip(" ,;\t"):
            return index, separators
    return len(lines), separators


def _split_header(
    name: str, lines: Sequence[str], start: int, separators: Sequence[str], advice: str
) -> dict[str, list[str]]:
    """Return the header's cells by each separator that its quotes allow."""
    headers: dict[str, list[str]] = {}
    faults = []
    for separator in separators:
        try:
            _, headers[separator] = next(split_lines(name, lines, separator, advice, start))
        except LabelFileError as error:
            faults.append(error)
    if not headers:
        raise faults[0]
    return headers


def _choose_header(
    name: str,
    headers: dict[str, list[str]],
    required: Sequence[str],
    rename: Callable[[str], str],
    advice: str,
) -> tuple[str, list[str]]:
    """Return the separator that parts the header into the required columns, and all its columns."""
    renamed = {separator: [rename(cell) for cell in cells] for separator, cells in headers.items()}
    fits = {key: header for key, header in renamed.items() if set(required) <= set(header)} or renamed
    separator, header = max(fits.items(), key=lambda item: len(item[1]))
    missing = [column for column in required if column not in header]
    twice = [
        cell for cell, column in zip(headers[separator], header, strict=True) if header.count(column) > 1
    ]
    twice = [cell for cell in twice if cell]
    if missing or twice:
        fault = f"column {missing} is missing" if missing else f"columns {twice} mean the same"
        raise LabelFileError(
            f"{name}: {fault}: wanted a column {' and '.join(map(repr, required))} and each column once; "
            f"found {headers[separator]} (separator: {SEPARATORS[separator]}). {advice}"
        )
    return separator, header
