"""AUROC and average precision per finding over annotated labels, with patient-level intervals.

Stands on predictions.py and bootstrap.py: predictions in, numbers out, as a function and as an
`evaluate.Metric` that needs no Hub. A finding that has only one label value has neither number; it is None
(null in JSON, for NaN is not JSON) with a reason, never 0 and never a crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from medhiera.data.finding_names import plain_name
from medhiera.evaluation.bootstrap import (
    Bootstrap,
    Floats,
    WeightedRanking,
    interval,
    repetition_weights,
)
from medhiera.evaluation.predictions import FindingColumn, Predictions
from medhiera.evaluation.probe_results import FindingOverDraws
from medhiera.evaluation.results import FindingScore, MeanScores, RankingReport

NO_DISEASE = "No Finding"
"""The label that is none of the 14 diseases: means are given with and without it."""

MEASURES = ("auroc", "average_precision")
"""In the order of `WeightedRanking.weigh`."""

_DESCRIPTION = """Area under the ROC curve and average precision of each finding, over the images annotated
for it (label 0 or 1; NaN is not annotated), their means over all findings and over the diseases, and 95 %
intervals from resampled patients."""

_FEATURES = datasets.Features(
    {
        "predictions": datasets.Sequence(datasets.Value("float64")),
        "references": datasets.Sequence(datasets.Value("float64")),
    }
)


class MultilabelRanking(evaluate.Metric):
    """AUROC and average precision per finding and their means.

    `compute(predictions=…, references=…, finding_names=…)` takes scores and labels of shape (images,
    findings), and optionally `patient_ids` and `bootstrap_resamples` (default: no intervals). It returns
    the RankingReport of `rank_findings` as a dict.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions, references: (images, findings) floats",
            features=_FEATURES,
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        finding_names: Sequence[str],
        patient_ids: Sequence[str] | None = None,
        bootstrap_resamples: int = 0,
    ) -> dict[str, Any]:
        scores = np.asarray(predictions, dtype=np.float64)
        labels = np.asarray(references, dtype=np.float64)
        joined = Predictions(scores, labels, finding_names, patient_ids)
        return asdict(rank_findings(joined, Bootstrap(bootstrap_resamples)))


def diseases_among(names: Iterable[str]) -> list[str]:
    """The findings without No Finding, however it is spelled."""
    return [name for name in names if plain_name(name) != plain_name(NO_DISEASE)]


def rank_findings(predictions: Predictions, bootstrap: Bootstrap) -> RankingReport:
    """AUROC and average precision of every finding, their means and intervals.

    Args:
        predictions: of a split; logits and probabilities rank alike.
        bootstrap: behind the intervals.

    Source: percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13); the intervals of
    average precision are moved by their bootstrap bias (chapter 10).
    """
    draws = _resample(predictions, bootstrap)
    findings = {column.name: _score(column, draws.get(column.name)) for column in predictions.columns()}
    diseases = diseases_among(draws)
    everything = _means(findings, draws, list(draws))
    return RankingReport(
        **vars(everything),
        diseases=_means(findings, draws, diseases),
        findings=findings,
        images=len(predictions),
        bootstrap_resamples=bootstrap.resamples,
        patients=predictions.patient_count,
    )


def rank_over_seeds(several: Sequence[Predictions], bootstrap: Bootstrap) -> MeanScores:
    """Mean AUROC and average precision of models that differ in their seed, averaged over these.

    The intervals are over patients: every model is weighed by the same resamples. What another seed would
    give is not in them.

    Args:
        several: of each model, the same images and findings in the same order.
        bootstrap: behind the intervals.
    """
    reports = [rank_findings(each, Bootstrap(0)) for each in several]
    names = reports[0].findings_in_mean
    if not names:
        return _means({}, {}, [])
    auroc, average_precision = (
        float(np.mean([getattr(report, f"mean_{measure}") for report in reports])) for measure in MEASURES
    )
    drawn = np.mean([drawn_means(_resample(each, bootstrap), names) for each in several], axis=0)
    return MeanScores(
        mean_auroc=auroc,
        mean_auroc_interval=interval(drawn[0]),
        mean_average_precision=average_precision,
        mean_average_precision_interval=interval(drawn[1], centered_on=average_precision),
        findings_in_mean=names,
    )


def rank_over_draws(
    several: Sequence[Predictions], bootstrap: Bootstrap
) -> tuple[MeanScores, dict[str, FindingOverDraws]]:
    """What models that learned from different draws of the same data reach on average, by finding too.

    Args:
        several: of each model, the same images and findings in the same order; one at least.
        bootstrap: behind the intervals of the means over draws. They are over patients and draws: each
            resample of the scored patients, the same for every model, resamples the draws too.
    """
    drawn = [_resample(each, bootstrap) for each in several]
    weights = repetition_weights(len(several), bootstrap.resamples)
    mean_drawn = {
        name: np.einsum("dr,dmr->mr", weights, np.stack([draws[name] for draws in drawn]))
        for name in drawn[0]
    }
    findings: dict[str, FindingOverDraws] = {}
    for columns in zip(*(each.columns() for each in several), strict=True):
        first = columns[0]
        if first.one_sided_reason is not None:
            findings[first.name] = FindingOverDraws(reason=first.one_sided_reason)
            continue
        aurocs = [float(roc_auc_score(one.is_present, one.scores)) for one in columns]
        precision = float(np.mean([average_precision_score(one.is_present, one.scores) for one in columns]))
        findings[first.name] = FindingOverDraws(
            auroc=float(np.mean(aurocs)),
            auroc_interval=interval(mean_drawn[first.name][0]),
            lowest_auroc=min(aurocs),
            highest_auroc=max(aurocs),
            average_precision=precision,
            average_precision_interval=interval(mean_drawn[first.name][1], centered_on=precision),
            has_few_cases=first.has_few_cases,
        )
    return _means(findings, mean_drawn, list(mean_drawn)), findings


def _resample(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, Floats]:
    """(2, resamples) of each finding that has both label values: AUROC and average precision."""
    count = predictions.patient_count
    measures = {
        column.name: WeightedRanking.of(column.scores, column.is_present, column.patients, count).weigh
        for column in predictions.columns()
        if column.one_sided_reason is None
    }
    return bootstrap.resample(measures, count)


def _score(column: FindingColumn, drawn: Floats | None) -> FindingScore:
    """One finding's entry.

    Args:
        column: its images.
        drawn: (2, resamples), AUROC and average precision; None where the finding has neither.
    """
    auroc = average_precision = auroc_interval = average_precision_interval = None
    if drawn is not None:
        auroc = float(roc_auc_score(column.is_present, column.scores))
        average_precision = float(average_precision_score(column.is_present, column.scores))
        auroc_interval = interval(drawn[0])
        average_precision_interval = interval(drawn[1], centered_on=average_precision)
    return FindingScore(
        auroc=auroc,
        auroc_interval=auroc_interval,
        average_precision=average_precision,
        average_precision_interval=average_precision_interval,
        positives=column.positives,
        negatives=column.negatives,
        positive_patients=column.positive_patients,
        negative_patients=column.negative_patients,
        has_few_cases=column.has_few_cases,
        reason=column.one_sided_reason,
    )


def _means(
    findings: Mapping[str, FindingScore | FindingOverDraws], draws: Mapping[str, Floats], names: Sequence[str]
) -> MeanScores:
    """Mean AUROC and average precision of findings, each with its interval; None where there is none."""
    if not names:
        return MeanScores(
            mean_auroc=None,
            mean_auroc_interval=None,
            mean_average_precision=None,
            mean_average_precision_interval=None,
            findings_in_mean=[],
        )
    auroc, average_precision = (
        float(np.mean([getattr(findings[name], measure) for name in names])) for measure in MEASURES
    )
    drawn = drawn_means(draws, names)
    return MeanScores(
        mean_auroc=auroc,
        mean_auroc_interval=interval(drawn[0]),
        mean_average_precision=average_precision,
        mean_average_precision_interval=interval(drawn[1], centered_on=average_precision),
        findings_in_mean=list(names),
    )


def drawn_means(draws: Mapping[str, Floats], names: Sequence[str]) -> list[Floats]:
    """Of AUROC and average precision the mean over findings, (resamples,) each; of no finding nothing."""
    if not names:
        return []
    return [mean_of_known(np.stack([draws[name][row] for name in names])) for row in range(len(MEASURES))]


def mean_of_known(drawn: Floats) -> Floats:
    """Mean over findings, (findings, resamples) → (resamples,).

    A resample may lack a rare finding's positives; its mean is then over the findings it has.
    """
    known = (~np.isnan(drawn)).sum(axis=0)
    return np.asarray(np.nansum(drawn, axis=0)[known > 0] / known[known > 0])
