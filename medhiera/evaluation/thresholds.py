"""Thresholds chosen on validation, and the sensitivity and specificity they reach on test.

Stands on predictions.py, beside metrics.py. A finding is called present where its probability is at least the
threshold.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from medhiera.evaluation.bootstrap import Bootstrap, Floats, interval
from medhiera.evaluation.predictions import FindingColumn, Predictions
from medhiera.evaluation.results import (
    ChosenThresholds,
    FindingOperatingPoints,
    Interval,
    MeanRates,
    OperatingPoint,
    OperatingPoints,
)

SENSITIVITY = 0.9
"""Of the rule `sensitivity_90`; the other, `youden`, takes the largest sensitivity + specificity."""

NOT_CHOSEN = ChosenThresholds(
    youden=None,
    sensitivity_90=None,
    positives=None,
    positive_patients=None,
    reason="no threshold was chosen for it",
)


def choose_thresholds(predictions: Predictions) -> dict[str, ChosenThresholds]:
    """Thresholds by both rules.

    Args:
        predictions: of the validation split, probabilities.

    Returns:
        By finding, with a reason where a label value is missing.
    """
    return {column.name: _choose(column) for column in predictions.columns()}


def _choose(column: FindingColumn) -> ChosenThresholds:
    """One finding's thresholds."""
    if column.one_sided_reason is not None:
        return ChosenThresholds(
            youden=None,
            sensitivity_90=None,
            positives=None,
            positive_patients=None,
            reason=f"{column.one_sided_reason} on validation",
        )
    false_rate, true_rate, thresholds = roc_curve(column.truth, column.scores, drop_intermediate=False)
    thresholds[0] = np.nextafter(column.scores.max(), 2)  # scikit-learn's infinity: nothing is called present
    sensitive = int(np.argmax(true_rate >= SENSITIVITY - 1e-12))
    return ChosenThresholds(
        youden=float(thresholds[np.argmax(true_rate - false_rate)]),
        sensitivity_90=float(thresholds[sensitive]),
        positives=column.positives,
        positive_patients=column.positive_patients,
    )


def apply_thresholds(
    thresholds: Mapping[str, ChosenThresholds], predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, FindingOperatingPoints]:
    """Sensitivity and specificity of thresholds that were chosen elsewhere, with patient-level intervals.

    The interval is of the test images alone: the threshold is taken as given. Where all images or none are
    called rightly it is the exact binomial one (Clopper and Pearson 1934), images taken as independent.

    Args:
        thresholds: from `choose_thresholds`.
        predictions: of the split that is reported, probabilities.
        bootstrap: behind the intervals.

    Returns:
        By finding, with a reason where no threshold was chosen.
    """
    pairs = [
        (column, threshold)
        for column in predictions.columns()
        for threshold in _both(thresholds.get(column.name, NOT_CHOSEN))
    ]
    counts = [_count_calls(column, threshold, predictions.patient_count) for column, threshold in pairs]
    shares = _resample_shares(counts, bootstrap, predictions.patient_count)
    points: dict[str, list[OperatingPoint]] = {name: [] for name in predictions.finding_names}
    for (column, threshold), of_patients, drawn in zip(pairs, counts, shares, strict=True):
        points[column.name].append(_operating_point(threshold, of_patients, drawn))
    result: dict[str, FindingOperatingPoints] = {}
    for name, both in points.items():
        chosen = thresholds.get(name, NOT_CHOSEN)
        youden, sensitivity_90 = both or (None, None)
        result[name] = FindingOperatingPoints(
            youden=youden,
            sensitivity_90=sensitivity_90,
            positives=chosen.positives,
            positive_patients=chosen.positive_patients,
            reason=chosen.reason,
        )
    return result


def _both(chosen: ChosenThresholds) -> list[float]:
    """The thresholds Youden's first; none where none was chosen."""
    if chosen.youden is None or chosen.sensitivity_90 is None:
        return []
    return [chosen.youden, chosen.sensitivity_90]


def _count_calls(column: FindingColumn, threshold: float, patient_count: int) -> NDArray[np.float64]:
    """Each patient's images behind sensitivity and specificity.

    Returns:
        (2, 2, patients): of sensitivity and of specificity, the images called rightly and all.
    """
    is_called = column.scores >= threshold
    counts = np.empty((2, 2, patient_count))
    for row, is_counted in enumerate((column.is_present, ~column.is_present)):
        is_right = is_counted & (is_called == column.is_present)
        for place, each in enumerate((is_right, is_counted)):
            counts[row, place] = np.bincount(column.patients, weights=each, minlength=patient_count)
    return counts


def _resample_shares(
    counts: list[NDArray[np.float64]], bootstrap: Bootstrap, patient_count: int
) -> list[NDArray[np.float64]]:
    """Sensitivity and specificity in each resample: a (2, resamples) each, NaN where no image is drawn."""
    if not counts or not bootstrap.resamples:
        return [np.empty((2, 0)) for _ in counts]
    table = np.concatenate(counts).reshape(-1, patient_count)
    sums = np.concatenate([table @ weights for weights in bootstrap.weights(patient_count)], axis=1)
    right, images = sums[::2], sums[1::2]
    shares = np.divide(right, images, out=np.full_like(right, np.nan), where=images > 0)
    return list(shares.reshape(len(counts), 2, -1))


def _operating_point(threshold: float, counts: Floats, drawn: Floats) -> OperatingPoint:
    """Values over all patients, and intervals of the resamples.

    Args:
        threshold: what was applied.
        counts: from `_count_calls`.
        drawn: (2, resamples).
    """
    values: list[float | None] = []
    intervals: list[Interval] = []
    for (right, images), draws in zip(counts.sum(axis=-1), drawn, strict=True):
        values.append(float(right / images) if images else None)
        intervals.append(_share_interval(draws, int(right), int(images)) if len(draws) else None)
    return OperatingPoint(
        threshold=threshold,
        sensitivity=values[0],
        sensitivity_interval=intervals[0],
        specificity=values[1],
        specificity_interval=intervals[1],
    )


def _share_interval(draws: Floats, right: int, images: int) -> Interval:
    """Of the resamples; exact where all or none are right, for resampling cannot leave 0 or 1."""
    if images and right in (0, images):
        limits = binomtest(right, images).proportion_ci(method="exact")
        return [float(limits.low), float(limits.high)]
    return interval(draws)


def score_thresholds(
    predictions: Predictions, validation: Predictions | None, bootstrap: Bootstrap
) -> OperatingPoints:
    """Choose thresholds on validation and apply them.

    Args:
        predictions: of the split that is reported, probabilities.
        validation: another split of the same data; None chooses nothing.
        bootstrap: behind the intervals.
    """
    if validation is None:
        return OperatingPoints(findings={}, reason="no validation split to choose thresholds on")
    findings = apply_thresholds(choose_thresholds(validation), predictions, bootstrap)
    by_rule: dict[str, list[OperatingPoint]] = {
        "youden": [entry.youden for entry in findings.values() if entry.youden],
        "sensitivity_90": [entry.sensitivity_90 for entry in findings.values() if entry.sensitivity_90],
    }
    means = {
        rule: MeanRates(
            sensitivity=_mean([point.sensitivity for point in points]),
            specificity=_mean([point.specificity for point in points]),
        )
        for rule, points in by_rule.items()
    }
    return OperatingPoints(findings=findings, validation_images=len(validation), means=means)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
