"""The chest region of a picture: the convex hull of both lungs, or a rectangle where none was found.

Masks of lungs, drawn by hand or by a network → here → `chest_contour`, which writes it, and the masks that
follow the chest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull

Outline = npt.NDArray[np.float64]

SMALLEST_SHARE, LARGEST_SHARE = 0.1, 0.9
"""Of the picture; 284 hand-drawn regions lie between .13 and .83."""

_RECTANGLE = np.array([(0.15, 0.3), (0.8, 0.3), (0.8, 0.8), (0.15, 0.8)])
"""Rows 6 to 15 and columns 3 to 15 of 20: where HD_Xray_Pretrain_MAE looks for every chest."""

_THRESHOLD = 0.5  # of the probability

_SMALLEST_LUNG = 0.15  # of the larger one's area; less is no lung

_FINENESS = 4  # parts of a cell that the outline is found to


@dataclass(frozen=True, slots=True)
class ChestRegion:
    """Where the chest is.

    Attributes:
        outline: (corners, 2), x and y as shares of the picture's width and height; convex.
        is_fallback: whether it is the rectangle, as the lungs that were found cannot be both lungs.
    """

    outline: Outline
    is_fallback: bool = False

    @property
    def share(self) -> float:
        """The share of the picture that the region covers."""
        x, y = self.outline.T
        return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)

    def draw(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """Draw the region at any size: (height, width), 255 where a pixel's center is inside, else 0."""
        rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        left, right = np.full(height, np.inf), np.full(height, -np.inf)
        for (x, y), (next_x, next_y) in zip(self.outline, np.roll(self.outline, -1, axis=0), strict=True):
            if y == next_y:
                continue
            crossed = (rows >= min(y, next_y)) & (rows <= max(y, next_y))
            crossings = x + (rows[crossed] - y) * ((next_x - x) / (next_y - y))
            left[crossed] = np.minimum(left[crossed], crossings)
            right[crossed] = np.maximum(right[crossed], crossings)
        inside = (columns >= left[:, None]) & (columns <= right[:, None])  # a convex outline: one run a row
        return np.where(inside, np.uint8(255), np.uint8(0))


RECTANGLE = ChestRegion(_RECTANGLE, is_fallback=True)


def region_of_mask(is_lung: npt.NDArray[np.bool_], largest_share: float = LARGEST_SHARE) -> ChestRegion:
    """The convex hull of a mask of both lungs, or the rectangle where its share is out of bounds.

    Args:
        is_lung: (height, width) of any size.
        largest_share: of the picture; a larger hull is not a chest's.
    """
    [rows] = np.nonzero(is_lung.any(axis=1))
    if not rows.size:
        return RECTANGLE
    height, width = is_lung.shape
    first = is_lung[rows].argmax(axis=1)
    last = width - is_lung[rows, ::-1].argmax(axis=1)
    corners = [np.stack([x, y], axis=1) for x in (first, last) for y in (rows, rows + 1)]
    points = np.concatenate(corners).astype(np.float64)
    region = ChestRegion(points[ConvexHull(points).vertices] / (width, height))
    return region if SMALLEST_SHARE <= region.share <= largest_share else RECTANGLE


def region_of_probabilities(probabilities: npt.NDArray[np.floating[Any]]) -> ChestRegion:
    """The region around what is probably lung.

    Args:
        probabilities: (height, width) in a coarse grid over the picture, values in 0..1.
    """
    height, width = probabilities.shape
    grid = Image.fromarray(probabilities.astype(np.float32))
    fine = np.asarray(grid.resize((_FINENESS * width, _FINENESS * height), Image.Resampling.BILINEAR))
    parts, count = ndimage.label(fine > _THRESHOLD)
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    areas[0] = 0  # the background
    is_large = areas >= max(1, _SMALLEST_LUNG * areas.max())
    return region_of_mask(is_large[parts])
