"""The `image` column of built data: PNG, or raw gray bytes that are read in place (`compression: raw`).

Stands between the built rows and whatever reads their pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Image as ImageFeature
from PIL import Image

from dataset_scripts.findings import RAW_IMAGE

GrayArray = npt.NDArray[np.uint8]


def gray_arrays(column: pa.ChunkedArray) -> list[GrayArray]:
    """The images of some rows as gray arrays; raw ones are views into the file, which is mapped into memory.

    Args:
        column: `image` of rows that were read as Arrow (`rows.with_format("arrow")[...]`).

    Returns:
        Arrays (height, width), which may not be written to.
    """
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
    return Image.frombytes("L", (value["width"], value["height"]), value["pixels"])


def as_pictures(values: Sequence[Image.Image | Mapping[str, Any]]) -> list[Image.Image]:
    """The column of a batch, as `rows.iter` has it, as pictures."""
    return [as_picture(value) for value in values]
