"""The paper's experiments as data: arms, and what each starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STAGE0 = "stage 0"
"""Where an arm starts that needs ImageNet weights."""

STAGE1 = "stage 1"
"""Where an arm starts that needs a pre-training that was made before."""

SCORING = ("evaluate_cls.py", "probe.py")
"""Scripts that train no stage: they score the one they start from, and leave predictions.parquet."""

REGIONS = {"none": "even masks", "rectangle": "the paper's rectangle", "contour": "each chest's contour"}
"""What masks of the masks experiment follow → its label."""

RATIOS = {f"{ratio:g}": f"{100 * ratio:g} % hidden" for ratio in (0.6, 0.75, 0.85)}
"""Mask ratios of the ratios experiment (docs/recipe.md) → its label."""

STARTS = {"random": None, "stage0": STAGE0, "stage1": STAGE1}
"""Where classifiers of the labels experiment start, by name; see Arm.start."""

START_LABELS = {"random": "random", "stage0": "ImageNet MAE", "stage1": "stage 1"}


@dataclass(frozen=True)
class Arm:
    """One line of a figure.

    Attributes:
        name: its folder.
        label: in figures and tables.
        script: train_mae.py or train_cls.py; or one of SCORING.
        start: STAGE0, STAGE1, the name of an arm that trains, or None for random weights.
        arguments: its own options of the script.
        as_long_as: an arm whose number of optimizer steps it takes.
        may_diverge: a NaN or infinite loss is a valid end: it is what the arm shows.
    """

    name: str
    label: str
    script: str
    start: str | None = None
    arguments: tuple[str, ...] = ()
    as_long_as: str | None = None
    may_diverge: bool = False


@dataclass(frozen=True)
class MaskQuestion:
    """An experiment whose pre-trainings differ in one option of their masks.

    Attributes:
        title: of its report.
        option: that differs.
        labels: its values → their labels.
        compared: pairs of values; the first is better where a difference is above zero.
    """

    title: str
    option: str
    labels: Mapping[str, str]
    compared: tuple[tuple[str, str], ...]


WHERE_MASKED = MaskQuestion(
    "Masks that follow the chest",
    "mask_region",
    REGIONS,
    (("contour", "none"), ("contour", "rectangle"), ("rectangle", "none")),
)

HOW_MUCH_MASKED = MaskQuestion(
    "How much is masked", "mask_ratio", RATIOS, (("0.75", "0.6"), ("0.85", "0.6"), ("0.85", "0.75"))
)


def ablation_arms(has_stage0: bool) -> list[Arm]:
    """The arms of the paper's Fig. 4 (pre-training) and Fig. 1 (classification), and two it lacks.

    The two: the cocktail with its leak, to see what the leak buys, and ChestX-ray14 alone for as many steps
    as the cocktail takes, to compare at equal compute.

    Args:
        has_stage0: ImageNet weights are there; without them their arms are left out.
    """
    mae, cls, nih = "train_mae.py", "train_cls.py", ("--sources", "ChestX-ray14")
    start, origin = (STAGE0, "ImageNet") if has_stage0 else (None, "random")
    arms = [
        Arm("mae-cocktail", f"{origin} → cocktail", mae, start),
        Arm("mae-chestxray14", f"{origin} → ChestX-ray14", mae, start, nih),
        Arm("mae-leak", f"{origin} → cocktail with its leak", mae, start, ("--allow_leakage", "true")),
        Arm(
            "mae-chestxray14-long",
            f"{origin} → ChestX-ray14, the cocktail's steps",
            mae,
            start,
            nih,
            "mae-cocktail",
        ),
    ]
    if has_stage0:
        arms.append(Arm("mae-random-cocktail", "random → cocktail", mae))
    arms.append(Arm("cls-random", "random", cls))
    if has_stage0:
        arms.append(Arm("cls-imagenet", "ImageNet MAE", cls, STAGE0))
    return arms + [
        Arm("cls-chestxray14", "MAE on ChestX-ray14", cls, "mae-chestxray14"),
        Arm("cls-cocktail", "MAE on the cocktail", cls, "mae-cocktail"),
        Arm("cls-leak", "MAE on the cocktail with its leak", cls, "mae-leak"),
        Arm("cls-chestxray14-long", "MAE on ChestX-ray14, the cocktail's steps", cls, "mae-chestxray14-long"),
    ]


def explode_arms(has_stage0: bool, learning_rate: float) -> list[Arm]:
    """Fig. 5: the same pre-training at learning rates that are right, ten and a hundred times too high.

    Args:
        has_stage0: start from ImageNet weights; else from a run of our own at the right rate.
        learning_rate: the right one.
    """
    arms = [] if has_stage0 else [Arm("before", "before", "train_mae.py")]
    start = STAGE0 if has_stage0 else "before"
    return arms + [
        Arm(
            f"rate-{factor}",
            f"learning rate {factor * learning_rate:g}",
            "train_mae.py",
            start,
            ("--learning_rate", str(factor * learning_rate)),
            may_diverge=True,
        )
        for factor in (1, 10, 100)
    ]


def mask_arms(has_stage0: bool, question: MaskQuestion = WHERE_MASKED) -> list[Arm]:
    """Which masks help? Pre-trainings that differ in nothing but what they hide, or how much.

    Each is probed, and fine-tuned and scored; a classifier without pre-training shows what either is worth.

    Args:
        has_stage0: start from ImageNet weights, classifiers without stage 1 too; else from random ones.
        question: the option that differs, and its values.
    """
    start, origin = (STAGE0, "ImageNet") if has_stage0 else (None, "random")
    arms = [
        Arm("cls-before", f"no stage 1 ({origin})", "train_cls.py", start),
        Arm("test-before", f"no stage 1 ({origin})", "evaluate_cls.py", "cls-before"),
    ]
    for value, label in question.labels.items():
        own = (f"--{question.option}", value)
        arms += [
            Arm(f"mae-{value}", label, "train_mae.py", start, own),
            Arm(f"probe-{value}", label, "probe.py", f"mae-{value}", ("--draws", "0")),
            Arm(f"cls-{value}", label, "train_cls.py", f"mae-{value}"),
            Arm(f"test-{value}", label, "evaluate_cls.py", f"cls-{value}"),
        ]
    return arms


def label_arms(
    fraction: float, starts: Sequence[str], schedule: tuple[str, ...], geometry: tuple[str, ...]
) -> list[Arm]:
    """What is pre-training worth with few labels? Classifiers that differ in nothing but their start.

    Args:
        fraction: of the training images whose labels are learned; the seed chooses them, the same ones for
            each start.
        starts: keys of STARTS.
        schedule: options that so many images ask for.
        geometry: options that give random weights the shapes of the others.
    """
    arms = []
    for start in starts:
        own = ("--label_fraction", f"{fraction:g}", *schedule, *(geometry if start == "random" else ()))
        name, label = f"{start}-{fraction:g}", f"{START_LABELS[start]}, {100 * fraction:g} % of the labels"
        arms += [
            Arm(f"cls-{name}", label, "train_cls.py", STARTS[start], own),
            Arm(f"test-{name}", label, "evaluate_cls.py", f"cls-{name}"),
        ]
    return arms
