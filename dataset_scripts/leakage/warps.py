"""Pictures laid over each other: quarter turns, windows, affine warps, and the sampling that they need.

Stands below descriptors.py and alignment.py. A thumbnail is a square picture; a point of it is (x, y) in
shares of its side from its center. A warp (2, 3) says where a point of one picture lies in another.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

THUMBNAIL_SIDE = 64

ORIENTATIONS = 8  # four quarter turns, mirrored or not

FloatArray = npt.NDArray[np.float32]

Pixels = npt.NDArray[Any]  # gray or contrast-normalized, of any type

CENTRE = (0.1, 0.9)  # of a picture: what is compared, as markers and corners lie at the edges

NO_WARP: FloatArray = np.eye(2, 3, dtype=np.float32)

_FINEST, _COARSEST = 1.0, 6.0  # blur widths in thumbnail pixels: finer is noise, coarser is brightness

_FAINT = 6.0  # gray levels of local contrast that count as none

_NORMALIZED_AT_ONCE = 256

_SAMPLED_AT_ONCE = 32_768  # points: what is computed of them stays in a core's cache

_STRONGEST = 1.0  # beyond lie letters and metal, which would outweigh the body


def orient(pictures: Pixels, number: int) -> Pixels:
    """Mirror (n, side, side) if the number is odd, then turn counterclockwise by number // 2 quarters."""
    if number % 2:
        pictures = pictures[:, :, ::-1]
    return np.rot90(pictures, number // 2, axes=(1, 2))


def orientation_warps(numbers: npt.NDArray[np.intp]) -> FloatArray:
    """Return the warps (n, 2, 3) that say where a point of an oriented picture lies in the picture itself."""
    mirror, quarter = np.diag([-1, 1]), np.array([[0, -1], [1, 0]])
    turns = [np.linalg.matrix_power(quarter, number // 2) for number in range(ORIENTATIONS)]
    linear = [mirror @ turn if number % 2 else turn for number, turn in enumerate(turns)]
    return np.pad(np.stack(linear).astype(np.float32), ((0, 0), (0, 0), (0, 1)))[numbers]


def window(width: float, height: float, left: float, top: float, degrees: float = 0.0) -> FloatArray:
    """Return the warp (2, 3) of a picture that shows this part of another, in shares of its sides."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = np.array([left + width / 2 - 0.5, top + height / 2 - 0.5])
    return np.concatenate([np.diag([width, height]) @ turn, offset[:, None]], axis=1).astype(np.float32)


def invert(warps: FloatArray) -> FloatArray:
    """Return the warps (n, 2, 3) the other way."""
    back = np.linalg.inv(warps[:, :, :2])
    return np.concatenate([back, -back @ warps[:, :, 2:]], axis=2)


def compose(after: FloatArray, before: FloatArray) -> FloatArray:
    """Return the warps (n, 2, 3) that do one after the other."""
    linear = after[:, :, :2] @ before[:, :, :2]
    return np.concatenate([linear, after[:, :, :2] @ before[:, :, 2:] + after[:, :, 2:]], axis=2)


def grid(side: int) -> FloatArray:
    """Return (side², 3): sample points of the central part, with a 1."""
    line = CENTRE[0] + (np.arange(side) + 0.5) / side * (CENTRE[1] - CENTRE[0]) - 0.5
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel(), np.ones(side**2)], axis=1).astype(np.float32)


def corners(x: FloatArray, y: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """Return, for points, the flat index of the pixel up and left of each, and what lies beyond it."""
    (column, right), (row, down) = (_pixels(line) for line in (x, y))
    return row.astype(np.intp) * THUMBNAIL_SIDE + column, right, down


def _pixels(line: FloatArray) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Return the last pixel at or before each place along a side, and what lies beyond it."""
    places = np.clip((line + np.float32(0.5)) * THUMBNAIL_SIDE - np.float32(0.5), 0, THUMBNAIL_SIDE - 1.001)
    whole = places.astype(np.int32)
    return whole, places - whole.astype(np.float32)


def sample(pictures: Pixels, warps: FloatArray, points: FloatArray) -> FloatArray:
    """Sample bilinearly.

    Args:
        pictures: (n, 64, 64).
        warps: (n, 2, 3), or (2, 3) for all of them.
        points: (points, 3), with a 1.

    Returns:
        (n, points).
    """
    flat = np.ascontiguousarray(pictures).reshape(-1)
    sampled = np.empty((len(pictures), len(points)), np.float32)
    at_once = max(1, _SAMPLED_AT_ONCE // len(points))
    for start in range(0, len(pictures), at_once):
        part = sampled[start : start + at_once]
        placed = (warps if warps.ndim == 2 else warps[start : start + at_once]) @ points.T
        first, right, down = corners(placed[..., 0, :], placed[..., 1, :])
        first = first + np.arange(start, start + len(part))[:, None] * THUMBNAIL_SIDE**2
        rows = []
        for line in (first, first + THUMBNAIL_SIDE):
            left = flat.take(line, mode="clip").astype(np.float32)
            rows.append(left + right * (flat.take(line + 1, mode="clip") - left))
        part[:] = rows[0] + down * (rows[1] - rows[0])
    return sampled


def blur(side: int, width: float) -> FloatArray:
    """Return the (side, side) matrix that blurs a line of pixels by a Gaussian."""
    places = np.arange(side)
    kernel = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)


def normalize(rows: FloatArray) -> FloatArray:
    """Scale to length 1 along the last axis."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-6))


def normalize_contrast(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Return (n, 64, 64): the same contrast everywhere, so that windows and equalisation hardly matter.

    Odd in gray levels: of an inverted picture it is the negative. 8 bits are enough, and a quarter of the
    memory.
    """
    fine, coarse = blur(THUMBNAIL_SIDE, _FINEST), blur(THUMBNAIL_SIDE, _COARSEST)
    normalized = np.empty(pictures.shape, np.int8)
    for start in range(0, len(pictures), _NORMALIZED_AT_ONCE):
        gray = pictures[start : start + _NORMALIZED_AT_ONCE].astype(np.float32)
        detail = fine @ gray @ fine.T - coarse @ gray @ coarse.T
        detail /= np.sqrt(coarse @ detail**2 @ coarse.T) + np.float32(_FAINT)
        levels = np.rint(detail.clip(-_STRONGEST, _STRONGEST) * np.float32(127 / _STRONGEST))
        normalized[start : start + len(gray)] = levels.astype(np.int8)
    return normalized
