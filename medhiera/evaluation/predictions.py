"""What a model said of a split beside what is true: checked once, here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from medhiera.evaluation.bootstrap import Floats


def check_scores(scores: Floats, labels: Floats, finding_names: Sequence[str]) -> None:
    """Refuse what no metric can be computed from.

    Raises:
        ValueError: see `rank_findings`.
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


def why_one_sided(positives: int, negatives: int) -> str:
    """Why a finding has no AUROC, in words."""
    if not positives and not negatives:
        return "no image is annotated for it"
    return "no negative image" if positives else "no positive image"


LABEL_SUFFIX = " (label)"


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split, and what is true.

    Attributes:
        probabilities: (images, findings).
        labels: (images, findings); 1, 0 or NaN.
        rows: the columns `image_id`, `patient_id`, `sex`, `age_years` and `view` of the images.
    """

    probabilities: Floats
    labels: Floats
    rows: pd.DataFrame

    @classmethod
    def of(cls, rows: Dataset, probabilities: Floats) -> "Predictions":
        """Join a model's outputs with the rows they were made from, in their order."""
        columns = ["image_id", "patient_id", "sex", "age_years", "view"]
        table = pd.DataFrame({column: list(rows[column]) for column in columns})
        labels = np.array(rows["labels"], dtype=np.float64)
        return cls(np.asarray(probabilities, dtype=np.float64), labels, table)

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """One row an image: who it is, a column of probabilities a finding, then one of labels a finding."""
        chances = pd.DataFrame(self.probabilities, columns=list(names))
        labels = pd.DataFrame(self.labels, columns=[f"{name}{LABEL_SUFFIX}" for name in names])
        return pd.concat([self.rows, chances, labels], axis=1)


def without_nan(column: pd.Series) -> list[Any]:
    """A column as a list, None where it holds nothing."""
    return [None if pd.isna(value) else value for value in column]


def read_predictions(path: Path, names: Sequence[str], image_ids: Sequence[str]) -> Floats:
    """Another model's probabilities for the same images, from its predictions.parquet.

    Args:
        path: as evaluate_cls.py wrote it.
        names: the findings wanted, in order.
        image_ids: the images wanted, in order.

    Returns:
        (images, findings).

    Raises:
        ValueError: no such file, or it lacks a finding or an image.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the predictions.parquet of another evaluate_cls.py run")
    table = pd.read_parquet(path)
    absent = [name for name in ["image_id", *names] if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]!r}; wanted predictions of the same findings")
    table = table.set_index("image_id")
    missing = [image for image in image_ids if image not in table.index]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(image_ids)} images, such as {missing[0]}; both models must "
            "be evaluated on the same split"
        )
    return np.asarray(table.loc[list(image_ids), list(names)], dtype=np.float64)
