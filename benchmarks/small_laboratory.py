"""Where small_result's runs, scores and CPU seconds lie, and what of the plan is done.

Stands beside the project, between small_plan.py and what runs (small_result.py) or reports (small_report.py).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.small_plan import (
    CLS_OPTIONS,
    MAE_OPTIONS,
    RESNET,
    SWEEP_SEED,
    Budget,
    Contestant,
    Share,
    Work,
    best_rate,
    classifier_arm,
    next_rate,
)
from benchmarks.small_score import is_scored
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import BuiltDataset, open_cocktail
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner
from medhiera.hub.record import ClassificationRecord

IMAGE_SIZE = 128
HOURS = "hours.csv"


@dataclass(frozen=True)
class Laboratory:
    """Where everything lies.

    Attributes:
        output: the folder of the runs.
        task: the task's images.
        cocktail: all sources.
        teacher: folder of the model whose features are predicted.
        budget: how long everything is trained.
    """

    output: Path
    task: Path
    cocktail: Path
    teacher: str
    budget: Budget

    def runner(self, data: Path, start: str | None = None) -> ExperimentRunner:
        """Runs on these data; all lie side by side.

        Args:
            data: the task or the cocktail.
            start: name of the pre-training that classifiers of every seed start from: it has one seed.
        """
        arguments = {"train_mae.py": MAE_OPTIONS, "train_cls.py": CLS_OPTIONS, RESNET: CLS_OPTIONS}
        stage1 = None if start is None else str(self.output / f"mae-{start}" / "seed0")
        return ExperimentRunner(self.output, str(data), None, arguments, stage1)

    def folder(self, arm: str, seed: int) -> Path:
        """Where a run writes."""
        return self.runner(self.task).folder(arm, seed)

    def scores(self, arm: str, seed: int) -> Path:
        """Where its predictions lie."""
        return self.output / "scores" / arm / f"seed{seed}"

    def open_task(self) -> BuiltDataset:
        """The task, as the runs built it."""
        return open_cocktail(
            DataArguments(str(self.task), str(self.output / "cocktail"), stored_size=IMAGE_SIZE)
        )

    def validation_auroc(self, arm: Arm, seed: int) -> float | None:
        """Of a finished run; None where it is not finished."""
        record = self.runner(self.task).record(arm.name, seed)
        if record is None:
            return None
        assert isinstance(record, ClassificationRecord), f"{arm.name} is a classifier's"
        value = record.evaluation.mean_auroc
        assert value is not None, "validation has both label values"
        return value

    def reached(self, contestant: Contestant, share: Share) -> dict[float, float]:
        """Rate → validation AUROC of the sweep, as far as it has come."""
        found: dict[float, float] = {}
        while (rate := next_rate(found, self.budget.rates)) is not None:
            value = self.validation_auroc(classifier_arm(contestant, share, rate), SWEEP_SEED)
            if value is None:
                break
            found[rate] = value
        return found

    def chosen(self, contestant: Contestant, share: Share) -> Arm | None:
        """The arm with the best rate; None while the sweep is not at its end."""
        reached = self.reached(contestant, share)
        if next_rate(reached, self.budget.rates) is not None:
            return None
        return classifier_arm(contestant, share, best_rate(reached))


def note_hours(file: Path, name: str, seed: int, cpu: float, wall: float) -> None:
    """Add a line to the ledger of CPU seconds."""
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        if is_new:
            writer.writerow(("run", "seed", "cpu_seconds", "wall_seconds"))
        writer.writerow((name, seed, round(cpu), round(wall)))


def hours_used(output: Path) -> float:
    """CPU hours of all runs so far."""
    file = output / HOURS
    if not file.exists():
        return 0.0
    with file.open(newline="", encoding="utf-8") as opened:
        return sum(float(row["cpu_seconds"]) for row in csv.DictReader(opened)) / 3600


def is_done(lab: Laboratory, work: Work) -> bool:
    """Whether a piece of the plan has all its scores."""
    if work.pretraining is not None:
        return is_scored(lab.scores(f"probe-{work.pretraining.name}", 0))
    assert work.contestant is not None and work.share is not None, "one of the two"
    arm = lab.chosen(work.contestant, work.share)
    seeds = range(work.share.seeds)
    return arm is not None and all(is_scored(lab.scores(arm.name, seed)) for seed in seeds)


def name_of(work: Work) -> str:
    """A piece of the plan in words."""
    if work.pretraining is not None:
        return f"pre-training, {work.pretraining.label}"
    assert work.contestant is not None and work.share is not None, "one of the two"
    return f"{work.contestant.label}, {work.share.text} of the labels"


def short_name(work: Work) -> str:
    """The name of what a piece of the plan trains; a contestant has that of its pre-training."""
    one = work.pretraining or work.contestant
    assert one is not None, "one of the two"
    return one.name
