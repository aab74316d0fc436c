"""Compressed pictures as streams of bytes: how large they say they are, and whether all of them is there.

Below `completeness` and `dicom`. Nothing is decoded here. Sources: ITU-T T.81 (JPEG), annex B;
T.87 (JPEG-LS), annex C; T.800 (JPEG 2000), annexes A and I.
"""

import math
import re
from typing import NamedTuple

from dataset_scripts.errors import BadImageError

JPEG_START = b"\xff\xd8"

JPEG_END = b"\xff\xd9"

JPEG2000_START = b"\xff\x4f\xff\x51"

_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"

_MARKER_AFTER_DATA = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # neither stuffed data nor a restart

_START_OF_SCAN = 0xDA


class StreamHeader(NamedTuple):
    """What a stream says of its picture.

    Attributes:
        width: in pixels.
        height: in pixels.
        samples: a pixel.
        bits: a sample.
    """

    width: int
    height: int
    samples: int
    bits: int


def starts_codestream(data: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 picture begins here, in boxes (a JP2 file) or without."""
    return data.startswith((JPEG_START, JPEG2000_START, _JP2_SIGNATURE))


def without_boxes(stream: bytes) -> bytes:
    """The codestream in a JP2 file (T.800, I.4); any other stream as it is, and b"" where there is none."""
    if not stream.startswith(_JP2_SIGNATURE):
        return stream
    at = 0
    while at + 8 <= len(stream):
        length, kind, start = int.from_bytes(stream[at : at + 4], "big"), stream[at + 4 : at + 8], at + 8
        if length == 1:  # the length follows in eight bytes
            length, start = int.from_bytes(stream[at + 8 : at + 16], "big"), at + 16
        end = at + length if length else len(stream)
        if kind == b"jp2c":
            return stream[start:end]
        if end < start:
            break
        at = end
    return b""


def read_header(stream: bytes) -> StreamHeader | None:
    """What a JPEG, JPEG-LS or JPEG 2000 stream says of its picture; None where it is none or does not say."""
    stream = without_boxes(stream)
    if stream.startswith(JPEG2000_START) and len(stream) > 42:
        right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
        samples, bits = int.from_bytes(stream[40:42], "big"), (stream[42] & 0x7F) + 1
        return StreamHeader(right - left, bottom - top, samples, bits)
    if not stream.startswith(JPEG_START):
        return None
    at = 2
    while at + 9 < len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no segment follows
            at += 2
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = (int.from_bytes(stream[at + n : at + n + 2], "big") for n in (5, 7))
            return StreamHeader(width, height, stream[at + 9], stream[at + 4]) if height else None
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def jpeg_end(stream: bytes) -> int:
    """Where the end marker of a JPEG or JPEG-LS stream stands.

    Raises:
        BadImageError: kind "truncated": there is none, or a sample of the picture has no scan before it.
    """
    header = read_header(stream)
    at, seen = 2, set()
    while at + 4 <= len(stream):
        marker = stream[at + 1]
        if stream[at] != 0xFF or marker == 0xFF:
            at += 1
        elif marker == JPEG_END[1]:
            break
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            if marker == _START_OF_SCAN:
                seen |= set(stream[at + 5 : at + 5 + 2 * stream[at + 4] : 2])
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
            if marker == _START_OF_SCAN:
                found = _MARKER_AFTER_DATA.search(stream, at)
                at = found.start() if found else len(stream)
    if stream[at : at + 2] != JPEG_END:
        raise BadImageError("truncated", "the compressed picture has no end")
    if header and len(seen) < header.samples:
        raise BadImageError("truncated", f"{len(seen)} of {header.samples} samples of the compressed picture")
    return at


def check_jpeg2000_tiles(stream: bytes) -> None:
    """Refuse a JPEG 2000 stream that lacks tiles or the end of one (T.800, A.4.2 and A.5.1).

    Missing tiles would be black. Other streams are not looked at.

    Raises:
        BadImageError: kind "truncated".
    """
    stream = without_boxes(stream)
    if not stream.startswith(JPEG2000_START):
        return
    right, bottom, _, _, across, down, left, top = (
        int.from_bytes(stream[at : at + 4], "big") for at in range(8, 40, 4)
    )
    if not across or not down:
        raise BadImageError("undecodable", "tiles of no size")
    wanted = math.ceil((right - left) / across) * math.ceil((bottom - top) / down)
    at, tiles = 4 + int.from_bytes(stream[4:6], "big"), set()
    while at + 4 <= len(stream) and stream[at : at + 2] != b"\xff\x90":  # the main header
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    while stream[at : at + 2] == b"\xff\x90":
        tiles.add(int.from_bytes(stream[at + 4 : at + 6], "big"))
        length = int.from_bytes(stream[at + 6 : at + 10], "big")
        if not length:  # the last part reaches to the end marker
            length = len(stream) - at if JPEG_END in stream[-4:] else len(stream)
        at += length
        if at > len(stream):
            raise BadImageError("truncated", f"the data end in tile {len(tiles)} of {wanted}")
    if len(tiles) < wanted:
        raise BadImageError("truncated", f"{len(tiles)} of {wanted} tiles")
