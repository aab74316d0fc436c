"""Draw a synthetic brain MRI with a tumour, skull-stripped like BraTS's; `phantom` names the files."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.int16] | npt.NDArray[np.uint8]

# Brightness of background, grey matter, white matter, fluid, edema, tumour core, enhancing rim.
_TISSUE_BRIGHTNESS = {
    "flair": (0, 330, 280, 60, 560, 230, 480),
    "t1": (0, 290, 400, 90, 230, 150, 260),
    "t1ce": (0, 300, 410, 90, 250, 130, 760),
    "t2": (0, 380, 280, 760, 600, 680, 520),
}

_AFFINE = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)

_VOLUME_SHAPE = (240, 240, 155)

_HEAD = (slice(46, 194), slice(28, 212), slice(6, 148))  # the voxels that hold the brain


def draw_head(rng: np.random.Generator) -> Iterator[tuple[str, Volume]]:
    """Draw one subject: "seg" (labels 1, 2, 4), then the four modalities, each volume (240, 240, 155)."""
    tissue = _draw_brain(rng)
    yield "seg", _in_full_volume(np.array([0, 0, 0, 0, 2, 1, 4], dtype=np.uint8)[tissue])
    for modality, brightness in _TISSUE_BRIGHTNESS.items():
        signal = np.array(brightness, dtype=np.float32)[tissue]
        signal[:, 1:-1] = 0.5 * signal[:, 1:-1] + 0.25 * (signal[:, 2:] + signal[:, :-2])  # partial volumes
        signal[1:-1] = 0.5 * signal[1:-1] + 0.25 * (signal[2:] + signal[:-2])
        grain = rng.integers(-24, 25, size=tissue.shape, dtype=np.int8)
        yield (
            modality,
            _in_full_volume(np.where(tissue > 0, np.maximum(signal + grain, 1), 0).astype(np.int16)),
        )


def write_nifti(path: Path, volume: Volume) -> None:
    """Write with low compression and no time stamp: fast, and the same bytes every time."""
    image = nibabel.Nifti1Image(volume, _AFFINE)
    image.header.set_xyzt_units("mm")
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
        packed.write(image.to_bytes())


def _in_full_volume(head: Volume) -> Volume:
    volume = np.zeros(_VOLUME_SHAPE, dtype=head.dtype)
    volume[_HEAD] = head
    return volume


def _draw_brain(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a brain with a tumour: tissue numbers in the order of `_TISSUE_BRIGHTNESS`, shape of `_HEAD`."""
    shape = tuple(part.stop - part.start for part in _HEAD)
    scale = rng.uniform(0.92, 1.0)
    x, y, z = (
        (
            np.arange(length, dtype=np.float32)[
                tuple(slice(None) if other == axis else None for other in range(3))
            ]
            - np.float32(length / 2)
        )
        / np.float32(scale * length / 2)
        for axis, length in enumerate(shape)
    )
    folds = _noise_volume(rng, shape, 24)
    depth = 1 - np.sqrt(x * x + y * y + z * z) + 0.025 * _noise_volume(rng, shape, 8)
    depth -= 0.10 * np.exp(-np.square(x / 0.03)) * (z > -0.2)  # the cleft between the hemispheres
    tissue = np.zeros(shape, dtype=np.uint8)
    tissue[depth > 0.02] = 1
    tissue[depth + 0.06 * folds > 0.19] = 2
    tissue[(np.abs(folds) < 0.15) & (depth > 0.02) & (depth < 0.19)] = 3  # sulci
    horns = (
        np.square((np.abs(x) - 0.10 - 0.12 * y * y) / 0.085)
        + np.square(y / 0.42)
        + np.square((z - 0.12) / 0.2)
    )
    tissue[horns < 1] = 3
    center = (rng.choice((-1, 1)) * rng.uniform(0.36, 0.46), rng.uniform(-0.4, 0.4), rng.uniform(-0.05, 0.35))
    away = np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2)
    away += 0.045 * _noise_volume(rng, shape, 10)
    for number, radius in ((4, 0.36), (6, 0.22), (5, 0.15)):
        tissue[(away < radius * rng.uniform(0.85, 1.1)) & (depth > 0.03)] = number
    return tissue


def _noise_volume(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> npt.NDArray[np.float32]:
    """Smooth noise of about unit variance: a coarse random grid, interpolated along each axis."""
    grid = rng.standard_normal((cells, cells, cells)).astype(np.float32)
    for length in shape:
        place = np.linspace(0, cells - 1.001, length, dtype=np.float32)
        before = place.astype(int)
        share = (place - before)[:, None, None]
        share = share * share * (3 - 2 * share)
        grid = np.moveaxis(grid[before] * (1 - share) + grid[before + 1] * share, 0, 2)
    return grid * np.float32(1.8)
