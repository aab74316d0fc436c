"""What small_result's contestants and probes reached, read from their predictions.

Stands beside the project; nothing imports it but small_report and small_differences.
"""

from dataclasses import dataclass
from functools import cached_property

from benchmarks.small_laboratory import Laboratory
from benchmarks.small_plan import CONTESTANTS, Contestant, Share
from benchmarks.small_score import SPLITS, is_scored, read_scores
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.thresholds import choose_thresholds

MEASURES = {"mean_auroc": "auroc", "mean_average_precision": "average_precision"}


@dataclass(frozen=True)
class Reached:
    """What a contestant reached with a share of the labels, one entry a seed.

    Attributes:
        rate: that its sweep chose.
        train: predictions of the images it learned from.
        validation: of validation.
        test: of the official test split.
    """

    rate: float
    train: list[Predictions]
    validation: list[Predictions]
    test: list[Predictions]

    def values(self, split: str, measure: str = "mean_auroc") -> list[float]:
        """A measure of MEASURES, one value a seed."""
        return [getattr(rank_findings(each, Bootstrap(0)), measure) for each in getattr(self, split)]

    @cached_property
    def rates(self) -> list[tuple[float, float, float]]:
        """Test accuracy, sensitivity and specificity at validation's threshold, one triple a seed."""
        return [rates_at(*pair) for pair in zip(self.validation, self.test, strict=True)]


def rates_at(validation: Predictions, test: Predictions) -> tuple[float, float, float]:
    """Accuracy, sensitivity and specificity at the threshold with validation's largest Youden index."""
    [name] = test.finding_names
    threshold = choose_thresholds(validation)[name].youden
    assert threshold is not None, "validation has both label values"
    [column] = test.columns()
    is_called = column.scores >= threshold
    is_right = is_called == column.is_present
    return (
        float(is_right.mean()),
        float(is_called[column.is_present].mean()),
        float((~is_called[~column.is_present]).mean()),
    )


def read_reached(lab: Laboratory, contestant: Contestant, share: Share) -> Reached | None:
    """Everything of one line of the plan; None where it is not finished."""
    arm = lab.chosen(contestant, share)
    if arm is None:
        return None
    folders = [lab.scores(arm.name, seed) for seed in range(share.seeds)]
    if not all(is_scored(folder) for folder in folders):
        return None
    rate = float(arm.arguments[arm.arguments.index("--learning_rate") + 1])
    splits = {split: [read_scores(folder, split) for folder in folders] for split in SPLITS}
    return Reached(rate, **splits)


Results = dict[tuple[str, float], Reached]
"""(contestant's name, fraction) → what is finished."""


def read_results(lab: Laboratory) -> Results:
    """Every line of the plan that is finished."""
    return {
        (contestant.name, share.fraction): found
        for share in lab.budget.shares
        for contestant in CONTESTANTS
        if (found := read_reached(lab, contestant, share)) is not None
    }


def read_probe(lab: Laboratory, name: str) -> dict[str, Predictions] | None:
    """A linear probe's predictions by split; None where it is not scored."""
    folder = lab.scores(f"probe-{name}", 0)
    return {split: read_scores(folder, split) for split in SPLITS} if is_scored(folder) else None
