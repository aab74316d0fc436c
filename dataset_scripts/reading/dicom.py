"""One DICOM file → one 8-bit grayscale array, as a viewer would show it.

Raw file → `images.read_image` → here → `dicom_display`. Needs the extra `dicom` (pydicom).

The header is read and judged first: nothing is decoded that is too large, has several frames, or is
compressed in a way that no installed package undoes.
"""

import logging
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import DICOM_PACKAGES, BadImageError
from dataset_scripts.reading.codestreams import (
    JPEG_END,
    JPEG_START,
    StreamHeader,
    check_jpeg2000_tiles,
    jpeg_end,
    read_header,
    starts_codestream,
)
from dataset_scripts.reading.decoding import Note, check_size
from dataset_scripts.reading.dicom_display import is_inverted, looks_inverted, show_color, show_gray
from dataset_scripts.reading.dicom_elements import (
    MAXIMUM_DECODED_BYTES,
    DicomFile,
    number,
    number_pair,
    use_functional_groups,
)
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.image_files import has_bare_dicom

MAXIMUM_COLOR_BYTES = 30_000_000  # decoding takes up to ten times as much, and 512 MB are the limit

_LARGEST_SQUARE_CORRECTION = 4.0  # beyond this the spacing is a mistake, not a pixel

_OTHER_DECODER = "if other programs show the file, pip install python-gdcm"

_LENIENT_PACKAGES = ("pylibjpeg", "pillow")  # they pass over data that no picture needs

_MORE_DATA = bytes((37 * n + 181) % 251 for n in range(1024))  # no marker in it


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
    with DicomFile(path) as file:
        is_bare = has_bare_dicom(file.read(132))  # without the preamble pydicom must be told so
        file.seek(0)
        try:
            _check_header(pydicom.dcmread(file, force=is_bare, stop_before_pixels=True))
        except pydicom.errors.InvalidDicomError as error:
            raise BadImageError("not_an_image", "no DICOM header") from error
        file.seek(0)
        dataset = pydicom.dcmread(file, force=is_bare)
    if not dataset.get("PixelData"):
        raise BadImageError("no_pixels", "a DICOM file without pixel data")
    use_functional_groups(dataset)
    stored = _decode(dataset, note)
    image = show_color(stored, note) if stored.ndim == 3 else show_gray(stored, dataset, note)
    if stored.ndim == 2 and is_inverted(dataset) and looks_inverted(image):
        detail = "shown inverted as its header says, yet its lungs are bright: is the header right?"
        note("polarity_unclear", detail)
    return _make_pixels_square(image, dataset, note)


def _check_header(header: Any) -> None:
    """Judge size, frames and kind of pixels by the header alone.

    Raises:
        BadImageError: kind "no_pixels", "several_frames", "unsupported_depth", "bad_header", or one of
            `check_size`.
    """
    rows, columns = (number(header, name) for name in ("Rows", "Columns"))
    if not rows or not columns:
        raise BadImageError("no_pixels", "a DICOM file without rows and columns: no picture")
    samples, bits = (number(header, name) for name in ("SamplesPerPixel", "BitsAllocated"))
    check_size(int(columns), int(rows))
    frames = number(header, "NumberOfFrames") or 1
    if frames > 1:
        raise BadImageError("several_frames", f"{frames:.0f} frames, wanted one")
    if samples not in (1, 3) or bits not in (1, 8, 16, 32):
        raise BadImageError(
            "unsupported_depth", f"{samples} samples of {bits} bits a pixel; wanted 1 or 3 of 8 or 16"
        )
    decoded = int(rows * columns * samples * max(bits, 8) / 8)
    most, of_color = (MAXIMUM_COLOR_BYTES, " of color") if samples == 3 else (MAXIMUM_DECODED_BYTES, "")
    if decoded > most:
        raise BadImageError("too_many_bytes", f"{decoded:,} bytes of pixels, at most {most:,}{of_color}")


def _decode(dataset: Any, note: Note) -> npt.NDArray[Any]:
    """The stored values: (rows, columns), or (rows, columns, 3) for color, which is RGB then.

    Of gray pixels, bits beside those of the value are left as they are; `dicom_display` judges them.

    Raises:
        BadImageError: kind "several_frames", "wrong_size", "no_pixels", "truncated", "undecodable" or
            "unsupported_compression".
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
        stored = _decompress(dataset)
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
        stored = pixel_array(dataset, correct_unused_bits=samples > 1)
    if stored.shape != ((rows, columns) if samples == 1 else (rows, columns, samples)):
        raise BadImageError("wrong_size", f"decoded {stored.shape}, the header says {columns}x{rows}")
    return stored


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


def _single_stream(dataset: Any) -> bytes:
    """The one compressed picture of a data set.

    Raises:
        BadImageError: kind "several_frames", "wrong_size", "truncated", "undecodable" or
            "unsupported_compression", before anything is decoded.
    """
    from pydicom.encaps import generate_fragments

    fragments = list(generate_fragments(dataset.PixelData))[1:]  # the first is the table of offsets
    is_rle = dataset.file_meta.TransferSyntaxUID.name == "RLE Lossless"
    frames = len(fragments) if is_rle else sum(map(starts_codestream, fragments))
    if frames > 1:
        raise BadImageError("several_frames", f"{frames} compressed frames, though NumberOfFrames says one")
    stream = b"".join(fragments)
    if is_rle:
        return stream
    found = read_header(stream)
    if found is None:
        detail = f"{dataset.file_meta.TransferSyntaxUID.name}: no header in it says the size of the picture"
        raise BadImageError("unsupported_compression", f"{detail}; {_OTHER_DECODER}")
    wanted = (int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel))
    if found[:3] != wanted:
        sizes = [f"{width}x{height} of {samples} samples" for width, height, samples in (found[:3], wanted)]
        if found.samples == wanted[2]:
            sizes = [size.partition(" ")[0] for size in sizes]
        detail = f"the compressed picture is {sizes[0]}, the header says {sizes[1]}"
        raise BadImageError("wrong_size", detail)
    check_jpeg2000_tiles(stream)
    return stream


def _decompress(dataset: Any) -> npt.NDArray[Any]:
    """Decode one compressed picture.

    Raises:
        BadImageError: kind "truncated", "undecodable" or "unsupported_compression".
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder, pixel_array

    stream = _single_stream(dataset)
    header, is_jpeg = read_header(stream), stream.startswith(JPEG_START)
    if not is_jpeg:
        stream = b""  # the data set still has it

    def decode(data: bytes = b"", package: str = "") -> npt.NDArray[Any]:
        if data:
            dataset.PixelData = encapsulate([data])
        is_color = dataset.SamplesPerPixel > 1
        return pixel_array(dataset, decoding_plugin=package, correct_unused_bits=is_color)

    try:
        if not is_jpeg:
            return decode()
        for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # of the stream as it lay there
            if name in dataset:
                delattr(dataset, name)
        end = jpeg_end(stream)
        packages = get_decoder(dataset.file_meta.TransferSyntaxUID).available_plugins
        if "pyjpegls" in packages:
            return _decode_jpeg_ls(decode, stream)
        package = next((name for name in _LENIENT_PACKAGES if name in packages), "")
        return _decode_jpeg(decode, stream, end, package)
    except (NotImplementedError, RuntimeError) as error:
        raise _failure(dataset.file_meta.TransferSyntaxUID.name, header, is_jpeg, str(error)) from error


def _decode_jpeg_ls(decode: Callable[..., npt.NDArray[Any]], stream: bytes) -> npt.NDArray[Any]:
    """Decode by CharLS, which knows where the data of a whole picture end; other decoders fill in silence."""
    try:
        return decode(stream, "pyjpegls")
    except RuntimeError as error:
        raise BadImageError("truncated", "the JPEG-LS data end before the picture does, or differ") from error


def _decode_jpeg(
    decode: Callable[..., npt.NDArray[Any]], stream: bytes, end: int, package: str
) -> npt.NDArray[Any]:
    """Decode twice, once with other data before the end marker: to a whole picture they add nothing.

    Decoders fill what a stream lacks in silence, each in its own way; this holds for all of them.
    """
    data = stream[:end].rstrip(b"\xff")  # half of a stuffed byte would make a marker with what follows
    try:
        changed = _checksum(decode(data + _MORE_DATA + JPEG_END, package))
    except RuntimeError:  # the decoder has read those data and found no code
        changed = None
    try:
        stored = decode(stream, package)
    except RuntimeError:
        return decode(stream)  # by whatever else is installed, or with the words of all
    if changed != _checksum(stored):
        raise BadImageError("truncated", "the compressed data end before the picture does")
    return stored


def _checksum(stored: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(stored).data)


def _failure(name: str, header: StreamHeader | None, is_jpeg: bool, message: str) -> BadImageError:
    """What to say of a picture that every installed decoder gave up.

    Args:
        name: of its transfer syntax.
        header: of its stream; RLE has none.
        is_jpeg: it is JPEG.
        message: what pydicom said.
    """
    if header is None and ("end of the data" in message or "amount of decoded" in message):
        return BadImageError("truncated", "the compressed data end before the picture does")
    if is_jpeg and header and header.bits > 8 and "Lossless" not in name:
        detail = f"{name} of {header.bits} bits is read by no installed package; pip install python-gdcm"
        return BadImageError("unsupported_compression", detail)
    return BadImageError("undecodable", f"{name}: the data are damaged; {_OTHER_DECODER}")


def _make_pixels_square(image: GrayImage, dataset: Any, note: Note) -> GrayImage:
    """Stretch the coarser axis where the header says that pixels are not square."""
    ratio = _pixel_ratio(dataset, note)
    if abs(ratio - 1) < 0.01:
        return image
    if not 1 / _LARGEST_SQUARE_CORRECTION <= ratio <= _LARGEST_SQUARE_CORRECTION:
        note("spacing_ignored", f"pixels {ratio:.3g} times as high as wide cannot be right; taken as square")
        return image
    height, width = image.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*size)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _pixel_ratio(dataset: Any, note: Note) -> float:
    """Height of a pixel over its width; 1 where the header does not say."""
    ignored = []
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        pair = number_pair(dataset, name)
        if pair and min(pair) > 0:
            return pair[0] / pair[1]
        if pair and any(pair):  # zeros are what is written where nothing is known
            ignored.append(f"{name} is {pair[0]:g} by {pair[1]:g}")
    if ignored:
        note("spacing_ignored", f"{', '.join(ignored)}; pixels are taken as square")
    return 1.0
