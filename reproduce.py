"""The paper's experiments: its arms run through the two scripts, its figures drawn from their logs.

On two CPU cores, and with ImageNet weights on a GPU:

    python reproduce.py ablation --data_dir DATA --budget smoke --output_dir runs/ablation
    python reproduce.py explode --data_dir DATA --budget paper --output_dir runs/explode \
        --stage0 facebook/hiera-tiny-224-mae-hf
    python reproduce.py sweep --data_dir DATA --budget smoke --output_dir runs/sweep --trials 8

A run that is finished is skipped and one that was interrupted goes on, so the same command can be repeated; a
sweep's trials lie in an SQLite file, and the same command in several processes shares them. What defines the
experiment is kept beside its runs: with other options another --output_dir is asked for.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from optuna.trial import TrialState

from medhiera import figures
from medhiera.experiments import (
    LOG,
    ROOT,
    Arm,
    Laboratory,
    RunFailedError,
    ablation_arms,
    explode_arms,
    keep_settings,
    leave_on_signals,
    read_column,
    run_all,
)
from medhiera.metrics import RARE
from medhiera.paper import FOOTNOTES, OURS, PAPER_AUROC, PAPER_SETTINGS, among_peers, settings_of
from medhiera.recipe import RecipeError
from medhiera.sweep import SWEEPS, TESTED, correlations, importances, open_study, run_sweep
from medhiera.training import run_script

logger = logging.getLogger("reproduce")

EACH_EPOCH = ("--eval_strategy", "epoch", "--save_strategy", "epoch", "--max_steps", "-1")
BUDGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "smoke": {
        "train_mae.py": ("configs/mae_smoke.yaml", *EACH_EPOCH, "--num_train_epochs", "5"),
        "train_cls.py": ("configs/cls_smoke.yaml", *EACH_EPOCH, "--num_train_epochs", "4"),
    },
    "paper": {
        "train_mae.py": ("configs/mae_paper.yaml", "--num_train_epochs", "20"),  # 20 in the ablation, not 80
        "train_cls.py": ("configs/cls_paper.yaml",),
    },
}
SEEDS = {"smoke": 2, "paper": 3}
SMOKE_NOTE = "smoke budget: proves the software, says nothing about medicine"


def main(argv: list[str]) -> None:
    """Parse, run the arms, draw, write the tables."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=("ablation", "sweep", "explode"))
    parser.add_argument("--data_dir", required=True, help="as train_mae.py takes it")
    parser.add_argument("--output_dir", required=True, type=Path, help="runs, figures and report.md go here")
    parser.add_argument("--budget", default="smoke", choices=sorted(BUDGETS))
    parser.add_argument("--stage0", help="ImageNet MAE weights: a folder or Hub id (default: none, random)")
    parser.add_argument("--seeds", type=int, help="how many seeds each arm has (default: smoke 2, paper 3)")
    parser.add_argument("--trials", type=int, default=20, help="of a sweep, former runs' included")
    parser.add_argument(
        "--sweep_stage", default="mae", choices=("mae", "cls"), help="which stage is searched"
    )
    parser.epilog = "options for every run follow --"
    own, words = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options = parser.parse_args(own)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    seeds = range(SEEDS[options.budget] if options.seeds is None else options.seeds)
    if not seeds:
        raise RecipeError("--seeds must be at least 1")
    budget = {script: (*recipe, *words) for script, recipe in BUDGETS[options.budget].items()}
    laboratory = Laboratory(options.output_dir.resolve(), options.data_dir, options.stage0, budget)
    check_settings(laboratory.output, options, words)
    if options.stage0 is None:
        logger.info("no --stage0: every arm starts from random weights, the ImageNet arms are left out")
    has_stage0 = options.stage0 is not None
    note = SMOKE_NOTE if options.budget == "smoke" else ""
    if options.experiment == "sweep":
        fixed = {"num_train_epochs": 2} if note else {}
        finish(laboratory, search(laboratory, options.sweep_stage, options.trials, fixed, note))
        return
    if options.experiment == "ablation":
        arms = ablation_arms(has_stage0)
    else:
        recipe = yaml.safe_load((ROOT / budget["train_mae.py"][0]).read_text(encoding="utf-8"))
        arms = explode_arms(has_stage0, float(recipe["learning_rate"]))
    run_all(laboratory, arms, seeds)

    if options.experiment == "ablation":
        draw(laboratory, [a for a in arms if a.script == "train_mae.py"], seeds, "fig4.png",
             "Pre-training, as Fig. 4", "eval_loss", "masked validation loss", note)  # fmt: skip
        draw(laboratory, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1.png",
             "Classification, as Fig. 1", "eval_loss", "validation loss", note)  # fmt: skip
        draw(laboratory, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1_auroc.png",
             "Classification", "eval_mean_auroc", "validation mean AUROC", note)  # fmt: skip
        report = ablation_report(laboratory, arms, seeds, note)
    else:
        draw(laboratory, [a for a in arms if a.name != "before"], seeds, "fig5.png",
             "Learning rate too high, as Fig. 5", "eval_loss", "masked validation loss", note)  # fmt: skip
        report = explode_report(laboratory, arms, seeds, note)
    finish(laboratory, report)


def check_settings(output: Path, options: argparse.Namespace, words: Sequence[str]) -> None:
    """Keep what defines the experiment beside its runs; more seeds or trials of it may follow.

    Raises:
        RecipeError: the folder holds runs of another experiment.
    """
    settings = {
        "experiment": options.experiment,
        "budget": options.budget,
        "data_dir": place_of(options.data_dir),
        "stage0": place_of(options.stage0),
        "words": list(words),
    }
    name, runs = "experiment", "."
    if options.experiment == "sweep":
        if any(output.glob(f"trials/*/seed*/{LOG}")):
            raise RecipeError(
                f"{output} holds a sweep of an earlier version, whose trials were judged otherwise; it "
                "cannot be gone on with: choose another --output_dir"
            )
        name, runs = f"experiment_{options.sweep_stage}", f"trials/{options.sweep_stage}"
    has_runs = any((output / runs).glob(f"*/seed*/{LOG}"))
    keep_settings(output / f"{name}.json", settings, has_runs)


def place_of(name: str | None) -> str | None:
    """A folder by its whole path, as the scripts find it; a Hub id, or nothing, as it is."""
    folder = ROOT / (name or "")
    return str(folder.resolve()) if name and folder.exists() else name


def finish(laboratory: Laboratory, report: str) -> None:
    """Write the report and show it."""
    (laboratory.output / "report.md").write_text(report, encoding="utf-8")
    logger.info("%s", report)
    logger.info("report.md and the figures lie in %s", laboratory.output)


def search(laboratory: Laboratory, stage: str, trials: int, fixed: dict[str, Any], note: str) -> str:
    """Run the sweep, draw Fig. 3, and return Fig. 2's table as Markdown."""
    sweep = SWEEPS[stage]
    study = open_study(sweep, laboratory.output / "sweep.db", stage, seed=None)
    run_sweep(laboratory, sweep, study, trials, fixed)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    failed = study.get_trials(states=(TrialState.FAIL,))
    best_first = sorted(complete, key=lambda trial: trial.value, reverse=sweep.direction == "maximize")
    names = [name for name in complete[0].params if name not in fixed]  # the others had no effect
    lines = [f"# Sweep of {sweep.script}", "", *([f"**{note}**", ""] if note else [])]
    lines += [f"{len(complete)} trials complete, {len(pruned)} pruned, {len(failed)} failed or interrupted."]
    lines += [f"Not searched in this budget: {name} {value}." for name, value in fixed.items()] + [""]
    heads = [*names, sweep.label, *(["test, not searched by"] if sweep.tested else [])]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for trial in best_first:
        used = (trial.params[name] for name in names)
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in used]
        cells.append(f"{trial.value:.4f}")
        if sweep.tested:
            tested = trial.user_attrs[TESTED]
            cells.append("–" if tested is None else f"{tested:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    by_forest = importances(study, names) if len(complete) > 1 else {}
    by_correlation = {name: value for name, value in correlations(study).items() if name in names}
    figures.influence_bars(
        by_correlation, by_forest, laboratory.output / "fig3.png",
        title=f"Influence on {sweep.label}, as Fig. 3 ({len(complete)} trials)", note=note,
    )  # fmt: skip
    lines += ["", "| hyper-parameter | correlation | importance (random forest) |", "|---|---|---|"]
    for name in names:
        lines.append(f"| {name} | {by_correlation[name]:.2f} | {by_forest.get(name, float('nan')):.2f} |")
    return "\n".join(lines) + "\n"


def draw(
    laboratory: Laboratory, arms: Sequence[Arm], seeds: Sequence[int], name: str, title: str, column: str,
    value: str, note: str,
) -> None:  # fmt: skip
    """One figure: a line an arm, from the logs; a run whose loss became no number has one of its own."""
    curves: dict[str, list[dict[int, float]]] = {}
    for arm in arms:
        for seed in seeds:
            step = laboratory.lost_at(arm.name, seed)
            label = arm.label if step is None else f"{arm.label}, seed {seed}, no number from step {step} on"
            curves.setdefault(label, []).append(curve_of(laboratory, arm, seed, column))
    figures.arm_curves(curves, laboratory.output / name, title=title, value=value, note=note)


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
        star = "*" if entry["is_rare"] else ""
        ours = f"{np.mean(values):.2f}{star}" if values else f"– ({entry['reason']})"
        lines.append(
            f"| {name.replace('_', ' ')} | {ours} | {PAPER_AUROC.get(name, '–')} | {entry['positives']} |"
        )
    return [
        *lines,
        "",
        "The paper's are of a third of the official test list; its cocktail shows some of those images. "
        f"A star: fewer than {RARE} positive or negative images, the value says little.",
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


if __name__ == "__main__":
    leave_on_signals()
    try:
        run_script(main)
    except RunFailedError as error:
        raise SystemExit(f"reproduce.py: {error}") from None
