"""Whether a probability means what it says: calibration error, reliability bins, repair on validation.

Stands beside metrics.py: probabilities in, numbers out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.metrics import FEATURES, RARE
from medhiera.evaluation.predictions import check_scores, why_one_sided

BINS = 15
"""Bins of equal width behind the calibration error, as Guo et al. 2017 count it."""

CURVE_BINS = 10
"""Bins of equally many images behind the reliability plot: rare findings would leave others empty."""


class MultilabelCalibration(evaluate.Metric):
    """Expected calibration error and Brier score per finding; works offline.

    `compute(predictions=…, references=…, finding_names=…)` takes probabilities and labels of shape (images,
    findings) and returns what `measure_calibration` returns.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Expected calibration error and Brier score of each finding, over annotated images.",
            citation="",
            inputs_description="predictions, references: (images, findings) floats",
            features=FEATURES,
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        finding_names: Sequence[str],
    ) -> dict[str, Any]:
        return measure_calibration(np.asarray(predictions), np.asarray(references), finding_names)


def measure_calibration(
    probabilities: Floats, labels: Floats, finding_names: Sequence[str]
) -> dict[str, Any]:
    """How far probabilities lie from shares.

    Args:
        probabilities: (images, findings), in [0, 1].
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.

    Returns:
        `findings`: name → `ece`, `brier`, `curve` (bins of equally many images: `predicted`, `observed` and
            its `interval`, `images`), or a `reason` where no image is annotated; `mean_ece` and
            `mean_brier` over the others.

    Raises:
        ValueError: a probability outside [0, 1], and as metrics.rank_findings.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2, with the finding's probability as confidence.
    """
    check_scores(probabilities, labels, finding_names)
    if probabilities.size and (probabilities.min() < 0 or probabilities.max() > 1):
        raise ValueError(
            f"probabilities lie between {probabilities.min():g} and {probabilities.max():g}; wanted 0 to 1 "
            "(apply a sigmoid to logits)"
        )
    findings: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(finding_names):
        is_annotated = ~np.isnan(labels[:, column])
        truth, chance = labels[is_annotated, column], probabilities[is_annotated, column]
        if not len(truth):
            findings[name] = {"reason": why_one_sided(0, 0)}
            continue
        findings[name] = {
            "ece": calibration_error(chance, truth),
            "brier": float(np.mean((chance - truth) ** 2)),
            "curve": _curve(chance, truth),
        }
    known = [entry for entry in findings.values() if "ece" in entry]
    return {
        "findings": findings,
        "mean_ece": float(np.mean([entry["ece"] for entry in known])) if known else None,
        "mean_brier": float(np.mean([entry["brier"] for entry in known])) if known else None,
        "bins": BINS,
    }


def calibration_error(probabilities: Floats, truth: Floats) -> float:
    """Mean distance of a bin's mean probability from its share of positives, weighed by its images.

    Args:
        probabilities: (images,), in [0, 1].
        truth: (images,), 0 or 1; at least one.
    """
    number = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(number, weights=probabilities - truth, minlength=BINS)
    return float(np.abs(gaps).sum() / len(truth))


def _curve(probabilities: Floats, truth: Floats) -> list[dict[str, Any]]:
    """The reliability curve: images sorted by probability, in equal parts, with Jeffreys' intervals."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, CURVE_BINS) if len(part)]
    curve: list[dict[str, Any]] = []
    for part in parts:
        present, images = float(truth[part].sum()), len(part)
        limits = beta.ppf([0.025, 0.975], present + 0.5, images - present + 0.5)
        curve.append(
            {
                "predicted": float(probabilities[part].mean()),
                "observed": present / images,
                "interval": [float(limit) for limit in limits],
                "images": images,
            }
        )
    return curve


def fit_rescaling(
    probabilities: Floats, labels: Floats, finding_names: Sequence[str]
) -> dict[str, dict[str, float] | None]:
    """Two numbers per finding that make its probabilities fit: Platt's slope and intercept on the logit.

    To be fitted on validation, and applied elsewhere by `rescale`.

    Args:
        probabilities: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.

    Returns:
        name → `slope` and `intercept`, or None where fewer than RARE images are present or absent, or where
        the scores run the wrong way: the probability is then left as it is.

    Source: Platt 1999; Guo et al. 2017, arXiv:1706.04599, section 4.1.
    """
    check_scores(probabilities, labels, finding_names)
    result: dict[str, dict[str, float] | None] = {}
    for column, name in enumerate(finding_names):
        is_annotated = ~np.isnan(labels[:, column])
        truth = labels[is_annotated, column]
        result[name] = None
        if min(truth.sum(), (1 - truth).sum()) < RARE:
            continue
        logits = _logit(probabilities[is_annotated, column])
        spread = float(logits.std()) or 1.0  # the solver stops early on features of odd size
        fitted = LogisticRegression(C=1e6).fit(logits[:, None] / spread, truth)
        slope = float(fitted.coef_.item()) / spread
        if slope > 0:
            result[name] = {"slope": slope, "intercept": float(fitted.intercept_.item())}
    return result


def rescale(
    probabilities: Floats,
    rescaling: Mapping[str, Mapping[str, float] | None],
    finding_names: Sequence[str],
) -> Floats:
    """Apply what `fit_rescaling` found: the order of images stays as it is.

    Args:
        probabilities: (images, findings).
        rescaling: by finding.
        finding_names: one per column.

    Returns:
        (images, findings), float64.
    """
    result = np.array(probabilities, dtype=np.float64)
    for column, name in enumerate(finding_names):
        found = rescaling.get(name)
        if found is not None:
            scaled = found["slope"] * _logit(result[:, column]) + found["intercept"]
            result[:, column] = 1 / (1 + np.exp(-scaled))
    return result


def _logit(probabilities: Floats) -> Floats:
    """The sigmoid's inverse; 0 and 1 count as almost so."""
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-15, 1 - 1e-15)
    return np.asarray(np.log(inside) - np.log1p(-inside))
