"""Whether a probability means what it says: calibration error, reliability bins, repair on validation.

Stands on predictions.py, beside metrics.py: probabilities in, numbers out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.predictions import FindingColumn, Predictions
from medhiera.evaluation.results import CalibrationReport, CurveBin, FindingCalibration, Rescaling

BINS = 10
"""Bins of equally many images, behind the calibration error and the reliability plot alike: a rare finding
would leave most bins of equal width empty."""


def measure_calibration(predictions: Predictions) -> CalibrationReport:
    """How far probabilities lie from shares of images.

    Args:
        predictions: their scores are probabilities.

    Returns:
        Every finding's calibration, with a reason where no image is annotated, and the means over the others.

    Raises:
        ValueError: a probability outside [0, 1].

    Source: Guo et al. 2017, arXiv:1706.04599, section 2, with the finding's probability as confidence and
        bins of equally many images, as Nixon et al. 2019, arXiv:1904.01685, section 3.
    """
    probabilities = predictions.scores
    if probabilities.size and (probabilities.min() < 0 or probabilities.max() > 1):
        raise ValueError(
            f"probabilities lie between {probabilities.min():g} and {probabilities.max():g}; wanted 0 to 1 "
            "(apply a sigmoid to logits)"
        )
    findings = {column.name: _calibrate(column) for column in predictions.columns()}
    errors = [entry.ece for entry in findings.values() if entry.ece is not None]
    briers = [entry.brier for entry in findings.values() if entry.brier is not None]
    return CalibrationReport(
        findings=findings,
        mean_ece=float(np.mean(errors)) if errors else None,
        mean_brier=float(np.mean(briers)) if briers else None,
        bins=BINS,
    )


def _calibrate(column: FindingColumn) -> FindingCalibration:
    """One finding's entry."""
    probabilities, truth = column.scores, column.truth
    if not len(truth):
        return FindingCalibration(ece=None, brier=None, curve=[], reason=column.one_sided_reason)
    curve = reliability_curve(probabilities, truth)
    return FindingCalibration(
        ece=calibration_error(curve),
        brier=float(np.mean((probabilities - truth) ** 2)),
        curve=curve,
    )


def calibration_error(curve: Sequence[CurveBin]) -> float:
    """Mean distance of a bin's mean probability from its share of positives, weighed by its images."""
    images = sum(part.images for part in curve)
    return sum(abs(part.predicted - part.observed) * part.images for part in curve) / images


def reliability_curve(probabilities: Floats, truth: Floats) -> list[CurveBin]:
    """Images by probability, in BINS parts of equally many, each with Jeffreys' interval.

    Images of one probability stand in one part, so that the result does not depend on their order; the parts
    are then not quite equal, and fewer.

    Args:
        probabilities: (images,), in [0, 1].
        truth: (images,), 0 or 1; at least one.
    """
    ordered = np.sort(probabilities)
    starts = ordered[[part * len(ordered) // BINS for part in range(1, BINS)]]
    number = np.searchsorted(starts, probabilities, side="right")
    curve: list[CurveBin] = []
    for part in (number == each for each in np.unique(number)):
        present, images = float(truth[part].sum()), int(part.sum())
        limits = beta.ppf([0.025, 0.975], present + 0.5, images - present + 0.5)
        curve.append(
            CurveBin(
                predicted=float(probabilities[part].mean()),
                observed=present / images,
                interval=[float(limit) for limit in limits],
                images=images,
            )
        )
    return curve


def fit_rescaling(predictions: Predictions) -> dict[str, Rescaling | None]:
    """Two numbers per finding that make its probabilities fit: Platt's slope and intercept on the logit.

    To be fitted on validation, and applied elsewhere by `rescale`.

    Args:
        predictions: of the validation split, probabilities.

    Returns:
        By finding; None where fewer than FEWEST_PATIENTS patients have it or are without it, or where the
        scores run the wrong way: the probability is then left as it is.

    Source: Platt 1999; Guo et al. 2017, arXiv:1706.04599, section 4.1.
    """
    result: dict[str, Rescaling | None] = {}
    for column in predictions.columns():
        result[column.name] = None
        if column.has_few_cases:
            continue
        logits = _logit(column.scores)
        # The solver stops early on features far from 0 or of odd size.
        center, spread = float(logits.mean()), float(logits.std()) or 1.0
        fitted = LogisticRegression(C=1e6).fit((logits[:, None] - center) / spread, column.truth)
        slope = float(fitted.coef_.item()) / spread
        if slope > 0:
            intercept = float(fitted.intercept_.item()) - slope * center
            result[column.name] = Rescaling(slope=slope, intercept=intercept)
    return result


def rescale(
    probabilities: Floats, rescaling: Mapping[str, Rescaling | None], finding_names: Sequence[str]
) -> Floats:
    """Apply what `fit_rescaling` returned: the order of images stays as it is.

    Args:
        probabilities: (images, findings).
        rescaling: by finding.
        finding_names: one per column.

    Returns:
        (images, findings), float64.
    """
    result = np.array(probabilities, dtype=np.float64)
    for column, name in enumerate(finding_names):
        fit = rescaling.get(name)
        if fit is not None:
            scaled = fit.slope * _logit(result[:, column]) + fit.intercept
            result[:, column] = 1 / (1 + np.exp(-scaled))
    return result


def _logit(probabilities: Floats) -> Floats:
    """The sigmoid's inverse; 0 and 1 count as almost so."""
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-15, 1 - 1e-15)
    return np.asarray(np.log(inside) - np.log1p(-inside))
