"""What a linear probe learns from and is scored on: frozen features of three splits, from a file or a model.

inference/features_file.py → here → few_labels.py; `probe.py` makes it from a model's outputs too.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from medhiera.data.columns import has_exclusive_labels, read_column
from medhiera.data.kept_findings import places_of_findings
from medhiera.data.selection import task_sources
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Floats
from medhiera.evaluation.few_labels import FeatureSplit
from medhiera.evaluation.predictions import IDENTITY, Predictions
from medhiera.inference.features_file import Header, feature_matrix, read_features

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ProbeSplit(FeatureSplit):
    """Features of a split with who each image is of.

    Attributes:
        rows: the columns of predictions.IDENTITY.
        sources: number of images by source.
        is_exclusive: each image has exactly one of the labels.
    """

    rows: pd.DataFrame
    sources: dict[str, int]
    is_exclusive: bool

    @classmethod
    def of(cls, rows: Dataset, features: Floats) -> "ProbeSplit":
        """Join an encoder's features with the rows of built data that they were made from."""
        columns = {name: read_column(rows, name).to_pylist() for name in (*IDENTITY, "source", "labels")}
        return cls._of(columns, features, has_exclusive_labels(rows))

    @classmethod
    def _of(cls, columns: dict[str, list[Any]], features: Floats, is_exclusive: bool) -> "ProbeSplit":
        labels = np.array(columns["labels"], dtype=np.float64)
        table = pd.DataFrame({name: columns[name] for name in IDENTITY})
        sources = dict(Counter(columns["source"]))
        return cls(features, labels, columns["patient_id"], table, sources, is_exclusive)

    def predictions(self, scores: Floats, names: Sequence[str]) -> Predictions:
        """A probe's scores of these images, ready to be scored."""
        return Predictions(
            np.asarray(scores, dtype=np.float64), self.labels, list(names), list(self.patient_ids), self.rows,
            is_exclusive=self.is_exclusive,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Three splits.

    Attributes:
        names: of the findings.
        training: that is learned from.
        validation: where the penalty and thresholds are chosen; None where that is scored, or none is there.
        scored: the split that is scored.
    """

    names: list[str]
    training: ProbeSplit
    validation: ProbeSplit | None
    scored: ProbeSplit

    @property
    def shared_patients(self) -> int:
        """Patients that are learned from and scored on."""
        return len(set(self.training.patient_ids) & set(self.scored.patient_ids))


def read_probe_data(
    path: Path,
    split: str,
    sources: Sequence[str] | None,
    max_train_images: int | None,
    findings: Sequence[str] | None = None,
) -> tuple[Header, ProbeData]:
    """The splits of a features file.

    Args:
        path: that embed.py wrote, of a dataset.
        split: that is to be scored.
        sources: that are read; None for the task's where the file has them, else all.
        max_train_images: at most so many to learn from, drawn at random.
        findings: of the file's, those that are read; None or empty for all.

    Raises:
        UserError: no such file, or it has no labels, or lacks a split, source or finding; or the encoder was
            trained on images that are to be scored.
    """
    header, table = read_features(path)
    if not header.data:
        raise UserError(
            f"--features {path} holds features of files, which have no labels; embed a dataset "
            "(`medhiera embed --data_dir DATA`)"
        )
    present = set(table["source"].unique().to_pylist())
    chosen = list(sources) if sources is not None else task_sources(present)
    if unknown := sorted(set(chosen or ()) - present):
        raise UserError(f"--sources {unknown}: the file holds {sorted(present)}")
    if chosen is not None:
        table = table.filter(pc.is_in(table["source"], value_set=pa.array(chosen)))
    splits = {name: table.filter(pc.equal(table["split"], name)) for name in {"train", "validation", split}}
    for name in ("train", split):
        if not len(splits[name]):
            found = sorted(set(table["split"].to_pylist()))
            raise UserError(f"--features {path} holds no image of the {name} split, only of {found}")
    training = splits["train"]
    if max_train_images is not None and max_train_images < len(training):
        drawn = np.random.default_rng(0).permutation(len(training))[:max_train_images]
        training = training.take(pa.array(np.sort(drawn)))
    has_validation = split != "validation" and len(splits["validation"]) > 0
    for name in {split, "validation"} - {"train"}:
        _check_unseen(header, name, splits[name])
    kept = places_of_findings(findings, header.finding_names, header.is_exclusive)
    data = ProbeData(
        [header.finding_names[place] for place in kept],
        _split_of(training, header, kept),
        _split_of(splits["validation"], header, kept) if has_validation else None,
        _split_of(splits[split], header, kept),
    )
    return header, data


def _split_of(table: pa.Table, header: Header, kept: Sequence[int]) -> ProbeSplit:
    columns = {name: table[name].to_pylist() for name in (*IDENTITY, "source", "labels")}
    columns["labels"] = [[labels[place] for place in kept] for labels in columns["labels"]]
    return ProbeSplit._of(columns, feature_matrix(table), header.is_exclusive)


def _check_unseen(header: Header, split: str, table: pa.Table) -> None:
    """Refuse to score an encoder on images that it was trained on.

    Raises:
        UserError: some were.
    """
    seen = table.filter(pc.fill_null(table["is_trained_on"], False))
    if len(seen):
        raise UserError(
            f"{header.model} was trained on {len(seen)} of the {len(table)} {split} images, such as "
            f"{seen['image_id'][0].as_py()!r}: a probe's scores on them would be too good. Embed data that "
            "is split as it was when the model was trained"
        )
