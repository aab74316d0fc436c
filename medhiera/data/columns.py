"""A whole column of selected rows, fast enough for a million of them.

Stands between the opened data and what counts or chooses its rows.
"""

import pyarrow as pa
from datasets import Dataset

from dataset_scripts.findings import is_exclusive


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


def has_exclusive_labels(rows: Dataset) -> bool:
    """Whether each image has exactly one of the labels, as class folders give it."""
    return is_exclusive(rows.features)
