"""One image file → one 8-bit grayscale array.

Raw file → here → builder. What cannot become an image raises BadImageError with a kind for the report.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.dicom import read_dicom
from dataset_scripts.reading.grayscale import MAXIMUM_PIXELS, GrayImage, check_size, window_to_8bit
from dataset_scripts.reading.image_files import is_dicom


def read_image(path: Path, at_least: int = 0) -> GrayImage:
    """Decode an image file to 8-bit grayscale, upright.

    RGB and RGBA become luminance; alpha is dropped. Images of more than 8 bits are windowed between
    robust percentiles, never clipped.

    Args:
        path: PNG, JPEG, TIFF, BMP or DICOM; DICOM under any name.
        at_least: the caller will shrink the shorter side to this many pixels, so a JPEG may be decoded
            at a fraction of its size; 0 asks for the native size.

    Returns:
        (height, width), uint8.

    Raises:
        BadImageError: the file cannot be decoded, is too small or too large.
    """
    try:
        if path.stat().st_size == 0:
            raise BadImageError("empty_file", "0 bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of odd metadata; only the pixels matter here
            if is_dicom(path):
                return read_dicom(path)
            with Image.open(path) as image:
                check_size(image.width, image.height)
                if at_least > 0:
                    image.draft("L", (2 * at_least, 2 * at_least))  # twice: the rest is antialiased
                return _to_gray(image)
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("too_many_pixels", f"more than {MAXIMUM_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("not_an_image", "no known image format") from error
    except FileNotFoundError as error:
        raise BadImageError("absent", "no such file") from error
    except PermissionError as error:
        raise BadImageError("no_permission", "the file may not be read") from error
    except (OSError, SyntaxError, ValueError, MemoryError, EOFError) as error:  # Pillow raises all of these
        kind = "truncated" if "truncated" in str(error) else "undecodable"
        raise BadImageError(kind, str(error).replace(str(path), path.name)) from error


def _to_gray(image: Image.Image) -> GrayImage:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        return window_to_8bit(np.nan_to_num(np.asarray(upright, dtype=np.float32)))
    return np.asarray(upright.convert("L"))
