"""Which columns of a dataset hold images, labels, patients and people, in each of its splits.

own/dataset_rows.py → here → the columns and the cells of labels.csv. A split has its own features: the same
number may be another class in each, so each split's numbers are read by its own names.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import datasets

from dataset_scripts.build.label_rows import parse_label
from dataset_scripts.errors import LabelFileError
from dataset_scripts.own.labels import (
    KNOWN_COLUMNS,
    LABEL_COLUMN,
    PERSON_COLUMNS,
    UNCERTAIN,
    UNCERTAIN_ADVICE,
    Columns,
)
from dataset_scripts.own.splits import SPLIT_FOLDERS
from dataset_scripts.own.table_files import NAMELESS, cell_text, own_column

logger = logging.getLogger(__name__)

_NAMED_FINDINGS = (
    "Where an image may show several findings, write a column of 1 and 0 for each, under its name, in the "
    "place of this one; or the list of those present: List(ClassLabel(names=[…])) or the names themselves."
)

_ZERO_OR_ONE = {"0", "1", "False", "True"}


def find_columns(dataset: str, splits: dict[str, datasets.Dataset], asked: Columns) -> Columns:
    """Return the columns by their names, where they are found; each split has the same.

    Raises:
        LabelFileError: one that is asked for is not there or holds something else; no image is found, or
            several columns could hold it, or the labels; or another split has other columns.
    """
    found = {
        split: _columns_of_split(f"{dataset}, split {split}", rows.features, asked)
        for split, rows in splits.items()
    }
    columns = next(iter(found.values()))
    if any(other != columns for other in found.values()):
        shown = "; ".join(f"{split}: {other.named()}" for split, other in found.items())
        raise LabelFileError(
            f"{dataset}: what is read is not in the same columns of each split ({shown}). Give each split "
            "these columns (empty where nothing is known), or name those that all have: --image_column, "
            "--label_column, --patient_column."
        )
    return columns


def find_findings(dataset: str, splits: dict[str, datasets.Dataset], columns: Columns) -> list[str]:
    """Return the columns that are labels by a table's rule: every cell is 1, 0 or empty.

    Args:
        dataset: as the user named it.
        splits: each with its columns.
        columns: that are read as something else; one of classes is the only label.

    Raises:
        LabelFileError: one holds -1 too, or another split lacks it.
    """
    found = []
    for name in {} if columns.label else _others(splits, columns):
        holding = [split for split, rows in splits.items() if name in rows.features]
        cells = {cell for split in holding for cell in _short_cells(splits[split], name)} - {""}
        known = {parse_label(cell) for cell in cells - UNCERTAIN}
        if None in known or not known & {0.0, 1.0}:
            continue
        if cells & UNCERTAIN:
            raise LabelFileError(
                f"{dataset}: the column {name!r} holds -1. A label is 1 (present), 0 (absent) or empty (not "
                f"annotated). {UNCERTAIN_ADVICE} If it is no label, remove it."
            )
        if lacking := splits.keys() - holding:
            raise LabelFileError(
                f"{dataset}: the column {name!r} holds 1 and 0 in {holding}, and {sorted(lacking)} lacks it. "
                "Give each split this column (empty where nothing is known), or remove it."
            )
        found.append(name)
    return found


def columns_not_read(
    splits: dict[str, datasets.Dataset], columns: Columns, findings: Sequence[str]
) -> dict[str, str]:
    """Return what is passed over: each column's name and type.

    Args:
        splits: each with its columns.
        columns: that are read.
        findings: the same, of labels.
    """
    kinds = _others(splits, columns)
    return {
        name: str(getattr(kind, "dtype", type(kind).__name__))
        for name, kind in kinds.items()
        if name not in findings
    }


def _others(splits: dict[str, datasets.Dataset], columns: Columns) -> dict[str, Any]:
    """Return the columns that are neither read nor known by their names, with the type in some split."""
    read = (columns.image, columns.label, columns.patient)
    kinds = {name: kind for rows in splits.values() for name, kind in rows.features.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if name not in read and own_column(name) not in KNOWN_COLUMNS and not NAMELESS.fullmatch(name)
    }


def _short_cells(rows: datasets.Dataset, name: str) -> Iterator[str]:
    """Yield a column's cells as a table has them, up to the first that can be no label."""
    kind = rows.features[name]
    if not isinstance(kind, datasets.Value) or kind.dtype.startswith(("binary", "large_binary")):
        yield "no text or number"
        return
    for batch in rows.select_columns(name).iter(1000):
        for value in batch[name]:
            yield (cell := cell_text(value))
            if parse_label(cell) is None and cell not in UNCERTAIN:
                return


def split_by_column(dataset: str, rows: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """Return the splits that a column `split` tells apart in a dataset that has a single one.

    Args:
        dataset: as the user named it.
        rows: all of it.

    Raises:
        LabelFileError: some rows name a split there, and others none or another word.
    """
    column = next((name for name in rows.features if own_column(name) == "split"), None)
    if column is None:
        return {}
    names = class_names(rows.features[column])
    numbers: dict[str, list[int]] = {}
    for number, value in enumerate(rows.select_columns(column)[column]):
        numbers.setdefault(str(in_words(value, names)).strip().lower(), []).append(number)
    if unknown := sorted(numbers.keys() - SPLIT_FOLDERS.keys()):
        if len(unknown) < len(numbers):
            raise LabelFileError(
                f"{dataset}: the column {column!r} holds {unknown[:5]}; wanted train, validation or test in "
                "every row, so that no image that is held out is trained on."
            )
        logger.warning("%s: its column %r names no split (%s) and is not read", dataset, column, unknown[:5])
        return {}
    return {word: rows.select(chosen) for word, chosen in numbers.items()}


def _columns_of_split(where: str, features: datasets.Features, asked: Columns) -> Columns:
    """Return the columns of one split; see `find_columns`."""
    for what, name in (("image", asked.image), ("label", asked.label), ("patient", asked.patient)):
        if name and name not in features:
            raise LabelFileError(
                f"{where} has no column {name!r} (--{what}_column); it has {sorted(features)}."
            )
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [
        name
        for name, kind in features.items()
        if (class_names(kind) is not None or name.lower() in ("label", "labels"))
        and not {own_column(name, asked), own_column(name)} & set(KNOWN_COLUMNS)  # it may hold the sex
        and name not in images
    ]
    patients = [name for name in features if own_column(name, asked) == "patient"]
    image = asked.image or _only(where, "image", images)
    if not image:
        raise LabelFileError(
            f"{where} has no column of images; it has {sorted(features)}. Name one that holds their bytes: "
            "--image_column."
        )
    label = asked.label or _only(where, "label", labels)
    return Columns(image, label, asked.patient or _only(where, "patient", patients))


def _only(where: str, what: str, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise LabelFileError(f"{where}: {list(names)} may each hold the {what}; name one: --{what}_column.")
    return names[0] if names else ""


def class_names(kind: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of such; None of anything else."""
    return getattr(getattr(kind, "feature", kind), "names", None)


def label_columns(dataset: str, splits: dict[str, datasets.Dataset], column: str) -> tuple[list[str], bool]:
    """Return the columns of labels.csv that hold labels, and whether an image has a list of them.

    Args:
        dataset: as the user named it.
        splits: each with a column of this name.
        column: the label's; "" for none.

    Raises:
        LabelFileError: it holds numbers; it holds lists in one split alone, or of other classes in each; or
            a class is called like a column of a table.
    """
    kinds = {split: rows.features[column] for split, rows in splits.items() if column}
    for kind in kinds.values():
        value = getattr(kind, "feature", kind)
        if isinstance(value, datasets.Value) and value.dtype.startswith("float"):
            raise LabelFileError(
                f"the column {column!r} holds numbers ({value.dtype}); wanted classes. {_NAMED_FINDINGS} "
                "Or name another column: --label_column."
            )
    are_lists = {split: isinstance(kind, datasets.List | datasets.LargeList) for split, kind in kinds.items()}
    if not any(are_lists.values()):
        return ([LABEL_COLUMN] if column else []), False
    names = {split: class_names(kind) for split, kind in kinds.items()}
    if not all(are_lists.values()) or len({each and frozenset(each) for each in names.values()}) > 1:
        shown = "; ".join(f"{split}: {kind}" for split, kind in kinds.items())
        raise LabelFileError(
            f"{dataset}: the column {column!r} holds lists of other classes in each split ({shown[:300]}), "
            "and nothing says whether an image lacks a class that its split does not name. Wanted "
            "List(ClassLabel(names=[…])) of the same names, in any order."
        )
    lists = [cell for rows in splits.values() for cell in rows[column]]
    labels = next(iter(names.values())) or _listed_classes(column, lists)
    reserved = (*KNOWN_COLUMNS, LABEL_COLUMN)
    if taken := [name for name in labels if own_column(name) in reserved or "\n" in name]:
        raise LabelFileError(f"the classes {taken} are called like columns of a table; rename them.")
    return labels, True


def person_columns(dataset: str, features: datasets.Features, columns: Columns) -> dict[str, str]:
    """Return age_years, sex and view → the column of a split that holds it; the first, where several do."""
    found: dict[str, str] = {}
    for name in features:
        if name not in (columns.label, columns.patient) and (known := own_column(name)) in PERSON_COLUMNS:
            if found.setdefault(known, name) != name:
                logger.warning("%s: %r is not read, %r says the %s", dataset, name, found[known], known)
    return found


def _listed_classes(column: str, cells: Sequence[Sequence[Any] | None]) -> list[str]:
    """Return the classes that occur in lists of them.

    Raises:
        LabelFileError: the lists say 0 or 1 of classes that are not named.
    """
    found = {class_of(value, None) for cell in cells for value in cell or ()} - {""}
    lengths = {len(cell) for cell in cells if cell}
    if found <= _ZERO_OR_ONE and len(lengths) == 1 and (length := lengths.pop()) > 1:
        raise LabelFileError(
            f"the column {column!r} holds {length} values of 0 or 1 for each image, and nothing says which "
            f"finding each stands for. {_NAMED_FINDINGS}"
        )
    return sorted(found)


def present_labels(
    value: Sequence[Any] | None, names: Sequence[str] | None, labels: Sequence[str]
) -> list[Any]:
    """Return a 1 or 0 for each label; empty of an image without a list."""
    present = {class_of(each, names) for each in value or ()}
    return ["" if value is None else int(label in present) for label in labels]


def class_of(value: Any, names: Sequence[str] | None) -> str:
    """Return the class that a cell, or an entry of a list, names; "" where it is not annotated."""
    if value is None or value == -1:  # -1 is the datasets library's "not labeled"
        return ""
    return str(in_words(value, names))


def in_words(value: Any, names: Sequence[str] | None) -> Any:
    """Return the name of a ClassLabel's number, "" of -1; what is no ClassLabel's, as it is."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if value >= 0 else ""
