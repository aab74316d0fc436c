"""Labels that exclude each other: an image is called by its most probable label; how often that is right.

Stands on predictions.py and bootstrap.py, beside metrics.py, whose AUROC is of each label against the others.
No threshold is chosen: the largest probability decides.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medhiera.evaluation.bootstrap import Bootstrap, Floats, interval
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.shares import share_interval

NO_THRESHOLD = "the labels exclude each other, and each image is called by its most probable one"
"""Why such a report has no operating points."""


@dataclass(frozen=True, kw_only=True)
class LabelCalls:
    """What becomes of the images of one label.

    Attributes:
        recall: share of its images that are called so; of two labels these are sensitivity and specificity.
        precision: share of the images called so that are of this label.
        called: its images by what they are called.
    """

    recall: float | None
    recall_interval: list[float] | None
    precision: float | None
    precision_interval: list[float] | None
    called: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ExclusiveReport:
    """How often the most probable label is the right one.

    Attributes:
        accuracy: share of annotated images called rightly.
        balanced_accuracy: mean of the recalls of the labels that have an image.
        accuracy_of_commonest: what calling every image the commonest label reaches.
        labels: by name.
    """

    accuracy: float | None
    accuracy_interval: list[float] | None
    balanced_accuracy: float | None
    balanced_accuracy_interval: list[float] | None
    accuracy_of_commonest: float | None
    labels: dict[str, LabelCalls]

    @property
    def pair(self) -> list[str]:
        """The labels where there are two: either one's AUROC is the other's, so one is shown; else none."""
        return list(self.labels) if len(self.labels) == 2 else []


def score_calls(predictions: Predictions, bootstrap: Bootstrap) -> ExclusiveReport:
    """Accuracy, recalls and precisions with patient-level intervals.

    Args:
        predictions: of a split; each annotated image has one label that is 1. Of equal scores the first is
            called.
        bootstrap: behind the intervals.
    """
    names, count = list(predictions.finding_names), predictions.patient_count
    is_annotated = ~np.isnan(predictions.labels).any(axis=1)
    true = predictions.labels[is_annotated].argmax(axis=1)
    called = predictions.scores[is_annotated].argmax(axis=1)
    cells = true * len(names) + called
    # Images of each patient in each cell of the table of true by called labels: (patients, labels²).
    of_patients = np.zeros((count, len(names) ** 2))
    np.add.at(of_patients, (predictions.patients[is_annotated], cells), 1)
    shape = (len(names), len(names))
    table = of_patients.sum(axis=0).reshape(*shape, 1)
    parts = [(of_patients.T @ weights).reshape(*shape, -1) for weights in bootstrap.weights(count)]
    drawn = np.concatenate(parts, axis=-1) if parts else np.empty((*shape, 0))
    has_images = table.sum(axis=(1, 2)) > 0
    (accuracy, balanced, recalls, precisions), resampled = (
        _measures(each, has_images) for each in (table, drawn)
    )
    by_patient = of_patients.reshape(count, *shape)
    right, images_of = by_patient[:, range(len(names)), range(len(names))].T, by_patient.sum(axis=2).T
    called_so = by_patient.sum(axis=1).T
    labels = {
        name: LabelCalls(
            recall=_value(recalls[index]),
            recall_interval=_interval(resampled[2][index], right[index], images_of[index]),
            precision=_value(precisions[index]),
            precision_interval=_interval(resampled[3][index], right[index], called_so[index]),
            called={other: int(images) for other, images in zip(names, table[index, :, 0], strict=True)},
        )
        for index, name in enumerate(names)
    }
    images = table.sum()
    return ExclusiveReport(
        accuracy=_value(accuracy),
        accuracy_interval=_interval(resampled[0], right.sum(axis=0), images_of.sum(axis=0)),
        balanced_accuracy=_value(balanced),
        balanced_accuracy_interval=interval(resampled[1]),
        accuracy_of_commonest=float(table.sum(axis=1).max() / images) if images else None,
        labels=labels,
    )


def _measures(tables: Floats, has_images: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """Accuracy, balanced accuracy, recalls, precisions of tables (true, called, resamples); NaN of none."""
    right = np.einsum("iir->ir", tables)
    recalls = _share(right, tables.sum(axis=1))
    precisions = _share(right, tables.sum(axis=0))
    # A label without an image in a resample leaves its mean recall unknown there.
    balanced = _share(recalls[has_images].sum(axis=0), np.full(tables.shape[2], has_images.sum()))
    return _share(right.sum(axis=0), tables.sum(axis=(0, 1))), balanced, recalls, precisions


def _interval(draws: Floats, right: Floats, images: Floats) -> list[float] | None:
    return share_interval(draws, right, images) if len(draws) else None


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _value(measure: Floats) -> float | None:
    [value] = measure
    return None if np.isnan(value) else float(value)
