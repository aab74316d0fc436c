"""One NIfTI volume → 8-bit axial slices.

Raw file → here → builder. What cannot become slices raises BadImageError with a kind for the report.
"""

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.decoding import MINIMUM_SIDE, check_file, decoding
from dataset_scripts.reading.grayscale import GrayImage, linear_to_8bit

BRAIN_PERCENTILES = (0.5, 99.5)

SMALLEST_SLICE = 0.1  # of the largest slice's brain area; below lie the crown and the neck

MAXIMUM_VOXELS = 33_000_000  # a head at 0.7 millimeters; reading it stays under 512 MB of memory

MAXIMUM_VOLUME_BYTES = 140_000_000  # of a file once it is unpacked

_NOISE = 6.0  # a voxel further from the background than this many of its deviations is no background

_MOST_NOISE = 0.25  # of the intensities' range; what varies more is no air

_ROUNDING = 1e-4  # of the intensities' range: what saving as integers does to a constant background


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels along canonical axes (right, anterior, superior).

    Attributes:
        voxels: (right, anterior, superior), float32, finite.
        background: the value of the air around the head.
        tolerance: how far from it a voxel may lie and still be air.
        bad_voxels: how many were not finite; they became background.
    """

    voxels: npt.NDArray[np.float32]
    background: float
    tolerance: float
    bad_voxels: int

    def is_brain(self) -> npt.NDArray[np.bool_]:
        """Where voxels differ from the air, (right, anterior, superior)."""
        return np.abs(self.voxels - np.float32(self.background)) > self.tolerance


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file and turn it, by its affine, to the closest canonical axes.

    A gzipped file is read to its end, so that its checksum is compared. The background is what the border of
    the volume holds: 0 in most files, any value in others. Voxels that are not finite count as background.

    Raises:
        BadImageError: the file is no readable volume of three dimensions.
    """
    with decoding(path):
        check_file(path)
        image = _parse(_read_bytes(path))
        if len(image.shape) == 4 and image.shape[3] == 1:
            image = image.slicer[..., 0]
        _check_header(image)
        canonical = nibabel.as_closest_canonical(image)
        voxels = np.asarray(canonical.dataobj, dtype=np.float32)
        is_finite = np.isfinite(voxels)
        bad_voxels = int(voxels.size - np.count_nonzero(is_finite))
        if bad_voxels == voxels.size:
            raise BadImageError("empty_volume", "no voxel is finite")
        background, tolerance = _measure_background(voxels)
        if bad_voxels:
            voxels = np.where(is_finite, voxels, np.float32(background))
        return Volume(voxels, background, tolerance, bad_voxels)


def _read_bytes(path: Path) -> bytes:
    """The file's content, unpacked where it is gzipped under any name."""
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if is_packed else file
        content = stream.read(MAXIMUM_VOLUME_BYTES + 1)
        if len(content) > MAXIMUM_VOLUME_BYTES:
            raise BadImageError("too_many_bytes", f"more than {MAXIMUM_VOLUME_BYTES:,} bytes unpacked")
        return content


def _parse(content: bytes) -> nibabel.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file; the size of its header, its first number, tells which."""
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    image_class = nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image
    return image_class.from_bytes(content)


def _check_header(image: nibabel.Nifti1Image) -> None:
    """Judge shape, type of voxels, length of the data and affine."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) != 3 or min(shape) < MINIMUM_SIDE:
        raise BadImageError("wrong_shape", f"{shape}, wanted three sides of {MINIMUM_SIDE} voxels or more")
    if math.prod(shape) > MAXIMUM_VOXELS:
        raise BadImageError("too_many_voxels", f"{shape}, at most {MAXIMUM_VOXELS:,} voxels")
    if dtype.kind not in "iuf":
        raise BadImageError(
            "wrong_type", f"voxels are {dtype}: color or complex; wanted one real number each"
        )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) == 0:
        detail = "the affine holds NaN, infinity or no three directions: which side is up is unknown"
        raise BadImageError("bad_affine", detail)


def _measure_background(voxels: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The value that the border of a volume holds, and how far air may differ from it.

    Args:
        voxels: three dimensions; what is not finite is left out.
    """
    faces = [np.moveaxis(voxels, axis, 0)[end].ravel() for axis in range(3) for end in (0, -1)]
    border = np.concatenate(faces)
    border = border[np.isfinite(border)]
    if not border.size:  # NaN is the background
        border = voxels[np.isfinite(voxels)].min(keepdims=True)
        return float(border[0]) - 1.0, 0.0
    background = float(np.median(border))
    noise = 1.4826 * float(np.median(np.abs(border - background)))
    sample = voxels.ravel()[:: max(1, voxels.size // 2_000_000)]
    reach = np.percentile(np.abs(sample[np.isfinite(sample)] - background), 99.9)
    if _NOISE * noise > _MOST_NOISE * reach:  # no air at the border: a volume cut to the brain
        return 0.0, 0.0
    return background, max(_NOISE * noise, _ROUNDING * float(reach))


def axial_slices(volume: Volume, count: int) -> Iterator[tuple[int, GrayImage]]:
    """Yield `count` axial slices, evenly spaced through the brain, from feet to head.

    A slice is shown as radiologists see it: anterior up, the patient's right on the left. One window,
    between percentiles inside the brain, serves the whole volume; outside the brain stays black.

    Yields:
        (index along the superior axis, image (height, width) uint8).

    Raises:
        BadImageError: no voxel differs from the background, or the brain is of one brightness.
    """
    is_brain = volume.is_brain()
    areas = is_brain.sum(axis=(0, 1))
    wide = np.flatnonzero(areas >= max(1, SMALLEST_SLICE * areas.max()))
    if not wide.size:
        raise BadImageError("empty_volume", f"no voxel differs from the background, {volume.background:g}")
    inside = volume.voxels[is_brain]
    low, high = np.percentile(inside, BRAIN_PERCENTILES)
    if high <= low:
        low, high = float(inside.min()), float(inside.max())
    if high <= low:
        raise BadImageError("shows_nothing", f"every voxel of the brain is {low:g}")
    indices = np.unique(np.rint(np.linspace(wide[0], wide[-1], count)).astype(int))
    for index in indices:
        windowed = linear_to_8bit(volume.voxels[..., index], low, high)
        # Air inside the brain is a dark spot of it; black is what reaches it from outside.
        shown = np.where(ndimage.binary_fill_holes(is_brain[..., index]), windowed, np.uint8(0))
        # (right, anterior) → rows from anterior to posterior, columns from right to left
        yield int(index), np.ascontiguousarray(shown[::-1, ::-1].T)
