"""The mean of several models' probabilities, and what it gains over each of them on the same patients.

Stands on comparison.py; evaluate_cls.py asks for it where `--model` names more than one.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.comparison_results import Comparison
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import MeanScores
from medhiera.evaluation.tables import difference_text, few_compared, mean_as_text


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One of the models whose probabilities are averaged.

    Attributes:
        model: a folder's own name or a Hub id.
        fingerprint: of its weights.
        scores: means over all findings.
        diseases: the same without No Finding.
        gain: the mean's scores minus this model's, on the same resamples of patients.
    """

    model: str
    fingerprint: str
    scores: MeanScores
    diseases: MeanScores
    gain: Comparison


def mean_predictions(members: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of several models.

    Args:
        members: of the same images and findings, in the same order.
    """
    return dataclasses.replace(members[0], scores=np.mean([each.scores for each in members], axis=0))


def compare_members(
    models: Sequence[tuple[str, str]], members: Sequence[Predictions], bootstrap: Bootstrap
) -> list[EnsembleMember]:
    """Score each model alone, and the mean against it; none of a single model.

    Args:
        models: name and fingerprint of each.
        members: their predictions.
        bootstrap: behind the intervals.
    """
    if len(members) == 1:
        return []
    mean = mean_predictions(members)
    found = []
    for (model, fingerprint), each in zip(models, members, strict=True):
        ranked = rank_findings(each, bootstrap)
        means = {field.name: getattr(ranked, field.name) for field in dataclasses.fields(MeanScores)}
        found.append(
            EnsembleMember(
                model=model,
                fingerprint=fingerprint,
                scores=MeanScores(**means),
                diseases=ranked.diseases,
                gain=compare_models(mean, each, bootstrap),
            )  # fmt: skip
        )
    return found


def member_lines(members: Sequence[EnsembleMember], mean: MeanScores) -> list[str]:
    """A plain-text table: the mean AUROC of each model, of the mean, and what the mean gains.

    Args:
        members: from `compare_members`.
        mean: of the averaged probabilities.
    """
    lines = [
        f"mean AUROC of all findings; gain of the mean of {len(members)} models, paired, with bootstrap p:"
    ]
    for one in members:
        gain = one.gain.mean
        text = "" if gain is None else f"; the mean's gain {difference_text(gain, ['auroc'])}"
        lines.append(f"{one.model:<20} {mean_as_text(one.scores)}{text}")
    footnote = few_compared(one.gain.mean for one in members)
    return [*lines, f"{'mean of them':<20} {mean_as_text(mean)}", *footnote]
