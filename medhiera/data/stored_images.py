"""The `image` column of built data: PNG, or raw gray bytes that are read in place (`compression: raw`).

Both may also stand in the Parquet shards of an export, and the column then says where (shards.py). Stands
between the built rows and whatever reads their pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Image as ImageFeature
from datasets import Value
from PIL import Image

from dataset_scripts.findings import RAW_IMAGE
from medhiera.data.parquet_pages import map_file, value_in_page
from medhiera.errors import UserError

GrayArray = npt.NDArray[np.uint8]

_FILE = {"shard": Value("string"), "modified": Value("int64")}

RAW_IN_SHARD = _FILE | {
    "start": Value("int64"),
    "height": Value("int32"),
    "width": Value("int32"),
}
"""An image whose gray bytes begin at a byte of a Parquet file that was written at a time (see map_file)."""

ENCODED_IN_SHARD = _FILE | {"page": Value("int64"), "index": Value("int32")}
"""An image file that is one of the values of the page that begins at a byte of such a file."""


def gray_arrays(column: pa.ChunkedArray) -> list[GrayArray]:
    """The images of some rows as gray arrays; raw ones are views into the file, which is mapped into memory.

    Args:
        column: `image` of rows that were read as Arrow (`rows.with_format("arrow")[...]`).

    Returns:
        Arrays (height, width), which may not be written to.
    """
    if column.type.get_field_index("shard") >= 0:
        read = _encoded_in_shard if column.type.get_field_index("page") >= 0 else _raw_in_shard
        return [
            read(*place)
            for chunk in column.chunks
            for place in zip(*(part.to_pylist() for part in chunk.flatten()), strict=True)
        ]
    if column.type.get_field_index("pixels") < 0:
        decode = ImageFeature().decode_example
        return [np.asarray(decode(value).convert("L")) for value in column.to_pylist()]
    arrays: list[GrayArray] = []
    for chunk in column.chunks:
        pixels, height, width = (chunk.field(name) for name in RAW_IMAGE)
        _, offsets, content = pixels.buffers()
        starts = np.frombuffer(offsets, np.int64, len(pixels), 8 * pixels.offset)
        arrays += [
            np.frombuffer(content, np.uint8, rows * columns, start).reshape(rows, columns)
            for start, rows, columns in zip(
                starts.tolist(), height.to_pylist(), width.to_pylist(), strict=True
            )
        ]
    return arrays


def as_picture(value: Image.Image | Mapping[str, Any]) -> Image.Image:
    """A value of the column, as `rows[n]["image"]` has it, as a picture."""
    if isinstance(value, Image.Image):
        return value
    if "page" in value:
        return Image.fromarray(_encoded_in_shard(**value))
    if "shard" in value:
        return Image.fromarray(_raw_in_shard(**value))
    return Image.frombytes("L", (value["width"], value["height"]), value["pixels"])


def as_pictures(values: Sequence[Image.Image | Mapping[str, Any]]) -> list[Image.Image]:
    """The column of a batch, as `rows.iter` has it, as pictures."""
    return [as_picture(value) for value in values]


def _encoded_in_shard(shard: str, modified: int, page: int, index: int) -> GrayArray:
    """The image of an ENCODED_IN_SHARD.

    Raises:
        UserError: the file is not the one that was opened.
    """
    encoded = bytes(value_in_page(map_file(shard, modified), page, index))
    return np.asarray(ImageFeature().decode_example({"bytes": encoded, "path": None}).convert("L"))


def _raw_in_shard(shard: str, modified: int, start: int, height: int, width: int) -> GrayArray:
    """The image of a RAW_IN_SHARD, a view into the file.

    Raises:
        UserError: the file is not the one that was opened.
    """
    content = map_file(shard, modified)
    if int.from_bytes(content[start - 4 : start], "little") != height * width:
        raise UserError(
            f"{shard} does not hold the image that stood there when the data was opened. An export must stay "
            "as it is while it is trained on; start the command again"
        )
    return np.frombuffer(content, np.uint8, height * width, start).reshape(height, width)
