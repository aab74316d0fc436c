"""A model's written reports → everything that its card says of them, beside constant and nearest reports.

Stands on captions.py and report_baselines.py; train_report.py and evaluate_report.py call it.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedTokenizerFast

from dataset_scripts import iu_xray, mimic_cxr
from medhiera.config.report_arguments import ReportArguments
from medhiera.data.cocktail import BuiltDataset, are_drawn
from medhiera.data.columns import read_labels
from medhiera.data.report_dataset import ReportDataset, ReportSplit, Study
from medhiera.data.report_tokenizer import decode_reports
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.caption_metrics import measure_captions
from medhiera.evaluation.caption_results import CaptionReport
from medhiera.evaluation.captions import compare_captions, read_annotations, score_captions
from medhiera.evaluation.chexbert import Chexbert
from medhiera.evaluation.radgraph import score_annotations
from medhiera.evaluation.report_baselines import Choice, find_best_constant
from medhiera.evaluation.report_cleaning import CLEANERS, clean_report
from medhiera.evaluation.report_content import count_distinct, share_verbatim
from medhiera.evaluation.report_results import CaptionDifference, ConstantReport, Example, ReportEvaluation
from medhiera.inference.report_writer import ReportWriter

NORMAL = "No Finding"
"""The label of a normal study."""

NOT_ANNOTATED = "no study of the data is annotated as normal or not"

EXAMPLES = 5

_CHOICES: tuple[Choice, ...] = ("bleu_4", "cider")


def choose_cleaning(options: ReportArguments, *splits: ReportSplit) -> str:
    """The rules that reports are scored by: a key of CLEANERS, or none.

    Reports of both sources together are cleaned by MIMIC-CXR's rules, which leave the words of every real
    report of IU X-Ray as IU's do.

    Args:
        options: of which `clean: source` leaves the choice to the data.
        *splits: the data.

    Raises:
        UserError: R2Gen's vocabulary is asked for and no rules are known for these reports.
    """
    sources = set().union(*(split.sources for split in splits))
    chosen: str = options.clean
    if chosen == "source":
        of_iu = "iu" if iu_xray.SOURCE.name in sources else "none"
        chosen = "mimic" if mimic_cxr.SOURCE.name in sources else of_iu
    if options.legacy_vocabulary and chosen not in CLEANERS:
        raise UserError(
            f"legacy_vocabulary is of cleaned reports, and R2Gen has no rules for those of "
            f"{sorted(sources)}; set clean to iu or mimic, or leave legacy_vocabulary out"
        )
    return chosen


@dataclass
class ValidationReports:
    """The Trainer's compute_metrics: tokens that were written on validation → numbers that are logged.

    Attributes:
        tokenizer: of the model.
        references: of the validation studies, in their order.
        clean: as the final scores.
    """

    tokenizer: PreTrainedTokenizerFast
    references: Sequence[str]
    clean: str

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """`cider` (by default the best checkpoint has the most of it), `bleu_4`, `rouge_l` and `distinct`."""
        written = [
            clean_report(text, self.clean) for text in decode_reports(self.tokenizer, prediction.predictions)
        ]
        references = [clean_report(text, self.clean) for text in self.references]
        values = measure_captions(references, written).values()
        chosen = {name: float(values[name]) for name in ("cider", "bleu_4", "rouge_l")}
        return chosen | {"distinct": count_distinct(written)}


def write_table(reports: "WrittenReports", file: Path) -> None:
    """A CSV beside the record, never published: each study's reference, what was written, the nearest."""
    with file.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["study", "reference", "written", "nearest"])
        for study, reference in reports.references.items():
            writer.writerow([study, reference, reports.written[study], reports.nearest[study]])


def find_normal(rows: Dataset, studies: Sequence[Study], names: Sequence[str]) -> dict[str, bool] | None:
    """Whether each study that is annotated so is normal, by its name; None where no study is annotated.

    Args:
        rows: that the studies' numbers are of.
        studies: to be scored.
        names: of the data's labels.
    """
    if NORMAL not in names:
        return None
    labels = read_labels(rows)[:, list(names).index(NORMAL)]
    values = {study.name: labels[study.rows[0]] for study in studies}
    return {name: bool(value == 1) for name, value in values.items() if not np.isnan(value)} or None


def find_nearest(training: Floats, scored: Floats) -> list[int]:
    """The training study whose features are nearest to each scored study's, by the cosine.

    Args:
        training: (studies, features), finite.
        scored: (studies, features), finite.

    Returns:
        (scored studies,): rows of `training`; of equally near ones the first.
    """
    known, asked = (
        side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (training, scored)
    )
    chunks = np.array_split(asked, max(1, len(asked) // 512))
    return [int(row) for chunk in chunks for row in (chunk @ known.T).argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class WrittenReports:
    """What a model wrote and what it is compared with; texts as the data and the model have them.

    Attributes:
        split: test or validation.
        section: findings or impression.
        clean: how all texts are cleaned before they are scored.
        references: study → report.
        written: study → report of the model.
        nearest: study → report of the nearest training study.
        training: reports.
        validation: reports, which constants are chosen on.
        normal: study → whether it is normal, of those that are annotated; None where none is.
        shows_texts: the record may hold texts of the data: they are phantoms'.
    """

    split: str
    section: str
    clean: str
    references: Mapping[str, str]
    written: Mapping[str, str]
    nearest: Mapping[str, str]
    training: Sequence[str]
    validation: Sequence[str]
    normal: Mapping[str, bool] | None
    shows_texts: bool

    def cleaned(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Texts as they are scored."""
        return {study: clean_report(text, self.clean) for study, text in texts.items()}

    def evaluate(
        self,
        bootstrap: Bootstrap,
        labeler: Chexbert | None = None,
        annotations: Sequence[Path] | None = None,
    ) -> ReportEvaluation:
        """Score the model and the baselines under the same resamples of studies.

        Args:
            bootstrap: over studies.
            labeler: CheXbert, which then labels every text as it is, and the baselines' too.
            annotations: two files that RadGraph wrote, of the references and of the written reports.

        Raises:
            UserError: an annotation cannot be read, or is of other reports.
        """
        references, written = self.cleaned(self.references), self.cleaned(self.written)
        training, validation = (
            [clean_report(text, self.clean) for text in texts] for texts in (self.training, self.validation)
        )

        def score(texts: Mapping[str, str], **options: Any) -> CaptionReport:
            return self._score(texts, bootstrap, labeler, training=training, **options)

        as_written = score(self.written, with_meteor=True)
        if annotations is not None:
            annotated = read_annotations(annotations, (self.references, self.written), (references, written))
            as_written = replace(as_written, radgraph=score_annotations(*annotated, bootstrap))
        constants = [find_best_constant(training, validation, choice) for choice in _CHOICES]
        uncleaned = dict(reversed(list(zip(training, self.training, strict=True))))  # the first of equal ones
        by_cider = dict.fromkeys(references, constants[_CHOICES.index("cider")].report)
        return ReportEvaluation(
            split=self.split,
            section=self.section,
            clean=self.clean,
            training_studies=len(training),
            references_verbatim=share_verbatim(list(references.values()), training),
            written=as_written,
            constants=[
                ConstantReport(
                    report=constant.report if self.shows_texts else None,
                    chosen_by=constant.chosen_by,
                    validation=constant.validation,
                    scores=score(dict.fromkeys(references, uncleaned[constant.report])),
                )
                for constant in constants
            ],
            nearest=score(self.nearest),
            above_constant={
                name: CaptionDifference(**vars(one))
                for name, one in compare_captions(references, written, by_cider, bootstrap).items()
            },
            normal_reason=NOT_ANNOTATED if self.normal is None else None,
            examples=[
                Example(reference=references[study], written=written[study])
                for study in list(references)[: EXAMPLES if self.shows_texts else 0]
            ],
        )

    def _score(
        self, texts: Mapping[str, str], bootstrap: Bootstrap, labeler: Chexbert | None, **options: Any
    ) -> CaptionReport:
        """Score one set of reports; CheXbert reads texts as they are."""
        report = score_captions(
            self.cleaned(self.references), self.cleaned(texts), bootstrap,
            normal=self.normal, uncleaned=(self.references, texts), **options,
        )  # fmt: skip
        if labeler is None:
            return report
        said = [texts[study] for study in self.references]
        return replace(report, chexbert=labeler.score(list(self.references.values()), said, bootstrap))


def collect_reports(
    writer: ReportWriter,
    written: Sequence[str],
    splits: Mapping[str, ReportSplit],
    scored: str,
    options: ReportArguments,
    clean: str,
    data: BuiltDataset,
    batch_size: int,
) -> WrittenReports:
    """What was written of a split, beside the nearest training reports and what a constant is of.

    Args:
        writer: the model.
        written: of the scored split's studies, in their order.
        splits: train, validation, and the one that is scored.
        scored: its name.
        options: which section.
        clean: from choose_cleaning.
        data: that the splits are of.
        batch_size: studies at a time.
    """
    views = int(writer.model.config.report_views)
    training, of_scored = splits["train"], splits[scored]
    features = [
        writer.features_of(ReportDataset(split.rows, split.studies, writer.preprocessing, views), batch_size)
        for split in (training, of_scored)
    ]
    nearest = [training.reports[row] for row in find_nearest(*features)]
    names = [study.name for study in of_scored.studies]
    return WrittenReports(
        split=scored,
        section=options.report_section,
        clean=clean,
        references=dict(zip(names, of_scored.reports, strict=True)),
        written=dict(zip(names, written, strict=True)),
        nearest=dict(zip(names, nearest, strict=True)),
        training=training.reports,
        validation=splits["validation"].reports,
        normal=find_normal(of_scored.rows, of_scored.studies, data.names),
        shows_texts=all(are_drawn(split.rows) for split in splits.values()),
    )
