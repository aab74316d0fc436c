"""One Parquet file of an export: as `load_dataset` reads it, and so that an image can be read in place.

parquet_export.py hands the examples over and publishes the file.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from pyarrow import parquet

_ROWS_PER_GROUP = 100
"""Rows held in memory; native images are large."""

_REPEATED = ["source", "patient_id", "sex", "view"]
"""Columns whose values repeat: a dictionary of them is small."""


def write_shard(path: Path, examples: Iterable[dict[str, Any]], features: datasets.Features) -> None:
    """Write examples as Parquet.

    Nothing is compressed and images have no dictionary, so an image's bytes stand in the file as they are:
    training maps the file and reads them there. PNGs and gray levels hardly shrink, the rest hardly counts.

    Args:
        path: of the new file.
        examples: rows, as `features` takes them.
        features: the columns.
    """
    schema = features.arrow_schema
    rows = iter(examples)
    with parquet.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=_REPEATED,
        write_page_index=True,
        use_content_defined_chunking=True,  # the Hub stores what two builds share once
    ) as writer:
        while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
            encoded = [features.encode_example(example) for example in group]
            writer.write_table(pa.Table.from_pylist(encoded, schema=schema))
