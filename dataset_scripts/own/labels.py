"""The labels of a user's own images: columns of 0 and 1, a class for each image, or none.

A table → `table_labels`, folders → `find_classes` → own/table.py and own/class_folders.py list the images.
"""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataset_scripts.build.label_rows import parse_label, read_identifier, spelling
from dataset_scripts.build.tables import Row, Table
from dataset_scripts.errors import LabelFileError, UserError
from dataset_scripts.findings import NOT_ANNOTATED

PERSON_COLUMNS = ("age_years", "sex", "view")

KNOWN_COLUMNS = ("image", "patient", "split", *PERSON_COLUMNS)

LABEL_COLUMN = "label"

CLASS_COLUMNS = (LABEL_COLUMN, "class")
"""A column of this name that is the only one holds each image's class, in words or as a number, as in the
datasets library's imagefolder; beside others it is one of the findings."""

_LONGEST_CLASS = 60  # characters; longer is text about an image

_MOST_CLASSES = 1000

UNCERTAIN = frozenset({"-1", "-1.0"})

UNCERTAIN_ADVICE = "If -1 says uncertain, as in CheXpert, empty these cells: not annotated."

_PERSON_WORD = re.compile("patient|subject|participant|person|mrn|case", re.IGNORECASE)

_IDENTIFIER = re.compile(r"[\w-]*\d[\w-]*")

_FEWEST_IDENTIFIERS = 10
"""Fewer different values are numbers of classes or grades."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a table or dataset holds what; "" is found by its name or type, or not there."""

    image: str = ""
    label: str = ""
    patient: str = ""

    @classmethod
    def of(cls, options: Any) -> "Columns":
        """Return those that a configuration or a recipe names."""
        return cls(options.image_column or "", options.label_column or "", options.patient_column or "")

    def named(self) -> dict[str, str]:
        """Return option → column, of those that are named only: builds without any keep their folders."""
        return {f"{what}_column": column for what, column in asdict(self).items() if column}


NOT_NAMED = Columns()
"""The user names none."""


def check_named(data_dir: str | Path, config: str, columns: Columns, is_own_folder: bool) -> None:
    """Refuse what is said of a table or a dataset where data_dir is a folder that holds none.

    Args:
        data_dir: a folder of images or of sources, as the user named it.
        config: that is asked for; "" for none.
        columns: that are asked for.
        is_own_folder: it holds the user's own images, which may have a table.

    Raises:
        UserError: names the options.
    """
    if columns != NOT_NAMED and not is_own_folder:
        raise UserError(
            f"{' and '.join(columns.named())} are of your own images or of a dataset, and --data_dir "
            f"{data_dir} holds the folders of sources; leave them out"
        )
    if config:
        raise UserError(
            f"--dataset_config is of a dataset on the Hub or of Parquet, and --data_dir {data_dir} is "
            "a folder of images; leave it out"
        )


def column_option(what: str, column: str) -> str:
    """Return `--label_column NAME`, as it is typed; `what` is image, label or patient."""
    return f"--{what}_column {shlex.quote(column)}"


@dataclass(frozen=True, slots=True)
class OwnLabels:
    """The labels of own images.

    Attributes:
        names: in order; empty where the images have none.
        is_exclusive: each image has at most one of them, its class.
        column: of a table, that holds the class; "" where columns or folders hold the labels.
        classes: by folder: path → class.
    """

    names: tuple[str, ...] = ()
    is_exclusive: bool = False
    column: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)

    def values(self, path: str, row: Row | None) -> tuple[float, ...]:
        """Return 1, 0 or NaN for each of `names`.

        Args:
            path: of the image, below the folder.
            row: of the table; None without one.
        """
        if self.is_exclusive:
            present = self.class_of(path, row)
            return tuple(float(name == present) if present else NOT_ANNOTATED for name in self.names)
        values = [parse_label(row.get(name)) if row is not None else None for name in self.names]
        return tuple(NOT_ANNOTATED if value is None else value for value in values)

    def choose(self, values: Sequence[float], wanted: Sequence[str]) -> tuple[float, ...]:
        """Return those of an image's `values` whose labels are wanted, NaN for what is no label here.

        Args:
            values: one of each of `names`.
            wanted: names, a class in any spelling.
        """
        places = _places(self.names, tuple(wanted), self.is_exclusive)
        return tuple(NOT_ANNOTATED if place is None else values[place] for place in places)

    def class_of(self, path: str, row: Row | None) -> str:
        """Return an image's one class; "" where it has none, or may have several labels."""
        if self.column and row is not None:
            return read_identifier(row.get(self.column))
        return self.classes.get(path, "")


@lru_cache
def _places(names: tuple[str, ...], wanted: tuple[str, ...], in_any_spelling: bool) -> list[int | None]:
    """Return the index of each wanted name among `names`; None where it is none of them."""
    same = spelling if in_any_spelling else str
    known = {same(name): index for index, name in enumerate(names)}
    return [known.get(same(name)) for name in wanted]


def table_labels(table: Table, label_column: str = "") -> OwnLabels:
    """Return what a table says of labels.

    Args:
        table: of the folder.
        label_column: the column that holds each image's class; "" to find it.

    Raises:
        LabelFileError: there is no such column, or it holds a single class or two spellings of one; or a
            cell of another column is no label.
    """
    names = [column for column in table.columns if column not in KNOWN_COLUMNS]
    if label_column:
        others = [column for column in table.columns if column in names or column in PERSON_COLUMNS]
        if label_column not in others:
            raise LabelFileError(f"{table.name} has no column {label_column!r} of classes; it has {others}.")
        return _classes(table, label_column)
    if len(names) == 1 and names[0].lower() in CLASS_COLUMNS:
        return _classes(table, names[0])
    for row in table.rows:
        for column in names:
            if parse_label(row.get(column)) is None:
                raise LabelFileError(
                    f"{table.name}, line {row.line}: column {column!r} holds {row.get(column)!r}. A label is "
                    "1 (present), 0 (absent) or empty (not annotated). If this column is no label, delete "
                    f"it, or rename it to what it holds of {list(KNOWN_COLUMNS)}: no other column is "
                    f"allowed.{_advice(column, table, names)}"
                )
    return OwnLabels(tuple(names))


def _advice(column: str, table: Table, names: Sequence[str]) -> str:
    """What else a column that holds no labels may be, by its values and by the columns beside it."""
    values = {row.get(column) for row in table.rows} - {""}
    if UNCERTAIN & values and all(parse_label(value) is not None for value in values - UNCERTAIN):
        return f" {UNCERTAIN_ADVICE}"
    class_columns = [name for name in names if name.lower() in CLASS_COLUMNS]
    persons = person_candidates(table, [name for name in names if name not in class_columns])
    person = person_advice(persons)
    if class_columns and column not in class_columns:
        name = class_columns[0]
        option = column_option("label", name)
        return f"{person} If {name!r} names each image's one class, add {option}; others are not read."
    if any("|" in value for value in values):
        return f"{person} Its cells hold several findings: give each a column of its own name, with 1 and 0."
    if {value.lower() for value in values} <= {"yes", "no", "true", "false", "y", "n", "1", "0"}:
        return f"{person} Write 1 for yes and 0 for no."
    if len(values) > _MOST_CLASSES or max(map(len, values)) > _LONGEST_CLASS:
        return person
    return f"{person} If {column!r} names each image's one class, add {column_option('label', column)}."


def person_candidates(table: Table, names: Sequence[str]) -> list[str]:
    """Return the columns that may say whose image it is, where none is known to; not those of 1 and 0.

    Args:
        table: of the folder.
        names: of columns that are not known.
    """
    if "patient" in table.columns:
        return []
    cells = {name: {row.get(name) for row in table.rows} - {""} for name in names}
    are_labels = {name: all(parse_label(cell) is not None for cell in cells[name]) for name in names}
    return [name for name in names if not are_labels[name] and may_name_person(name, cells[name])]


def may_name_person(column: str, cells: Collection[str] = ()) -> bool:
    """Whether a column may say whose image it is: by its name, or as its different cells are identifiers."""
    are_identifiers = len(cells) > _FEWEST_IDENTIFIERS and all(map(_IDENTIFIER.fullmatch, cells))
    return are_identifiers or _PERSON_WORD.search(column) is not None


def person_advice(persons: Sequence[str]) -> str:
    """Say, after a space, which option reads the first of `person_candidates` as the patient; "" of none."""
    if not persons:
        return ""
    return f" If {persons[0]!r} names the person, add {column_option('patient', persons[0])}."


def _classes(table: Table, column: str) -> OwnLabels:
    joined = next((row for row in table.rows if "|" in row.get(column)), None)
    if joined is not None:
        raise LabelFileError(
            f"{table.name}, line {joined.line}: column {column!r} holds several labels in one cell, "
            f"{joined.get(column)!r}. Give each finding a column of its own name, with 1 and 0."
        )
    names = sorted({read_identifier(row.get(column)) for row in table.rows} - {""})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    alike: dict[str, str] = {}
    for name in names:
        if (other := alike.setdefault(spelling(name), name)) != name:
            raise LabelFileError(
                f"{table.name}: column {column!r} holds {other!r} and {name!r}, which differ only in letter "
                "case, spaces, underscores or Unicode form. Write one class alike."
            )
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise LabelFileError(
            f"{table.name}: column {column!r} holds {len(names)} classes, for example {names[:5]}; wanted 2 "
            f"to {_MOST_CLASSES}. A finding that images show or do not has a column of its own name, with 1 "
            "and 0."
        )
    return OwnLabels(tuple(names), is_exclusive=True, column=column)
