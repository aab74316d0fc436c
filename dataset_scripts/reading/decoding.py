"""The boundary around every decoder: what is too large, what shows nothing, and what an exception becomes.

Stands below the readers. A file that cannot become a picture raises `BadImageError`, whatever the decoder
raised, and its size is judged from the header, before memory is asked for.
"""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.grayscale import GrayImage

MINIMUM_SIDE = 16  # below this nothing can be seen; web icons and 1x1 trackers end here

MAXIMUM_PIXELS = 40_000_000  # twice the largest chest detector; decoding stays under 512 MB of memory

MAXIMUM_FILE_BYTES = 150_000_000  # MAXIMUM_PIXELS of 8-bit color, uncompressed, with room

MAXIMUM_ASPECT = 10  # long side over short side; scans of a whole spine have 4

SMALLEST_CONTRAST = 4.0  # standard deviation in gray levels; radiographs have 30 to 80

SMALLEST_RANGE = 8  # gray levels between the 1st and 99th percentile; text on a blank image does not count

SMALLEST_REST = 0.05  # of the pixels, of levels other than the two commonest; real films have 0.18 or more

LEVEL_WIDTH = 4  # gray levels to either side that count as the same; JPEG leaves as much around an edge

_LONGEST_DETAIL = 500

Note = Callable[[str, str], None]
"""Takes (kind, detail): something about a picture that was read and that its user should know."""


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a BadImageError; decoders raise nearly everything.

    Raises:
        BadImageError: with the kind for the report and the decoder's words on one line, without the path.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of odd metadata; only the pixels matter here
            yield
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError("absent", "no such file") from error
    except IsADirectoryError as error:
        raise BadImageError("not_an_image", "a folder") from error
    except PermissionError as error:
        raise BadImageError("no_permission", "the file may not be read") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        detail = " ".join(str(error).replace(str(path), path.name).split()) or "no reason given"
        is_cut = isinstance(error, EOFError) or "truncated" in detail or "end of file" in detail.lower()
        kind = "truncated" if is_cut else "undecodable"
        raise BadImageError(kind, f"{type(error).__name__}: {detail}"[:_LONGEST_DETAIL]) from error


class BoundedFile(io.BufferedReader):
    """A file whose reads never ask for more than it holds; a damaged header asks for gigabytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; all that is left where it is negative or None."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def check_file(path: Path) -> None:
    """Refuse empty files, and files larger than any radiograph.

    Raises:
        BadImageError: kind "empty_file" or "too_many_bytes".
    """
    size = path.stat().st_size
    if size == 0:
        raise BadImageError("empty_file", "0 bytes")
    if size > MAXIMUM_FILE_BYTES:
        raise BadImageError("too_many_bytes", f"{size:,} bytes, at most {MAXIMUM_FILE_BYTES:,}")


def check_size(width: int, height: int, most_pixels: int = MAXIMUM_PIXELS) -> None:
    """Refuse pictures too small to show anything, too large, or too long to be one.

    Raises:
        BadImageError: kind "too_small", "too_many_pixels" or "too_long".
    """
    if width * height > most_pixels:
        raise BadImageError("too_many_pixels", f"{width}x{height}, at most {most_pixels:,} pixels")
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError("too_small", f"{width}x{height}, at least {MINIMUM_SIDE} pixels a side")
    if max(width, height) > MAXIMUM_ASPECT * min(width, height):
        raise BadImageError(
            "too_long", f"{width}x{height}, one side at most {MAXIMUM_ASPECT} times the other"
        )


def check_contrast(image: GrayImage) -> None:
    """Refuse a picture of one brightness or two, or nearly: a model would score it like any other.

    Args:
        image: as it would be shown, (height, width), uint8.

    Raises:
        BadImageError: kind "shows_nothing".
    """
    counts = np.asarray(Image.fromarray(image).histogram())
    if shows_nothing(counts):
        levels = f"{image.min()} to {image.max()}"
        raise BadImageError("shows_nothing", f"of one brightness or two or nearly so (gray levels {levels})")


def shows_nothing(counts: npt.NDArray[np.int64]) -> bool:
    """Whether a picture is of one brightness or two, or nearly.

    All padding, an unexposed film, a blank page; a mask, an even area inside a frame, a film whose window was
    torn open by a single extreme value.

    Args:
        counts: (256,), how many of its pixels have each gray level.
    """
    levels = np.arange(256)
    share = counts / counts.sum()
    low, high = np.searchsorted(np.cumsum(share), (0.01, 0.99))
    deviation = np.sqrt((share * (levels - (share * levels).sum()) ** 2).sum())
    if high - low < SMALLEST_RANGE or deviation < SMALLEST_CONTRAST:
        return True
    for _ in range(2):
        commonest = int(share.argmax())
        share[max(0, commonest - LEVEL_WIDTH) : commonest + LEVEL_WIDTH + 1] = 0
    return bool(share.sum() < SMALLEST_REST)
