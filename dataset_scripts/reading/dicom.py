"""One DICOM file → one 8-bit grayscale array, as a viewer would show it.

Raw file → `images.read_image` → here → `dicom_display`. Needs the extra `dicom` (pydicom).

The header is read and judged first: nothing is decoded that is too large, has several frames, or is
compressed in a way that no installed package undoes.
"""

import logging
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_scripts.errors import DICOM_PACKAGES, BadImageError
from dataset_scripts.reading.completeness import JPEG2000_START, check_jpeg2000_tiles, codestream_size
from dataset_scripts.reading.decoding import BoundedFile, Note, check_size
from dataset_scripts.reading.dicom_display import (
    first_number,
    is_inverted,
    looks_inverted,
    show_color,
    show_gray,
)
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.image_files import has_bare_dicom

MAXIMUM_DECODED_BYTES = 120_000_000  # 40 megapixels of 8-bit color, or of 16-bit gray with room

_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax

_LARGEST_SQUARE_CORRECTION = 4.0  # beyond this the spacing is a mistake, not a pixel

_OTHER_DECODER = "another decoder may read it: pip install python-gdcm"


def read_dicom(path: Path, note: Note) -> GrayImage:
    """Decode a single-frame DICOM file; color becomes luminance, pixels that are not square are stretched.

    Args:
        path: a file for which `image_files.is_dicom` holds.
        note: told what a user should know of a picture that was read, such as a window that was ignored.

    Returns:
        (height, width), uint8.

    Raises:
        BadImageError: no pixels, several frames, too large, or a compression that nothing here undoes.
        Exception: whatever pydicom raises on damaged elements (see decoding.decoding).
    """
    try:
        import pydicom  # an optional extra, and slow to import
    except ModuleNotFoundError as error:
        raise BadImageError("needs_pydicom", f"to read DICOM, {DICOM_PACKAGES}") from error
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it warns of each odd element
    with BoundedFile(path) as file:
        is_bare = has_bare_dicom(file.read(132))  # without the preamble pydicom must be told so
        file.seek(0)
        _check_deflated(file)
        file.seek(0)
        try:
            _check_header(pydicom.dcmread(file, force=is_bare, stop_before_pixels=True))
        except pydicom.errors.InvalidDicomError as error:
            raise BadImageError("not_an_image", "no DICOM header") from error
        file.seek(0)
        dataset = pydicom.dcmread(file, force=is_bare)
    if not dataset.get("PixelData"):
        raise BadImageError("no_pixels", "a DICOM file without pixel data")
    stored = _decode(dataset, note)
    image = show_color(stored) if stored.ndim == 3 else show_gray(stored, dataset, note)
    if stored.ndim == 2 and is_inverted(dataset) and looks_inverted(image):
        detail = "shown inverted as its header says, yet its lungs are bright: is the header right?"
        note("polarity_unclear", detail)
    return _make_pixels_square(image, dataset, note)


def _check_deflated(file: BoundedFile) -> None:
    """Refuse a deflated data set that inflates to more than any picture needs; pydicom inflates all of it."""
    start = file.read(1024)
    if start[128:140] != b"DICM\x02\0\0\0UL\x04\0" or _DEFLATED not in start:
        return
    file.seek(144 + int.from_bytes(start[140:144], "little"))  # behind the meta information
    inflater, inflated, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, file.read(65536)
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 1 << 20))
        if inflated > MAXIMUM_DECODED_BYTES:
            limit = f"at most {MAXIMUM_DECODED_BYTES:,} are read"
            raise BadImageError("too_many_bytes", f"inflates to more than {inflated:,} bytes; {limit}")
        rest = inflater.unconsumed_tail or file.read(65536)


def _check_header(header: Any) -> None:
    """Judge size, frames and kind of pixels by the header alone.

    Raises:
        BadImageError: kind "no_pixels", "several_frames", "unsupported_depth", or one of `check_size`.
    """
    rows, columns = (first_number(header, name) for name in ("Rows", "Columns"))
    if not rows or not columns:
        raise BadImageError("no_pixels", "a DICOM file without rows and columns: no picture")
    check_size(int(columns), int(rows))
    frames = first_number(header, "NumberOfFrames") or 1
    if frames > 1:
        raise BadImageError("several_frames", f"{frames:.0f} frames, wanted one")
    samples, bits = (first_number(header, name) for name in ("SamplesPerPixel", "BitsAllocated"))
    if samples not in (1, 3) or bits not in (1, 8, 16, 32):
        raise BadImageError(
            "unsupported_depth", f"{samples} samples of {bits} bits a pixel; wanted 1 or 3 of 8 or 16"
        )
    decoded = int(rows * columns * samples * max(bits, 8) / 8)
    if decoded > MAXIMUM_DECODED_BYTES:
        raise BadImageError(
            "too_many_bytes", f"{decoded:,} bytes of pixels, at most {MAXIMUM_DECODED_BYTES:,}"
        )


def _decode(dataset: Any, note: Note) -> Any:
    """The stored values: (rows, columns), or (rows, columns, 3) for color, which is RGB then.

    Raises:
        BadImageError: kind "several_frames", "wrong_size", "no_pixels" or "unsupported_compression".
    """
    from pydicom.pixels import pixel_array
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:  # no preamble, no meta information
        is_implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if syntax.is_encapsulated:
        _check_decoder(syntax)
        _check_encapsulated(dataset, rows, columns)
        try:
            stored = pixel_array(dataset)
        except (NotImplementedError, RuntimeError) as error:
            detail = f"{syntax.name}: {' '.join(str(error).split())}; {_OTHER_DECODER}"
            raise BadImageError("unsupported_compression", detail) from error
    else:
        bits = int(dataset.BitsAllocated)
        frame_bytes = math.ceil(rows * columns * samples * bits / 8)
        held = len(dataset.PixelData)
        if held >= 2 * frame_bytes:
            frames = f"pixels of {held // frame_bytes} frames of {columns}x{rows}"
            raise BadImageError("several_frames", f"{frames}, though NumberOfFrames says one")
        if held > 1.05 * frame_bytes:  # some writers pad a little
            rows_held = held * rows // frame_bytes
            note("rows_dropped", f"pixels of {rows_held} rows, the header says {rows}; the rest is not shown")
        if bits == 16:
            _note_unused_bits(dataset, note)
        stored = pixel_array(dataset)
    if stored.shape != ((rows, columns) if samples == 1 else (rows, columns, samples)):
        raise BadImageError("wrong_size", f"decoded {stored.shape}, the header says {columns}x{rows}")
    return stored


def _note_unused_bits(dataset: Any, note: Note) -> None:
    """Say so where unsigned pixels use more bits than the header says: what lies above them is dropped."""
    has_overlay = any(element.tag.group & 0xFF00 == 0x6000 for element in dataset)
    stored = int(dataset.get("BitsStored") or 16)
    if stored < 16 and not dataset.PixelRepresentation and not has_overlay:
        order = "<u2" if dataset.original_encoding[1] is not False else ">u2"
        top = int(np.frombuffer(dataset.PixelData, order, count=len(dataset.PixelData) // 2).max())
        if top >= 2**stored:
            note("bits_dropped", f"pixels hold values up to {top}, the header says {stored} bits")


def _check_decoder(syntax: Any) -> None:
    """Name what to install where no installed package undoes a compression."""
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        detail = f"{syntax.name} ({syntax}): no package is known to read it; save the file uncompressed"
        raise BadImageError("unsupported_compression", detail) from error
    if not decoder.is_available:
        missing = "; ".join(decoder.missing_dependencies)
        detail = f"{syntax.name}: to read it, {DICOM_PACKAGES}; missing: {missing}"
        raise BadImageError("unsupported_compression", detail)


def _check_encapsulated(dataset: Any, rows: int, columns: int) -> None:
    """Refuse several frames, and a compressed picture of another size than the header says."""
    from pydicom.encaps import generate_fragments

    fragments = list(generate_fragments(dataset.PixelData))[1:]  # the first is the table of offsets
    is_rle = dataset.file_meta.TransferSyntaxUID.name == "RLE Lossless"
    starts = [part for part in fragments if part[:2] == b"\xff\xd8" or part[:4] == JPEG2000_START]
    frames = len(fragments) if is_rle else len(starts)
    if frames > 1:
        raise BadImageError("several_frames", f"{frames} compressed frames, though NumberOfFrames says one")
    stream = b"".join(fragments)
    size = codestream_size(stream)
    if size is not None and size != (columns, rows):
        detail = f"the compressed picture is {size[0]}x{size[1]}, the header says {columns}x{rows}"
        raise BadImageError("wrong_size", detail)
    check_jpeg2000_tiles(stream)


def _make_pixels_square(image: GrayImage, dataset: Any, note: Note) -> GrayImage:
    """Stretch the coarser axis where the header says that pixels are not square."""
    ratio = _pixel_ratio(dataset)
    if abs(ratio - 1) < 0.01:
        return image
    if not 1 / _LARGEST_SQUARE_CORRECTION <= ratio <= _LARGEST_SQUARE_CORRECTION:
        note("spacing_ignored", f"pixels {ratio:.3g} times as high as wide cannot be right; taken as square")
        return image
    height, width = image.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*size)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _pixel_ratio(dataset: Any) -> float:
    """Height of a pixel over its width; 1 where the header does not say."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        high, wide = (first_number(dataset, name, index) for index in (0, 1))
        if high and wide and high > 0 and wide > 0:
            return high / wide
    return 1.0
