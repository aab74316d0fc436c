"""AUROC and average precision per finding over annotated labels, with patient-level intervals.

Last arrow before the card: logits in, numbers out, as functions of arrays and as `evaluate.Metric` classes
that need no Hub. A finding that has only one label value has neither number; it is None (null in JSON, for
NaN is not JSON) with a reason, never 0 and never a crash.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from medhiera.evaluation.bootstrap import Floats, Ranking, count_patients, group_patients, interval, resample
from medhiera.evaluation.predictions import check_scores, why_one_sided

NO_DISEASE = "No Finding"
"""The label that is none of the 14 diseases: means are given with and without it."""

RARE = 10
"""Below so many positive (or negative) images the bootstrap has too little to resample."""

_DESCRIPTION = """Area under the ROC curve and average precision of each finding, over the images annotated
for it (label 0 or 1; NaN is not annotated), their means over all findings and over the diseases, and 95 %
intervals from resampled patients."""

FEATURES = datasets.Features(
    {
        "predictions": datasets.Sequence(datasets.Value("float64")),
        "references": datasets.Sequence(datasets.Value("float64")),
    }
)


class MultilabelRanking(evaluate.Metric):
    """AUROC and average precision per finding and their means.

    `compute(predictions=…, references=…)` takes scores and labels of shape (images, findings) and the options
    of `rank_findings`, and returns what it returns.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions, references: (images, findings) floats",
            features=FEATURES,
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        finding_names: Sequence[str],
        patient_ids: Sequence[str] | None = None,
        bootstrap_resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        scores = np.asarray(predictions, dtype=np.float64)
        labels = np.asarray(references, dtype=np.float64)
        return rank_findings(scores, labels, finding_names, patient_ids, bootstrap_resamples, seed)


def rank_findings(
    scores: Floats,
    labels: Floats,
    finding_names: Sequence[str],
    patient_ids: Sequence[str] | None = None,
    bootstrap_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """What MultilabelRanking computes, on arrays.

    Args:
        scores: (images, findings); higher means more likely present. Logits and probabilities rank alike.
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.
        patient_ids: one per image; images of one patient are resampled together (default: each its own).
        bootstrap_resamples: resamples behind the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        `findings`: name → `auroc` and its `interval`, `average_precision` and its
        `average_precision_interval`, `positives`, `negatives`, `is_rare` (an interval from so few images is
        not to be trusted), and, where there is no value, a `reason`. `mean_auroc`, `mean_average_precision`
        and their `…_interval`; the same of the diseases alone below `diseases`; `findings_in_mean`. The
        chance level of average precision is a finding's share of positives.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a label that is not 0, 1 or NaN.

    Source: percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13); the intervals of
    average precision are moved by their bootstrap bias (chapter 10).
    """
    check_scores(scores, labels, finding_names)
    patients = group_patients(len(scores), patient_ids)
    count = count_patients(patients)
    findings: dict[str, dict[str, Any]] = {}
    rankings: dict[str, Ranking] = {}
    for column, name in enumerate(finding_names):
        is_annotated = ~np.isnan(labels[:, column])
        truth, score = labels[is_annotated, column] == 1.0, scores[is_annotated, column]
        positives, negatives = int(truth.sum()), int((~truth).sum())
        entry: dict[str, Any] = {
            "auroc": None,
            "interval": None,
            "average_precision": None,
            "average_precision_interval": None,
            "positives": positives,
            "negatives": negatives,
            "is_rare": min(positives, negatives) < RARE,
        }
        if positives and negatives:
            entry["auroc"] = float(roc_auc_score(truth, score))
            entry["average_precision"] = float(average_precision_score(truth, score))
            rankings[name] = Ranking.of(score, truth, patients[is_annotated], count)
        else:
            entry["reason"] = why_one_sided(positives, negatives)
        findings[name] = entry

    measures = {name: ranking.weigh for name, ranking in rankings.items()}
    draws = resample(measures, count, bootstrap_resamples, seed)
    if bootstrap_resamples:
        for name, drawn in draws.items():
            findings[name]["interval"] = interval(drawn[0])
            findings[name]["average_precision_interval"] = interval(
                drawn[1], centred_on=findings[name]["average_precision"]
            )

    diseases = [name for name in rankings if name != NO_DISEASE]
    return {
        **_means(findings, draws, list(rankings)),
        "findings_in_mean": list(rankings),
        "diseases": _means(findings, draws, diseases) | {"findings_in_mean": diseases},
        "findings": findings,
        "images": len(scores),
        "bootstrap_resamples": bootstrap_resamples,
    }


def _means(
    findings: Mapping[str, Mapping[str, Any]], draws: Mapping[str, Floats], names: Sequence[str]
) -> dict[str, Any]:
    """Mean AUROC and average precision of findings, each with its interval; None where there is none."""
    result: dict[str, Any] = {}
    for row, measure in enumerate(("auroc", "average_precision")):
        values = [findings[name][measure] for name in names]
        result[f"mean_{measure}"] = float(np.mean(values)) if values else None
        drawn = np.stack([draws[name][row] for name in names]) if names else np.empty((0, 0))
        centre = result[f"mean_{measure}"] if measure == "average_precision" else None
        result[f"mean_{measure}_interval"] = interval(mean_of_known(drawn), centre)
    return result


def mean_of_known(drawn: Floats) -> Floats:
    """Mean over findings, (findings, resamples) → (resamples,).

    A resample may lack a rare finding's positives; its mean is then over the findings it has.
    """
    known = (~np.isnan(drawn)).sum(axis=0)
    return np.asarray(np.nansum(drawn, axis=0)[known > 0] / known[known > 0])
