"""The tables of the paper's experiments, from the records of their runs."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from scipy.stats import t as student_t

from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.published_results import (
    FOOTNOTES,
    OURS,
    PAPER_AUROC,
    PAPER_SETTINGS,
    among_peers,
)
from medhiera.evaluation.results import ClassificationReport, MeanScores
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner, read_column
from medhiera.hub.record import ClassificationRecord, PretrainingRecord, StageRecord, TrainedRecord
from medhiera.layout import LOG_FILE

R = TypeVar("R", bound=StageRecord)


def curve_of(runner: ExperimentRunner, arm: Arm, seed: int, column: str) -> dict[int, float]:
    """Step → value of a run's log, as far as the values are numbers."""
    curve = read_column(runner.folder(arm.name, seed) / LOG_FILE, column)
    return {step: value for step, value in curve.items() if math.isfinite(value)}


def records_of(runner: ExperimentRunner, arm: Arm, seeds: Sequence[int], kind: type[R]) -> list[R]:
    """The records of an arm's finished runs, one a seed."""
    records = (runner.record(arm.name, seed) for seed in seeds)
    return [record for record in records if isinstance(record, kind)]


def reports_of(runner: ExperimentRunner, arm: Arm, seeds: Sequence[int]) -> list[ClassificationReport]:
    """What an arm's classifiers reached, one report a seed."""
    return [record.evaluation for record in records_of(runner, arm, seeds, ClassificationRecord)]


def aurocs_of(runner: ExperimentRunner, arm: Arm, seeds: Sequence[int]) -> list[float]:
    """Mean test AUROC of an arm's classifiers, one a seed; NaN where no finding has one."""
    values = (report.mean_auroc for report in reports_of(runner, arm, seeds))
    return [math.nan if value is None else value for value in values]


def spread(values: Sequence[float]) -> str:
    """Mean over seeds, and their range where there are several."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def student_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval by Student's t; all three the mean where there is one seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    half = float(np.std(values, ddof=1) / len(values) ** 0.5 * student_t.ppf(0.975, len(values) - 1))
    return mean, mean - half, mean + half


def seeds_text(values: Sequence[float]) -> str:
    """Mean over seeds and its interval, for a table's cell."""
    mean, low, high = student_interval(values)
    if mean != mean:
        return "–"
    return f"{mean:.4f}" if len(values) < 2 else f"{mean:.4f} ({low:.4f} to {high:.4f})"


def difference_cells(
    values: Sequence[float], patients: Sequence[float] | None, sign: int = 1, *, has_few_cases: bool = False
) -> str:
    """Three cells: a difference over seeds, over patients, and the verdict.

    Args:
        values: with the same seed, one a seed.
        patients: the interval over patients; None where there is none.
        sign: 1 where more is better, -1 where less is.
        has_few_cases: of so few patients, see MeanComparison, that their interval decides nothing.
    """
    mean, low, high = student_interval(values)
    limits = [(low, high), *([] if patients is None else [(patients[0], patients[1])])]
    verdict = "undecided"
    if len(values) > 1 and all(limit[0] > 0 or limit[1] < 0 for limit in limits):
        is_one_sided = len({limit[0] > 0 for limit in limits}) == 1
        verdict = ("better" if sign * mean > 0 else "worse") if is_one_sided else "undecided"
    verdict = "too few patients" if has_few_cases else verdict
    over = "–" if patients is None else f"{patients[0]:+.4f} to {patients[1]:+.4f}"
    seeds = f"{mean:+.4f}" if len(values) < 2 else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"{seeds} | {over} | {verdict}"


def ablation_report(runner: ExperimentRunner, arms: Sequence[Arm], seeds: Sequence[int], note: str) -> str:
    """Markdown: what each arm reached, paired differences, and Table 2 beside the paper's."""
    lines = ["# Ablation", "", *([f"**{note}**", ""] if note else [])]
    lines += [f"{len(seeds)} seeds; in brackets the lowest and highest.", ""]
    lines += ["| pre-training | steps | masked validation loss before | after |", "|---|---|---|---|"]
    for arm in (a for a in arms if a.script == "train_mae.py"):
        records = records_of(runner, arm, seeds, PretrainingRecord)
        before = spread([record.evaluation.masked_loss_before for record in records])
        after = spread([record.evaluation.masked_loss for record in records])
        lines.append(f"| {arm.label} | {records[0].training.steps} | {before} | {after} |")
    classifiers = [a for a in arms if a.script == "train_cls.py"]
    lines += [
        "",
        "| classifier from | test mean AUROC | difference from random, same seed |",
        "|---|---|---|",
    ]
    random = aurocs_of(runner, classifiers[0], seeds)
    for arm in classifiers:
        values = aurocs_of(runner, arm, seeds)
        paired = spread([own - other for own, other in zip(values, random, strict=True)])
        lines.append(f"| {arm.label} | {spread(values)} | {'–' if arm is classifiers[0] else paired} |")
    best = next(a for a in classifiers if a.name == "cls-cocktail")
    lines += ["", "## Table 2", "", *table2(runner, best, seeds)]
    lines += [
        "",
        "## Table 3",
        "",
        *table3([report.diseases for report in reports_of(runner, best, seeds)]),
    ]
    for arm, table in ((best, "Table 1, classification"), (arms[0], "Table 4, pre-training")):
        record = records_of(runner, arm, seeds[:1], TrainedRecord)[0]
        lines += ["", f"## {table}", "", *settings_table(record)]
    return "\n".join(lines) + "\n"


def table2(runner: ExperimentRunner, arm: Arm, seeds: Sequence[int]) -> list[str]:
    """AUROC a finding, the paper's beside ours."""
    lines = ["| finding | ours, % | paper's Table 2, % | positives in our test split |", "|---|---|---|---|"]
    records = [report.findings for report in reports_of(runner, arm, seeds)]
    for name, score in records[0].items():
        values = [100 * auroc for record in records if (auroc := record[name].auroc) is not None]
        star = "*" if score.has_few_cases else ""
        ours = f"{np.mean(values):.2f}{star}" if values else f"– ({score.reason})"
        lines.append(
            f"| {name.replace('_', ' ')} | {ours} | {PAPER_AUROC.get(name, '–')} | {score.positives} |"
        )
    return [
        *lines,
        "",
        "The paper's are of a third of the official test list; its cocktail shows some of those images. "
        f"A star: fewer than {FEWEST_PATIENTS} positive or negative patients, the value says little.",
    ]


def table3(diseases: Sequence[MeanScores]) -> list[str]:
    """Mean AUROC of the 14 diseases: others', and ours over seeds, highest first."""
    values = [100 * mean for entry in diseases if (mean := entry.mean_auroc) is not None]
    counts = sorted({len(entry.findings_in_mean) for entry in diseases})
    few = "" if counts == [14] else f"{' to '.join(map(str, counts))} diseases only"
    lines = ["| model | mean AUROC of 14 diseases, % | |", "|---|---|---|"]
    for name, percent, mark in among_peers(float(np.mean(values)) if values else None):
        if name == OURS:
            lines.append(f"| **{name}** | {percent:.2f} | {few} |")
        else:
            lines.append(f"| {name} | {percent:g} | {FOOTNOTES.get(mark, '')} |")
    return lines


def settings_table(record: TrainedRecord) -> list[str]:
    """A run's settings beside the paper's."""
    ours = settings_of(record)
    lines = ["| | ours | paper |", "|---|---|---|"]
    return lines + [
        f"| {key} | {ours[key]} | {value} |" for key, value in PAPER_SETTINGS[record.stage].items()
    ]


def settings_of(record: TrainedRecord) -> dict[str, str]:
    """A run's settings under the names of PAPER_SETTINGS.

    Args:
        record: of a stage.
    """
    recipe, training = record.recipe, record.training
    batch = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    words = {
        "random_crop_scale": "random crop from {:g} of the area",
        "horizontal_flip": "flip",
        "rand_augment": "RandAugment",
        "rotation_degrees": "rotation ±{:g}°",
        "mixup_alpha": "Mixup {:g}",
    }
    augmentation = [text.format(recipe[key]) for key, text in words.items() if recipe.get(key)]
    optimizer = recipe.get("optim", recipe["optimizer"])
    settings = {
        "optimizer": f"{optimizer}, β {recipe['adam_beta1']:g} and {recipe['adam_beta2']:g}",
        "weight decay": f"{recipe['weight_decay']:g}",
        "schedule": recipe.get("lr_scheduler_type", recipe["schedule"]),
        "highest learning rate": f"{recipe['learning_rate']:g}",
        "images a step": str(batch * recipe["world_size"]),
        "epochs": f"{training.epochs:.3g} ({training.steps} steps)",
        "input": f"{recipe['image_size']} px",
        "augmentation": ", ".join(augmentation) or "none",
        "starts from": record.lineage.started_from,
    }
    return settings | ({"mask ratio": f"{recipe['mask_ratio']:g}"} if "mask_ratio" in recipe else {})


def explode_report(runner: ExperimentRunner, arms: Sequence[Arm], seeds: Sequence[int], note: str) -> str:
    """Markdown: masked loss before and after at each learning rate, or where it stopped being a number."""
    lines = ["# Learning rate too high", "", *([f"**{note}**", ""] if note else [])]
    lines += ["| arm | masked loss before | highest seen | after |", "|---|---|---|---|"]
    for arm in (a for a in arms if a.name != "before"):
        curves = [curve for seed in seeds if (curve := curve_of(runner, arm, seed, "eval_loss"))]
        before = spread([curve[min(curve)] for curve in curves])
        highest = spread([max(curve.values()) for curve in curves])
        records = records_of(runner, arm, seeds, PretrainingRecord)
        reached = [record.evaluation.masked_loss for record in records]
        after = [spread(reached)] if reached else []
        lost = ((seed, runner.diverged_at(arm.name, seed)) for seed in seeds)
        after += [
            f"NaN or infinite from step {step} (seed {seed})" for seed, step in lost if step is not None
        ]
        lines.append(f"| {arm.label} | {before} | {highest} | {'; '.join(after)} |")
    return "\n".join(lines) + "\n"
