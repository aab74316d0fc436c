"""What is said of a model that writes reports: its scores, and beside them what needs no model.

Plain dataclasses, which written_reports.py fills in; the card shows every one of them.
"""

from dataclasses import dataclass, field

from medhiera.evaluation.bootstrap import Difference
from medhiera.evaluation.caption_results import CaptionReport


@dataclass(frozen=True, kw_only=True)
class CaptionDifference(Difference):
    """The same of a measure of reports, of which CIDEr-D reaches 10."""

    @property
    def is_shown_above(self) -> bool:
        """Whether the first model is shown to be better: its interval lies above 0, and of enough studies."""
        return self.p_value is not None and self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True, kw_only=True)
class ConstantReport:
    """One training report for all studies.

    Attributes:
        report: the text, cleaned; None where it is of patients (see ReportEvaluation.examples).
        chosen_by: bleu_4 or cider: it has the most of it on validation, of all training reports.
        validation: that measure there.
        scores: on the studies that the model is scored on.
    """

    report: str | None
    chosen_by: str
    validation: float
    scores: CaptionReport


@dataclass(frozen=True, kw_only=True)
class Example:
    """One study: what the radiologist wrote and what the model wrote, both cleaned."""

    reference: str
    written: str


@dataclass(frozen=True, kw_only=True)
class ReportEvaluation:
    """A model's reports on one split, and what no model reaches.

    Attributes:
        split: test or validation.
        section: findings or impression.
        clean: how texts were cleaned before they were scored.
        training_studies: whose reports a constant and the nearest are taken from.
        references_verbatim: share of the references that are a training report word for word.
        written: of the model.
        constants: the best constant report by BLEU-4 and by CIDEr-D.
        nearest: the report of the training study whose first picture is nearest, by the model's own encoder.
        above_constant: of each measure, the model's minus that of the constant chosen by CIDEr-D; paired.
        normal_reason: why normal and other studies are not scored apart; None where they are.
        examples: the first studies, of phantoms alone: a record is published, and the terms of real reports
            (MIMIC-CXR's above all) do not allow their texts to be.
    """

    split: str
    section: str
    clean: str
    training_studies: int
    references_verbatim: float
    written: CaptionReport
    constants: list[ConstantReport]
    nearest: CaptionReport
    above_constant: dict[str, CaptionDifference]
    normal_reason: str | None
    examples: list[Example] = field(default_factory=list)

    @property
    def unknown_studies(self) -> int:
        """Studies that nobody annotated as normal or not; where none is annotated, all."""
        groups = (self.written.normal, self.written.abnormal)
        return self.written.scores.studies - sum(one.studies for one in groups if one is not None)
