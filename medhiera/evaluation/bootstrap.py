"""The patient bootstrap, vectorised: AUROC and average precision under many weightings of the same images.

Stands below metrics.py. A resample draws patients with replacement, so it is a weight per patient; under it
only two things count for a finding: the weight of the positives at each distinct positive score, and of the
negatives between and at these scores. Both are sums of patients' weights, hence sparse matrix products.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.floating[Any]]

CHUNK = 128
"""Resamples at a time: bounds the memory at a few arrays of positives × this."""


def group_patients(images: int, patient_ids: Sequence[str] | None) -> NDArray[np.intp]:
    """Number the patients: (images,), from 0; every image its own patient where patient_ids is None.

    Raises:
        ValueError: not one patient per image.
    """
    if patient_ids is None:
        return np.arange(images)
    if len(patient_ids) != images:
        raise ValueError(f"{len(patient_ids)} patient_ids for {images} images; wanted one per image")
    return np.asarray(np.unique(np.asarray(patient_ids), return_inverse=True)[1], dtype=np.intp)


def count_patients(patients: NDArray[np.intp]) -> int:
    """How many patients `group_patients` has numbered."""
    return int(patients.max()) + 1 if len(patients) else 0


def patient_weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient stands in each resample, some resamples at a time.

    The same arguments give the same weights: two models weighed by them are compared on the same patients.

    Args:
        count: patients there are.
        resamples: how many in all.
        seed: of the draw.

    Yields:
        (patients, at most CHUNK resamples), whole numbers as float64.
    """
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, CHUNK):
        weights = np.empty((count, min(CHUNK, resamples - begin)))
        for column in range(weights.shape[1]):
            weights[:, column] = np.bincount(generator.integers(count, size=count), minlength=count)
        yield weights


def resample(
    measures: Mapping[str, Callable[[Floats], tuple[Floats, Floats]]],
    count: int,
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    """Two measures of each finding, such as `Ranking.weigh`'s, under the same resamples of patients.

    Args:
        measures: name → patients' weights (patients, some resamples) → the two, each (those resamples,).
        count: patients there are.
        resamples: how many in all.
        seed: of the draw.

    Returns:
        name → (2, resamples).
    """
    parts: dict[str, list[Floats]] = {name: [np.empty((2, 0))] for name in measures}
    for weights in patient_weights(count, resamples, seed):
        for name, measure in measures.items():
            parts[name].append(np.stack(measure(weights)))
    return {name: np.concatenate(drawn, axis=1) for name, drawn in parts.items()}


def interval(draws: Floats, centred_on: float | None = None) -> list[float] | None:
    """The 2.5 and 97.5 percentiles of the resamples that have a value; None where not one has.

    Args:
        draws: (resamples,), NaN where there is no value.
        centred_on: a measure of [0, 1] that resampling inflates: average precision, because an image drawn
            twice stands beside itself. The percentiles are moved by the bias that the resamples show.
    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return None
    limits = np.percentile(known, [2.5, 97.5])
    if centred_on is not None:
        limits = np.clip(limits - (known.mean() - centred_on), 0.0, 1.0)
    return [float(limits[0]), float(limits[1])]


@dataclass(frozen=True)
class Ranking:
    """One finding's images sorted by score, ready to be weighed.

    Attributes:
        positives: (distinct positive scores, patients), the number of positive images of each patient at it.
        negatives: (2 × distinct positive scores + 1, patients), the same of negatives: row 2g holds those
            between the scores g - 1 and g, row 2g + 1 those at score g.
    """

    positives: csr_array
    negatives: csr_array

    @classmethod
    def of(cls, score: Floats, truth: NDArray[np.bool_], patients: NDArray[np.intp], count: int) -> "Ranking":
        """Sort.

        Args:
            score: (images,), finite.
            truth: (images,), True is present.
            patients: (images,), from `group_patients`.
            count: how many patients there are, with those of other images.
        """
        levels, level = np.unique(score[truth], return_inverse=True)
        below = np.searchsorted(levels, score[~truth], side="left")
        is_tied = np.zeros(len(below), dtype=bool)
        if len(levels):
            is_tied = levels[np.minimum(below, len(levels) - 1)] == score[~truth]
        return cls(
            _counts(level, patients[truth], (len(levels), count)),
            _counts(2 * below + is_tied, patients[~truth], (2 * len(levels) + 1, count)),
        )

    def weigh(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision of each resample.

        Ties count one half in the AUROC; average precision takes equal scores as one threshold, as
        scikit-learn does.

        Args:
            weights: (patients, resamples), not negative.

        Returns:
            AUROC and average precision, each (resamples,); NaN where a resample holds one label value only.
        """
        positive = self.positives @ weights
        negative = np.cumsum(self.negatives @ weights, axis=0)
        below, up_to = negative[0:-1:2], negative[1::2]  # of each positive score: lower, and lower or equal
        all_positive, all_negative = positive.sum(axis=0), negative[-1]
        is_known = (all_positive > 0) & (all_negative > 0)
        nothing = np.full(weights.shape[1], np.nan)
        wins = np.einsum("gr,gr->r", positive, below + up_to) / 2
        auroc = np.divide(wins, all_positive * all_negative, out=nothing.copy(), where=is_known)
        found = np.cumsum(positive[::-1], axis=0)[::-1]  # true positives at this threshold
        called = found + all_negative - below
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        gained = np.einsum("gr,gr->r", positive, precision)
        return auroc, np.divide(gained, all_positive, out=nothing, where=is_known)


def _counts(rows: NDArray[Any], columns: NDArray[np.intp], shape: tuple[int, int]) -> csr_array:
    """A sparse matrix that counts how often each (row, column) occurs."""
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
