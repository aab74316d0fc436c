"""What each scorer of this room returns: plain dataclasses, so that mypy knows every key of a report.

Below the scorers, on comparison_results.py, exclusive.py and pointing_game.py. Fields hold str, int, float,
None, lists, dicts and other such classes only: `dataclasses.asdict` gives JSON, and hub/record.py reads and
writes them. A value that cannot be computed is None, never NaN, and `reason` says why. An interval is [low,
high] at 95 %, or None; `X_interval` is that of the field `X`.
"""

from dataclasses import dataclass, field
from typing import Literal

from medhiera.evaluation.comparison_results import Comparison
from medhiera.evaluation.exclusive import ExclusiveReport
from medhiera.evaluation.pointing_game import LocalizationReport

Interval = list[float] | None
"""The lower and upper limit, or None where no interval was computed."""


@dataclass(frozen=True, kw_only=True)
class FindingScore:
    """How well one finding is ranked.

    Attributes:
        auroc: area under the ROC curve.
        average_precision: area under the precision-recall curve, as steps; the level of a random ranking is
            the share of positives.
        positives: images with the finding.
        negatives: images annotated as without it.
        positive_patients: patients with at least one positive image.
        negative_patients: patients with at least one negative image; a patient may count in both.
        has_few_cases: too few patients on one side for the value or its interval to be trusted.
        reason: why there is no value.
    """

    auroc: float | None
    auroc_interval: Interval
    average_precision: float | None
    average_precision_interval: Interval
    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int
    has_few_cases: bool
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeanScores:
    """Unweighted means over some findings.

    Attributes:
        mean_auroc: None where no finding has one.
        mean_average_precision: None where no finding has one.
        findings_in_mean: those with a value, in the data's order.
    """

    mean_auroc: float | None
    mean_auroc_interval: Interval
    mean_average_precision: float | None
    mean_average_precision_interval: Interval
    findings_in_mean: list[str]


@dataclass(frozen=True, kw_only=True)
class RankingReport(MeanScores):
    """Every finding's score and their means.

    Attributes:
        diseases: the means without No Finding.
        findings: by name, in the data's order.
        images: of the split.
        bootstrap_resamples: of patients, behind every interval; 0 for none.
        patients: of the split; as many as images where each counts as a patient of its own. None in records
            of earlier versions, which did not count them.
    """

    diseases: MeanScores
    findings: dict[str, FindingScore]
    images: int
    bootstrap_resamples: int
    patients: int | None = None

    @property
    def is_one_image_a_patient(self) -> bool:
        """Whether resampled patients are resampled images."""
        return self.patients == self.images


@dataclass(frozen=True, kw_only=True)
class CurveBin:
    """One part of a reliability curve.

    Attributes:
        predicted: mean probability.
        observed: share of positive images.
        interval: of `observed`.
        images: in this part.
    """

    predicted: float
    observed: float
    interval: list[float]
    images: int


@dataclass(frozen=True, kw_only=True)
class FindingCalibration:
    """How far one finding's probabilities lie from shares of images.

    Attributes:
        ece: expected calibration error.
        brier: mean squared distance from the label.
        curve: bins of equally many images, by probability.
        rescaled_ece: `ece` after rescaling; None where nothing was to be fitted on.
        reason: why there is no value.
    """

    ece: float | None
    brier: float | None
    curve: list[CurveBin]
    rescaled_ece: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeanCalibration:
    """Means over the findings with annotated images; None where there is none.

    Attributes:
        mean_ece: of expected calibration errors.
        mean_brier: of Brier scores.
    """

    mean_ece: float | None
    mean_brier: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationReport(MeanCalibration):
    """Calibration of every finding, as the model is.

    Attributes:
        findings: by name.
        bins: of equally many images, behind the calibration error and each curve.
        rescaled: the means after rescaling; None without a validation split.
    """

    findings: dict[str, FindingCalibration]
    bins: int
    rescaled: MeanCalibration | None = None


@dataclass(frozen=True, kw_only=True)
class Rescaling:
    """Platt's two numbers: the rescaled probability is sigmoid(slope × logit + intercept).

    Attributes:
        slope: of the logit, above 0.
        intercept: added to it.
    """

    slope: float
    intercept: float


@dataclass(frozen=True, kw_only=True)
class ChosenThresholds:
    """One finding's thresholds, chosen on validation images.

    Attributes:
        youden: with the largest sum of sensitivity and specificity.
        sensitivity_90: the highest that finds at least 90 % of the positives.
        best_f1: the highest of those with the largest F1.
        positives: images with the finding that they were chosen on.
        positive_patients: patients with such an image.
        reason: why there is none.
    """

    youden: float | None
    sensitivity_90: float | None
    best_f1: float | None
    positives: int | None
    positive_patients: int | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What a model's record chose on the validation images of its training, to be applied to other data.

    Attributes:
        thresholds: by finding.
        rescaling: by finding; None where validation did not allow it.
        validation_images: that they were chosen on; None where the record does not say.
    """

    thresholds: dict[str, ChosenThresholds]
    rescaling: dict[str, Rescaling | None]
    validation_images: int | None


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a threshold reaches on the split that is reported.

    Attributes:
        threshold: a finding is called present where its probability is at least this.
        sensitivity: None where no image is positive.
        specificity: None where no image is negative.
        accuracy: share of annotated images called rightly; None in records of earlier versions, as F1.
        f1: None where no image is positive.
    """

    threshold: float
    sensitivity: float | None
    sensitivity_interval: Interval
    specificity: float | None
    specificity_interval: Interval
    accuracy: float | None = None
    accuracy_interval: Interval = None
    f1: float | None = None
    f1_interval: Interval = None


@dataclass(frozen=True, kw_only=True)
class FindingOperatingPoints:
    """One finding's operating point by each rule.

    Attributes:
        youden: at this threshold.
        sensitivity_90: at this threshold.
        positives: as in ChosenThresholds, on validation.
        positive_patients: as in ChosenThresholds, on validation.
        reason: why there are no points.
        best_f1: at this threshold; None in records of earlier versions, as the two that follow.
        accuracy_of_none: what accuracy is where no image is called present.
        f1_of_all: what F1 is where every image is called present.
    """

    youden: OperatingPoint | None
    sensitivity_90: OperatingPoint | None
    positives: int | None
    positive_patients: int | None
    reason: str | None = None
    best_f1: OperatingPoint | None = None
    accuracy_of_none: float | None = None
    f1_of_all: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeanRates:
    """Means over the findings that have all four; None where none has.

    Attributes:
        findings_in_mean: these, in the data's order; None in records of earlier versions, whose means were of
            other findings by measure where one has one label value on this split.
    """

    sensitivity: float | None
    specificity: float | None
    accuracy: float | None = None
    f1: float | None = None
    findings_in_mean: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Thresholds from validation and what they reach.

    Attributes:
        findings: by name; empty where no threshold was chosen.
        validation_images: that the thresholds were chosen on.
        means: by rule.
        reason: why there are no points at all.
        are_the_models: thresholds and rescaling are those of the model's record, chosen on the validation
            images of its training; False where they were chosen on the validation split of this data.
    """

    findings: dict[str, FindingOperatingPoints]
    validation_images: int | None = None
    means: dict[str, MeanRates] = field(default_factory=dict)
    reason: str | None = None
    are_the_models: bool = False


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """One group of images, such as the women.

    Attributes:
        images: in this group.
        patients: in this group.
        mean_auroc: over the findings that all compared groups share.
        mean_average_precision: over the same findings.
        auroc: of each of these findings.
        reason: why the group was counted and not scored.
    """

    images: int
    patients: int
    mean_auroc: float | None = None
    mean_auroc_interval: Interval = None
    mean_average_precision: float | None = None
    mean_average_precision_interval: Interval = None
    auroc: dict[str, float | None] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubgroupReport:
    """The groups of one attribute, compared over the same findings.

    Attributes:
        groups: by name.
        findings_in_mean: those with enough patients in every compared group.
        findings_left_out: the others; empty where no groups were compared.
        reason: why there are no groups.
    """

    groups: dict[str, GroupScore]
    findings_in_mean: list[str]
    findings_left_out: list[str]
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationReport(RankingReport):
    """Everything that is measured of a classifier on one split.

    Attributes:
        split: train, validation, test, or all of them.
        calibration: as the model is, and after rescaling.
        operating_points: thresholds from validation, applied here.
        rescaling: by finding; None where validation did not allow it; empty where no threshold was chosen.
        subgroups: by attribute: sex, age and view.
        pointing_game: heat maps against boxes.
        comparison: with another model; None where none was named.
        exclusive: of the most probable label; None where an image may have several.
    """

    split: str
    calibration: CalibrationReport
    operating_points: OperatingPoints
    rescaling: dict[str, Rescaling | None]
    subgroups: dict[str, SubgroupReport]
    pointing_game: LocalizationReport
    comparison: Comparison | None = None
    exclusive: ExclusiveReport | None = None


@dataclass
class ReconstructionReport:
    """The loss at hidden units of validation images, before and after training: of what was trained on.

    Attributes:
        masked_loss_before: with the fixed, even masks that all runs share; drawn anew if the recipe says so.
        masked_loss: the same after training.
        mask_ratio: share of mask units that those hide.
        recipe_masked_loss: after training, with masks drawn as in training; None where the recipe's masks
            are the shared ones.
        target: what is predicted; "both" adds the losses of pixels and, weighted, of features.
        pixel_losses: before and after, where the loss is a sum.
        feature_losses: the same of features, not weighted.
    """

    masked_loss_before: float
    masked_loss: float
    mask_ratio: float
    recipe_masked_loss: float | None = None
    target: Literal["pixels", "features", "both"] = "pixels"
    pixel_losses: list[float] | None = None
    feature_losses: list[float] | None = None
