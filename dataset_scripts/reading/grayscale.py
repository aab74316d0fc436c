"""Arrays of 8-bit grayscale: what every reader returns and the builders store.

Below `images`, `dicom` and `volumes`: windowing, shrinking, encoding, and the sizes that are believable.
"""

import struct
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import BadImageError

GrayImage = npt.NDArray[np.uint8]

Compression = Literal["fast", "none"]

MINIMUM_SIDE = 16  # below this nothing can be seen; web icons and 1x1 trackers end here

MAXIMUM_PIXELS = 100_000_000  # ten times the largest detector; a header that claims more is a bomb

WINDOW_PERCENTILES = (0.1, 99.9)

_FILTER_UP = 2


def check_size(width: int, height: int) -> None:
    """Refuse images too small to show anything or too large to be one.

    Raises:
        BadImageError: kind "too_small" or "too_many_pixels".
    """
    if width * height > MAXIMUM_PIXELS:
        raise BadImageError("too_many_pixels", f"{width}x{height}, at most {MAXIMUM_PIXELS} pixels")
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError("too_small", f"{width}x{height}, at least {MINIMUM_SIDE} pixels a side")


def window_to_8bit(
    values: npt.NDArray[np.floating],
    inside: npt.NDArray[np.bool_] | None = None,
    percentiles: tuple[float, float] = WINDOW_PERCENTILES,
) -> GrayImage:
    """Map values between two robust percentiles linearly to 0…255; what lies beyond saturates.

    Args:
        values: any shape, finite.
        inside: where True, the value counts for the percentiles; everywhere if None.
        percentiles: low and high, in percent.

    Returns:
        the same shape, uint8; all zero where the values do not vary.
    """
    sample = values if inside is None else values[inside]
    low, high = np.percentile(sample, percentiles)
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def resize_shorter_side(image: GrayImage, size: int) -> GrayImage:
    """Shrink so that the shorter side is `size` (bicubic, antialiased); smaller images stay as they are."""
    height, width = image.shape
    if size <= 0 or min(height, width) <= size:
        return image
    scale = size / min(height, width)
    target = (max(size, round(width * scale)), max(size, round(height * scale)))
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
