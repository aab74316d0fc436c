"""One image file → one 8-bit grayscale array, or the values of a mask.

Raw file → here → builder, `predict.py` and the page. What cannot become an image, or shows nothing, raises
BadImageError with a kind for the report.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.completeness import check_gif_frame, check_png_chunks, check_rows
from dataset_scripts.reading.decoding import (
    MAXIMUM_PIXELS,
    BoundedFile,
    Note,
    check_contrast,
    check_file,
    check_size,
    decoding,
)
from dataset_scripts.reading.dicom import read_dicom
from dataset_scripts.reading.grayscale import (
    WINDOW_PERCENTILES,
    GrayImage,
    linear_to_8bit,
    luminance_16bit,
    window_16bit,
)
from dataset_scripts.reading.image_files import IMAGE_FORMATS, is_dicom
from dataset_scripts.reading.tiff import Samples, check_parts, read_samples, why_unknown

_ORIENTATION = 0x0112  # EXIF

_OTHER_BYTE_FIRST = {
    "RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "RGBX;16B": "RGBX;16L",
    "RGB;16L": "RGB;16B", "RGBA;16L": "RGBA;16B", "RGBX;16L": "RGBX;16B",
    "RGB;16N": "RGB;16B", "RGBA;16N": "RGBA;16B", "RGBX;16N": "RGBX;16B",
    "LA;16B": "RGBA",  # the four bytes of gray and alpha as they come
}  # fmt: skip

_SAMPLE_PIXELS = 4_000_000  # of a float picture, for its percentiles

_LARGEST_VALUE = 1e30  # of a float; beyond it lie the values that programs write for "nothing"

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_image(
    path: Path,
    at_least: int = 0,
    note: Note = lambda kind, detail: None,
    *,
    needs_contrast: bool = True,
) -> GrayImage:
    """Decode an image file to 8-bit grayscale, upright.

    RGB and RGBA become luminance; alpha is dropped. Images of more than 8 bits are windowed between
    robust percentiles, never clipped; DICOM is shown as a viewer shows it (dicom_display).

    Args:
        path: PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PPM or DICOM, under any name.
        at_least: the caller will shrink the shorter side to this many pixels, so a JPEG may be decoded
            at a fraction of its size; 0 asks for the native size.
        note: told (kind, detail) of what a user should know of a picture that was read.
        needs_contrast: refuse a picture that shows next to nothing.

    Returns:
        (height, width), uint8.

    Raises:
        BadImageError: the file cannot be decoded, is too small or too large, or shows nothing.
    """
    with decoding(path):
        check_file(path)
        if is_dicom(path):
            gray = read_dicom(path, note)
        else:
            gray = _read_picture(path, at_least, _show)
        if needs_contrast:
            check_contrast(gray)
        return gray


def read_mask(path: Path) -> npt.NDArray[Any]:
    """Decode a picture whose values are labels, upright: what is stored, of any depth, and never windowed.

    Color and palettes become luminance. A mask of 0 and 1, or of a few labels in 16 bits, shows nothing to
    `read_image`.

    Args:
        path: as of `read_image`; a DICOM file is shown as there.

    Returns:
        (height, width), of numbers; what is not finite is 0.

    Raises:
        BadImageError: the file cannot be decoded, or is too small or too large.
    """
    with decoding(path):
        check_file(path)
        if is_dicom(path):
            return read_dicom(path, lambda kind, detail: None)
        return _read_picture(path, 0, _stored_values)


def _read_picture(
    path: Path, at_least: int, show: Callable[[BoundedFile, ImageFile, Samples], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    with BoundedFile(path) as file, _open(file) as image:
        check_size(image.width, image.height, MAXIMUM_PIXELS // 2 if _takes_double(image) else MAXIMUM_PIXELS)
        _refuse_several_pages(image)
        if at_least > 0:
            image.draft(
                "L", _decoded_size(image.width, image.height, 2 * at_least)
            )  # the rest is antialiased
        samples = Samples()
        if isinstance(image, TiffImageFile):
            samples = read_samples(image.tag_v2)
        _check_whole(file, image)
        gray = show(file, image, samples)
        check_rows(file, image, gray)
        return _turn_upright(gray, exif_orientation(image))


def _decoded_size(width: int, height: int, at_least: int) -> tuple[int, int]:
    """The size at which a JPEG is decoded: the least that keeps the ratio of its sides to the pixel."""
    for factor in (8, 4, 2):
        if min(width, height) // factor >= at_least and width % factor == height % factor == 0:
            return width // factor, height // factor
    return width, height


def _open(file: BoundedFile) -> ImageFile:
    """Read a picture's header."""
    try:
        return Image.open(file, formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError("too_many_pixels", str(error)) from error
    except (UnidentifiedImageError, KeyError) as error:  # a KeyError is a compression that Pillow lacks
        file.seek(0)
        if file.read(4) in _TIFF_STARTS:
            raise why_unknown(file) from error
        detail = f"neither DICOM nor one of {'/'.join(IMAGE_FORMATS)}"
        raise BadImageError("not_an_image", detail) from error


def _check_whole(file: BoundedFile, image: ImageFile) -> None:
    """Refuse a file that holds only a part of its picture, as far as can be told without decoding."""
    if isinstance(image, TiffImageFile):
        check_parts(image.tag_v2, file)
    elif image.format == "PNG":
        check_png_chunks(file)
    elif image.format == "GIF":
        check_gif_frame(image)


def _refuse_several_pages(image: ImageFile) -> None:
    """Refuse files of several pictures: the first may not be the one meant. Previews in a TIFF are none."""
    pages = getattr(image, "n_frames", 1)
    if isinstance(image, TiffImageFile):
        for page in range(1, pages):
            image.seek(page)
            is_reduced = image.tag_v2.get(254, 0) & 1  # a bit of NewSubfileType (TIFF 6.0)
            pages -= is_reduced
        image.seek(0)
    if pages > 1 and image.format != "MPO":  # a camera's JPEG: its first picture is the large one
        raise BadImageError("several_frames", f"{pages} pictures in one {image.format} file, wanted one")


def _takes_double(image: ImageFile) -> bool:
    """Whether decoding takes twice the memory of other pictures: 32 bits, 16-bit color, and two formats."""
    is_jpeg2000_color = image.format == "JPEG2000" and image.mode in ("RGB", "RGBA", "LA")
    return image.mode in ("I", "F") or image.format == "WEBP" or is_jpeg2000_color or _is_deep_color(image)


def _is_deep_color(image: ImageFile) -> bool:
    is_deep = bool(image.tile) and _raw_mode(image.tile[0]).partition(";")[2].startswith("16")
    return is_deep and image.mode in ("RGB", "RGBA", "RGBX", "LA")


def _raw_mode(tile: Any) -> str:
    """How Pillow will read a tile's samples: bits and order of bytes."""
    args = tile.args
    return str(args if isinstance(args, str) else args[0] if args else "")


def _show(file: BoundedFile, image: ImageFile, samples: Samples) -> GrayImage:
    return _window(file, image, samples) if _is_deep(image) else _show_8bit(image, samples)


def _stored_values(file: BoundedFile, image: ImageFile, samples: Samples) -> npt.NDArray[Any]:
    if _is_deep_color(image):
        return _read_16bit_color(file, image)
    return np.nan_to_num(_as_stored(image, samples)) if _is_deep(image) else _show_8bit(image, samples)


def _is_deep(image: ImageFile) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_deep_color(image)


def _show_8bit(image: ImageFile, samples: Samples) -> GrayImage:
    """Pixels of at most 8 bits as they are; color becomes luminance."""
    gray = np.asarray(image.convert("L"))
    if image.mode != "L" or (samples.stored_type is None and samples.nodata is None):
        return gray
    # Pillow has inverted what is white at zero.
    stored = 255 - gray if samples.is_white_zero else gray
    if samples.stored_type is np.int8:
        stored = stored.view(np.int8)
        gray = (stored.astype(np.int16) + 128).astype(np.uint8)
    return gray if samples.nodata is None else np.where(stored == samples.nodata, np.uint8(0), gray)


def _window(file: BoundedFile, image: ImageFile, samples: Samples) -> GrayImage:
    """Pixels of more than 8 bits, windowed between percentiles."""
    if _is_deep_color(image):
        return window_16bit(_read_16bit_color(file, image))
    if image.mode == "F":
        return _window_float(image, samples)
    stored = _as_stored(image, samples)
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > 65535:
        if high - low > 65535:
            return _window_float(image, samples)
        stored = stored - low
    else:
        low = 0
    nodata = None if samples.nodata is None else samples.nodata - low
    return window_16bit(
        stored.astype(np.uint16, copy=False), is_inverted=samples.is_white_zero, nodata=nodata
    )


def _as_stored(image: Image.Image, samples: Samples) -> npt.NDArray[Any]:
    pixels = np.asarray(image)
    return pixels.view(np.uint32) if image.mode == "I" and samples.stored_type is np.uint32 else pixels


def _read_16bit_color(file: BoundedFile, image: ImageFile) -> npt.NDArray[np.uint16]:
    """Luminance of 16-bit color, (height, width).

    Pillow has no 16-bit color and keeps the first byte of each sample; asked for the other order of bytes, it
    keeps the second.
    """
    modes = {_raw_mode(tile) for tile in image.tile}
    if len(modes) > 1 or not modes <= _OTHER_BYTE_FIRST.keys():
        raise BadImageError("unsupported_depth", f"16-bit color stored as {sorted(modes)}; save it as PNG")
    [mode] = modes
    high = np.asarray(image)
    file.seek(0)
    again = _open(file)
    other = _OTHER_BYTE_FIRST[mode]
    again.tile = [
        tile._replace(args=other if isinstance(tile.args, str) else (other, *(tile.args or ())[1:]))
        for tile in again.tile
    ]
    low = np.asarray(again)
    if mode == "LA;16B":
        return low[..., 0].astype(np.uint16) << 8 | low[..., 1]
    return luminance_16bit(high, low)


def _window_float(image: Image.Image, samples: Samples) -> GrayImage:
    """A picture of floating-point or 32-bit pixels; what is not finite, or no measurement, becomes black."""
    width, height = image.size
    rows = max(1, _SAMPLE_PIXELS // 4 // width)
    nodata = samples.nodata
    if nodata is not None and image.mode == "F":
        nodata = float(np.float32(nodata))  # as it was stored

    def bands() -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        for top in range(0, height, rows):
            band = image.crop((0, top, width, min(height, top + rows)))
            values = _as_stored(band, samples).astype(np.float64)
            values[~(np.abs(values) <= _LARGEST_VALUE) | (values == nodata)] = np.nan
            yield top, values

    step = -(-width * height // _SAMPLE_PIXELS)
    sample = np.concatenate([band.ravel()[::step] for _, band in bands()])
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, WINDOW_PERCENTILES) if sample.size else (0.0, 0.0)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        raise BadImageError("shows_nothing", f"values {low:g} to {high:g}")
    gray = np.empty((height, width), np.uint8)
    for top, band in bands():
        shown = linear_to_8bit(band, low, high)
        gray[top : top + rows] = np.where(np.isnan(band), 0, 255 - shown) if samples.is_white_zero else shown
    return gray


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation (1 to 8), 1 where there is none that can be read; other tags are not touched."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises nearly everything, and viewers show such pictures as they are
        return 1


def _turn_upright(gray: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn and mirror as the EXIF orientation (1 to 8) says."""
    if orientation in (5, 6, 7, 8):
        gray = gray.T
    if orientation in (3, 4, 7, 8):
        gray = gray[::-1]
    if orientation in (2, 3, 6, 7):
        gray = gray[:, ::-1]
    return np.ascontiguousarray(gray)
