"""Whether a picture holds all the rows that its header claims; decoders fill what is missing in silence.

`images` asks after or before decoding; the streams inside are read by `codestreams`.
"""

import math
import zlib

import numpy as np
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.codestreams import JPEG2000_START, check_jpeg2000_tiles
from dataset_scripts.reading.decoding import BoundedFile
from dataset_scripts.reading.grayscale import GrayImage

_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG pixel, by color type


def check_rows(file: BoundedFile, image: ImageFile, gray: GrayImage) -> None:
    """Refuse a decoded picture of which the file holds only a part.

    A PNG is inflated once more, but only where its last row is of one value, as a filled one is.

    Args:
        file: that the picture was read from; left anywhere.
        image: its header.
        gray: as it was decoded, (height, width), not yet turned.

    Raises:
        BadImageError: kind "truncated".
    """
    if image.format in ("JPEG", "MPO"):
        # Behind an end marker that comes too early, the decoder fills with gray 128.
        if (gray[-8:] == 128).all() and not (gray[:8] == 128).all():
            rows = len(gray) - int(np.flatnonzero((gray != 128).any(axis=1))[-1]) - 1
            raise BadImageError("truncated", f"the last {rows} of {len(gray)} rows are missing")
    elif image.format == "PNG" and gray[-1].min() == gray[-1].max():
        file.seek(0)
        _check_png(file.read())
    elif image.format == "JPEG2000":
        file.seek(0)
        content = file.read()
        check_jpeg2000_tiles(content[max(0, content.find(JPEG2000_START)) :])


def check_strips(image: TiffImageFile) -> None:
    """Refuse a TIFF that has fewer strips than its rows need; the rest would be black.

    Raises:
        BadImageError: kind "truncated".
    """
    tags = image.tag_v2
    offsets, rows_per_strip, height = tags.get(273), tags.get(278), tags.get(257)
    is_planar = tags.get(284) == 2
    if offsets is None or is_planar or not isinstance(rows_per_strip, int) or not isinstance(height, int):
        return
    rows = len(offsets) * rows_per_strip
    if rows < height:
        raise BadImageError("truncated", f"strips of {rows} of {height} rows")


def _check_png(content: bytes) -> None:
    """Compare what a PNG's data inflate to with what its header claims (its specification, sections 7, 8)."""
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    bits, is_interlaced = content[24] * _SAMPLES[content[25]], content[28] == 1
    passes = _ADAM7 if is_interlaced else [(0, 0, 1, 1)]
    claimed = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        claimed += rows * (1 + math.ceil(columns * bits / 8)) if columns > 0 and rows > 0 else 0
    at, inflater, held = 8, zlib.decompressobj(), 0
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IDAT":
            rest = content[at + 8 : at + 8 + length]
            while rest and held < claimed:  # no further: a bomb inflates for minutes
                held += len(inflater.decompress(rest, 1 << 20))
                rest = inflater.unconsumed_tail
        at += 12 + length
    if held < claimed:
        raise BadImageError("truncated", f"pixels of {100 * held // claimed} % of its {height} rows")
