"""Image files → the thumbnails that the leakage guard compares: whole, and without a flat border."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets.utils import tqdm
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.leakage.warps import THUMBNAIL_SIDE
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.images import read_image

VARIANTS = 2

_READ_AT_ONCE = 32  # images a task of a thread

_SEEN_SIDE = 128  # of the picture whose border is looked for: a pixel is less than one of the thumbnail

_FLAT = 12.0  # gray levels around a line's median

_FLAT_SHARES = (0.9, 0.65)  # of a line's pixels; the rest may be letters

_WIDEST = 0.45  # of a side that a border takes

Thumbnails = npt.NDArray[np.uint8]


def read_thumbnails(
    images: Sequence[Path | bytes | GrayImage],
    num_proc: int | None = None,
    on_bad: Callable[[int, BadImageError], object] = lambda row, error: None,
) -> Thumbnails:
    """Read images as thumbnails; an unreadable image becomes black, which matches nothing.

    Args:
        images: image files, what such files hold, or gray pixels.
        num_proc: threads, not processes: decoders let go of Python's lock, and a process with threads (a
            progress bar's, Arrow's, PyTorch's) had better not be forked.
        on_bad: told of each image that cannot be read; a build needs no word, as it names them itself.

    Returns:
        (images, variants, 64, 64), see make_thumbnails.
    """
    thumbnails = np.zeros((len(images), VARIANTS, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)

    def read_some(start: int) -> int:
        part = range(start, min(start + _READ_AT_ONCE, len(images)))
        for row in part:
            try:
                image = Image.fromarray(_read(images[row]))
            except BadImageError as error:
                on_bad(row, error)
                continue
            thumbnails[row] = make_thumbnails(image)
        return len(part)

    with warnings.catch_warnings(), ThreadPoolExecutor(num_proc or 1) as pool:
        warnings.simplefilter("ignore")  # read_image does so too, but threads undo each other's filters
        with tqdm(total=len(images), desc="Reading thumbnails", unit=" images") as bar:
            for done in pool.map(read_some, range(0, len(images), _READ_AT_ONCE)):
                bar.update(done)
    return thumbnails


def _read(image: Path | bytes | GrayImage) -> GrayImage:
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Path):
        return read_image(image, _SEEN_SIDE)
    with tempfile.NamedTemporaryFile() as file:  # the reader judges files, by their headers first
        file.write(image)
        file.flush()
        return read_image(Path(file.name), _SEEN_SIDE)


def make_thumbnails(image: Image.Image) -> Thumbnails:
    """Return (2, 64, 64): a gray picture whole and without flat borders, each squeezed into the square."""
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    seen = image.resize((_SEEN_SIDE, _SEEN_SIDE), Image.Resampling.BILINEAR)
    left, top, right, bottom = _inside(np.asarray(seen, np.float32))
    scale_x, scale_y = image.width / _SEEN_SIDE, image.height / _SEEN_SIDE
    box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    whole = image.resize(side, Image.Resampling.BILINEAR)
    return np.stack([np.asarray(whole), np.asarray(image.resize(side, Image.Resampling.BILINEAR, box))])


def _inside(gray: npt.NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what a flat border frames, in pixels of a square picture."""
    left, top, right, bottom = 0, 0, len(gray), len(gray)
    # First what is flat but for a few letters; then what is flat within that, so that a bar on top and what
    # is dark in the picture below it do not add up.
    for share in _FLAT_SHARES:
        rows, columns = gray[top:bottom].T, gray[:, left:right]
        left, right = _margins(rows, share, left, right)
        top, bottom = _margins(columns, share, top, bottom)
    return left, top, right, bottom


def _margins(lines: npt.NDArray[np.float32], share: float, first: int, last: int) -> tuple[int, int]:
    """Return where what the flat lines frame begins and ends, at most from first to last."""
    return max(first, _flat_lines(lines, share)), min(last, len(lines) - _flat_lines(lines[::-1], share))


def _flat_lines(lines: npt.NDArray[np.float32], share: float) -> int:
    """Count the lines from the first on that are of one level but for letters."""
    level = np.median(lines[0])
    is_near = np.abs(lines[: int(_WIDEST * len(lines))] - level) <= _FLAT
    is_flat = is_near.mean(axis=1) >= share
    if not is_flat[0]:
        return 0
    # Lines with letters may lie between flat ones; the border ends with the last flat line that follows
    # upon as many flat as other lines.
    count = np.arange(1, len(is_flat) + 1)
    ends = np.flatnonzero(is_flat & (2 * np.cumsum(is_flat) >= count))
    return int(ends[-1]) + 1
