"""One NIfTI volume → 8-bit axial slices.

Raw file → here → builder. What cannot become slices raises BadImageError with a kind for the report.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.grayscale import MINIMUM_SIDE, GrayImage, window_to_8bit

BRAIN_PERCENTILES = (0.5, 99.5)

SMALLEST_SLICE = 0.1  # of the largest slice's brain area; below lie the crown and the neck

MAXIMUM_VOXELS = 300_000_000  # a header that claims more is damaged


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels along canonical axes (right, anterior, superior), and how many of them were not finite."""

    voxels: npt.NDArray[np.float32]
    bad_voxels: int


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file and turn it, by its affine, to the closest canonical axes.

    Voxels that are not finite become 0, which is background.

    Raises:
        BadImageError: the file is no readable volume of three dimensions.
    """
    try:
        image = nibabel.load(path)
        if len(image.shape) == 4 and image.shape[3] == 1:
            image = image.slicer[..., 0]
        _check_shape(image.shape)
        canonical = nibabel.as_closest_canonical(image)
        voxels = np.asarray(canonical.dataobj, dtype=np.float32)
    except FileNotFoundError as error:
        raise BadImageError("absent", "no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadImageError("truncated", str(error).replace(str(path), path.name)) from error
    except (ImageFileError, HeaderDataError, OrientationError, OSError, MemoryError) as error:
        raise BadImageError("undecodable", str(error).replace(str(path), path.name)) from error
    is_finite = np.isfinite(voxels)
    return Volume(np.where(is_finite, voxels, np.float32(0)), int(voxels.size - is_finite.sum()))


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape) < MINIMUM_SIDE:
        raise BadImageError("wrong_shape", f"{shape}, wanted three sides of {MINIMUM_SIDE} voxels or more")
    if math.prod(shape) > MAXIMUM_VOXELS:
        raise BadImageError("too_many_voxels", f"{shape}, at most {MAXIMUM_VOXELS} voxels")


def axial_slices(volume: Volume, count: int) -> Iterator[tuple[int, GrayImage]]:
    """Yield `count` axial slices, evenly spaced through the brain, from feet to head.

    A slice is shown as radiologists see it: anterior up, the patient's right on the left. One window,
    between percentiles inside the brain, serves the whole volume; outside the brain stays black.

    Yields:
        (index along the superior axis, image (height, width) uint8).

    Raises:
        BadImageError: no voxel differs from zero.
    """
    is_brain = volume.voxels != 0
    areas = is_brain.sum(axis=(0, 1))
    wide = np.flatnonzero(areas >= max(1, SMALLEST_SLICE * areas.max()))
    if not wide.size:
        raise BadImageError("empty_volume", "no voxel differs from zero")
    windowed = window_to_8bit(volume.voxels, is_brain, BRAIN_PERCENTILES)
    indices = np.unique(np.rint(np.linspace(wide[0], wide[-1], count)).astype(int))
    for index in indices:
        shown = np.where(is_brain[..., index], windowed[..., index], np.uint8(0))
        # (right, anterior) → rows from anterior to posterior, columns from right to left
        yield int(index), np.ascontiguousarray(shown[::-1, ::-1].T)
