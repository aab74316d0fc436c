"""One image file → one 8-bit grayscale array, and an array → PNG bytes.

Raw file → here → builder. What cannot become an image raises BadImageError with a kind for the report.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dataset_scripts.errors import BadImageError

GrayImage = npt.NDArray[np.uint8]

MINIMUM_SIDE = 16  # below this nothing can be seen; web icons and 1x1 trackers end here
MAXIMUM_PIXELS = 100_000_000  # ten times the largest detector; a header that claims more is a bomb
WINDOW_PERCENTILES = (0.1, 99.9)


def read_image(path: Path) -> GrayImage:
    """Decode an image file to 8-bit grayscale at its own size.

    RGB and RGBA become luminance; alpha is dropped. Images of more than 8 bits are windowed between
    robust percentiles, never clipped.

    Returns:
        (height, width), uint8.

    Raises:
        BadImageError: the file cannot be decoded, is too small or too large.
    """
    try:
        if path.stat().st_size == 0:
            raise BadImageError("empty_file", "0 bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only the pixels matter here
            with Image.open(path) as image:
                _check_size(image.width, image.height)
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
    except (OSError, SyntaxError, ValueError, MemoryError) as error:  # Pillow raises all of these
        raise BadImageError("undecodable", str(error).replace(str(path), path.name)) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAXIMUM_PIXELS:
        raise BadImageError("too_many_pixels", f"{width}x{height}, at most {MAXIMUM_PIXELS} pixels")
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError("too_small", f"{width}x{height}, at least {MINIMUM_SIDE} pixels a side")


def _to_gray(image: Image.Image) -> GrayImage:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return window_to_8bit(np.asarray(image, dtype=np.float32))
    return np.asarray(image.convert("L"))


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


def encode_png(image: GrayImage) -> bytes:
    """Return the PNG bytes of an 8-bit grayscale array, with no metadata."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
