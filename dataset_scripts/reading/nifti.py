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
from dataset_scripts.reading.decoding import MINIMUM_SIDE, Note, check_file, decoding, shows_nothing
from dataset_scripts.reading.grayscale import GrayImage, linear_to_8bit

BRAIN_PERCENTILES = (0.5, 99.5)

SMALLEST_SLICE = 0.1  # of the largest slice's brain area; below lie the crown and the neck

MAXIMUM_VOXELS = 33_000_000  # a head at 0.7 millimeters; reading it stays under 512 MB of memory

MAXIMUM_VOLUME_BYTES = 140_000_000  # of a file once it is unpacked

_NOISE = 6.0  # a voxel further from the background than this many of its deviations is no background

_MOST_NOISE = 0.25  # of the intensities' range; what varies more is no air

_LEAST_PADDING = 0.01  # of the border's voxels; what fewer hold is no area outside the scan

_LEAST_AIR = 0.05  # of the border's voxels; what fewer hold may be tissue

_DARKEST = 0.1  # of the intensities' range: air lies below, tissue above

_FLAT = 5  # voxels a side of a square of one value; noise and tissue have none, what a program filled in has

_ROUNDING = 1e-4  # of the intensities' range: what saving as integers does to a constant background


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels along canonical axes (right, anterior, superior).

    Attributes:
        voxels: (right, anterior, superior), float32, finite.
        background: the value of the air around the head.
        tolerance: how far from it a voxel may lie and still be air.
        padding: other values that programs filled in around the scan.
        bad_voxels: how many were not finite; they became background.
    """

    voxels: npt.NDArray[np.float32]
    background: float
    tolerance: float
    padding: tuple[float, ...]
    bad_voxels: int

    def is_brain(self) -> npt.NDArray[np.bool_]:
        """Where voxels differ from the air, (right, anterior, superior)."""
        is_brain = np.abs(self.voxels - np.float32(self.background)) > self.tolerance
        for value in self.padding:
            is_brain &= self.voxels != np.float32(value)
        return is_brain


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file and turn it, by its affine, to the closest canonical axes.

    A gzipped file is read to its end, so that its checksum is compared. The background is what the border of
    the volume holds: 0 in most files, any value in others, several where a program filled in what was not
    scanned. Voxels that are not finite count as background.

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
        background, tolerance, padding = _measure_background(voxels)
        if bad_voxels:
            voxels = np.where(is_finite, voxels, np.float32(background))
        return Volume(voxels, background, tolerance, padding, bad_voxels)


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


def _measure_background(voxels: npt.NDArray[np.float32]) -> tuple[float, float, tuple[float, ...]]:
    """The value that the border of a volume holds, how far air may differ from it, and values of padding.

    Args:
        voxels: three dimensions; what is not finite is left out.
    """
    faces = [np.moveaxis(voxels, axis, 0)[end] for axis in range(3) for end in (0, -1)]
    border = np.concatenate([face.ravel() for face in faces])
    border = border[np.isfinite(border)]
    if not border.size:  # NaN is the background
        border = voxels[np.isfinite(voxels)].min(keepdims=True)
        return float(border[0]) - 1.0, 0.0, ()
    background = float(np.median(border))
    sample = voxels.ravel()[:: max(1, voxels.size // 2_000_000)]
    sample = sample[np.isfinite(sample)]
    padding = _find_padding(faces, background, sample)
    fewest = _LEAST_AIR * border.size
    border, sample = _without(border, padding), _without(sample, padding)
    around = _without(border, (background,))
    if fewest < around.size < border.size / 2 and _is_dark(around, _without(sample, (background,))):
        # Most of the border is filled in, and the air itself is noise.
        sample, padding = _without(sample, (background,)), (*padding, background)
        border, background = around, float(np.median(around))
    noise = 1.4826 * float(np.median(np.abs(border - background)))
    reach = np.percentile(np.abs(sample - background), 99.9)
    if _NOISE * noise > _MOST_NOISE * reach:  # no air at the border: a volume cut to the brain
        return 0.0, 0.0, padding
    return background, max(_NOISE * noise, _ROUNDING * float(reach)), padding


def _without(voxels: npt.NDArray[np.float32], values: tuple[float, ...]) -> npt.NDArray[np.float32]:
    return voxels[~np.isin(voxels, np.asarray(values, np.float32))] if values else voxels


def _is_dark(around: npt.NDArray[np.float32], voxels: npt.NDArray[np.float32]) -> bool:
    """Whether a part of the border is air: nearly of one value, the lowest there is; tissue is neither."""
    low, high = np.percentile(voxels, BRAIN_PERCENTILES)
    near, far = np.percentile(around, (5, 95))
    return bool(far - near <= _MOST_NOISE * (high - low) and near <= low + _DARKEST * (high - low))


def _find_padding(
    faces: list[npt.NDArray[np.float32]], background: float, sample: npt.NDArray[np.float32]
) -> tuple[float, ...]:
    """Values other than the background's that fill areas of the border, and that no tissue has.

    Reslicing and a round field of view leave them: 0, -1, -1000, -3024 or -32768 beside the air's own value.

    Args:
        faces: the six of the volume, two dimensions each.
        background: the median of their voxels.
        sample: voxels of the whole volume.
    """
    flat = [
        face[ndimage.maximum_filter(face, _FLAT) == ndimage.minimum_filter(face, _FLAT)] for face in faces
    ]
    values, counts = np.unique(np.concatenate(flat), return_counts=True)
    fewest = _LEAST_PADDING * sum(face.size for face in faces)
    found = values[(counts >= fewest) & np.isfinite(values) & (values != np.float32(background))]
    if not found.size:
        return ()
    rest = sample[~np.isin(sample, found) & (sample != np.float32(background))]
    if not rest.size:
        return ()
    low, high = np.percentile(rest, BRAIN_PERCENTILES)
    # A bright value may be fat that saturates where the scan ends; far beyond all tissue it is padding.
    return tuple(float(value) for value in found if value < low or value > high + (high - low))


def axial_slices(
    volume: Volume, count: int, note: Note = lambda kind, detail: None
) -> Iterator[tuple[int, GrayImage]]:
    """Yield `count` axial slices, evenly spaced through the brain, from feet to head.

    A slice is shown as radiologists see it: anterior up, the patient's right on the left. One window,
    between percentiles inside the brain, serves the whole volume; outside the brain stays black. A slice that
    shows nothing is left out.

    Args:
        volume: from read_volume.
        count: how many slices; fewer where the brain has fewer.
        note: told (kind, detail) of each slice that was left out.

    Yields:
        (index along the superior axis, image (height, width) uint8).

    Raises:
        BadImageError: no voxel differs from the background, the brain is of one brightness, or no slice shows
            anything.
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
    empty = 0
    for index in indices:
        windowed = linear_to_8bit(volume.voxels[..., index], low, high)
        # Air inside the brain is a dark spot of it; black is what reaches it from outside.
        is_shown = ndimage.binary_fill_holes(is_brain[..., index])
        shown = np.where(is_shown, windowed, np.uint8(0))
        if _is_empty(shown, is_shown):
            empty += 1
            note("empty_slice", f"slice {index} shows nothing and is left out")
            continue
        # (right, anterior) → rows from anterior to posterior, columns from right to left
        yield int(index), np.ascontiguousarray(shown[::-1, ::-1].T)
    if empty == len(indices):
        raise BadImageError("shows_nothing", f"none of {empty} slices shows anything")


def _is_empty(shown: GrayImage, is_shown: npt.NDArray[np.bool_]) -> bool:
    """Whether a slice shows nothing where the brain is; its field of view may be much larger.

    Args:
        shown: (right, anterior), uint8.
        is_shown: (right, anterior); True is brain.
    """
    if not is_shown.any():
        return True
    rows, columns = (np.flatnonzero(is_shown.any(axis=axis)) for axis in (1, 0))
    box = shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return shows_nothing(np.bincount(box.ravel(), minlength=256))
