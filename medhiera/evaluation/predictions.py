"""What a model said of a split beside what is true: checked once, when made; every scorer takes it.

Stands on bootstrap.py's numbering of patients; the scripts make it from a model's outputs and built rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import NDArray

from medhiera.data.columns import has_exclusive_labels, read_column, read_labels
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Floats, count_patients, group_patients

FEWEST_PATIENTS = 10
"""Below so many patients with a positive (or a negative) image the bootstrap has too little to resample."""

LABEL_SUFFIX = " (label)"

IDENTITY = ("image_id", "patient_id", "sex", "age_years", "view")


@dataclass(frozen=True, eq=False)
class FindingColumn:
    """One finding of some predictions, over the images annotated for it.

    Attributes:
        name: of the finding.
        scores: (annotated images,).
        is_present: (annotated images,), the label.
        patients: (annotated images,), numbers from `group_patients`.
    """

    name: str
    scores: Floats
    is_present: NDArray[np.bool_]
    patients: NDArray[np.intp]

    @property
    def truth(self) -> Floats:
        """The labels as 0 and 1: (annotated images,)."""
        return self.is_present.astype(np.float64)

    @property
    def positives(self) -> int:
        """Images with the finding."""
        return int(self.is_present.sum())

    @property
    def negatives(self) -> int:
        """Images without it."""
        return int((~self.is_present).sum())

    @cached_property
    def positive_patients(self) -> int:
        """Patients with at least one positive image."""
        return len(np.unique(self.patients[self.is_present]))

    @cached_property
    def negative_patients(self) -> int:
        """Patients with at least one negative image."""
        return len(np.unique(self.patients[~self.is_present]))

    @property
    def has_few_cases(self) -> bool:
        """Fewer than FEWEST_PATIENTS patients on one side: images of one patient are no independent cases."""
        return min(self.positive_patients, self.negative_patients) < FEWEST_PATIENTS

    @property
    def one_sided_reason(self) -> str | None:
        """Why the finding has no AUROC, in words; None where both label values occur."""
        if self.positives and self.negatives:
            return None
        if not self.positives and not self.negatives:
            return "no image is annotated for it"
        return "no negative image" if self.positives else "no positive image"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of a split, and what is true; arrays are not to be written to.

    Attributes:
        scores: (images, findings); higher means more likely present. Ranking takes any, such as logits;
            calibration and thresholds want probabilities.
        labels: (images, findings); 1, 0 or NaN (not annotated).
        finding_names: one per column.
        patient_ids: one per image, whose images are resampled together; None takes each image for a patient
            of its own.
        rows: `image_id`, `patient_id`, `sex`, `age_years` and `view` of the images; None where only numbers
            are at hand: subgroups and the table need them.
        is_exclusive: each image has exactly one of the labels.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a label that is not 0, 1 or NaN, a
            number of names, patients or rows that is not one each.
    """

    scores: Floats
    labels: Floats
    finding_names: Sequence[str]
    patient_ids: Sequence[str] | None = None
    rows: pd.DataFrame | None = None
    is_exclusive: bool = False

    def __post_init__(self) -> None:
        scores, labels, names = self.scores, self.labels, self.finding_names
        if scores.shape != labels.shape or scores.ndim != 2 or scores.shape[1] != len(names):
            raise ValueError(
                f"scores {scores.shape}, labels {labels.shape} and {len(names)} names do not fit; "
                "wanted (images, findings) twice and one name per finding"
            )
        if not np.isfinite(scores).all():
            raise ValueError(
                f"{int((~np.isfinite(scores)).sum())} scores are NaN or infinite; the model has diverged"
            )
        if not (np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all():
            raise ValueError("labels hold values other than 0, 1 and NaN")
        for what, each in (("patient_ids", self.patient_ids), ("rows", self.rows)):
            if each is not None and len(each) != len(scores):
                raise ValueError(f"{len(each)} {what} for {len(scores)} images; wanted one per image")

    @classmethod
    def of(cls, rows: Dataset, scores: Floats, finding_names: Sequence[str]) -> "Predictions":
        """Join a model's outputs with the rows they were made from, in their order.

        Args:
            rows: of built data.
            scores: (images, findings).
            finding_names: the data's, in order. Of labels that exclude each other there may be more, which
                the data lacks: 0 in each annotated image.

        Raises:
            ValueError: as the class.
        """
        table = pd.DataFrame({name: read_column(rows, name).to_pylist() for name in IDENTITY})
        labels = read_labels(rows)
        is_exclusive = has_exclusive_labels(rows)
        if is_exclusive and len(finding_names) > labels.shape[1]:
            lacking = np.where(np.isnan(labels).any(axis=1, keepdims=True), np.nan, 0.0)
            labels = np.hstack([labels, lacking.repeat(len(finding_names) - labels.shape[1], axis=1)])
        patients = table["patient_id"].tolist()
        scores = np.asarray(scores, dtype=np.float64)
        return cls(scores, labels, list(finding_names), patients, table, is_exclusive)

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def patients(self) -> NDArray[np.intp]:
        """The patients' numbers, from 0: (images,)."""
        return np.arange(len(self)) if self.patient_ids is None else group_patients(self.patient_ids)

    @cached_property
    def patient_count(self) -> int:
        """How many patients there are."""
        return count_patients(self.patients)

    def columns(self) -> Iterator[FindingColumn]:
        """Each finding over its annotated images, in order."""
        for column, name in enumerate(self.finding_names):
            is_annotated = ~np.isnan(self.labels[:, column])
            yield FindingColumn(
                name,
                self.scores[is_annotated, column],
                self.labels[is_annotated, column] == 1.0,
                self.patients[is_annotated],
            )

    def select(self, is_in: NDArray[np.bool_], finding_names: Sequence[str] | None = None) -> "Predictions":
        """Some of the images, and some of the findings.

        Args:
            is_in: (images,), True is kept.
            finding_names: the findings kept, in this order (default: all).

        Raises:
            ValueError: as the class.
        """
        names = list(self.finding_names if finding_names is None else finding_names)
        columns = [list(self.finding_names).index(name) for name in names]
        ids = self.patients.tolist() if self.patient_ids is None else self.patient_ids
        return Predictions(
            self.scores[is_in][:, columns],
            self.labels[is_in][:, columns],
            names,
            np.asarray(ids, dtype=object)[is_in].tolist(),
            None if self.rows is None else self.rows[is_in].reset_index(drop=True),
            self.is_exclusive and finding_names is None,
        )

    def values(self, column: str) -> list[Any]:
        """A column of `rows`, None where it holds nothing.

        Raises:
            ValueError: the predictions were made without rows.
        """
        if self.rows is None:
            raise ValueError(f"these predictions have no rows, so no {column}; make them by Predictions.of")
        return [None if pd.isna(value) else value for value in self.rows[column]]

    def table(self) -> pd.DataFrame:
        """One row an image: who it is, a column of scores a finding, then one of labels a finding.

        Raises:
            UserError: two columns would have one name, see check_column_names.
        """
        check_column_names(self.finding_names)
        names = list(self.finding_names)
        scores = pd.DataFrame(self.scores, columns=names)
        labels = pd.DataFrame(self.labels, columns=[f"{name}{LABEL_SUFFIX}" for name in names])
        return pd.concat([*([] if self.rows is None else [self.rows]), scores, labels], axis=1)


def check_column_names(finding_names: Sequence[str]) -> None:
    """Refuse findings that `Predictions.table` could not tell from its other columns; before they are scored.

    Raises:
        UserError: one is named as a column of the images' identity, or as another finding's labels.
    """
    columns = [*IDENTITY, *finding_names, *(f"{name}{LABEL_SUFFIX}" for name in finding_names)]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise UserError(
            f"predictions.parquet would have two columns {twice[0]!r}: no finding may be named "
            f"{', '.join(IDENTITY)}, or as another one with{LABEL_SUFFIX!r} behind it; rename it in the data "
            "and in id2label of the model's config.json"
        )
