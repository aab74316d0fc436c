"""Where to draw the line: thresholds chosen on validation, sensitivity and specificity with them on test.

Stands beside metrics.py. A finding is called present where its probability is at least the threshold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from medhiera.evaluation.bootstrap import Floats, count_patients, group_patients, interval, patient_weights
from medhiera.evaluation.predictions import check_scores, why_one_sided

RULES = ("youden", "sensitivity_90")
"""Largest sensitivity + specificity; the highest threshold that finds at least 90 % of the positives."""

MEASURES = ("sensitivity", "specificity")

SENSITIVITY = 0.9


def choose_thresholds(
    probabilities: Floats, labels: Floats, finding_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Thresholds by both rules, on validation images.

    Args:
        probabilities: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.

    Returns:
        name → `youden`, `sensitivity_90`, `positives`; or a `reason` where a label value is missing.

    Raises:
        ValueError: as metrics.rank_findings.
    """
    check_scores(probabilities, labels, finding_names)
    chosen: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(finding_names):
        is_annotated = ~np.isnan(labels[:, column])
        truth, chance = labels[is_annotated, column], probabilities[is_annotated, column]
        positives = int(truth.sum())
        if positives in (0, len(truth)):
            reason = why_one_sided(positives, len(truth) - positives)
            chosen[name] = {"reason": f"{reason} on validation"}
            continue
        false_rate, true_rate, thresholds = roc_curve(truth, chance, drop_intermediate=False)
        thresholds[0] = np.nextafter(chance.max(), 2)  # scikit-learn's infinity: nothing is called present
        enough = int(np.argmax(true_rate >= SENSITIVITY - 1e-12))
        chosen[name] = {
            "youden": float(thresholds[np.argmax(true_rate - false_rate)]),
            "sensitivity_90": float(thresholds[enough]),
            "positives": positives,
        }
    return chosen


def apply_thresholds(
    thresholds: Mapping[str, Mapping[str, Any]],
    probabilities: Floats,
    labels: Floats,
    finding_names: Sequence[str],
    patient_ids: Sequence[str] | None = None,
    bootstrap_resamples: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Sensitivity and specificity of thresholds that were chosen elsewhere, with patient-level intervals.

    The interval is of the test images alone: the threshold is taken as given. Where all images or none are
    called rightly it is the exact binomial one (Clopper and Pearson 1934), images taken as independent.

    Args:
        thresholds: from `choose_thresholds`.
        probabilities: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.
        patient_ids: one per image (default: each its own).
        bootstrap_resamples: behind the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        name → `positives` (those the thresholds were chosen on) and rule → `threshold`, `sensitivity`,
        `specificity`, `…_interval` (None where no image is there to tell); or a `reason`.

    Raises:
        ValueError: as metrics.rank_findings.
    """
    check_scores(probabilities, labels, finding_names)
    patients = group_patients(len(labels), patient_ids)
    count = count_patients(patients)
    result: dict[str, dict[str, Any]] = {}
    tallies: list[Floats] = []
    places: list[dict[str, Any]] = []
    for column, name in enumerate(finding_names):
        chosen = thresholds.get(name, {"reason": "no threshold was chosen for it"})
        kept = "reason" if "reason" in chosen else "positives"
        result[name] = {kept: chosen[kept]}
        for rule in [] if "reason" in chosen else RULES:
            called = probabilities[:, column] >= chosen[rule]
            place: dict[str, Any] = {"threshold": chosen[rule]}
            for measure, value in zip(MEASURES, (1.0, 0.0), strict=True):
                is_asked = labels[:, column] == value
                is_right = is_asked & (called == bool(value))
                place[measure] = float(is_right.sum() / is_asked.sum()) if is_asked.any() else None
                place[f"{measure}_interval"] = None
                tallies += [_per_patient(each, patients, count) for each in (is_right, is_asked)]
            result[name][rule] = place
            places.append(place)
    if not tallies or not bootstrap_resamples:
        return result
    table = np.stack(tallies)
    sums = np.concatenate(
        [table @ weights for weights in patient_weights(count, bootstrap_resamples, seed)], 1
    )
    shares = np.divide(sums[::2], sums[1::2], out=np.full_like(sums[::2], np.nan), where=sums[1::2] > 0)
    totals = table.sum(axis=1).reshape(len(places), 2, 2)
    for place, drawn, counts in zip(places, shares.reshape(len(places), 2, -1), totals, strict=True):
        for measure, draws, (right, asked) in zip(MEASURES, drawn, counts, strict=True):
            place[f"{measure}_interval"] = _share_interval(draws, int(right), int(asked))
    return result


def _share_interval(draws: Floats, right: int, asked: int) -> list[float] | None:
    """Of the resamples; exact where all or none are right, for resampling cannot leave 0 or 1."""
    if asked and right in (0, asked):
        limits = binomtest(right, asked).proportion_ci(method="exact")
        return [float(limits.low), float(limits.high)]
    return interval(draws)


def _per_patient(is_counted: NDArray[np.bool_], patients: NDArray[np.intp], count: int) -> Floats:
    """How many of each patient's images are counted: (patients,)."""
    return np.asarray(np.bincount(patients, weights=is_counted, minlength=count), dtype=np.float64)
