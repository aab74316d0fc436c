"""Find, among many reference pictures, the one that a picture shows: resized, recompressed, cropped, turned.

Thumbnails → `best_matches` → guard.py. It knows nothing of patients, splits or files.

Two steps. Candidates: a linear descriptor (band-pass, then whitened principal components) of the
reference's central part is compared with the same part of the query as it would lie after each of some crops
and turns; the first components list the references that come into question, all of them rank the list.
Confirmation: the best candidates are aligned (affine, inverse compositional Gauss-Newton) and their fine
detail is correlated. All chests look alike when blurred; their ribs and vessels do not. What counts is the
mean of the two steps' correlations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy import sparse
from threadpoolctl import threadpool_limits

THUMBNAIL_SIDE = 64

FloatArray = npt.NDArray[np.float32]

_CENTRE = (0.1, 0.9)  # survives a crop of a tenth wherever it is taken

_DESCRIPTOR_SIDE = 32

_DESCRIPTOR_LENGTH = 192

_DESCRIPTOR_BAND = (1.0, 5.0)  # blur widths, in descriptor pixels: finer is noise, coarser is every chest

_SHORT_LENGTH = 64  # of the first components: what the comparison with every reference looks at

_LISTED = 64  # references that pass it; each of 1,768 changed copies stood first among 1,104

_WHITENING = 0.8

_SMALLEST_COMPONENT = 0.02  # of the largest; below lies noise that whitening would blow up

_FITTED_ON = 2048

_FITTED_AT_LEAST = 1024  # a few pictures alone would be whitened as if nothing else could be seen

_CANDIDATES = 4

_PLAUSIBLE = 0.55  # descriptor score of a candidate worth aligning: true ones measured .72 and more

_DETAIL_SIDE = 44

_DETAIL_WIDTH = 1.6  # blur width that takes the coarse picture away

_FAINT = 20.0  # equalised gray levels of local contrast below which detail counts less

_STEPS = 5  # of the coarse and of the fine alignment

_PROMISING = 0.35  # detail correlation after the coarse alignment; unrelated pairs stay below

_QUERIES_AT_ONCE = 1024

_REFERENCES_AT_ONCE = 2048

_LEAST_FOR_THREADS = 1_000_000  # pairs


@dataclass(frozen=True, slots=True)
class Match:
    """The reference a query shows best, and how well they correlate (-1 to 1).

    The mean of two: the descriptor, which sees the shapes, and the aligned fine detail. Strangers that are
    alike in one are rarely alike in the other.
    """

    reference: int
    correlation: float


def best_matches(
    queries: npt.NDArray[np.uint8],
    references: npt.NDArray[np.uint8],
    progress: Callable[[int], object] | None = None,
) -> list[Match]:
    """Find for each query the reference it shows best.

    Args:
        queries: (queries, 64, 64), uint8.
        references: (references, 64, 64), uint8, at least one.
        progress: called with the number of queries done since the last call.

    Returns:
        One match a query, its correlation 0 where no reference was worth aligning (a flat picture, for
        one). Memory beyond the arguments is bounded.
    """
    # Threads of a BLAS wait for each other by spinning: where another process has a core, each small product
    # takes as long as the system lets it. One thread is enough for these.
    with threadpool_limits(1, "blas"):
        basis = _fit_basis(queries, references)
        views = [(_view(*placement).T @ basis.T).T for placement in _placements()]
    is_small = len(queries) * len(references) < _LEAST_FOR_THREADS
    matches: list[Match] = []
    with threadpool_limits(1 if is_small else None, "blas"):
        described = _describe(references, views[0])
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = queries[start : start + _QUERIES_AT_ONCE]
            matches += _confirm(part, references, *_candidates(part, described, views))
            if progress is not None:
                progress(len(part))
    return matches


def _placements() -> list[tuple[float, float, float, float]]:
    """Crops and turns to try: (kept share of the sides, left and top as shares of the rest, degrees)."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    return [
        (1.0, 0.0, 0.0, 0.0),
        *((1.0, 0.0, 0.0, degrees) for degrees in (-2.4, -1.2, 1.2, 2.4)),
        *((0.9, left, top, 0.0) for left, top in product(quarters, quarters)),
    ]


def _affine(keep: float, left: float, top: float, degrees: float) -> npt.NDArray[np.float64]:
    """Return (2, 3): where a point of the reference, as shares from its center, lies in the query."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / keep
    offset = (0.5 - np.array([left, top]) * (1 - keep)) / keep - 0.5
    return np.concatenate([turn, offset[:, None]], axis=1)


def _grid(side: int) -> npt.NDArray[np.float64]:
    """Return (side², 3): sample points of the central part, as shares from the center, with a 1."""
    line = _CENTRE[0] + (np.arange(side) + 0.5) / side * (_CENTRE[1] - _CENTRE[0]) - 0.5
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel(), np.ones(side**2)], axis=1)


def _corners(
    points: npt.NDArray[np.floating],
) -> tuple[list[npt.NDArray[np.intp]], list[npt.NDArray[np.floating]]]:
    """Return flat indices and weights of the four pixels around each point (…, 2), for bilinear sampling."""
    pixels = np.clip((points + 0.5) * THUMBNAIL_SIDE - 0.5, 0, THUMBNAIL_SIDE - 1.001)
    whole = pixels.astype(np.intp)
    part = pixels - whole
    indices, weights = [], []
    for down, right in product((0, 1), repeat=2):
        indices.append((whole[..., 1] + down) * THUMBNAIL_SIDE + whole[..., 0] + right)
        x_weight = part[..., 0] if right else 1 - part[..., 0]
        y_weight = part[..., 1] if down else 1 - part[..., 1]
        weights.append(x_weight * y_weight)
    return indices, weights


def _blur(side: int, width: float) -> FloatArray:
    """Return the (side, side) matrix that blurs a line of pixels by a Gaussian."""
    places = np.arange(side)
    kernel = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)


def _blur_squares(rows: FloatArray, side: int, width: float) -> FloatArray:
    """Blur pictures given as rows (pictures, side²)."""
    blur = _blur(side, width)
    return np.asarray((blur @ rows.reshape(-1, side, side) @ blur.T).reshape(rows.shape))


def _view(keep: float, left: float, top: float, degrees: float) -> sparse.csr_array:
    """Return (pixels of the descriptor, pixels of a thumbnail): what samples the placed center."""
    points = _grid(_DESCRIPTOR_SIDE) @ _affine(keep, left, top, degrees).T
    indices, weights = (np.concatenate(parts) for parts in _corners(points))
    rows = np.tile(np.arange(len(points)), 4)
    shape = (len(points), THUMBNAIL_SIDE**2)
    return sparse.csr_array((weights.astype(np.float32), (rows, indices)), shape=shape)


def _fit_basis(queries: npt.NDArray[np.uint8], references: npt.NDArray[np.uint8]) -> FloatArray:
    """Return (descriptor length, descriptor pixels): band-pass, then whitened principal components."""
    fine, coarse = (_blur(_DESCRIPTOR_SIDE, width) for width in _DESCRIPTOR_BAND)
    band = np.kron(fine, fine) - np.kron(coarse, coarse)
    sample = [pictures[:: max(1, 2 * len(pictures) // _FITTED_ON)] for pictures in (queries, references)]
    pictures = np.concatenate(sample).reshape(-1, THUMBNAIL_SIDE**2).astype(np.float32)
    banded = _normalize((_view(1.0, 0.0, 0.0, 0.0) @ pictures.T).T @ band.T)
    scatter = banded.T @ banded
    if len(pictures) < _FITTED_AT_LEAST:
        scatter += (_FITTED_AT_LEAST - len(pictures)) * _scatter_of_clouds(band)
    top = (len(scatter) - _DESCRIPTOR_LENGTH, len(scatter) - 1)
    sizes, components = scipy.linalg.eigh(scatter, subset_by_index=top)
    relative = np.maximum(np.sqrt(sizes.clip(0) / sizes[-1]), _SMALLEST_COMPONENT)
    whitened = components / relative**_WHITENING
    return np.asarray(whitened.T[::-1] @ band, np.float32)


def _scatter_of_clouds(band: FloatArray) -> FloatArray:
    """Return what one random picture adds to the scatter on average: as in real ones, coarse is strong."""
    blurs = [(width, _blur(_DESCRIPTOR_SIDE, width)) for width in (0.6, 1.2, 2.4, 4.8)]
    scatter = sum(width**4 * np.kron(blur @ blur.T, blur @ blur.T) for width, blur in blurs)
    banded = band @ scatter @ band.T
    return np.asarray(banded / np.trace(banded), np.float32)


def _normalize(rows: FloatArray) -> FloatArray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-6))


def _describe(pictures: npt.NDArray[np.uint8], operator: FloatArray) -> FloatArray:
    described = np.empty((len(pictures), len(operator)), np.float32)
    for start in range(0, len(pictures), _REFERENCES_AT_ONCE):
        part = pictures[start : start + _REFERENCES_AT_ONCE].reshape(-1, THUMBNAIL_SIDE**2)
        described[start : start + len(part)] = part.astype(np.float32) @ operator.T
    return described


def _candidates(
    queries: npt.NDArray[np.uint8], described: FloatArray, views: list[FloatArray]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Return, for each query, the references that look best, how each was placed, and how well it looks.

    The first components alone choose a short list among all references; the whole descriptor ranks it.
    """
    pixels = queries.reshape(len(queries), -1).astype(np.float32)
    seen = np.stack([pixels @ view.T for view in views], axis=1)
    listed = _short_list(_normalize(seen[..., :_SHORT_LENGTH]), described)
    scores = _normalize(seen) @ _normalize(described[listed]).transpose(0, 2, 1)
    highest = scores.max(axis=1)
    keep = np.argsort(-highest, axis=1, kind="stable")[:, :_CANDIDATES]
    placed = np.take_along_axis(scores.argmax(axis=1), keep, axis=1)
    return np.take_along_axis(listed, keep, axis=1), placed, np.take_along_axis(highest, keep, axis=1)


def _short_list(seen: FloatArray, described: FloatArray) -> npt.NDArray[np.intp]:
    """Return (queries, listed): the references whose first components agree best with any view.

    Args:
        seen: (queries, views, short length), normalized.
        described: (references, descriptor length).
    """
    by_view = np.ascontiguousarray(seen.transpose(1, 0, 2))
    best = np.zeros((len(seen), 0), np.intp)
    scores = np.zeros((len(seen), 0), np.float32)
    for start in range(0, len(described), _REFERENCES_AT_ONCE):
        part = _normalize(described[start : start + _REFERENCES_AT_ONCE, :_SHORT_LENGTH]).T
        highest = by_view[0] @ part
        score = np.empty_like(highest)
        for rows in by_view[1:]:
            np.maximum(highest, np.matmul(rows, part, out=score), out=highest)
        count = min(_LISTED, part.shape[1])
        top = np.argpartition(highest, -count, axis=1)[:, -count:]
        best = np.concatenate([best, top + start], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(highest, top, axis=1)], axis=1)
        keep = np.argsort(-scores, axis=1, kind="stable")[:, :_LISTED]
        best, scores = np.take_along_axis(best, keep, axis=1), np.take_along_axis(scores, keep, axis=1)
    return best


def _confirm(
    queries: npt.NDArray[np.uint8],
    references: npt.NDArray[np.uint8],
    candidates: npt.NDArray[np.intp],
    placed: npt.NDArray[np.intp],
    scores: FloatArray,
) -> list[Match]:
    starts = np.stack([_affine(*placement) for placement in _placements()])
    correlations = np.zeros(candidates.shape, np.float32)
    for column in range(candidates.shape[1]):
        rows = np.flatnonzero(scores[:, column] >= _PLAUSIBLE)
        if not rows.size:
            continue
        chosen = candidates[rows, column]
        detail = aligned_correlation(queries[rows], references[chosen], starts[placed[rows, column]])
        correlations[rows, column] = (scores[rows, column] + detail) / 2
    best = correlations.argmax(axis=1)
    return [
        Match(int(candidates[row, column]), float(correlations[row, column]))
        for row, column in enumerate(best)
    ]


def aligned_correlation(
    queries: npt.NDArray[np.uint8], references: npt.NDArray[np.uint8], starts: npt.NDArray[np.float64]
) -> FloatArray:
    """Align each query to its reference and correlate their fine detail over the reference's center.

    A coarse alignment comes first; pairs that are nothing alike after it are not refined.

    Args:
        queries: (pairs, 64, 64), uint8.
        references: (pairs, 64, 64), uint8.
        starts: (pairs, 2, 3), first guess of where the reference's points lie in the query.

    Returns:
        (pairs,), -1 to 1; 0 where either has no detail.
    """
    smooth = _blur(THUMBNAIL_SIDE, 1.0)
    soft_queries = smooth @ queries.astype(np.float32) @ smooth.T
    soft_references = smooth @ references.astype(np.float32) @ smooth.T
    warp = _align(soft_queries, soft_references, starts.astype(np.float32), _DETAIL_SIDE // 2)
    correlation = _correlate_detail(queries, references, warp)
    promising = np.flatnonzero(correlation >= _PROMISING)
    if promising.size:
        refined = _align(soft_queries[promising], soft_references[promising], warp[promising], _DETAIL_SIDE)
        again = _correlate_detail(queries[promising], references[promising], refined)
        correlation[promising] = np.maximum(correlation[promising], again)
    return correlation


def _align(queries: FloatArray, references: FloatArray, starts: FloatArray, side: int) -> FloatArray:
    """Improve the warps (pairs, 2, 3) that say where the references' points lie in the queries.

    Source: inverse compositional alignment, Baker and Matthews 2004, IJCV 56(3).
    """
    grid = _grid(side).astype(np.float32)
    target = _standardise(_sample(references, _no_warp(len(starts)), grid))
    step = np.float32((_CENTRE[1] - _CENTRE[0]) / side)
    slopes = [slope / step for slope in np.gradient(target.reshape(-1, side, side), axis=(1, 2))]
    y_slope, x_slope = (slope.reshape(len(target), -1) for slope in slopes)
    descent = np.stack([slope * grid[:, axis] for slope in (x_slope, y_slope) for axis in range(3)], axis=1)
    hessian = descent @ descent.transpose(0, 2, 1) + np.float32(1e-3) * np.eye(6, dtype=np.float32)
    solve = np.linalg.inv(hessian) @ descent
    warp = np.zeros((len(starts), 3, 3), np.float32)
    warp[:, :2], warp[:, 2, 2] = starts, 1
    for _ in range(_STEPS):
        error = _standardise(_sample(queries, warp[:, :2], grid)) - target
        change = (solve @ error[..., None]).reshape(-1, 2, 3).clip(-0.05, 0.05)
        moved = np.zeros_like(warp)
        moved[:] = np.eye(3)
        moved[:, :2] += change
        warp = warp @ np.linalg.inv(moved)
    return warp[:, :2]


def _no_warp(count: int) -> FloatArray:
    return np.broadcast_to(np.eye(2, 3, dtype=np.float32), (count, 2, 3))


def _sample(pictures: FloatArray, warp: FloatArray, grid: FloatArray) -> FloatArray:
    """Return (pairs, points): each picture where its warp puts the grid."""
    points = grid @ warp.transpose(0, 2, 1)
    flat = pictures.reshape(len(pictures), -1)
    sampled = np.zeros(points.shape[:2], np.float32)
    for index, weight in zip(*_corners(points), strict=True):
        sampled += np.take_along_axis(flat, index, axis=1) * weight
    return sampled


def _standardise(rows: FloatArray) -> FloatArray:
    centered = rows - rows.mean(axis=1, keepdims=True)
    return centered / np.maximum(centered.std(axis=1, keepdims=True), np.float32(1e-3))


def _correlate_detail(
    queries: npt.NDArray[np.uint8], references: npt.NDArray[np.uint8], warp: FloatArray
) -> FloatArray:
    grid = _grid(_DETAIL_SIDE).astype(np.float32)
    details = []
    for pictures, placed in ((queries, warp), (references, _no_warp(len(warp)))):
        rows = _equalise(_sample(pictures.astype(np.float32), placed, grid))  # no gamma curve matters
        detail = rows - _blur_squares(rows, _DETAIL_SIDE, _DETAIL_WIDTH)
        contrast = np.sqrt(_blur_squares(detail**2, _DETAIL_SIDE, 2 * _DETAIL_WIDTH))
        detail = detail / (contrast + np.float32(_FAINT))
        details.append(_normalize(detail - detail.mean(axis=1, keepdims=True)))
    return np.asarray((details[0] * details[1]).sum(axis=1), np.float32)


def _equalise(rows: FloatArray) -> FloatArray:
    """Replace each value by its rank, 0 to 255: the same for every increasing gray-level curve."""
    is_flat = np.ptp(rows, axis=1, keepdims=True) < 1e-3
    ranks = rows.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.where(is_flat, 0, ranks * (255.0 / rows.shape[1])).astype(np.float32)
