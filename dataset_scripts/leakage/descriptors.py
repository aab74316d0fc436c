"""A linear descriptor of a picture's central part, and the references whose descriptors come into question.

Thumbnails → `Descriptor` → `find_candidates` → alignment.py. Linear, so that an inverted picture has the
negative descriptor and one product with all references serves both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy import sparse

from dataset_scripts.leakage.warps import (
    NO_WARP,
    ORIENTATIONS,
    THUMBNAIL_SIDE,
    FloatArray,
    Pixels,
    blur,
    corners,
    grid,
    normalize,
    orient,
    sample,
    window,
)

SHORT_LENGTH = 64  # of the first components: what the comparison with every reference looks at

_SIDE = 32

_LENGTH = 192

_BAND = (1.6, 6.0)  # blur widths, in descriptor pixels: finer is noise, coarser is every chest

_EDGE_WEIGHT, _EDGE_WIDTH = 0.3, 7  # at the edge, and from where on all counts, in descriptor pixels

_WHITENING = 0.8

_SMALLEST_COMPONENT = 0.02  # of the largest; below lies noise that whitening would blow up

_FITTED_AT_LEAST = 1024  # a few pictures alone would be whitened as if nothing else could be seen

_DESCRIBED_AT_ONCE = 512

_REFERENCES_AT_ONCE = 512  # with as many queries as near_duplicates.py hands over, scores fit a core's cache

_LISTED = 96  # references a query that all windows and orientations are tried on

_RANKED = 24  # of these, ranked by the whole descriptor


def _squares(side: float, steps: int) -> list[FloatArray]:
    """Return windows of one size, `steps` a side, spread evenly."""
    places = [(1 - side) * (step + 0.5) / steps for step in range(steps)]
    return [window(side, side, left, top) for left, top in product(places, repeat=2)]


_THIRDS = [0.2 * (step + 0.5) / 3 for step in range(3)]

_ANY_ORIENTATION = [
    window(1, 1, 0, 0),
    *(window(1, 1, 0, 0, degrees) for degrees in (-12, -8, -4, 4, 8, 12)),
    *_squares(0.93, 1),
    *_squares(0.86, 2),
    *_squares(0.79, 3),
    *(window(0.8, 1, left, 0) for left in _THIRDS),
    *(window(1, 0.8, 0, top) for top in _THIRDS),
]

WINDOWS = [*_ANY_ORIENTATION, *_squares(0.73, 4), *_squares(0.68, 5)]  # of a reference, shown by a query

OWN_WINDOWS = [*_squares(0.86, 2), *_squares(0.79, 3)]  # of a query that shows more than the reference

_QUERY_VIEWS = [
    *((orientation, NO_WARP) for orientation in range(ORIENTATIONS)),
    *((orientation, own) for orientation in (0, 1) for own in OWN_WINDOWS),
]

# which windows of the references each view of a query is compared with
_COMPARED = [
    *(WINDOWS if orientation < 2 else _ANY_ORIENTATION for orientation in range(ORIENTATIONS)),
    *([WINDOWS[0]] for _ in range(2 * len(OWN_WINDOWS))),
]


class Descriptor:
    """Band-pass, then whitened principal components of the pictures it was fitted to.

    Args:
        pictures: (pictures, 64, 64), contrast-normalized, a sample of those to describe.
    """

    def __init__(self, pictures: npt.NDArray[np.int8]) -> None:
        self._points = grid(_SIDE)
        fine, coarse = (blur(_SIDE, width) for width in _BAND)
        band = (np.kron(fine, fine) - np.kron(coarse, coarse)) * _edges_less().ravel()
        sampled = sample(pictures, NO_WARP, self._points)
        banded = normalize(sampled @ band.T)
        scatter = banded.T @ banded
        if len(pictures) < _FITTED_AT_LEAST:
            scatter += (_FITTED_AT_LEAST - len(pictures)) * _scatter_of_clouds(band)
        squares = scatter.reshape(_SIDE, _SIDE, _SIDE, _SIDE)
        scatter = scatter + squares[:, ::-1, :, ::-1].reshape(scatter.shape)  # mirrored pictures
        top = (len(scatter) - _LENGTH, len(scatter) - 1)
        sizes, components = scipy.linalg.eigh(scatter, subset_by_index=top)
        relative = np.maximum(np.sqrt(sizes.clip(0) / sizes[-1]), _SMALLEST_COMPONENT)
        whitened = components / relative**_WHITENING
        self._operator = np.asarray(whitened.T[::-1] @ band, np.float32)

    def describe(self, pictures: Pixels, warps: FloatArray) -> FloatArray:
        """Return (n, length), each of length 1; for pictures and warps see sample."""
        described = np.empty((len(pictures), len(self._operator)), np.float32)
        for start in range(0, len(pictures), _DESCRIBED_AT_ONCE):
            part = slice(start, start + _DESCRIBED_AT_ONCE)
            placed = warps if warps.ndim == 2 else warps[part]
            described[part] = sample(pictures[part], placed, self._points) @ self._operator.T
        return normalize(described)

    def describe_windows(self, pictures: npt.NDArray[np.int8]) -> npt.NDArray[np.float16]:
        """Return (windows, n, short length): the references as each of WINDOWS shows them."""
        described = np.empty((len(WINDOWS), len(pictures), SHORT_LENGTH), np.float16)
        for number, warp in enumerate(WINDOWS):
            view = (_sampler(self._points @ warp.T).T @ self._operator[:SHORT_LENGTH].T).T
            for start in range(0, len(pictures), _DESCRIBED_AT_ONCE):
                part = pictures[start : start + _DESCRIBED_AT_ONCE].reshape(-1, THUMBNAIL_SIDE**2)
                shown = normalize(part.astype(np.float32) @ view.T)
                described[number, start : start + len(part)] = shown
        return described


def _edges_less() -> FloatArray:
    """Return (side, side), the weights of the pixels: less towards the edges, where letters are."""
    to_edge = np.minimum(np.arange(_SIDE) + 0.5, _SIDE - 0.5 - np.arange(_SIDE))
    line = np.minimum(1, _EDGE_WEIGHT + (1 - _EDGE_WEIGHT) * to_edge / _EDGE_WIDTH)
    return np.outer(line, line).astype(np.float32)


def _sampler(points: FloatArray) -> sparse.csr_array:
    """Return (points, pixels of a thumbnail): what samples all points at once."""
    first, right, down = corners(points[:, 0], points[:, 1])
    columns = np.concatenate([first, first + 1, first + THUMBNAIL_SIDE, first + THUMBNAIL_SIDE + 1])
    weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    rows = np.tile(np.arange(len(points)), 4)
    return sparse.csr_array((np.concatenate(weights), (rows, columns)), (len(points), THUMBNAIL_SIDE**2))


def _scatter_of_clouds(band: FloatArray) -> FloatArray:
    """Return what one random picture adds to the scatter on average: as in real ones, coarse is strong."""
    blurs = [(width, blur(_SIDE, width)) for width in (0.6, 1.2, 2.4, 4.8)]
    scatter = sum(width**4 * np.kron(matrix @ matrix.T, matrix @ matrix.T) for width, matrix in blurs)
    banded = band @ scatter @ band.T
    return np.asarray(banded / np.trace(banded), np.float32)


@dataclass(frozen=True, slots=True)
class Candidates:
    """For each query (rows) the references that look most like it (columns), best first.

    Attributes:
        references: indices.
        orientations: what `orient` has to do to the query.
        signs: -1 where one of the two is inverted.
        windows: index of WINDOWS, or len(WINDOWS) + index of OWN_WINDOWS: the query shows more.
    """

    references: npt.NDArray[np.intp]
    orientations: npt.NDArray[np.intp]
    signs: FloatArray
    windows: npt.NDArray[np.intp]

    def take(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Self:
        """Return some of them, in another order."""
        return replace(
            self,
            references=self.references[rows, columns],
            orientations=self.orientations[rows, columns],
            signs=self.signs[rows, columns],
            windows=self.windows[rows, columns],
        )


def find_candidates(
    queries: npt.NDArray[np.int8],
    references: npt.NDArray[np.int8],
    described: npt.NDArray[np.float16],
    descriptor: Descriptor,
    count: int,
    effort: int = 1,
) -> Candidates:
    """Find the references that look most like each query.

    Args:
        queries: (queries, 64, 64), contrast-normalized.
        references: (references, 64, 64), contrast-normalized.
        described: of `Descriptor.describe_windows`.
        descriptor: what described them.
        count: columns wanted.
        effort: times the usual number of references that are looked at more closely.
    """
    views = [descriptor.describe(orient(queries, k), warp) for k, warp in _QUERY_VIEWS]
    listed = _short_list([view[:, :SHORT_LENGTH] for view in views], described, effort * _LISTED)
    rows = np.arange(len(queries))[:, None]
    best = np.zeros(listed.shape, np.float32)  # signed
    where = np.zeros((*listed.shape, 2), np.intp)  # view of the query, window of the reference
    for number in range(len(WINDOWS)):
        part = described[number][listed].astype(np.float32)
        for view, windows in enumerate(_COMPARED):
            if number < len(windows):
                scores = (part @ views[view][:, :SHORT_LENGTH, None])[..., 0]
                better = np.abs(scores) > np.abs(best)
                best[better] = scores[better]
                where[better] = view, number
    order = np.argsort(-np.abs(best), axis=1, kind="stable")[:, : effort * _RANKED]
    best, where, listed = best[rows, order], where[rows, order], listed[rows, order]
    seen = np.stack(views, axis=1)[rows, where[..., 0]]
    warps = np.stack(WINDOWS)[where[..., 1].ravel()]
    whole = descriptor.describe(references[listed.ravel()], warps).reshape(*listed.shape, -1)
    scores = (seen * whole).sum(axis=2) * np.sign(best)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    best, where, listed = best[rows, order], where[rows, order], listed[rows, order]
    orientations = np.array([orientation for orientation, _ in _QUERY_VIEWS])[where[..., 0]]
    own = (where[..., 0] - ORIENTATIONS) % len(OWN_WINDOWS)
    shown = np.where(where[..., 0] < ORIENTATIONS, where[..., 1], len(WINDOWS) + own)
    return Candidates(listed, orientations, np.where(best < 0, -1, 1).astype(np.float32), shown)


def _short_list(
    views: Sequence[FloatArray], described: npt.NDArray[np.float16], listed: int
) -> npt.NDArray[np.intp]:
    """Return (queries, listed or less): those whose first components most agree in a view, or disagree."""
    queries = len(views[0])
    views = [np.ascontiguousarray(view) for view in views]
    best = np.zeros((queries, 0), np.intp)
    highest = np.zeros((queries, 0), np.float32)
    for start in range(0, described.shape[1], _REFERENCES_AT_ONCE):
        part = described[:, start : start + _REFERENCES_AT_ONCE].astype(np.float32).swapaxes(1, 2)
        part = np.ascontiguousarray(part)
        most = np.zeros((queries, part.shape[2]), np.float32)
        least, scores = np.zeros_like(most), np.empty_like(most)
        for view, windows in zip(views, _COMPARED, strict=True):
            for number in range(len(windows)):
                np.matmul(view, part[number], out=scores)
                np.maximum(most, scores, out=most)
                np.minimum(least, scores, out=least)
        np.maximum(most, -least, out=most)
        count = min(listed, most.shape[1])
        top = np.argpartition(most, -count, axis=1)[:, -count:]
        best = np.concatenate([best, top + start], axis=1)
        highest = np.concatenate([highest, np.take_along_axis(most, top, axis=1)], axis=1)
        keep = np.argsort(-highest, axis=1, kind="stable")[:, :listed]
        best, highest = np.take_along_axis(best, keep, axis=1), np.take_along_axis(highest, keep, axis=1)
    return best
