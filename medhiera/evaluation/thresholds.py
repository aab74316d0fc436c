"""Thresholds chosen on validation, and what they reach on test: sensitivity, specificity, accuracy and F1.

Stands on predictions.py, beside metrics.py. A finding is called present where its probability is at least the
threshold.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.predictions import FindingColumn, Predictions
from medhiera.evaluation.results import (
    ChosenThresholds,
    FindingOperatingPoints,
    Interval,
    MeanRates,
    ModelChoice,
    OperatingPoint,
    OperatingPoints,
)
from medhiera.evaluation.shares import share_interval

SENSITIVITY = 0.9
"""Of the rule `sensitivity_90`; `youden` takes the largest sensitivity + specificity, `best_f1` the largest
F1."""

RULES = ("youden", "sensitivity_90", "best_f1")
"""Their fields in ChosenThresholds and FindingOperatingPoints."""

MEASURES = ("sensitivity", "specificity", "accuracy", "f1")
"""Fields of OperatingPoint."""

NOT_CHOSEN = ChosenThresholds(
    youden=None,
    sensitivity_90=None,
    best_f1=None,
    positives=None,
    positive_patients=None,
    reason="no threshold was chosen for it",
)


def choose_thresholds(predictions: Predictions) -> dict[str, ChosenThresholds]:
    """Thresholds by every rule.

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
            best_f1=None,
            positives=None,
            positive_patients=None,
            reason=f"{column.one_sided_reason} on validation",
        )
    false_rate, true_rate, thresholds = roc_curve(column.truth, column.scores, drop_intermediate=False)
    thresholds[0] = np.nextafter(column.scores.max(), 2)  # scikit-learn's infinity: nothing is called present
    sensitive = int(np.argmax(true_rate >= SENSITIVITY - 1e-12))
    found, false = np.rint(true_rate * column.positives), np.rint(false_rate * column.negatives)
    f1 = 2 * found / (column.positives + found + false)
    return ChosenThresholds(
        youden=float(thresholds[np.argmax(true_rate - false_rate)]),
        sensitivity_90=float(thresholds[sensitive]),
        best_f1=float(thresholds[np.argmax(f1)]),
        positives=column.positives,
        positive_patients=column.positive_patients,
    )


def apply_thresholds(
    thresholds: Mapping[str, ChosenThresholds], predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, FindingOperatingPoints]:
    """What thresholds that were chosen elsewhere reach, with patient-level intervals.

    The interval is of the test patients alone: the threshold is taken as given. Where all images or none are
    called rightly it is the exact binomial one over patients, see share_interval; of F1 by way of the Jaccard
    index J = TP / (TP + FP + FN), a share of images, as F1 = 2J / (1 + J).

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
        for threshold in _by_rule(thresholds.get(column.name, NOT_CHOSEN))
    ]
    counts = [_count_calls(column, threshold, predictions.patient_count) for column, threshold in pairs]
    shares = _resample_shares(counts, bootstrap, predictions.patient_count)
    points: dict[str, list[OperatingPoint]] = {name: [] for name in predictions.finding_names}
    for (column, threshold), of_patients, drawn in zip(pairs, counts, shares, strict=True):
        points[column.name].append(_operating_point(threshold, of_patients, drawn))
    result: dict[str, FindingOperatingPoints] = {}
    for column in predictions.columns():
        chosen = thresholds.get(column.name, NOT_CHOSEN)
        reached = dict(zip(RULES, points[column.name], strict=False))  # none where none was chosen
        images = len(column.truth)
        result[column.name] = FindingOperatingPoints(
            youden=reached.get("youden"),
            sensitivity_90=reached.get("sensitivity_90"),
            best_f1=reached.get("best_f1"),
            positives=chosen.positives,
            positive_patients=chosen.positive_patients,
            reason=chosen.reason,
            accuracy_of_none=1 - column.positives / images if images else None,
            f1_of_all=2 * column.positives / (images + column.positives) if column.positives else None,
        )
    return result


def _by_rule(chosen: ChosenThresholds) -> list[float]:
    """The thresholds in the order of RULES; none where none was chosen."""
    thresholds = [chosen.youden, chosen.sensitivity_90, chosen.best_f1]
    return [threshold for threshold in thresholds if threshold is not None]


def _count_calls(column: FindingColumn, threshold: float, patient_count: int) -> NDArray[np.float64]:
    """Each patient's images behind each measure.

    Returns:
        (4, 2, patients): of sensitivity, specificity, accuracy and the Jaccard index, the images called
        rightly (found, for the last) and all that count.
    """
    is_called = column.scores >= threshold
    is_right = is_called == column.is_present
    everywhere = np.ones_like(is_right)
    counted = (column.is_present, ~column.is_present, everywhere, column.is_present | is_called)
    counts = np.empty((len(counted), 2, patient_count))
    for row, is_counted in enumerate(counted):
        for place, each in enumerate((is_right & is_counted, is_counted)):
            counts[row, place] = np.bincount(column.patients, weights=each, minlength=patient_count)
    return counts


def _resample_shares(
    counts: list[NDArray[np.float64]], bootstrap: Bootstrap, patient_count: int
) -> list[NDArray[np.float64]]:
    """The measures of `_count_calls` in each resample: a (4, resamples) each, NaN where no image is drawn."""
    if not counts or not bootstrap.resamples:
        return [np.empty((4, 0)) for _ in counts]
    table = np.concatenate(counts).reshape(-1, patient_count)
    sums = np.concatenate([table @ weights for weights in bootstrap.weights(patient_count)], axis=1)
    right, images = sums[::2], sums[1::2]
    shares = np.divide(right, images, out=np.full_like(right, np.nan), where=images > 0)
    shares = shares.reshape(len(counts), 4, -1)
    shares[:, 3][np.isnan(shares[:, 0])] = np.nan  # no positive image, no F1
    return list(shares)


def _operating_point(threshold: float, counts: Floats, drawn: Floats) -> OperatingPoint:
    """Values over all patients, and intervals of the resamples.

    Args:
        threshold: what was applied.
        counts: from `_count_calls`.
        drawn: (4, resamples).
    """
    values: list[float | None] = []
    intervals: list[Interval] = []
    for (right, images), draws in zip(counts, drawn, strict=True):
        values.append(float(right.sum() / images.sum()) if images.any() else None)
        intervals.append(share_interval(draws, right, images) if len(draws) else None)
    jaccard, limits = (None, None) if values[0] is None else (values[3], intervals[3])
    return OperatingPoint(
        threshold=threshold,
        sensitivity=values[0],
        sensitivity_interval=intervals[0],
        specificity=values[1],
        specificity_interval=intervals[1],
        accuracy=values[2],
        accuracy_interval=intervals[2],
        f1=None if jaccard is None else _f1(jaccard),
        f1_interval=None if limits is None else [_f1(limit) for limit in limits],
    )


def _f1(jaccard: float) -> float:
    """It grows with the Jaccard index, so percentiles of one give those of the other."""
    return 2 * jaccard / (1 + jaccard)


def score_thresholds(
    predictions: Predictions,
    validation: Predictions | None,
    bootstrap: Bootstrap,
    of_model: ModelChoice | None = None,
) -> OperatingPoints:
    """Choose thresholds on validation, or take the model's own, and apply them.

    Args:
        predictions: of the split that is reported, probabilities.
        validation: another split of the same data; None chooses nothing.
        bootstrap: behind the intervals.
        of_model: applied where there is no validation split.
    """
    images: int | None
    if validation is not None:
        thresholds, images = choose_thresholds(validation), len(validation)
    elif of_model is not None:
        thresholds, images = of_model.thresholds, of_model.validation_images
    else:
        return OperatingPoints(findings={}, reason="no validation split to choose thresholds on")
    findings = apply_thresholds(thresholds, predictions, bootstrap)
    means = {rule: _means(findings, rule) for rule in RULES}
    return OperatingPoints(
        findings=findings, validation_images=images, means=means, are_the_models=validation is None
    )


def _means(findings: Mapping[str, FindingOperatingPoints], rule: str) -> MeanRates:
    """Of each measure at a rule's thresholds, over the same findings: those with both label values."""
    points: dict[str, OperatingPoint | None] = {name: getattr(each, rule) for name, each in findings.items()}
    rates = {
        name: values
        for name, point in points.items()
        if point is not None and None not in (values := [getattr(point, measure) for measure in MEASURES])
    }
    if not rates:
        return MeanRates(sensitivity=None, specificity=None, findings_in_mean=[])
    means = np.mean(list(rates.values()), axis=0).tolist()
    return MeanRates(**dict(zip(MEASURES, means, strict=True)), findings_in_mean=list(rates))
