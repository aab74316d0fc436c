"""Rows of built data → studies with their reports → batches for the model that writes reports.

A study is all rows of one `study_id`: its views, in their order. Pictures are read and drawn by
RadiographDataset, so every random choice is keyed by (seed, epoch, image_id) as in the other stages.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from dataset_scripts.findings import STUDY_ID
from medhiera.data.augmentation import Augmentation
from medhiera.data.batch_augmentation import DRAWS
from medhiera.data.columns import read_column
from medhiera.data.dataset import EVALUATION_EPOCH, RadiographDataset
from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError

logger = logging.getLogger(__name__)

NOT_A_LABEL = -100
"""In `labels`, where a report has ended: the loss does not see it."""


_REMOVED = re.compile(r"\bX{2,}\b")


@dataclass(frozen=True)
class Study:
    """The pictures of one study and what was reported of them.

    Attributes:
        name: `source/study_id`.
        rows: of its views, in their order.
        report: the section that is written, as the data has it.
    """

    name: str
    rows: tuple[int, ...]
    report: str


@dataclass(frozen=True)
class ReportSplit:
    """The studies of a split that are read.

    Attributes:
        rows: that the studies' numbers are of.
        studies: with their reports.
    """

    rows: Dataset
    studies: list[Study]

    @property
    def reports(self) -> list[str]:
        """Of the studies."""
        return [study.report for study in self.studies]

    @property
    def sources(self) -> set[str]:
        """That the studies are of."""
        sources = read_column(self.rows, "source").to_pylist()
        return {sources[study.rows[0]] for study in self.studies}

    def change_reports(self, change: Callable[[str], str]) -> "ReportSplit":
        """The same studies with other texts."""
        studies = [replace(study, report=change(study.report)) for study in self.studies]
        return ReportSplit(self.rows, studies)


def read_studies(
    rows: Dataset, section: str, views: int, at_most: int | None = None, seed: int = 0
) -> list[Study]:
    """The studies of some rows that have the section, drawn by the seed where they are limited.

    Args:
        rows: of built data, see dataset_scripts.findings.REPORT_COLUMNS.
        section: findings or impression.
        views: the most of a study, laterals last; further ones are left out.
        at_most: so many studies.
        seed: of the draw.

    Raises:
        UserError: the data has no reports, or none of its studies has this section.
    """
    column = f"report_{section}"
    if column not in rows.column_names:
        raise UserError(
            f"the data has no reports (no column {column}); reports come from iu_xray or mimic_cxr, see "
            "docs/reports.md. Data that was exported before they were read is to be built again"
        )
    names = read_column(rows, STUDY_ID).to_pylist()
    sources = read_column(rows, "source").to_pylist()
    texts = read_column(rows, column).to_pylist()
    shown = read_column(rows, "view").to_pylist()
    found: dict[str, list[int]] = {}
    for row, (source, name) in enumerate(zip(sources, names, strict=True)):
        if name:
            found.setdefault(f"{source}/{name}", []).append(row)
    studies = []
    for name, of_study in found.items():
        report = texts[of_study[0]].strip()
        of_study.sort(key=lambda row: shown[row] == "LATERAL")  # else in the source's order, which may be any
        if _holds_words(report):
            studies.append(Study(name, tuple(of_study[:views]), report))
    split = rows.split or "chosen"
    if not studies:
        raise UserError(
            f"no study of the {split} split has a report's {section}; it holds "
            f"{len(found)} studies of {sorted(set(sources))}. Name the other section "
            "(report_section), or data with reports"
        )
    if len(studies) < len(found):
        logger.info(
            "%d of %d studies of the %s split have no %s: left out",
            len(found) - len(studies), len(found), split, section,
        )  # fmt: skip
    if at_most is not None and at_most < len(studies):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(studies))[:at_most])
        studies = [studies[number] for number in chosen]
    return studies


def _holds_words(report: str) -> bool:
    """Whether a report says anything but numbers and what de-identification left ("1. ___.", "XXXX")."""
    return any(letter.isalpha() for letter in _REMOVED.sub("", report))


def default_report_sources(rows: Dataset) -> list[str] | None:
    """The sources that have reports: the others would only be read to be left out."""
    if STUDY_ID not in rows.column_names:
        return None
    names, sources = (read_column(rows, column).to_pylist() for column in (STUDY_ID, "source"))
    return sorted({source for name, source in zip(names, sources, strict=True) if name}) or None


def rows_of(rows: Dataset, studies: Sequence[Study]) -> Dataset:
    """The rows that some studies read, study after study."""
    return rows.select([row for study in studies for row in study.rows])


class ReportDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Studies as batches: their views and the tokens of their reports.

    Args:
        rows: that the studies' numbers are of.
        studies: from `read_studies`.
        preprocessing: resize, crop and normalization.
        views: the most of a study; a batch has room for so many.
        tokens: of each study's report; None where nothing is learned of them.
        seed: the run's seed.
        augmentation: random changes of training images.
    """

    def __init__(
        self,
        rows: Dataset,
        studies: Sequence[Study],
        preprocessing: Preprocessing,
        views: int,
        tokens: Sequence[Sequence[int]] | None = None,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.studies = list(studies)
        self.views = views
        self.tokens = tokens
        self._pictures = RadiographDataset(rows, preprocessing, seed=seed, augmentation=augmentation)

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """A batch of one; a key is (epoch, study) in training and a plain number in evaluation."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The studies of a batch, read at once.

        Returns:
            `pixel_values` (studies, views, 1, height, width), uint8, and what was drawn for them, each
            (studies, views, …); `has_view` (studies, views), bool; `image_ids`; and `labels` (studies,
            tokens), int64.
        """
        pairs = [key if isinstance(key, tuple) else (EVALUATION_EPOCH, key) for key in keys]
        chosen = [self.studies[number] for _, number in pairs]
        batch = self._pictures.__getitems__(
            [(epoch, row) for (epoch, _), study in zip(pairs, chosen, strict=True) for row in study.rows]
        )
        has_view = torch.tensor([[view < len(study.rows) for view in range(self.views)] for study in chosen])
        found = {"has_view": has_view, "image_ids": batch.pop("image_ids")}
        for name, value in batch.items():
            if isinstance(value, torch.Tensor):
                # A copy: of a worker's pixels the memory is used again.
                spread = value.new_zeros(*has_view.shape, *value.shape[1:])
                spread[has_view] = value
                found[name] = spread
        if "slot" in batch:
            batch["slot"].give_back()
        if self.tokens is not None:
            reports = [self.tokens[number] for _, number in pairs]
            labels = torch.full((len(reports), max(map(len, reports))), NOT_A_LABEL)
            for line, report in zip(labels, reports, strict=True):
                line[: len(report)] = torch.tensor(report)
            found["labels"] = labels
        return found


def model_inputs(preprocessing: Preprocessing, batch: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """A batch of studies as the model's input, see Preprocessing.model_inputs.

    Args:
        preprocessing: of the run.
        batch: on the device that trains.
        channels: that the model takes.

    Returns:
        The batch with `pixel_values` (studies, views, channels, height, width), float32; 0 where no view is.
    """
    has_view = batch["has_view"]
    pictures = {name: batch[name][has_view] for name in ("pixel_values", *DRAWS) if name in batch}
    pixels = preprocessing.model_inputs(pictures, channels)["pixel_values"]
    spread = pixels.new_zeros(*has_view.shape, *pixels.shape[1:])
    spread[has_view] = pixels
    rest = {name: value for name, value in batch.items() if name not in pictures}
    return {**rest, "pixel_values": spread}


@dataclass(frozen=True)
class ReportCollator:
    """The Trainer's collator: `ReportDataset.__getitems__` has made the batch already."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Hand the batch on."""
        return dict(batch)
