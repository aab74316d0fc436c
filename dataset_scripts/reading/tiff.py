"""What a TIFF's tags say of its samples and where they lie; Pillow garbles some and fills in what is missing.

`images` asks before decoding. Tags by their numbers: TIFF 6.0; its supplement 2 for JPEG; 42113 is GDAL's.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.codestreams import read_header
from dataset_scripts.reading.decoding import BoundedFile

_UNCOMPRESSED, _JPEG = 1, 7  # of tag 259

_YCBCR, _CMYK = 6, 5  # of tag 262

_SEPARATE = 2  # of tag 284: one plane a sample

_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}  # of tag 339

_WANTED = "wanted unsigned gray or RGB of 8 or 16 bits, pixel after pixel; save it as 8- or 16-bit PNG"


@dataclass(frozen=True, slots=True)
class Samples:
    """What Pillow does not say of a picture's samples.

    Attributes:
        is_white_zero: the lowest value is the brightest.
        stored_type: what the samples are where Pillow takes them for another type of the same size.
        nodata: the value that means "not measured".
    """

    is_white_zero: bool = False
    stored_type: type[np.int8] | type[np.uint32] | None = None
    nodata: float | None = None


def read_samples(tags: ImageFileDirectory_v2) -> Samples:
    """Judge the samples by their tags.

    Raises:
        BadImageError: kind "unsupported_depth", where Pillow would read garbage or drop half of the bits.
    """
    bits, photometric = set(tags.get(258, (1,))), tags.get(262)
    # Pillow reads uncompressed planes as 8 bits each, and YCbCr as if it had a fourth sample.
    is_garbled = tags.get(259, 1) == _UNCOMPRESSED and (
        (tags.get(284, 1) == _SEPARATE and bits != {8}) or photometric == _YCBCR
    )
    if is_garbled or (photometric == _CMYK and bits != {8}):
        raise BadImageError("unsupported_depth", f"{_describe(tags)}; {_WANTED}")
    is_signed = set(tags.get(339, (1,))) == {2}
    stored_type: type[np.int8] | type[np.uint32] | None = None
    if bits == {8} and is_signed:
        stored_type = np.int8
    elif bits == {32} and set(tags.get(339, (1,))) == {1}:
        stored_type = np.uint32
    return Samples(photometric == 0, stored_type, _nodata(tags))


def _nodata(tags: ImageFileDirectory_v2) -> float | None:
    try:
        return float(str(tags[42113]).strip("\0 "))
    except (KeyError, ValueError):
        return None


def why_unknown(file: BoundedFile) -> BadImageError:
    """What to say of a TIFF that Pillow does not open; `file` may stand anywhere.

    Damaged tags raise nearly everything; `decoding` says what.
    """
    file.seek(0)
    header = file.read(8)
    if header[2:3] == b"+" or header[3:4] == b"+":  # BigTIFF
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    if not (256 in tags and 257 in tags and (273 in tags or 324 in tags)):
        return BadImageError("truncated", "a TIFF without tags for its size and pixels")
    described, compression = _describe(tags), tags.get(259, 1)
    if compression not in COMPRESSION_INFO:
        detail = f"a TIFF of compression {compression}; save it as 8- or 16-bit PNG"
        return BadImageError("unsupported_compression", detail)
    return BadImageError("unsupported_depth", f"{described}; {_WANTED}")


def _describe(tags: ImageFileDirectory_v2) -> str:
    bits = " and ".join(str(number) for number in sorted(set(tags.get(258, (1,)))))
    formats = " and ".join(_FORMATS.get(number, "unknown") for number in sorted(set(tags.get(339, (1,)))))
    planes = " in separate planes" if tags.get(284) == _SEPARATE else ""
    samples = f"{formats} samples of {bits} bits, {tags.get(277, 1)} a pixel{planes}"
    return f"a TIFF of {samples}, photometric interpretation {tags.get(262)}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """The strips or tiles that a TIFF is cut into.

    Attributes:
        name: "strips" or "tiles".
        width: of each in pixels.
        rows: of each, the first plane's from left to right and top to bottom.
        wanted: how many cover all planes.
        offsets: where each starts in the file; 0 where it was never written.
        sizes: of each in bytes.
    """

    name: str
    width: int
    rows: list[int]
    wanted: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def check_parts(tags: ImageFileDirectory_v2, file: BoundedFile) -> None:
    """Refuse a TIFF of which strips or tiles are missing or too short; decoders fill them with anything.

    Args:
        tags: of the picture.
        file: that holds it; left anywhere.

    Raises:
        BadImageError: kind "truncated".
    """
    parts = _find_parts(tags)
    held = len(parts.offsets)
    if held < parts.wanted:
        raise BadImageError("truncated", f"{held} of {parts.wanted} {parts.name}")
    # Sizes that are all 0 were left out by the writer of an uncompressed file, and decoders compute them.
    is_sized = any(parts.sizes)
    empty = sum(
        offset == 0 or (is_sized and size == 0)
        for offset, size in zip(parts.offsets, parts.sizes, strict=False)
    )
    if empty:
        raise BadImageError("truncated", f"{empty} of {parts.wanted} {parts.name} were never written")
    compression = tags.get(259, 1)
    if compression == _UNCOMPRESSED and parts.wanted > 1 and is_sized:
        samples = 1 if tags.get(284) == _SEPARATE else tags.get(277, 1)
        row = math.ceil(parts.width * samples * tags.get(258, (1,))[0] / 8)
        short = sum(size < row * rows for size, rows in zip(parts.sizes, parts.rows, strict=False))
        if short:
            raise BadImageError("truncated", f"{short} of {parts.wanted} {parts.name} hold too few bytes")
    elif compression == _JPEG:
        tables = tags.get(347)  # that the strips or tiles have in common
        if isinstance(tables, bytes) and not _has_end(tables):
            raise BadImageError("truncated", "JPEG tables without an end")
        _check_jpeg(parts, file)


def _find_parts(tags: ImageFileDirectory_v2) -> _Parts:
    width, height = int(tags[256]), int(tags[257])
    is_tiled = 324 in tags and 273 not in tags
    across = int(tags[322]) if is_tiled else width
    down = int(tags[323]) if is_tiled else min(int(tags.get(278, height)), height) or height
    if min(width, height, across, down) < 1:
        raise BadImageError("undecodable", f"{width}x{height} pixels in parts of {across}x{down}")
    columns, lines = math.ceil(width / across), math.ceil(height / down)
    rows = [down if is_tiled else min(down, height - line * down) for line in range(lines)]
    planes = int(tags.get(277, 1)) if tags.get(284) == _SEPARATE else 1
    offsets, sizes = _numbers(tags, 324 if is_tiled else 273), _numbers(tags, 325 if is_tiled else 279)
    return _Parts(
        "tiles" if is_tiled else "strips",
        across,
        [number for number in rows for _ in range(columns)],
        columns * lines * planes,
        offsets,
        sizes,
    )


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    values: Any = tags.get(tag, ())
    return tuple(values) if isinstance(values, tuple) else (values,)


def _check_jpeg(parts: _Parts, file: BoundedFile) -> None:
    """Compare each strip's or tile's own JPEG header with its place, and look for its end marker."""
    for offset, size, rows in zip(parts.offsets, parts.sizes, parts.rows, strict=False):
        file.seek(offset)
        stream = file.read(size)
        found = read_header(stream)
        if found is not None and (found.width < parts.width or found.height < rows):
            detail = f"JPEG {parts.name} of {found.width}x{found.height}, wanted {parts.width}x{rows}"
            raise BadImageError("truncated", detail)
        if not _has_end(stream):
            raise BadImageError("truncated", f"JPEG {parts.name} without an end")


def _has_end(stream: bytes) -> bool:
    return b"\xff\xd9" in stream[-16:]  # some writers pad what follows
