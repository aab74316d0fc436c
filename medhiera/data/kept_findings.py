"""Built data with some of its findings alone, as if the others had never been annotated.

Stands behind the opened data, before a classifier learns from it or is scored on it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, List, Value, concatenate_datasets
from numpy.typing import NDArray

from medhiera.data.cocktail import BuiltDataset
from medhiera.data.columns import read_column, read_labels
from medhiera.data.finding_names import find_name
from medhiera.errors import UserError


def keep_findings(data: BuiltDataset, wanted: Sequence[str] | None) -> BuiltDataset:
    """The same images with some findings alone: their labels, their names and their boxes.

    Args:
        data: as it was opened.
        wanted: the findings, in any order; spaces, underscores and case do not count. None or empty: all.

    Returns:
        The findings in the data's order. Images are neither read nor copied.

    Raises:
        UserError: see places_of_findings.
    """
    if not wanted:
        return data
    kept = places_of_findings(wanted, data.names, data.is_exclusive)
    rows = DatasetDict({split: _narrow(part, kept, data.names) for split, part in data.rows.items()})
    return dataclasses.replace(data, rows=rows, names=[data.names[place] for place in kept])


def places_of_findings(wanted: Sequence[str] | None, names: Sequence[str], is_exclusive: bool) -> list[int]:
    """The places of some findings among all, rising; of all where none is wanted by name.

    Args:
        wanted: see keep_findings.
        names: of all findings.
        is_exclusive: each image has exactly one of them.

    Raises:
        UserError: a name that is not among them or means several, or classes, of which none can be left out.
    """
    if not wanted:
        return list(range(len(names)))
    if is_exclusive:
        raise UserError(
            f"--findings {list(wanted)}: each image has exactly one of the classes {list(names)}, and "
            "without some of them its image would have none; leave such images out of the data instead"
        )
    once = list(dict.fromkeys(wanted))
    places = [find_name(name, names) for name in once]
    if absent := [name for name, place in zip(once, places, strict=True) if place is None]:
        raise UserError(f"--findings names {absent}, which the data does not label; it labels {list(names)}")
    return sorted({place for place in places if place is not None})


def _narrow(rows: Dataset, kept: Sequence[int], names: Sequence[str]) -> Dataset:
    """The rows with new columns `labels`, `findings` and `boxes`; every other one stays as it lies.

    Args:
        rows: of one split.
        kept: the places of the findings that stay, rising.
        names: of all findings.
    """
    new_place = np.full(len(names), -1)
    new_place[list(kept)] = np.arange(len(kept))
    features = {
        "labels": List(Value("float32"), length=len(kept)),
        "findings": List(ClassLabel(names=[names[place] for place in kept])),
        "boxes": rows.features["boxes"],
    }
    labels = read_labels(rows)[:, list(kept)].astype(np.float32)
    present, of_row = _flat(rows, "findings")
    is_kept = new_place[present.to_numpy()] >= 0
    boxes, box_of_row = _flat(rows, "boxes")
    is_kept_box = np.isin(boxes.field("finding").to_numpy(), kept)
    columns = {
        "labels": pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel(), pa.float32()), len(kept)),
        "findings": _lists(pa.array(new_place[present.to_numpy()[is_kept]]), of_row[is_kept], len(rows)),
        "boxes": _lists(boxes.filter(pa.array(is_kept_box)), box_of_row[is_kept_box], len(rows)),
    }
    kinds = type(rows.features)(features)
    narrowed = Dataset(pa.table(columns).cast(kinds.arrow_schema))
    others = rows.remove_columns(list(columns))
    return concatenate_datasets([others, narrowed], split=rows.split, axis=1)


def _flat(rows: Dataset, name: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """The values of a column of lists, one after another, and the row of each."""
    lists = read_column(rows, name).combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    return lists.flatten(), np.repeat(np.arange(len(lists)), lengths)


def _lists(values: pa.Array, of_row: NDArray[np.int64], count: int) -> pa.ListArray:
    """Lists of values, one a row, from the row of each value."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of_row, minlength=count))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
