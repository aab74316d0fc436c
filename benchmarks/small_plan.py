"""What small_result runs, in which order: pre-trainings, contestants, shares of the labels, rates.

Stands beside the project; nothing imports it but small_result and small_report. docs/small_result.md is the
protocol that these numbers were written down in before the final runs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medhiera.experiments.arms import STAGE1, Arm
from medhiera.shipped_files import RECIPES

MAE_OPTIONS = (str(RECIPES / "mae_small.yaml"), "--use_cpu", "true")
CARD_OPTIONS = (str(RECIPES / "cls_small.yaml"), "--use_cpu", "true")
"""Of the run whose card is published: the recipe scores the test split."""
# small_score.py scores the test split, once a rate is chosen.
CLS_OPTIONS = (*CARD_OPTIONS, "--score_test", "false", "--bootstrap_resamples", "0")
RESNET = "benchmarks/resnet_baseline.py"
RESNET_CHECKPOINT_STEPS = 200
SWEEP_SEED = 0
NO_RATE = 1e-12


@dataclass(frozen=True)
class Pretraining:
    """A stage 1.

    Attributes:
        name: its folder is `mae-NAME`.
        label: in the tables.
        is_cocktail: trained on the cocktail, not on the task's images alone.
        arguments: its own options.
        wants_teacher: it predicts a teacher's features.
        is_trained: False for random weights, in the form of a stage: one step at a rate that moves nothing.
    """

    name: str
    label: str
    is_cocktail: bool = True
    arguments: tuple[str, ...] = ()
    wants_teacher: bool = False
    is_trained: bool = True


@dataclass(frozen=True)
class Contestant:
    """A classifier that is fine-tuned.

    Attributes:
        name: a part of its runs' folders.
        label: in the tables.
        start: name of a Pretraining; None for random weights.
        script: that trains it.
    """

    name: str
    label: str
    start: str | None = None
    script: str = "train_cls.py"


@dataclass(frozen=True)
class Share:
    """A share of the task's labels, and how it is trained.

    Attributes:
        fraction: of the training images; whole patients, drawn by the seed.
        steps: of the optimizer.
        batch: images a step.
        seeds: how many: each has its own weights, order and, below 1, its own labeled images.
    """

    fraction: float
    steps: int
    batch: int
    seeds: int

    @property
    def text(self) -> str:
        """As a percentage."""
        return f"{100 * self.fraction:g} %"


@dataclass(frozen=True)
class Budget:
    """How long everything is trained.

    Attributes:
        mae_steps: of every pre-training; 64 images each.
        mae_rate: learning rate of every pre-training.
        shares: of the labels; the first has all of them.
        rates: learning rates that a sweep may reach, lowest first; it begins with all but the outermost.
    """

    mae_steps: int
    mae_rate: float
    shares: tuple[Share, ...]
    rates: tuple[float, ...]


PRETRAININGS = {
    each.name: each
    for each in (
        Pretraining("cocktail", "pixels, cocktail"),
        Pretraining("kermany", "pixels, Kermany alone", is_cocktail=False),
        Pretraining("leak", "pixels, cocktail with its leak", arguments=("--allow_leakage", "true")),
        Pretraining("features", "ImageNet teacher's features, cocktail", wants_teacher=True),
        Pretraining("none", "nothing: random weights", is_cocktail=False, is_trained=False),
    )
}

RANDOM = Contestant("random", "Hiera, random weights")
COCKTAIL = Contestant("cocktail", "Hiera, MAE of pixels on the cocktail", "cocktail")
KERMANY = Contestant("kermany", "Hiera, MAE of pixels on Kermany alone", "kermany")
RESNET18 = Contestant("resnet18", "ResNet-18, random weights", script=RESNET)
LEAK = Contestant("leak", "Hiera, MAE of pixels on the cocktail with its leak", "leak")
FEATURES = Contestant("features", "Hiera, MAE of features on the cocktail", "features")

CONTESTANTS = (RANDOM, COCKTAIL, KERMANY, RESNET18, LEAK, FEATURES)
FEW_LABELS = (RANDOM, COCKTAIL, KERMANY, RESNET18)
"""Those that are trained on a part of the labels too."""

FULL = Budget(
    mae_steps=3000,
    mae_rate=1e-3,
    shares=(Share(1.0, 500, 32, 5), Share(0.1, 250, 32, 5), Share(0.01, 150, 16, 5)),
    rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
)
LONG = Budget(
    mae_steps=3000,
    mae_rate=1e-3,
    shares=(Share(1.0, 3500, 32, 3), Share(0.1, 1750, 32, 5), Share(0.01, 1050, 16, 5)),
    rates=(1e-4, 3e-4, 1e-3),
)
"""Seven times the fine-tuning: docs/small_result.md, "Second protocol"."""

SMOKE = Budget(mae_steps=4, mae_rate=1e-3, shares=(Share(1.0, 4, 4, 2), Share(0.5, 2, 4, 1)), rates=(1e-3,))


@dataclass(frozen=True)
class Work:
    """A piece of the plan: one pre-training, or one contestant with one share of the labels.

    Attributes:
        pretraining: to be trained; or None.
        contestant: to be swept, trained and scored; or None.
        share: of the labels.
    """

    pretraining: Pretraining | None = None
    contestant: Contestant | None = None
    share: Share | None = None


def ordered(budget: Budget) -> list[Work]:
    """Everything, what answers the first question first; each after the pre-training it starts from."""
    everything, *parts = budget.shares

    def full(contestant: Contestant) -> Work:
        return Work(contestant=contestant, share=everything)

    plan = [Work(PRETRAININGS["none"]), Work(PRETRAININGS["cocktail"]), full(RANDOM), full(COCKTAIL)]
    plan += [Work(PRETRAININGS["kermany"]), full(KERMANY), full(RESNET18)]
    plan += [Work(contestant=contestant, share=share) for share in parts for contestant in FEW_LABELS]
    return plan + [
        Work(PRETRAININGS["leak"]),
        full(LEAK),
        Work(PRETRAININGS["features"]),
        full(FEATURES),
    ]


def pretraining_arm(each: Pretraining, budget: Budget, teacher: str) -> Arm:
    """Stage 1 as an arm of the runner.

    Args:
        each: which one.
        budget: its length and rate.
        teacher: folder of the model whose features are predicted, where it asks for one.
    """
    steps, rate = (budget.mae_steps, budget.mae_rate) if each.is_trained else (1, NO_RATE)
    often = str(max(steps // 25, 1))
    words = ["--learning_rate", f"{rate:.1e}", "--max_steps", str(steps)]
    words += ["--eval_steps", often, "--save_steps", often, *each.arguments]
    if each.wants_teacher:
        words += ["--target", "features", "--teacher", teacher]
    return Arm(f"mae-{each.name}", each.label, "train_mae.py", None, tuple(words))


def classifier_arm(contestant: Contestant, share: Share, rate: float) -> Arm:
    """One run of a contestant as an arm of the runner; its seed chooses the labels."""
    words = ["--learning_rate", f"{rate:.1e}", "--max_steps", str(share.steps)]
    words += ["--per_device_train_batch_size", str(share.batch), "--eval_steps", str(share.steps)]
    words += ["--save_steps", str(min(RESNET_CHECKPOINT_STEPS, share.steps))]
    if share.fraction < 1:
        words += ["--label_fraction", f"{share.fraction:g}"]
    if contestant.start is not None:
        words += ["--model_overrides", json.dumps({})]  # the geometry is the checkpoint's
    name = f"{contestant.name}-{100 * share.fraction:g}pct-lr{rate:g}"
    start = None if contestant.start is None else STAGE1
    return Arm(name, contestant.label, contestant.script, start, tuple(words))


def best_rate(reached: Mapping[float, float]) -> float:
    """The rate with the highest validation AUROC; of equals the lowest."""
    return max(sorted(reached), key=lambda rate: reached[rate])


def next_rate(reached: Mapping[float, float], rates: Sequence[float]) -> float | None:
    """The rate to try next: the inner ones, then outward as long as the best stands at the edge of the tried.

    Args:
        reached: rate → validation AUROC.
        rates: a budget's; of one or two all are inner.

    Returns:
        None where the sweep is at its end.
    """
    for rate in rates[1:-1] or rates:
        if rate not in reached:
            return rate
    tried, best = sorted(reached), best_rate(reached)
    place = rates.index(best)
    if best == tried[0] and place > 0:
        return rates[place - 1]
    if best == tried[-1] and place + 1 < len(rates):
        return rates[place + 1]
    return None
