"""One NIfTI volume → 8-bit axial slices.

Raw file → here → builder. What cannot become slices raises BadImageError with a kind for the report.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from dataset_scripts.errors import BadImageError
from dataset_scripts.images import GrayImage, window_to_8bit

BRAIN_PERCENTILES = (0.5, 99.5)
SMALLEST_SLICE = 0.1  # of the largest slice's brain area; below lie the crown and the neck


def read_slices(path: Path, count: int) -> Iterator[tuple[int, GrayImage]]:
    """Yield `count` axial slices, evenly spaced through the brain, from feet to head.

    The volume is turned to the closest canonical axes (right, anterior, superior) by its affine. A slice
    is shown as radiologists see it: anterior up, the patient's right on the left. One window, between
    percentiles inside the brain, serves the whole volume; outside the brain stays black.

    Yields:
        (index along the superior axis, image (height, width) uint8).

    Raises:
        BadImageError: the file is no readable 3-D volume, or it is empty.
    """
    volume = _read_volume(path)
    is_brain = volume != 0
    areas = is_brain.sum(axis=(0, 1))
    wide = np.flatnonzero(areas >= max(1, SMALLEST_SLICE * areas.max()))
    if not wide.size:
        raise BadImageError("empty_volume", "no voxel differs from zero")
    windowed = np.where(is_brain, window_to_8bit(volume, is_brain, BRAIN_PERCENTILES), np.uint8(0))
    indices = np.unique(np.rint(np.linspace(wide[0], wide[-1], count)).astype(int))
    for index in indices:
        # (right, anterior) → rows from anterior to posterior, columns from right to left
        yield int(index), np.ascontiguousarray(windowed[::-1, ::-1, index].T)


def _read_volume(path: Path) -> npt.NDArray[np.float32]:
    try:
        image = nibabel.load(path)
        shape = image.shape
        if len(shape) == 4 and shape[3] == 1:
            image = image.slicer[..., 0]
        elif len(shape) != 3:
            raise BadImageError("not_3d", f"shape {shape}, wanted three dimensions")
        canonical = nibabel.as_closest_canonical(image)
        volume = np.asarray(canonical.dataobj, dtype=np.float32)
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError("absent", "no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadImageError("truncated", str(error).replace(str(path), path.name)) from error
    except (ImageFileError, OSError, ValueError, MemoryError) as error:
        raise BadImageError("undecodable", str(error).replace(str(path), path.name)) from error
    return np.nan_to_num(volume, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
