"""The tables of the paper's experiments, from the records of their runs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.published_results import (
    FOOTNOTES,
    OURS,
    PAPER_AUROC,
    PAPER_SETTINGS,
    among_peers,
    settings_of,
)
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import LOG, Laboratory, read_column


def curve_of(laboratory: Laboratory, arm: Arm, seed: int, column: str) -> dict[int, float]:
    """Step → value of a run's log, as far as the values are numbers."""
    curve = read_column(laboratory.folder(arm.name, seed) / LOG, column)
    return {step: value for step, value in curve.items() if math.isfinite(value)}


def values_of(laboratory: Laboratory, arm: Arm, seeds: Sequence[int], key: str) -> list[Any]:
    """One entry of each seed's evaluation."""
    records = (laboratory.metrics(arm.name, seed) for seed in seeds)
    return [record["evaluation"][key] for record in records if record is not None]


def spread(values: Sequence[float]) -> str:
    """Mean over seeds, and their range where there are several."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def ablation_report(laboratory: Laboratory, arms: Sequence[Arm], seeds: Sequence[int], note: str) -> str:
    """Markdown: what each arm reached, paired differences, and Table 2 beside the paper's."""
    lines = ["# Ablation", "", *([f"**{note}**", ""] if note else [])]
    lines += [f"{len(seeds)} seeds; in brackets the lowest and highest.", ""]
    lines += ["| pre-training | steps | masked validation loss before | after |", "|---|---|---|---|"]
    for arm in (a for a in arms if a.script == "train_mae.py"):
        record = laboratory.metrics(arm.name, seeds[0])
        assert record is not None
        before, after = (values_of(laboratory, arm, seeds, k) for k in ("masked_loss_before", "masked_loss"))
        lines.append(f"| {arm.label} | {record['training']['steps']} | {spread(before)} | {spread(after)} |")
    classifiers = [a for a in arms if a.script == "train_cls.py"]
    lines += [
        "",
        "| classifier from | test mean AUROC | difference from random, same seed |",
        "|---|---|---|",
    ]
    random = values_of(laboratory, classifiers[0], seeds, "mean_auroc")
    for arm in classifiers:
        values = values_of(laboratory, arm, seeds, "mean_auroc")
        paired = spread([own - other for own, other in zip(values, random, strict=True)])
        lines.append(f"| {arm.label} | {spread(values)} | {'–' if arm is classifiers[0] else paired} |")
    best = next(a for a in classifiers if a.name == "cls-cocktail")
    lines += ["", "## Table 2", "", *table2(laboratory, best, seeds)]
    lines += ["", "## Table 3", "", *table3(values_of(laboratory, best, seeds, "diseases"))]
    for arm, table in ((best, "Table 1, classification"), (arms[0], "Table 4, pre-training")):
        record = laboratory.metrics(arm.name, seeds[0])
        assert record is not None
        lines += ["", f"## {table}", "", *settings_table(record)]
    return "\n".join(lines) + "\n"


def table2(laboratory: Laboratory, arm: Arm, seeds: Sequence[int]) -> list[str]:
    """AUROC a finding, the paper's beside ours."""
    lines = ["| finding | ours, % | paper's Table 2, % | positives in our test split |", "|---|---|---|---|"]
    records = values_of(laboratory, arm, seeds, "findings")
    for name, entry in records[0].items():
        values = [100 * record[name]["auroc"] for record in records if record[name]["auroc"] is not None]
        star = "*" if entry["has_few_cases"] else ""
        ours = f"{np.mean(values):.2f}{star}" if values else f"– ({entry['reason']})"
        lines.append(
            f"| {name.replace('_', ' ')} | {ours} | {PAPER_AUROC.get(name, '–')} | {entry['positives']} |"
        )
    return [
        *lines,
        "",
        "The paper's are of a third of the official test list; its cocktail shows some of those images. "
        f"A star: fewer than {FEWEST_PATIENTS} positive or negative patients, the value says little.",
    ]


def table3(diseases: Sequence[dict[str, Any]]) -> list[str]:
    """Mean AUROC of the 14 diseases: others', and ours over seeds, highest first."""
    values = [100 * entry["mean_auroc"] for entry in diseases if entry["mean_auroc"] is not None]
    counts = sorted({len(entry["findings_in_mean"]) for entry in diseases})
    few = "" if counts == [14] else f"{' to '.join(map(str, counts))} diseases only"
    lines = ["| model | mean AUROC of 14 diseases, % | |", "|---|---|---|"]
    for name, percent, mark in among_peers(float(np.mean(values)) if values else None):
        if name == OURS:
            lines.append(f"| **{name}** | {percent:.2f} | {few} |")
        else:
            lines.append(f"| {name} | {percent:g} | {FOOTNOTES.get(mark, '')} |")
    return lines


def settings_table(record: dict[str, Any]) -> list[str]:
    """A run's settings beside the paper's."""
    ours = settings_of(record)
    lines = ["| | ours | paper |", "|---|---|---|"]
    return lines + [
        f"| {key} | {ours[key]} | {value} |" for key, value in PAPER_SETTINGS[record["stage"]].items()
    ]


def explode_report(laboratory: Laboratory, arms: Sequence[Arm], seeds: Sequence[int], note: str) -> str:
    """Markdown: masked loss before and after at each learning rate, or where it stopped being a number."""
    lines = ["# Learning rate too high", "", *([f"**{note}**", ""] if note else [])]
    lines += ["| arm | masked loss before | highest seen | after |", "|---|---|---|---|"]
    for arm in (a for a in arms if a.name != "before"):
        curves = [curve for seed in seeds if (curve := curve_of(laboratory, arm, seed, "eval_loss"))]
        before = spread([curve[min(curve)] for curve in curves])
        highest = spread([max(curve.values()) for curve in curves])
        reached = values_of(laboratory, arm, seeds, "masked_loss")
        after = [spread(reached)] if reached else []
        lost = ((seed, laboratory.lost_at(arm.name, seed)) for seed in seeds)
        after += [f"no number from step {step} on (seed {seed})" for seed, step in lost if step is not None]
        lines.append(f"| {arm.label} | {before} | {highest} | {'; '.join(after)} |")
    return "\n".join(lines) + "\n"
