"""The patient bootstrap, vectorised: AUROC and average precision under many weightings of the same images.

Stands below metrics.py. A resample draws patients with replacement, so it is a weight per patient; under it
only two things count for a finding: the weight of the positives at each distinct positive score, and of the
negatives between and at these scores. Both are sums of patients' weights, hence sparse matrix products.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.floating[Any]]

CHUNK = 128
"""Resamples at a time: bounds the memory at a few arrays of positives × this."""


_ROUNDING = 1e-12
"""Values that are no further apart are the same: a mean of ones may be a hair below 1."""

SEED = 0
"""Of every draw: a split's intervals do not depend on the seed that a model was trained with."""


def group_patients(patient_ids: Sequence[str]) -> NDArray[np.intp]:
    """Number the patients from 0, in the order of their sorted names: (images,)."""
    return np.asarray(np.unique(np.asarray(patient_ids), return_inverse=True)[1], dtype=np.intp)


def count_patients(patients: NDArray[np.intp]) -> int:
    """How many patients `group_patients` has numbered."""
    return int(patients.max()) + 1 if len(patients) else 0


@dataclass(frozen=True)
class Bootstrap:
    """The resamples of patients behind the intervals of one report.

    One object is handed to all scorers of a report: those with the same patients share one draw, so two
    models, or two measures, are weighed by the same resamples.

    Attributes:
        resamples: how many; 0 for no intervals.
    """

    resamples: int = 2000
    _drawn: dict[int, NDArray[np.uint8]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def weights(self, count: int) -> Iterator[Floats]:
        """How often each patient stands in each resample, some resamples at a time.

        Args:
            count: patients there are.

        Yields:
            (patients, at most CHUNK resamples), whole numbers as float64.
        """
        if count not in self._drawn:
            self._drawn[count] = _draw(count, self.resamples)
        for begin in range(0, self.resamples, CHUNK):
            yield self._drawn[count][:, begin : begin + CHUNK].astype(np.float64)

    def resample(
        self, measures: Mapping[str, Callable[[Floats], tuple[Floats, Floats]]], count: int
    ) -> dict[str, Floats]:
        """Two measures of each finding, such as `WeightedRanking.weigh`'s, under the same resamples.

        Args:
            measures: name → patients' weights (patients, some resamples) → the two, each (those resamples,).
            count: patients there are.

        Returns:
            name → (2, resamples).
        """
        parts: dict[str, list[Floats]] = {name: [np.empty((2, 0))] for name in measures}
        for weights in self.weights(count):
            for name, measure in measures.items():
                parts[name].append(np.stack(measure(weights)))
        return {name: np.concatenate(drawn, axis=1) for name, drawn in parts.items()}


def repetition_weights(count: int, resamples: int) -> Floats:
    """How much each repetition (draw of labels) weighs in the mean of each resample.

    Of so many one less are drawn, with replacement: all of them would make their mean vary too little, by
    (count - 1) / count.

    Args:
        count: repetitions there are; one alone weighs 1.
        resamples: of the bootstrap whose patients they are drawn beside.

    Returns:
        (count, resamples); each column sums to 1.

    Source: Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 8; Rao and Wu 1988.
    """
    if count == 1:
        return np.ones((1, resamples))
    chances = np.full(count, 1 / count)
    drawn = np.random.default_rng(SEED).multinomial(count - 1, chances, size=resamples)
    return np.asarray(drawn.T / (count - 1), dtype=np.float64)


def _draw(count: int, resamples: int) -> NDArray[np.uint8]:
    """Draw: (patients, resamples). No patient is drawn 256 times, the probability is below 1e-500."""
    generator = np.random.default_rng(SEED)
    drawn = np.empty((count, resamples), dtype=np.uint8)
    for column in range(resamples):
        drawn[:, column] = np.bincount(generator.integers(count, size=count), minlength=count)
    return drawn


def interval(draws: Floats, centered_on: float | None = None) -> list[float] | None:
    """The 2.5 and 97.5 percentiles of the resamples that have a value.

    None where not one has, or all have the same, as those of an AUROC of 1 or of a single patient: that
    resampling cannot leave a value does not make it certain.

    Args:
        draws: (resamples,), NaN where there is no value.
        centered_on: a measure of [0, 1] that resampling inflates: average precision, because an image drawn
            twice stands beside itself. The percentiles are moved by the bias that the resamples show.
    """
    known = draws[~np.isnan(draws)]
    if not len(known) or np.ptp(known) <= _ROUNDING:
        return None
    limits = np.percentile(known, [2.5, 97.5])
    if centered_on is not None:
        limits = np.clip(limits - (known.mean() - centered_on), 0.0, 1.0)
    return [float(limits[0]), float(limits[1])]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first model's value minus the second's.

    Attributes:
        difference: of the values.
        interval: of the difference, from the same resamples for both; None as `interval` has it.
        p_value: two-sided, from the resamples; None where none has a value, or of too few patients.
    """

    difference: float
    interval: list[float] | None
    p_value: float | None


def paired_difference(value: float, drawn: Floats, has_few_cases: bool = False) -> Difference:
    """A difference, its interval, and twice the share of resamples beyond zero (never zero).

    Args:
        value: over all patients.
        drawn: (resamples,), NaN where there is no value.
        has_few_cases: of so few patients that resampling calls equally good models different: no p-value.
    """
    known = drawn[~np.isnan(drawn)]
    beyond = min((known <= 0).sum(), (known >= 0).sum()) if len(known) else 0
    has_p_value = len(known) and not has_few_cases
    p_value = min(1.0, 2 * (int(beyond) + 1) / (len(known) + 1)) if has_p_value else None
    return Difference(difference=float(value), interval=interval(drawn), p_value=p_value)


@dataclass(frozen=True)
class WeightedRanking:
    """One finding's images sorted by score, ready to be weighed.

    Attributes:
        positives: (distinct positive scores, patients), the number of positive images of each patient at it.
        negatives: (2 × distinct positive scores + 1, patients), the same of negatives: row 2g holds those
            between the scores g - 1 and g, row 2g + 1 those at score g.
    """

    positives: csr_array
    negatives: csr_array

    @classmethod
    def of(
        cls, score: Floats, truth: NDArray[np.bool_], patients: NDArray[np.intp], count: int
    ) -> "WeightedRanking":
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
        true_positives = np.cumsum(positive[::-1], axis=0)[::-1]  # at this threshold
        called = true_positives + all_negative - below
        precision = np.divide(true_positives, called, out=np.zeros_like(called), where=called > 0)
        gained = np.einsum("gr,gr->r", positive, precision)
        return auroc, np.divide(gained, all_positive, out=nothing, where=is_known)


def _counts(rows: NDArray[Any], columns: NDArray[np.intp], shape: tuple[int, int]) -> csr_array:
    """A sparse matrix that counts how often each (row, column) occurs."""
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
