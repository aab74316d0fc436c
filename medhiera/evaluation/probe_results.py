"""What a linear probe returns beside the report of the split: plain dataclasses, as those of results.py.

few_labels.py makes them, hub/ keeps them in a record, the card of stage 1 shows them.
"""

from dataclasses import dataclass, field
from typing import Literal

from medhiera.evaluation.results import Interval, MeanScores

IntervalsOver = Literal["patients", "patients and draws"]
ChosenOn = Literal["validation", "a fifth of the training patients", "nothing"]


@dataclass(frozen=True, kw_only=True)
class FindingOverDraws:
    """How well one finding is ranked by probes that learned from different draws of labels.

    Attributes:
        auroc: mean over the draws.
        auroc_interval: of that mean, see ProbeFit.intervals_over.
        lowest_auroc: of a draw.
        highest_auroc: of a draw.
        average_precision: mean over the draws.
        has_few_cases: too few patients on one side for the value or its interval to be trusted.
        reason: why there is no value.
    """

    auroc: float | None = None
    auroc_interval: Interval = None
    lowest_auroc: float | None = None
    highest_auroc: float | None = None
    average_precision: float | None = None
    average_precision_interval: Interval = None
    has_few_cases: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class FewLabels(MeanScores):
    """What probes reached that learned from few labels; the means over findings are means over draws too.

    Attributes:
        shots: patients with each finding, and as many without, one image of each; None where a share of all
            labels was learned.
        share: of the training images, whole patients; None where shots were.
        train_images: that a probe learned from, of each draw; of shots, for one finding.
        penalties: scikit-learn's C, of each draw; one for all draws where shots were learned.
        draw_aurocs: mean AUROC over findings, of each draw.
        findings: by name.
        reason: why there is no value.
    """

    shots: int | None = None
    share: float | None = None
    train_images: list[int] = field(default_factory=list)
    penalties: list[float] = field(default_factory=list)
    draw_aurocs: list[float] = field(default_factory=list)
    findings: dict[str, FindingOverDraws] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeFit:
    """How a linear probe was fitted, and what fewer labels give.

    Attributes:
        penalty: scikit-learn's C that was chosen.
        chosen_on: where it was chosen; "nothing" where no labels were left for it.
        train_images: that the probe of all labels learned from.
        train_patients: whose images these are.
        shared_patients: that the probe learned from and was scored on; 0 where the splits are disjoint.
        few_labels: of shots and shares, in ascending order; empty where they were not asked for.
        intervals_over: what few labels' intervals resample: the scored patients, and in each such resample
            the draws; in records of earlier versions the patients alone.
    """

    penalty: float
    chosen_on: ChosenOn
    train_images: int
    train_patients: int
    shared_patients: int = 0
    few_labels: list[FewLabels] = field(default_factory=list)
    intervals_over: IntervalsOver = "patients"

    @property
    def shots(self) -> list[FewLabels]:
        """Those of so many patients."""
        return [each for each in self.few_labels if each.shots is not None]

    @property
    def shares(self) -> list[FewLabels]:
        """Those of a share of all labels."""
        return [each for each in self.few_labels if each.share is not None]
