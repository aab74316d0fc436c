"""Whether a picture holds all the rows that its header claims; decoders fill what is missing in silence.

`images` asks after or before decoding. The streams inside are read by `codestreams`; TIFF's strips and tiles
are in `tiff`.
"""

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.codestreams import JPEG2000_START, check_jpeg2000_tiles
from dataset_scripts.reading.decoding import BoundedFile
from dataset_scripts.reading.grayscale import GrayImage

_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]

_MOST_ZEROS = 1 / 64  # of a WebP's bytes at its end; compressed data have a few bytes

_FEWEST_ZEROS = 8  # bytes

_EVEN = 4  # gray levels between the darkest and the brightest pixel of an even row; lossy files vary as much

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG pixel, by color type


def check_rows(file: BoundedFile, image: ImageFile, gray: npt.NDArray[Any]) -> None:
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
    elif image.format == "WEBP":
        file.seek(0)
        _check_webp(file.read(), gray)
    elif image.format == "JPEG2000":
        file.seek(0)
        content = file.read()
        check_jpeg2000_tiles(content[max(0, content.find(JPEG2000_START)) :])


def check_png_chunks(file: BoundedFile) -> None:
    """Refuse a PNG whose pixels do not match their checksums, or that has no end (its specification, 5.3).

    Pillow compares no checksum of pixels, and takes zeros behind them for its end: what a download that broke
    off leaves in a file whose size was set before. Nothing is inflated.

    Raises:
        BadImageError: kind "truncated" or "undecodable".
    """
    file.seek(8)
    while True:
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(kind) < 4:
            raise BadImageError("truncated", "no IEND chunk")
        if kind == b"IEND":
            return
        checksum = zlib.crc32(kind)
        while length > 0 and (piece := file.read(min(length, 1 << 20))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
        found = file.read(4)
        if length or len(found) < 4:
            raise BadImageError("truncated", f"the {_printable(kind)} chunk is cut")
        if kind == b"IDAT" and int.from_bytes(found, "big") != checksum:
            raise BadImageError("undecodable", "a chunk of pixels does not match its checksum")


def _printable(kind: bytes) -> str:
    return kind.decode("ascii", "replace") if kind.isalpha() else kind.hex()


def _check_webp(content: bytes, gray: GrayImage) -> None:
    """Refuse a WebP that is shorter than it says, or whose pixels end in zeros; the decoder sees neither.

    Raises:
        BadImageError: kind "truncated".
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise BadImageError("truncated", f"{len(content):,} of {end:,} bytes")
    at, has_pixels = 12, False
    while at + 8 <= end:
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise BadImageError("truncated", f"the {_printable(kind.strip())} chunk is cut")
        if kind in (b"VP8 ", b"VP8L"):
            has_pixels = True
            zeros = size - len(content[at + 8 : at + 8 + size].rstrip(b"\0"))
            # A lossy picture with an even lower end is stored so; a lossless one by its fastest method alone.
            is_cut = kind == b"VP8L" or np.ptp(gray[-1]) > _EVEN
            if is_cut and zeros > max(_FEWEST_ZEROS, _MOST_ZEROS * size):
                detail = f"its last {zeros:,} of {size:,} bytes are 0; if it is whole, save it as PNG"
                raise BadImageError("truncated", detail)
        at += 8 + size + size % 2
    if not has_pixels:
        raise BadImageError("truncated", "no chunk of pixels")


def check_gif_frame(image: ImageFile) -> None:
    """Refuse a GIF whose picture does not fill its canvas; the rest would be black.

    Raises:
        BadImageError: kind "wrong_size".
    """
    for tile in image.tile:
        left, top, right, bottom = tile.extents or (0, 0, *image.size)
        if (left, top, right, bottom) != (0, 0, *image.size):
            detail = f"pixels of {right - left}x{bottom - top} in a picture of {image.width}x{image.height}"
            raise BadImageError("wrong_size", detail)


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
