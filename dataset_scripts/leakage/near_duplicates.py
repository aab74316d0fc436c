"""Find, among many reference pictures, the one that a picture shows, whatever was done to it since.

Thumbnails → `best_matches` → guard.py. It knows nothing of patients, splits or files.

Two steps. Candidates (descriptors.py): a linear descriptor of the query's central part, turned by quarters
and mirrored, is compared with the windows of every reference that a crop or a turn may have left.
Confirmation (alignment.py): the best candidates are aligned, and their fine detail is correlated. All chests
look alike when blurred; their ribs and vessels do not. A picture of which several references look alike is
held to more: strangers are like many, a copy is like one.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from dataset_scripts.leakage.alignment import align, align_coarsely, correlate_detail
from dataset_scripts.leakage.descriptors import OWN_WINDOWS, WINDOWS, Candidates, Descriptor, find_candidates
from dataset_scripts.leakage.warps import (
    NO_WARP,
    ORIENTATIONS,
    THUMBNAIL_SIDE,
    FloatArray,
    Pixels,
    compose,
    invert,
    normalize_contrast,
    orient,
    orientation_warps,
)

_FITTED_ON = 2048

_CANDIDATES = 12

REFINED = 5
"""Candidates left after the coarse alignment: no query has more matches, and a reference may be two."""

_PLAUSIBLE = 0.45  # descriptors' correlation of a pair worth refining

PART = 256  # queries that a thread looks for at once

_PAIRS_AT_ONCE = 512

_USUAL_RUNNER_UP = 0.3  # fine detail's correlation with the second best reference

_RUNNER_UP_COUNTS = 0.6  # of what it exceeds that by: a picture of which many look like is blurred or smooth

_TWIN_LOOKS = 0.62  # above every stranger that was measured

_SAME_VARIANT = 4.0  # gray levels two variants of a picture differ by on average

_NO_CHANGE = 0.03  # of a side or a scale: below it the alignment's own error lies

_SLIGHT_TURN = 1.0  # degree

Pictures = npt.NDArray[np.uint8]

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Match:
    """The reference a query shows best, how well they correlate, and what was done to the query.

    Attributes:
        reference: its index.
        correlation: -1 to 1, of the aligned pictures' fine detail, less where another reference is nearly
            as like: strangers are like several.
        change: what turns the reference into the query ("mirrored, cropped to 0.81 x 0.80"), empty if
            nothing that the comparison could tell.
    """

    reference: int
    correlation: float
    change: str = ""


NO_MATCH = Match(0, 0.0)


@dataclass(frozen=True, slots=True)
class _Index:
    """The references: gray, contrast-normalized, whose each is, and as their windows look."""

    pictures: Pictures
    normalized: npt.NDArray[np.int8]
    owners: Rows
    descriptor: Descriptor
    described: npt.NDArray[np.float16]
    effort: int


_Chosen = tuple[Rows, Rows]  # rows and columns of Candidates


def best_matches(
    queries: Pictures, references: Pictures, progress: Callable[[int], object] | None = None
) -> list[Match]:
    """Find for each query the reference it shows best.

    Args:
        queries: (queries, 64, 64) or (queries, variants, 64, 64), uint8; see thumbnails.py for variants.
        references: (references, 64, 64) or (references, variants, 64, 64), uint8, at least one.
        progress: called with the number of queries done since the last call.

    Returns:
        One match a query, NO_MATCH where no reference was worth aligning (a flat picture, for
        one). Memory beyond the arguments is bounded but for the references' descriptors, some 9 KB each.
    """
    found: list[Match] = []
    for part in find_matches(queries, references):
        found += [matches[0] if matches else NO_MATCH for matches in part]
        if progress is not None:
            progress(len(part))
    return found


def find_matches(
    queries: Pictures, references: Pictures, own: Rows | None = None, first: int = 0, effort: int = 1
) -> Iterator[list[list[Match]]]:
    """Find for each query the reference it shows best, and others that hold the same picture.

    Args:
        queries: as of best_matches.
        references: as of best_matches.
        own: (queries,), the reference that is the query itself and does not count, or -1.
        first: yield nothing for the queries before this one, a multiple of PART: an earlier run found theirs.
        effort: times as many candidates as usual, for queries that fill the `REFINED` places; as much slower.

    Yields:
        For each PART queries in turn their matches, best first; none where nothing was worth aligning.
    """
    queries, references = (_with_variants(pictures) for pictures in (queries, references))
    own = np.full(len(queries), -1) if own is None else own
    starts = range(first, len(queries), PART)
    parts = [(queries[start : start + PART], own[start : start + PART]) for start in starts]
    # Threads of a BLAS wait for each other by spinning; ours share out the queries instead.
    with threadpool_limits(1, "blas"):
        pictures, owners = _variants(references)
        normalized = normalize_contrast(pictures)
        descriptor = Descriptor(normalize_contrast(_sample_of(queries, pictures)))
        index = _Index(
            pictures, normalized, owners, descriptor, descriptor.describe_windows(normalized), effort
        )
        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1) or 1) as pool:
            yield from pool.map(_match, parts, repeat(index))


def _with_variants(pictures: Pictures) -> Pictures:
    return pictures if pictures.ndim == 4 else pictures[:, None]


def _variants(pictures: Pictures) -> tuple[Pictures, npt.NDArray[np.intp]]:
    """Return all distinct variants (n, 64, 64), and whose each is."""
    differs = np.ones(pictures.shape[:2], bool)
    for number in range(1, pictures.shape[1]):
        for owner in range(len(pictures)):
            change = pictures[owner, number].astype(np.int16) - pictures[owner, 0]
            differs[owner, number] = np.abs(change).mean() > _SAME_VARIANT
    owners = np.nonzero(differs)[0]
    return (pictures[:, 0] if differs.all() and pictures.shape[1] == 1 else pictures[differs]), owners


def _sample_of(queries: Pictures, references: Pictures) -> Pictures:
    """Return some of both, evenly."""
    return np.concatenate(
        [pictures[:: max(1, 2 * len(pictures) // _FITTED_ON)] for pictures in (queries[:, -1], references)]
    )


def _match(part: tuple[Pictures, Rows], index: _Index) -> list[list[Match]]:
    queries, own = part
    pictures, owners = _variants(queries)
    normalized = normalize_contrast(pictures)
    count, effort = index.effort * _CANDIDATES, index.effort
    candidates = find_candidates(
        normalized, index.normalized, index.described, index.descriptor, count, effort
    )
    warps, alike = _align_candidates(normalized, index, candidates)
    alike[index.owners[candidates.references] == own[owners][:, None]] = -1
    candidates, warps, alike = _keep_likely(candidates, warps, alike, index.effort * REFINED)
    correlations = np.zeros(alike.shape, np.float32)
    chosen = np.nonzero(alike >= _PLAUSIBLE)
    for start in range(0, len(chosen[0]), _PAIRS_AT_ONCE):
        some = (chosen[0][start : start + _PAIRS_AT_ONCE], chosen[1][start : start + _PAIRS_AT_ONCE])
        warps[some], correlations[some] = _refine(pictures, normalized, index, candidates, some, warps[some])
    runners_up, is_same = _runners_up(index, candidates, warps, correlations)
    leads = _RUNNER_UP_COUNTS * np.maximum(runners_up - _USUAL_RUNNER_UP, 0)
    found: list[list[Match]] = [[] for _ in queries]
    for row, values in enumerate(correlations - leads[:, None]):
        matches: dict[int, Match] = {}
        for place in np.argsort(-values, kind="stable"):
            if values[place] > 0 and is_same[row, place]:
                reference = int(index.owners[candidates.references[row, place]])
                orientation, sign = candidates.orientations[row, place], candidates.signs[row, place]
                change = describe_change(int(orientation), sign < 0, warps[row, place])
                matches.setdefault(reference, Match(reference, float(values[place]), change))
        best, known = (next(iter(several), NO_MATCH) for several in (matches.values(), found[owners[row]]))
        if best.correlation > known.correlation:  # the variants of a query: the best one speaks for it
            found[owners[row]] = list(matches.values())
    return found


def _keep_likely(
    candidates: Candidates, warps: FloatArray, alike: FloatArray, count: int
) -> tuple[Candidates, FloatArray, FloatArray]:
    """Keep so many candidates that look most alike after the coarse alignment."""
    columns = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(alike))[:, None]
    return candidates.take(rows, columns), warps[rows, columns], alike[rows, columns]


def _runners_up(
    index: _Index, candidates: Candidates, warps: FloatArray, correlations: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the highest correlation of each query with a reference that is not the best one's twin.

    References may hold a picture twice; such a twin does not speak against the best. Also returned is which
    candidates (queries, candidates) are the best or its twins.
    """
    best = correlations.argmax(axis=1)
    everyone = np.arange(len(best))
    owners = index.owners[candidates.references]
    is_same = owners == owners[everyone, best][:, None]
    others = np.where(is_same, 0, correlations)
    rows, columns = np.nonzero(others >= _TWIN_LOOKS)
    rows, columns = rows[best[rows] != columns], columns[best[rows] != columns]
    if rows.size:
        first, second = (rows, best[rows]), (rows, columns)
        to_first, to_second = (
            compose(warps[place], invert(orientation_warps(candidates.orientations[place])))
            for place in (first, second)
        )
        sign = (candidates.signs[first] * candidates.signs[second]).astype(np.int16)[:, None, None]
        pictures = [index.pictures[candidates.references[place]] for place in (second, first)]
        between = compose(to_second, invert(to_first))
        is_twin = correlate_detail(sign * pictures[0], pictures[1], between) >= _TWIN_LOOKS
        others[rows[is_twin], columns[is_twin]] = 0
        is_same[rows[is_twin], columns[is_twin]] = True
    return np.asarray(others.max(axis=1)), is_same


def _align_candidates(
    normalized: npt.NDArray[np.int8], index: _Index, candidates: Candidates
) -> tuple[FloatArray, FloatArray]:
    """Return coarse warps (queries, candidates, 2, 3), the better of two, and how alike the pictures are."""
    starts = np.stack(WINDOWS + OWN_WINDOWS)
    warps: FloatArray = np.zeros((*candidates.references.shape, 2, 3), np.float32)
    alike: FloatArray = np.full(candidates.references.shape, -1, np.float32)
    for column in range(alike.shape[1]):
        chosen = (np.arange(len(normalized)), np.full(len(normalized), column))
        picture, template = _lay(normalized, index.normalized, candidates, chosen)
        wanted = index.descriptor.describe(template, NO_WARP)
        for aligned in align_coarsely(picture, template, starts[candidates.windows[chosen]]):
            likeness = (index.descriptor.describe(picture, aligned) * wanted).sum(axis=1)
            is_better = likeness > alike[:, column]
            warps[is_better, column], alike[is_better, column] = aligned[is_better], likeness[is_better]
    return warps, alike


def _refine(
    queries: Pictures,
    normalized: npt.NDArray[np.int8],
    index: _Index,
    candidates: Candidates,
    chosen: _Chosen,
    warps: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return where the queries' points lie in the references (pairs, 2, 3), and the correlations (pairs,)."""
    finer = align(*_lay(normalized, index.normalized, candidates, chosen), warps)
    gray = _lay(queries, index.pictures, candidates, chosen)
    shows_more = candidates.windows[chosen] >= len(WINDOWS)
    return np.where(shows_more[:, None, None], invert(finer), finer), correlate_detail(*gray, finer)


def _lay(
    queries: Pixels,
    references: Pixels,
    candidates: Candidates,
    chosen: _Chosen,
) -> tuple[Pixels, Pixels]:
    """Return, oriented alike, what shows more of each pair and what shows less."""
    turned = queries[chosen[0]] * candidates.signs[chosen].astype(np.int16)[:, None, None]
    for number in range(1, ORIENTATIONS):
        is_so = candidates.orientations[chosen] == number
        turned[is_so] = orient(turned[is_so], number)
    shown = references[candidates.references[chosen]]
    shows_more = (candidates.windows[chosen] >= len(WINDOWS))[:, None, None]
    return np.where(shows_more, turned, shown), np.where(shows_more, shown, turned)


def describe_change(orientation: int, is_inverted: bool, warp: FloatArray) -> str:
    """Say what turns the reference into the query, given what `orient` did to the query and where it lies."""
    words = ["inverted"] if is_inverted else []
    if orientation // 2:
        words.append(f"turned {orientation // 2 * 90}° clockwise")
    if orientation % 2:
        words.append("mirrored")
    degrees = float(np.rad2deg(np.arctan2(warp[0, 1] - warp[1, 0], warp[0, 0] + warp[1, 1])))
    if abs(degrees) >= _SLIGHT_TURN:
        words.append(f"turned {abs(degrees):.0f}°")
    width, height = (float(np.hypot(*row[:2])) for row in warp)
    if min(width, height) < 1 - _NO_CHANGE:
        words.append(f"cropped to {min(width, 1):.2f} x {min(height, 1):.2f}")
    if max(width, height) > 1 + _NO_CHANGE:
        words.append(f"shows more, {max(width, 1):.2f} x {max(height, 1):.2f}")
    return ", ".join(words)


__all__ = [
    "NO_MATCH", "PART", "REFINED", "THUMBNAIL_SIDE", "Match",
    "best_matches", "describe_change", "find_matches",
]  # fmt: skip
