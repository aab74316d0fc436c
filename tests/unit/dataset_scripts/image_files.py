"""Image files, most of kinds that Pillow does not write: 16-bit color, any TIFF photometric, damaged EXIF."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's, by samples a pixel


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content, checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_16bit(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample; gray, gray and alpha, RGB or RGBA by its last axis."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[samples], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def tiff(pixels: np.ndarray, photometric: int = 1, order: str = "<", pages: int = 1) -> bytes:
    """An uncompressed TIFF; integers or floats by its dtype, gray or color by its last axis.

    Args:
        pixels: (height, width) or (height, width, samples).
        photometric: 0 white is zero, 1 black is zero, 2 RGB.
        order: of bytes.
        pages: how many times the picture is repeated.
    """
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    file = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    for page in range(pages):
        tags = [
            (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * pixels.itemsize] * samples), (259, 3, [1]),
            (262, 3, [photometric]), (273, 4, [0]), (277, 3, [samples]), (278, 4, [height]),
            (279, 4, [len(content)]), (339, 3, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * samples),
        ]  # fmt: skip
        after = len(file) + 2 + 12 * len(tags) + 4
        lists, directory = b"", struct.pack(order + "H", len(tags))
        lists_size = sum(2 * len(values) for _, kind, values in tags if kind == 3 and len(values) > 2)
        for tag, kind, values in tags:
            if tag == 273:
                values = [after + lists_size]
            code = order + ("H" if kind == 3 else "I") * len(values)
            packed = struct.pack(code, *values)
            if len(packed) > 4:
                lists, packed = lists + packed, struct.pack(order + "I", after + len(lists))
            directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        end = after + len(lists) + len(content)
        file += directory + struct.pack(order + "I", end if page + 1 < pages else 0) + lists + content
    return file


def jpeg(pixels: np.ndarray, exif: bytes = b"") -> bytes:
    """A JPEG; `exif` is what follows the TIFF header of its EXIF block (directory and data)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=97)
    plain = buffer.getvalue()
    if not exif:
        return plain
    body = b"Exif\0\0II*\0\x08\0\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def exif_directory(orientation: int, tag: int, kind: int, value: bytes, data: bytes = b"") -> bytes:
    """An EXIF directory of an orientation and one more field; `data` follows it, at offset 38."""
    fields = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHI", tag, kind, 1) + value
    return struct.pack("<H", 2) + fields + struct.pack("<I", 0) + data


def saved(pixels: np.ndarray, format_name: str, **options: object) -> bytes:
    """A picture as the bytes of a file that Pillow writes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name, **options)
    return buffer.getvalue()
