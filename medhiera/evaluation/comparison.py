"""Two models on the same images: differences with paired intervals, and DeLong's variance.

Stands on metrics.py and bootstrap.py. Which model is better is asked of the difference: two intervals that
overlap do not answer it.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from medhiera.evaluation.bootstrap import (
    Bootstrap,
    Floats,
    WeightedRanking,
    paired_difference,
)
from medhiera.evaluation.comparison_results import Comparison, FindingComparison, MeanComparison
from medhiera.evaluation.metrics import diseases_among, drawn_means, rank_findings
from medhiera.evaluation.predictions import FindingColumn, Predictions
from medhiera.evaluation.results import MeanScores, RankingReport


def compare_models(predictions: Predictions, other: Predictions, bootstrap: Bootstrap) -> Comparison:
    """Differences of AUROC and average precision, the first model's minus the second's.

    Both models are weighed by the same resamples of patients, so what is hard for both cancels out.

    Args:
        predictions: of the first model.
        other: of the second, same images, findings and labels in the same order.
        bootstrap: behind the intervals and p-values; without resamples there are none. Nor has a p-value what
            has too few patients, nor a mean with it.

    Raises:
        ValueError: the two are not of the same images and findings.
    """
    _check_same_split(predictions, other)
    ours, theirs = (rank_findings(each, Bootstrap(0)) for each in (predictions, other))
    pairs = _pairs(predictions, other)
    draws = _resample(pairs, predictions.patient_count, bootstrap)
    findings = {
        name: _compare_finding(ours, theirs, name, pairs.get(name), draws)
        for name in predictions.finding_names
    }
    diseases = diseases_among(pairs)
    return Comparison(
        mean=_compare_means(
            _of_means(ours, theirs), drawn_means(draws, list(pairs)), _has_few_cases(pairs, pairs)
        ),
        diseases=_compare_means(
            _of_means(ours.diseases, theirs.diseases),
            drawn_means(draws, diseases),
            _has_few_cases(pairs, diseases),
        ),
        findings=findings,
        images=len(predictions),
        bootstrap_resamples=bootstrap.resamples,
    )


def compare_over_seeds(
    pairs: Sequence[tuple[Predictions, Predictions]], bootstrap: Bootstrap
) -> MeanComparison | None:
    """Differences of the means over findings between two ways of training, averaged over seeds.

    The intervals are over patients: every seed's two models are weighed by the same resamples. What another
    seed would give is not in them.

    Args:
        pairs: for each seed the predictions of the first and of the second; all of the same images, findings
            and labels in the same order.
        bootstrap: behind the intervals; without resamples there are none.

    Returns:
        None where no finding has an AUROC.

    Raises:
        ValueError: they are not of the same images and findings.
    """
    first = pairs[0][0]
    values, draws = [], []
    for one, other in pairs:
        _check_same_split(first, one)
        _check_same_split(first, other)
        differences = _of_means(*(rank_findings(each, Bootstrap(0)) for each in (one, other)))
        if differences is None:
            return None
        values.append(differences)
        drawn = _resample(_pairs(one, other), first.patient_count, bootstrap)
        draws.append(drawn_means(drawn, list(drawn)))
    paired = _pairs(first, first)
    return _compare_means(
        tuple(np.mean(values, axis=0)), list(np.mean(draws, axis=0)), _has_few_cases(paired, paired)
    )


def _pairs(predictions: Predictions, other: Predictions) -> dict[str, tuple[FindingColumn, FindingColumn]]:
    """Both models' columns of each finding that has both label values."""
    return {
        column.name: (column, another)
        for column, another in zip(predictions.columns(), other.columns(), strict=True)
        if column.one_sided_reason is None
    }


def _has_few_cases(pairs: Mapping[str, tuple[FindingColumn, FindingColumn]], names: Iterable[str]) -> bool:
    """Whether one of some findings has too few patients on one side."""
    return any(pairs[name][0].has_few_cases for name in names)


def _resample(
    pairs: Mapping[str, tuple[FindingColumn, FindingColumn]], count: int, bootstrap: Bootstrap
) -> dict[str, Floats]:
    """Each finding's differences of AUROC and average precision: (2, resamples)."""
    measures = {
        name: partial(_weigh_apart, _ranking(one, count), _ranking(another, count))
        for name, (one, another) in pairs.items()
    }
    return bootstrap.resample(measures, count)


def _check_same_split(predictions: Predictions, other: Predictions) -> None:
    """Refuse a pair that does not pair."""
    if list(predictions.finding_names) != list(other.finding_names):
        raise ValueError(
            f"the findings {list(predictions.finding_names)} and {list(other.finding_names)} differ; both "
            "models must be scored for the same findings in the same order"
        )
    if not np.array_equal(predictions.labels, other.labels, equal_nan=True) or not np.array_equal(
        predictions.patients, other.patients
    ):
        raise ValueError(
            f"{len(predictions)} and {len(other)} images with other labels or patients; both models must be "
            "scored on the same images in the same order"
        )


def _ranking(column: FindingColumn, patient_count: int) -> WeightedRanking:
    return WeightedRanking.of(column.scores, column.is_present, column.patients, patient_count)


def _compare_finding(
    ours: RankingReport,
    theirs: RankingReport,
    name: str,
    pair: tuple[FindingColumn, FindingColumn] | None,
    draws: Mapping[str, Floats],
) -> FindingComparison:
    """One finding's differences; the reason where it has one label value."""
    one, other = ours.findings[name], theirs.findings[name]
    if pair is None:
        return FindingComparison(reason=one.reason)
    assert one.auroc is not None and other.auroc is not None
    assert one.average_precision is not None and other.average_precision is not None
    auroc, average_precision = draws[name]
    scores, has_few_cases = np.stack([column.scores for column in pair]), pair[0].has_few_cases
    return FindingComparison(
        auroc=paired_difference(one.auroc - other.auroc, auroc, has_few_cases),
        average_precision=paired_difference(
            one.average_precision - other.average_precision, average_precision, has_few_cases
        ),
        delong_p_value=None if has_few_cases else delong_p_value(scores, pair[0].is_present),
        has_few_cases=has_few_cases,
    )


def _weigh_apart(one: WeightedRanking, other: WeightedRanking, weights: Floats) -> tuple[Floats, Floats]:
    """What the first has more than the second of each measure."""
    (auroc, precision), (other_auroc, other_precision) = one.weigh(weights), other.weigh(weights)
    return auroc - other_auroc, precision - other_precision


def _of_means(ours: MeanScores, theirs: MeanScores) -> tuple[float, float] | None:
    """The differences of mean AUROC and of mean average precision; None where there are none."""
    if ours.mean_auroc is None or theirs.mean_auroc is None:
        return None
    assert ours.mean_average_precision is not None and theirs.mean_average_precision is not None
    return (
        ours.mean_auroc - theirs.mean_auroc,
        ours.mean_average_precision - theirs.mean_average_precision,
    )


def _compare_means(
    values: tuple[float, ...] | None, drawn: Sequence[Floats], has_few_cases: bool
) -> MeanComparison | None:
    """From the differences of AUROC and average precision and their resamples."""
    if values is None:
        return None
    auroc, average_precision = (
        paired_difference(value, draws, has_few_cases) for value, draws in zip(values, drawn, strict=True)
    )
    return MeanComparison(auroc=auroc, average_precision=average_precision, has_few_cases=has_few_cases)


def delong(scores: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """AUROCs of some models on the same images, and their covariance.

    Args:
        scores: (models, images).
        truth: (images,), True is present; both values at least twice.

    Returns:
        (models,) and (models, models).

    Raises:
        ValueError: fewer than two images of either label value.

    Source: DeLong et al. 1988; by midranks as Sun and Xu 2014, IEEE Signal Processing Letters 21 (11).
    """
    positives, negatives = scores[:, truth], scores[:, ~truth]
    m, n = positives.shape[1], negatives.shape[1]
    if min(m, n) < 2:
        raise ValueError(f"{m} positive and {n} negative images; DeLong's variance wants two of each")
    together = rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    # The share of the other kind that lies below each image, ties counting one half.
    below_positive = (together[:, :m] - rankdata(positives, axis=1)) / n
    above_negative = 1 - (together[:, m:] - rankdata(negatives, axis=1)) / m
    covariance = np.cov(below_positive) / m + np.cov(above_negative) / n
    return below_positive.mean(axis=1), np.atleast_2d(covariance)


def delong_p_value(scores: Floats, truth: NDArray[np.bool_]) -> float | None:
    """Two-sided p-value of no difference in AUROC; None where the difference has no variance.

    Args:
        scores: (2, images).
        truth: (images,).
    """
    if min(truth.sum(), (~truth).sum()) < 2:
        return None
    values, covariance = delong(scores, truth)
    contrast = np.array([1.0, -1.0])
    variance = float(contrast @ covariance @ contrast)
    if variance <= 1e-15:
        return None
    return float(2 * norm.sf(abs(values[0] - values[1]) / np.sqrt(variance)))
