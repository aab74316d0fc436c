"""The `image` column of built data: PNG, or raw gray bytes that are read in place (`compression: raw`).

Both may also stand in the Parquet shards of an export, and the column then says where (shards.py). Stands
between the built rows and whatever reads their pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, Value
from datasets import Image as ImageFeature
from PIL import Image

from medhiera.data.columns import ColumnReader
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


_Read = Callable[[int], GrayArray]
"""Reads an image of a chunk by its place there."""


def stored_images(rows: Dataset) -> ColumnReader[GrayArray]:
    """The images of some rows as gray arrays (height, width), which may not be written to.

    Raw images are views into a mapped file. `read` raises UserError where a shard was replaced since.

    Args:
        rows: of built data, any selection of it.
    """
    return ColumnReader(rows, "image", _open_chunk)


def _open_chunk(chunk: pa.StructArray) -> _Read:
    fields = dict(zip([field.name for field in chunk.type], chunk.flatten(), strict=True))
    if "pixels" in fields:
        return _raw(**fields)
    if "page" in fields:
        return _encoded_in_shards(**fields)
    return _raw_in_shards(**fields) if "shard" in fields else _encoded(chunk)


def _raw(pixels: pa.Array, height: pa.Array, width: pa.Array) -> _Read:
    _, offsets, content = pixels.buffers()
    all_bytes = np.frombuffer(content, np.uint8)
    starts = _numbers(np.frombuffer(offsets, np.int64, len(pixels), 8 * pixels.offset))
    heights, widths = _numbers(height), _numbers(width)

    def read(place: int) -> GrayArray:
        start, shape = starts[place], (heights[place], widths[place])
        return all_bytes[start : start + shape[0] * shape[1]].reshape(shape)

    return read


def _raw_in_shards(
    shard: pa.Array, modified: pa.Array, start: pa.Array, height: pa.Array, width: pa.Array
) -> _Read:
    # A chunk has few shards, and among the mapped files the same string is found sooner than an equal one.
    encoded = shard.dictionary_encode()
    paths, path = encoded.dictionary.to_pylist(), _numbers(encoded.indices)
    times, starts, heights, widths = (_numbers(each) for each in (modified, start, height, width))

    def read(place: int) -> GrayArray:
        return _raw_in_shard(paths[path[place]], times[place], starts[place], heights[place], widths[place])

    return read


def _encoded_in_shards(shard: pa.Array, modified: pa.Array, page: pa.Array, index: pa.Array) -> _Read:
    numbers = [_numbers(each) for each in (modified, page, index)]
    return lambda place: _encoded_in_shard(shard[place].as_py(), *(each[place] for each in numbers))


def _encoded(chunk: pa.StructArray) -> _Read:
    decode = ImageFeature().decode_example
    return lambda place: np.asarray(decode(chunk[place].as_py()).convert("L"))


def _numbers(values: pa.Array | npt.NDArray[np.int64]) -> Sequence[int]:
    """A view whose items are found faster than an array's."""
    array: Any = values if isinstance(values, np.ndarray) else values.to_numpy()
    return memoryview(array)


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
