"""Align pairs of pictures and say how alike their fine detail is: descriptors.py guesses, this decides."""

import numpy as np

from dataset_scripts.leakage.warps import (
    CENTRE,
    NO_WARP,
    THUMBNAIL_SIDE,
    FloatArray,
    Pixels,
    blur,
    grid,
    sample,
)

_COARSE_SIDE, _FINE_SIDE = 22, 44  # sample points a side of the two alignments

_SOFT = 1.2  # blur width of the first

_STEPS = (4, 5)  # of the two alignments

_LARGEST_STEP = 0.06

_OUTLIER = 1.2  # median errors at which a point counts half: letters pull an alignment away

AFFINE: FloatArray = np.eye(6, dtype=np.float32)

SIMILARITY: FloatArray = np.array(  # a size, a turn and a place
    [[1, 0, 0, 0, 1, 0], [0, 1, 0, -1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], np.float32
)

_DETAIL_SIDE = 52  # a thumbnail's own resolution: the finest detail is what strangers lack

_DETAIL_WIDTH = 1.2  # blur width that takes the coarse picture away

_CONTRAST_WIDTH = 2.4

_FAINT = 1.5  # gray levels of local contrast below which detail counts less

_TILES = 4  # a side

_COVERED = 3  # tiles of the 16 that may show letters, or nothing at all


def align_coarsely(pictures: Pixels, templates: Pixels, starts: FloatArray) -> list[FloatArray]:
    """Improve warps roughly, in two ways; see align. Letters mislead the one that may squeeze and shear."""
    matrix = blur(THUMBNAIL_SIDE, _SOFT)
    soft = [matrix @ images.astype(np.float32) @ matrix.T for images in (pictures, templates)]
    return [
        align(soft[0], soft[1], starts, _COARSE_SIDE, _STEPS[0], freedom) for freedom in (SIMILARITY, AFFINE)
    ]


def align(
    pictures: Pixels,
    templates: Pixels,
    starts: FloatArray,
    side: int = _FINE_SIDE,
    steps: int = _STEPS[1],
    freedom: FloatArray = AFFINE,
) -> FloatArray:
    """Improve the warps (pairs, 2, 3) that say where the templates' points lie in the pictures.

    What fits badly (letters, say) counts little.

    Args:
        pictures: (pairs, 64, 64), contrast-normalized.
        templates: (pairs, 64, 64), contrast-normalized.
        starts: (pairs, 2, 3).
        side: sample points a side.
        steps: of Gauss-Newton.
        freedom: (parameters, 6), the changes of a warp that a step may combine.

    Source: inverse compositional alignment, Baker and Matthews 2004, IJCV 56(3); iteratively reweighted.
    """
    points = grid(side)
    target = _standardize(sample(templates, NO_WARP, points))
    spacing = np.float32((CENTRE[1] - CENTRE[0]) / side)
    slopes = [slope / spacing for slope in np.gradient(target.reshape(-1, side, side), axis=(1, 2))]
    y_slope, x_slope = (slope.reshape(len(target), -1) for slope in slopes)
    descent = np.stack([slope * points[:, axis] for slope in (x_slope, y_slope) for axis in range(3)], axis=1)
    descent = freedom @ descent
    damping = np.float32(1e-2) * np.eye(len(freedom), dtype=np.float32)
    warp = np.zeros((len(starts), 3, 3), np.float32)
    warp[:, :2], warp[:, 2, 2] = starts, 1
    for _ in range(steps):
        error = _standardize(sample(pictures, warp[:, :2], points)) - target
        spread = np.median(np.abs(error), axis=1, keepdims=True) + np.float32(0.05)
        weighted = descent * (1 / (1 + (error / (np.float32(_OUTLIER) * spread)) ** 2))[:, None]
        hessian = weighted @ descent.swapaxes(1, 2) + damping
        change = (np.linalg.solve(hessian, weighted @ error[..., None])[..., 0] @ freedom).reshape(-1, 2, 3)
        moved = np.zeros_like(warp)
        moved[:] = np.eye(3)
        moved[:, :2] += change.clip(-_LARGEST_STEP, _LARGEST_STEP)
        warp = warp @ np.linalg.inv(moved)
    return warp[:, :2]


def correlate_detail(pictures: Pixels, templates: Pixels, warps: FloatArray) -> FloatArray:
    """Return (pairs,), -1 to 1: the mean correlation of fine detail in those of 16 tiles that agree best.

    Args:
        pictures: (pairs, 64, 64), gray, or its negative.
        templates: (pairs, 64, 64), gray.
        warps: (pairs, 2, 3), where the templates' points lie in the pictures.
    """
    points = grid(_DETAIL_SIDE)
    side = _DETAIL_SIDE // _TILES
    tiles = []
    for images, warp in ((pictures, warps), (templates, NO_WARP)):
        gray = sample(images, warp, points)
        detail = gray - _blur_details(gray, _DETAIL_WIDTH)
        contrast = np.sqrt(_blur_details(detail**2, _CONTRAST_WIDTH))
        detail = detail / (contrast + np.float32(_FAINT))
        parts = (
            detail.reshape(-1, _TILES, side, _TILES, side).swapaxes(2, 3).reshape(len(images), _TILES**2, -1)
        )
        tiles.append(parts - parts.mean(axis=2, keepdims=True))
    left, right = tiles
    energies = [(part**2).sum(axis=2) for part in tiles]
    usual = np.sqrt(energies[0].mean(axis=1, keepdims=True) * energies[1].mean(axis=1, keepdims=True))
    scale = np.sqrt(energies[0] * energies[1]) + np.float32(0.1) * usual + np.float32(1e-6)
    ranked = np.sort((left * right).sum(axis=2) / scale, axis=1)
    return np.asarray(ranked[:, _COVERED:].mean(axis=1), np.float32)


def _blur_details(rows: FloatArray, width: float) -> FloatArray:
    """Blur pictures given as rows (pictures, _DETAIL_SIDE²)."""
    matrix = blur(_DETAIL_SIDE, width)
    return np.asarray((matrix @ rows.reshape(-1, _DETAIL_SIDE, _DETAIL_SIDE) @ matrix.T).reshape(rows.shape))


def _standardize(rows: FloatArray) -> FloatArray:
    centered = rows - rows.mean(axis=1, keepdims=True)
    return centered / np.maximum(centered.std(axis=1, keepdims=True), np.float32(1e-3))
