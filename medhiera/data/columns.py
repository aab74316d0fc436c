"""A column of selected rows, as a whole or by the rows' numbers, fast enough for a million of them.

Stands between the opened data and what counts, chooses or reads its rows.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from dataset_scripts.findings import is_exclusive

_ROWS_AT_ONCE = 65536


def read_column(rows: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow, in the rows' order.

    datasets' own `rows[name]` reads row after row, and `rows[name][:]` of selected rows looks each row number
    up in Python: 17 and 5 seconds at a million rows, against a few hundredths here.

    Args:
        rows: any selection or shuffle.
        name: of the column.

    Returns:
        One value a row.
    """
    values: pa.ChunkedArray = rows.data.column(name)
    chosen = rows._indices  # None where the rows are the table's own
    return values if chosen is None else values.take(chosen.column(0))


def read_labels(rows: Dataset) -> NDArray[np.float64]:
    """(images, findings): 1 present, 0 absent, NaN not annotated."""
    values = read_column(rows, "labels").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float64).reshape(len(rows), len(values) // max(len(rows), 1))


def digest_rows(rows: Dataset, names: Sequence[str]) -> str:
    """Sixteen hexadecimal digits of some columns: others where a value or the order of the rows is another.

    Args:
        rows: any selection or shuffle.
        names: of columns of texts, or of lists of numbers; NaN counts as one number.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        column = read_column(rows, name)
        for begin in range(0, len(column), _ROWS_AT_ONCE):
            for chunk in column.slice(begin, _ROWS_AT_ONCE).chunks:
                if pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
                    digest.update("".join(f"{json.dumps(text)}," for text in chunk.to_pylist()).encode())
                else:
                    values = chunk.flatten().to_numpy(zero_copy_only=False)
                    digest.update(np.nan_to_num(values, nan=-1.0).tobytes())
    return digest.hexdigest()


def digest_splits(splits: Mapping[str, Dataset], names: Sequence[str]) -> dict[str, str]:
    """`digest_rows` of some splits, each under the words of a message."""
    return {
        f"digest of the {split} rows ({', '.join(names)})": digest_rows(rows, names)
        for split, rows in splits.items()
    }


Value = TypeVar("Value")


class ColumnReader(Generic[Value]):
    """Reads values of a column by the rows' numbers.

    datasets' own `rows[numbers]` makes a table of them first, a chunk for each row, and a call for each chunk
    takes longer than to copy its image. Here no row is gathered or copied.

    Args:
        rows: any selection or shuffle.
        name: of the column.
        open_chunk: a function of a module: a chunk of the column → what reads a value by its place there.
    """

    def __init__(
        self, rows: Dataset, name: str, open_chunk: Callable[[pa.Array], Callable[[int], Value]]
    ) -> None:
        self._arguments = rows.select_columns(name), name, open_chunk
        chunks = [chunk for chunk in rows.data.column(name).chunks if len(chunk)]
        self._chunks = [open_chunk(chunk) for chunk in chunks]
        self._first_rows = np.cumsum([0, *map(len, chunks)])
        chosen = rows._indices  # None where the rows are the table's own; else their numbers, uint64
        self._chosen = None if chosen is None else chosen.column(0).to_numpy().view(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return ColumnReader, self._arguments  # who is sent this maps the files anew

    def read(self, numbers: Sequence[int]) -> list[Value]:
        """The values of some rows.

        Args:
            numbers: of the rows, from 0.

        Raises:
            IndexError: there is no such row.
        """
        rows = np.array(numbers, np.int64)
        if (rows < 0).any():
            raise IndexError(f"rows are numbered from 0, and {rows.min()} is asked for")
        rows = rows if self._chosen is None else self._chosen[rows]
        chunks = np.searchsorted(self._first_rows, rows, side="right") - 1
        places = (rows - self._first_rows[chunks]).tolist()
        return [self._chunks[chunk](place) for chunk, place in zip(chunks.tolist(), places, strict=True)]


def has_exclusive_labels(rows: Dataset) -> bool:
    """Whether each image has exactly one of the labels, as class folders give it."""
    return is_exclusive(rows.features)
