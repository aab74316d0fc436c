"""By what the best checkpoint is chosen: which findings count, and the numbers of each validation.

Stands beside metrics.py; train_cls.py hands it to the Trainer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.exclusive import score_calls
from medhiera.evaluation.metrics import MultilabelRanking, diseases_among
from medhiera.evaluation.predictions import Predictions
from medhiera.inference.classifier import score_logits

FEWEST_POSITIVE_PATIENTS = 30
"""A finding of fewer positive validation patients moves by chance more than a better checkpoint moves it."""

SELECTION_METRIC = "selection_auroc"
"""What the best checkpoint has the highest of, by default."""


@dataclass
class Selection:
    """What the best checkpoint is chosen by: the mean validation AUROC of these findings.

    Attributes:
        findings: their names.
        rule: why these, in words.
    """

    findings: list[str]
    rule: str


def choose_findings(
    labels: NDArray[np.floating[Any]],
    patient_ids: Sequence[str],
    names: Sequence[str],
    is_exclusive: bool = False,
    one_sided: Collection[str] = (),
) -> Selection:
    """The findings whose mean validation AUROC chooses the checkpoint.

    Diseases with at least 30 positive patients; where there is none, all diseases with both label values, and
    where there is none of these either, all labels with both.

    Args:
        labels: (images, findings) of the validation split; 1, 0 or NaN.
        patient_ids: one per image.
        names: of the findings.
        is_exclusive: each image has exactly one of them: they are classes, of which two have one AUROC.
        one_sided: those left out where others remain, see one_sided_findings.

    Returns:
        The findings, and the rule in words.

    Raises:
        UserError: no finding has both label values: no checkpoint could be chosen.
    """
    patients = np.asarray(patient_ids)
    both = _with_both_values(labels, names)
    if is_exclusive and len(names) == 2:
        return Selection(both, "both classes, which have the same AUROC")
    word = "classes" if is_exclusive else "findings"
    if len(diseases_among(names)) < len(names):
        word = "diseases"
    learned = [name for name in both if name not in one_sided]
    if learned and len(learned) < len(both):
        both, word = learned, f"{word} of both label values in training"
    positives = {name: len(set(patients[labels[:, names.index(name)] == 1])) for name in both}
    diseases = diseases_among(both)
    common = [name for name in diseases if positives[name] >= FEWEST_POSITIVE_PATIENTS]
    if common:
        return Selection(
            common, f"{word} with at least {FEWEST_POSITIVE_PATIENTS} positive validation patients"
        )
    if diseases:
        return Selection(
            diseases, f"all {word}, as none has {FEWEST_POSITIVE_PATIENTS} positive validation patients"
        )
    return Selection(both, "all findings")


def one_sided_findings(labels: NDArray[np.floating[Any]], names: Sequence[str]) -> dict[str, str]:
    """Findings that cannot be learned, as the training images do not show both present and absent.

    Args:
        labels: (images, findings) of the training split; 1, 0 or NaN.
        names: of the findings.

    Returns:
        By finding, what the images show, in words.
    """
    present, absent = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    words = {
        (True, False): "present wherever annotated",
        (False, True): "absent wherever annotated",
        (False, False): "never annotated",
    }
    shown = zip(names, present.tolist(), absent.tolist(), strict=True)
    return {name: words[has, lacks] for name, has, lacks in shown if not (has and lacks)}


def _with_both_values(labels: NDArray[np.floating[Any]], names: Sequence[str]) -> list[str]:
    """The findings that have an AUROC on validation; refuses where there is none, as choose_findings says."""
    both = [
        name
        for column, name in enumerate(names)
        if (labels[:, column] == 1).any() and (labels[:, column] == 0).any()
    ]
    if np.isnan(labels).all():
        raise UserError(
            f"none of the {len(labels)} validation images has a label, so there is nothing to learn; stage 1 "
            "takes images without labels, and class folders or a table give them some (docs/data.md)"
        )
    if not both:
        raise UserError(
            f"no finding has both present and absent images among the {len(labels)} of the validation split, "
            "so no checkpoint can be chosen by AUROC; hold out more images"
        )
    return both


@dataclass
class ValidationScores:
    """The Trainer's compute_metrics: logits of a validation → numbers that are logged.

    Attributes:
        names: of the findings.
        selected: those that choose the checkpoint.
        legacy_head: rank by sigmoid(softmax(logits)), med-hiera's defect.
        is_exclusive: each image has exactly one of the labels; `accuracy` of the most probable is logged too.
    """

    names: Sequence[str]
    selected: Sequence[str]
    legacy_head: bool = False
    is_exclusive: bool = False
    metric: MultilabelRanking = field(default_factory=lambda: MultilabelRanking(keep_in_memory=True))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """`selection_auroc` (the best checkpoint has the highest), `mean_auroc`, and one for each finding."""
        logits = torch.from_numpy(np.asarray(prediction.predictions))
        scores = np.asarray(score_logits(logits, self.legacy_head, self.is_exclusive))
        result = self.metric.compute(
            predictions=scores,
            references=prediction.label_ids,
            finding_names=self.names,
        )
        known = {
            name: entry["auroc"] for name, entry in result["findings"].items() if entry["auroc"] is not None
        }
        calls = {}
        if self.is_exclusive:
            joined = Predictions(scores, np.asarray(prediction.label_ids), self.names)
            calls["accuracy"] = score_calls(joined, Bootstrap(0)).accuracy or 0.0
        return (
            calls
            | {
                SELECTION_METRIC: float(np.mean([known[name] for name in self.selected])),
                "mean_auroc": result["mean_auroc"],
                "findings_in_mean": len(known),
            }
            | {f"auroc_{name}": value for name, value in known.items()}
        )
