"""Two models on the same images: differences with paired intervals, and DeLong's variance.

Stands on metrics.py and bootstrap.py. Which model is better is asked of the difference: two intervals that
overlap do not answer it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from medhiera.evaluation.bootstrap import Floats, Ranking, count_patients, group_patients, interval, resample
from medhiera.evaluation.metrics import NO_DISEASE, mean_of_known, rank_findings
from medhiera.evaluation.predictions import check_scores

MEASURES = ("auroc", "average_precision")


def compare_models(
    scores: Floats,
    other_scores: Floats,
    labels: Floats,
    finding_names: Sequence[str],
    patient_ids: Sequence[str] | None = None,
    bootstrap_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Differences of AUROC and average precision, the first model's minus the second's.

    Both models are weighed by the same resamples of patients, so what is hard for both cancels out.

    Args:
        scores: (images, findings) of the first model.
        other_scores: of the second, same images and findings.
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.
        patient_ids: one per image (default: each its own).
        bootstrap_resamples: behind the intervals; at least 1.
        seed: of the resampling.

    Returns:
        `findings`: name → `auroc` and `average_precision`, each with `difference`, `interval` and `p_value`
        (two-sided, from the resamples), and `delong_p_value` of the AUROC, which takes every image for a
        patient of its own; a finding with one label value has a `reason` instead. `mean` and `diseases`: the
        same of the means.

    Raises:
        ValueError: as `rank_findings`.
    """
    check_scores(other_scores, labels, finding_names)
    ours, theirs = (rank_findings(each, labels, finding_names) for each in (scores, other_scores))
    patients = group_patients(len(scores), patient_ids)
    count = count_patients(patients)
    findings: dict[str, dict[str, Any]] = {}
    pairs: dict[str, tuple[Ranking, Ranking]] = {}
    for column, name in enumerate(finding_names):
        if name not in ours["findings_in_mean"]:
            findings[name] = {"reason": ours["findings"][name]["reason"]}
            continue
        is_annotated = ~np.isnan(labels[:, column])
        truth = labels[is_annotated, column] == 1.0
        columns = np.stack([each[is_annotated, column] for each in (scores, other_scores)])
        one, other = (Ranking.of(each, truth, patients[is_annotated], count) for each in columns)
        pairs[name] = (one, other)
        findings[name] = {"delong_p_value": delong_p_value(columns, truth)}

    measures = {name: partial(_weigh_apart, *pair) for name, pair in pairs.items()}
    draws = resample(measures, count, bootstrap_resamples, seed)
    for name, drawn in draws.items():
        for row, measure in enumerate(MEASURES):
            difference = ours["findings"][name][measure] - theirs["findings"][name][measure]
            findings[name][measure] = _difference(difference, drawn[row])

    diseases = [name for name in pairs if name != NO_DISEASE]
    return {
        "mean": _of_means(ours, theirs, draws, list(pairs)),
        "diseases": _of_means(ours["diseases"], theirs["diseases"], draws, diseases),
        "findings": findings,
        "images": len(scores),
        "bootstrap_resamples": bootstrap_resamples,
    }


def _weigh_apart(one: Ranking, other: Ranking, weights: Floats) -> tuple[Floats, Floats]:
    """What the first has more than the second of each measure."""
    (auroc, precision), (other_auroc, other_precision) = one.weigh(weights), other.weigh(weights)
    return auroc - other_auroc, precision - other_precision


def _of_means(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], draws: Mapping[str, Floats], names: Sequence[str]
) -> dict[str, Any] | None:
    """The difference of the means over some findings; None where there are none."""
    if not names:
        return None
    return {
        measure: _difference(
            ours[f"mean_{measure}"] - theirs[f"mean_{measure}"],
            mean_of_known(np.stack([draws[name][row] for name in names])),
        )
        for row, measure in enumerate(MEASURES)
    }


def _difference(value: float, drawn: Floats) -> dict[str, Any]:
    """A difference, its interval, and twice the share of resamples beyond zero (never zero)."""
    known = drawn[~np.isnan(drawn)]
    beyond = min((known <= 0).sum(), (known >= 0).sum()) if len(known) else 0
    p_value = min(1.0, 2 * (int(beyond) + 1) / (len(known) + 1)) if len(known) else None
    return {"difference": float(value), "interval": interval(drawn), "p_value": p_value}


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
