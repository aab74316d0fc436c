"""Arrays of 8-bit grayscale: what every reader returns and the builders store.

Below the readers: windowing, shrinking, encoding.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import BadImageError

GrayImage = npt.NDArray[np.uint8]

Compression = Literal["fast", "none"]

FEWEST_LEVELS = 64  # of more than 8 bits, between the percentiles; a radiograph has hundreds, noise fewer

WINDOW_PERCENTILES = (0.1, 99.9)

_BAND_PIXELS = 1 << 20

_FILTER_UP = 2


def count_values(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """How many pixels hold each of the 65,536 values of 16 bits.

    Args:
        stored: (height, width); read in bands of rows, so that counting takes little memory.
    """
    counts = np.zeros(65536, np.int64)
    for band in _bands(stored):
        counts += np.bincount(band.ravel(), minlength=65536)
    return counts


def apply_table(stored: npt.NDArray[np.uint16], table: GrayImage) -> GrayImage:
    """Look every pixel up in a table of 65,536 gray values.

    Args:
        stored: (height, width).
        table: (65536,).

    Returns:
        (height, width), uint8.
    """
    shown = np.empty(stored.shape, np.uint8)
    for band, out in zip(_bands(stored), _bands(shown), strict=True):
        np.take(table, band, out=out)
    return shown


def _bands(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Views of the rows, about a million pixels each: numpy's indexing takes 8 bytes for every pixel."""
    rows = max(1, _BAND_PIXELS // array.shape[1])
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def percentiles_of_counts(
    values: npt.NDArray[np.floating], counts: npt.NDArray[np.int64], percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Percentiles of pixels that are known by how many hold each value; equal to numpy.percentile.

    Args:
        values: (n,), in any order.
        counts: (n,), not all zero.
        percentiles: low and high, in percent.
    """
    order = np.argsort(values, kind="stable")
    last = np.cumsum(counts[order])  # one past the rank of the last pixel that holds each value
    positions = np.asarray(percentiles) / 100 * (last[-1] - 1)
    below, above = (
        values[order][np.searchsorted(last, rank(positions), "right")] for rank in (np.floor, np.ceil)
    )
    low, high = below + (above - below) * (positions - np.floor(positions))
    return float(low), float(high)


def window_16bit(
    stored: npt.NDArray[np.uint16],
    percentiles: tuple[float, float] = WINDOW_PERCENTILES,
    is_inverted: bool = False,
    nodata: float | None = None,
) -> GrayImage:
    """Map 16-bit pixels between two robust percentiles linearly to 0…255; what lies beyond saturates.

    Args:
        stored: (height, width).
        percentiles: low and high, in percent.
        is_inverted: the lowest value is the brightest.
        nodata: the value of pixels that show nothing; they become black and do not count.

    Raises:
        BadImageError: kind "shows_nothing", where fewer than FEWEST_LEVELS lie between the percentiles.
    """
    values = np.arange(65536.0)
    counts = count_values(stored)
    counts[values == nodata] = 0
    if not counts.any():
        raise BadImageError("shows_nothing", f"every pixel is {nodata:g}, which means no data")
    low, high = percentiles_of_counts(values, counts, percentiles)
    check_levels(low, high)
    table = linear_to_8bit(values, low, high)
    if is_inverted:
        table = 255 - table
    table[values == nodata] = 0
    return apply_table(stored, table)


def luminance_16bit(
    color: npt.NDArray[np.uint16 | np.uint8], low: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint16]:
    """Luminance of 16-bit RGB; what follows the three samples of a pixel (alpha) is dropped.

    Args:
        color: (height, width, 3 or 4), uint16, or the high bytes alone.
        low: where `color` holds the high bytes, the low ones.

    Returns:
        (height, width), uint16.
    """
    weights = np.array([299, 587, 114], np.uint32)
    luminance = np.empty(color.shape[:2], np.uint16)
    lows = [None] * color.shape[0] if low is None else _bands(low)
    for band, low_band, out in zip(_bands(color), lows, _bands(luminance), strict=False):
        weighted = band[..., :3].astype(np.uint32) @ weights
        if low_band is not None:
            weighted = (weighted << 8) + low_band[..., :3].astype(np.uint32) @ weights
        out[:] = (weighted + 500) // 1000
    return luminance


def check_levels(low: float, high: float) -> None:
    """Refuse pixels of more than 8 bits that hardly vary; the window would make a picture of their noise.

    Args:
        low: the low percentile, in stored levels.
        high: the high one.

    Raises:
        BadImageError: kind "shows_nothing".
    """
    if high - low < FEWEST_LEVELS:
        detail = f"stored values {low:g} to {high:g}: at least {FEWEST_LEVELS} levels are wanted"
        raise BadImageError("shows_nothing", detail)


def linear_to_8bit(values: npt.NDArray[np.floating], low: float, high: float) -> GrayImage:
    """Map low…high linearly to 0…255; what lies beyond saturates, and NaN becomes 0."""
    share = (np.nan_to_num(values, nan=low) - low) / (high - low)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def resize_shorter_side(image: GrayImage, size: int) -> GrayImage:
    """Shrink so that the shorter side is `size` (bicubic, antialiased); smaller images stay as they are.

    The longer side is rounded down, as torchvision and stock image processors do: a center crop of what is
    stored lies where theirs does.
    """
    height, width = image.shape
    if size <= 0 or min(height, width) <= size:
        return image
    target = (size * width // min(height, width), size * height // min(height, width))
    resized = Image.fromarray(image).resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(resized)


def encode_png(image: GrayImage, compression: Compression = "fast") -> bytes:
    """Return the PNG bytes of an 8-bit grayscale array, with no metadata.

    Pillow's own PNGs cost twice the time to read: it filters rows by Paeth, and inflating matches is slow.

    Args:
        image: (height, width), uint8.
        compression: "fast" stores each row's difference to the one above, Huffman-coded; "none" the bytes.
    """
    height, width = image.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a row starts with the number of its filter
    rows[:, 1:] = image
    if compression == "fast":
        rows[:, 0] = _FILTER_UP
        rows[1:, 1:] -= image[:-1]
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    else:
        packer = zlib.compressobj(0)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, gray, not interlaced
    content = packer.compress(rows.tobytes()) + packer.flush()
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", content), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG: length, kind, content, checksum (PNG specification, section 5.3)."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
