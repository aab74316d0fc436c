"""AUROC per finding over annotated labels, with patient-level intervals: `evaluate.Metric` classes.

Last arrow before the card: logits in, numbers out. A finding that has only one label value has no AUROC;
it is NaN with a reason, never 0 and never a crash.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.floating[Any]]

RARE = 10
"""Below so many positive (or negative) images the bootstrap has too little to resample."""

_DESCRIPTION = """Area under the ROC curve of each finding, over the images annotated for it (label 0 or 1;
NaN is not annotated), their mean, and 95 % intervals from resampled patients."""


class MultilabelAUROC(evaluate.Metric):
    """AUROC per finding and their mean.

    `compute(predictions=…, references=…)` takes scores and labels of shape (images, findings) and the options

    - finding_names: a name per column (required);
    - patient_ids: one per image; images of one patient are resampled together (default: each its own);
    - bootstrap_resamples: 0 gives no intervals;
    - seed: of the resampling.

    It returns `mean_auroc`, `mean_auroc_interval`, `findings` (name → auroc, interval, positives, negatives,
    is_rare, reason) and `findings_in_mean`. `auroc` is None where `reason` says why; `is_rare` warns that an
    interval from so few images is not to be trusted.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions, references: (images, findings) floats",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
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
        return multilabel_auroc(scores, labels, finding_names, patient_ids, bootstrap_resamples, seed)


def multilabel_auroc(
    scores: Floats,
    labels: Floats,
    finding_names: Sequence[str],
    patient_ids: Sequence[str] | None = None,
    bootstrap_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """What MultilabelAUROC computes, on arrays.

    Args:
        scores: (images, findings); higher means more likely present. Logits and probabilities rank alike.
        labels: (images, findings); 1, 0 or NaN.
        finding_names: one per column.
        patient_ids: one per image; default each image its own patient.
        bootstrap_resamples: resamples behind the intervals; 0 for none.
        seed: of the resampling.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a label that is not 0, 1 or NaN.

    Source: percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13).
    """
    if scores.shape != labels.shape or scores.ndim != 2 or scores.shape[1] != len(finding_names):
        raise ValueError(
            f"scores {scores.shape}, labels {labels.shape} and {len(finding_names)} names do not fit; "
            "wanted (images, findings) twice and one name per finding"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{int((~np.isfinite(scores)).sum())} scores are NaN or infinite; the model has diverged"
        )
    if not (np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all():
        raise ValueError("labels hold values other than 0, 1 and NaN")
    resamples = _patient_weights(len(scores), patient_ids, bootstrap_resamples, seed)

    findings: dict[str, dict[str, Any]] = {}
    resampled: list[Floats] = []
    for column, name in enumerate(finding_names):
        is_annotated = ~np.isnan(labels[:, column])
        truth, score = labels[is_annotated, column] == 1.0, scores[is_annotated, column]
        positives, negatives = int(truth.sum()), int((~truth).sum())
        entry: dict[str, Any] = {
            "auroc": None,
            "interval": None,
            "positives": positives,
            "negatives": negatives,
            "is_rare": min(positives, negatives) < RARE,
        }
        if positives and negatives:
            entry["auroc"] = float(roc_auc_score(truth, score))
            if bootstrap_resamples:
                draws = _weighted_auroc(score, truth, resamples[:, is_annotated])
                entry["interval"] = _interval(draws)
                resampled.append(draws)
        elif not positives and not negatives:
            entry["reason"] = "no image is annotated for it"
        else:
            entry["reason"] = "no positive image" if not positives else "no negative image"
        findings[name] = entry

    in_mean = [name for name, entry in findings.items() if entry["auroc"] is not None]
    result: dict[str, Any] = {
        "mean_auroc": float(np.mean([findings[name]["auroc"] for name in in_mean])) if in_mean else None,
        "mean_auroc_interval": None,
        "findings_in_mean": in_mean,
        "findings": findings,
        "images": len(scores),
        "bootstrap_resamples": bootstrap_resamples,
    }
    if resampled:
        # A resample may lack a rare finding's positives; its mean is then over the findings it has.
        draws = np.stack(resampled)
        known = (~np.isnan(draws)).sum(axis=0)
        result["mean_auroc_interval"] = _interval(np.nansum(draws, axis=0)[known > 0] / known[known > 0])
    return result


def _patient_weights(
    images: int, patient_ids: Sequence[str] | None, resamples: int, seed: int
) -> NDArray[np.int32]:
    """How often each image stands in each resample of patients: (resamples, images)."""
    groups = np.arange(images) if patient_ids is None else np.unique(patient_ids, return_inverse=True)[1]
    patients = int(groups.max()) + 1 if images else 0
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, patients), dtype=np.int32)
    for row in range(resamples):
        weights[row] = np.bincount(generator.integers(patients, size=patients), minlength=patients)
    return weights[:, groups]


def _weighted_auroc(score: Floats, truth: NDArray[np.bool_], weights: NDArray[np.int32]) -> Floats:
    """AUROC under many weightings of the same images at once.

    Args:
        score: (images,).
        truth: (images,).
        weights: (resamples, images), not negative.

    Returns:
        (resamples,); NaN where a resample holds one label value only. Ties count one half.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # first of each group of equal scores
    result = np.empty(len(weights))
    for begin in range(0, len(weights), 256):  # bounds the memory at 256 × images
        chunk = weights[begin : begin + 256][:, order]
        positive = np.add.reduceat(chunk * truth[order], starts, axis=1, dtype=np.float64)
        negative = np.add.reduceat(chunk * ~truth[order], starts, axis=1, dtype=np.float64)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        wins = (positive * (below + 0.5 * negative)).sum(axis=1)
        result[begin : begin + 256] = np.divide(wins, pairs, out=np.full(len(chunk), np.nan), where=pairs > 0)
    return result


def _interval(draws: Floats) -> list[float] | None:
    """The 2.5 and 97.5 percentiles of the resamples that have an AUROC; None where not one has."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return [float(low), float(high)]


def as_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """A plain-text table of what `multilabel_auroc` returned: a line a finding, then the mean.

    Args:
        evaluation: its result; intervals and values may be missing.
    """
    lines = [f"{'finding':<20} AUROC     95 % interval    positives of images"]
    for name, entry in evaluation["findings"].items():
        value = "–    " if entry["auroc"] is None else f"{entry['auroc']:.3f}"
        said = entry["reason"] if entry["auroc"] is None else _as_text(entry["interval"])
        star = "*" if entry["auroc"] is not None and entry["is_rare"] else " "
        images = f"{entry['positives']} of {entry['positives'] + entry['negatives']}"
        lines.append(f"{name.replace('_', ' '):<20} {value}{star}    {said:<16} {images}")
    lines.append(f"mean of {len(evaluation['findings_in_mean']):<12} {mean_as_text(evaluation)}")
    if any(entry["is_rare"] and entry["auroc"] is not None for entry in evaluation["findings"].values()):
        lines.append(
            f"* fewer than {RARE} positive (or negative) images: neither value nor interval is to be trusted"
        )
    return lines


def mean_as_text(evaluation: Mapping[str, Any]) -> str:
    """The mean AUROC and its interval, or why there is none."""
    if evaluation["mean_auroc"] is None:
        return "–    (no finding has both present and absent images)"
    return f"{evaluation['mean_auroc']:.3f} (95 % interval: {_as_text(evaluation['mean_auroc_interval'])})"


def _as_text(interval: Sequence[float] | None) -> str:
    return "none" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
