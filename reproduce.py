"""The paper's experiments: its arms run through the two scripts, its figures drawn from their logs.

On two CPU cores, and with ImageNet weights on a GPU:

    python reproduce.py ablation --data_dir DATA --budget smoke --output_dir runs/ablation
    python reproduce.py explode --data_dir DATA --budget paper --output_dir runs/explode \
        --stage0 facebook/hiera-tiny-224-mae-hf
    python reproduce.py sweep --data_dir DATA --budget smoke --output_dir runs/sweep --trials 8

A run that is finished is skipped and one that was interrupted resumes, so the same command can be repeated; a
sweep's trials lie in an SQLite file, and the same command in several processes shares them. What defines the
experiment is kept beside its runs: with other options another --output_dir is asked for.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState

from medhiera.errors import UserError, run_script
from medhiera.experiments import figures
from medhiera.experiments.arms import Arm, ablation_arms, explode_arms
from medhiera.experiments.report import ablation_report, curve_of, explode_report
from medhiera.experiments.runner import (
    ROOT,
    ExperimentRunner,
    has_option,
    leave_on_signals,
    pin_settings,
    run_all,
    without_option,
)
from medhiera.experiments.sweep import SWEEPS, correlations, importances, open_study, run_sweep
from medhiera.layout import LOG_FILE

logger = logging.getLogger(__name__)


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
    parser.add_argument("experiment", choices=("ablation", "sweep", "explode"), help="which one is run")
    parser.add_argument("--data_dir", required=True, help="as train_mae.py takes it")
    parser.add_argument("--output_dir", required=True, type=Path, help="runs, figures and report.md go here")
    parser.add_argument(
        "--budget", default="smoke", choices=sorted(BUDGETS), help="paper, or smoke: minutes on a CPU"
    )
    parser.add_argument("--stage0", help="ImageNet MAE weights: a folder or Hub id (default: none, random)")
    parser.add_argument("--seeds", type=int, help="how many seeds each arm has (default: smoke 2, paper 3)")
    parser.add_argument("--trials", type=int, default=20, help="of a sweep, former runs' included")
    parser.add_argument(
        "--sweep_stage", default="mae", choices=("mae", "cls"), help="which stage is searched"
    )
    parser.epilog = "options for every run follow --"
    own, arguments = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options = parser.parse_args(own)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in (__name__, "medhiera"):  # the libraries' chatter stays away
        logging.getLogger(name).setLevel(logging.INFO)
    seeds = range(SEEDS[options.budget] if options.seeds is None else options.seeds)
    check_options(options, len(seeds), arguments)
    budget = script_arguments(options.budget, options.stage0, arguments)
    runner = ExperimentRunner(options.output_dir.resolve(), options.data_dir, options.stage0, budget)
    check_settings(runner.output, options, arguments)
    if options.stage0 is None:
        logger.info("no --stage0: every arm starts from random weights, the ImageNet arms are left out")
    has_stage0 = options.stage0 is not None
    note = SMOKE_NOTE if options.budget == "smoke" else ""
    if options.experiment == "sweep":
        fixed = {"num_train_epochs": 2} if note else {}
        finish(runner, search(runner, options.sweep_stage, options.trials, fixed, note))
        return
    if options.experiment == "ablation":
        arms = ablation_arms(has_stage0)
    else:
        recipe = yaml.safe_load((ROOT / budget["train_mae.py"][0]).read_text(encoding="utf-8"))
        arms = explode_arms(has_stage0, float(recipe["learning_rate"]))
    run_all(runner, arms, seeds)

    if options.experiment == "ablation":
        draw(runner, [a for a in arms if a.script == "train_mae.py"], seeds, "fig4.png",
             "Pre-training, as Fig. 4", "eval_loss", "masked validation loss", note)  # fmt: skip
        draw(runner, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1.png",
             "Classification, as Fig. 1", "eval_loss", "validation loss", note)  # fmt: skip
        draw(runner, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1_auroc.png",
             "Classification", "eval_mean_auroc", "validation mean AUROC", note)  # fmt: skip
        report = ablation_report(runner, arms, seeds, note)
    else:
        draw(runner, [a for a in arms if a.name != "before"], seeds, "fig5.png",
             "Learning rate too high, as Fig. 5", "eval_loss", "masked validation loss", note)  # fmt: skip
        report = explode_report(runner, arms, seeds, note)
    finish(runner, report)


def check_options(options: argparse.Namespace, seeds: int, arguments: Sequence[str]) -> None:
    """Refuse numbers and options that an experiment cannot have.

    Raises:
        UserError: one of them.
    """
    if seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; wanted a whole number from 1 up")
    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}; wanted a whole number from 1 up")
    if options.experiment == "ablation" and "--score_test" in arguments:
        raise UserError("the ablation's tables are of the test split; leave --score_test out")
    if options.experiment == "sweep" and has_option(arguments, "max_steps"):
        raise UserError("a sweep searches num_train_epochs; leave --max_steps out")


def script_arguments(budget: str, stage0: str | None, arguments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The arguments that each script gets in every arm.

    A recipe's own small geometry is dropped where there is a stage 0: it would contradict the checkpoint's,
    and arms from random weights are compared with those that start from it.

    Args:
        budget: a key of BUDGETS.
        stage0: folder or Hub id of ImageNet MAE weights, or None.
        arguments: the user's own; they come last and win.
    """
    geometry = () if stage0 is None else ("--model_overrides", "{}")
    recipes = dict(BUDGETS[budget])
    if has_option(arguments, "max_steps"):  # the user's length takes the place of the budget's
        recipes = {script: without_option(words, "num_train_epochs") for script, words in recipes.items()}
    return {script: (*words, *geometry, *arguments) for script, words in recipes.items()}


def check_settings(output: Path, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Keep what defines the experiment beside its runs; more seeds or trials of it may follow.

    Raises:
        UserError: the folder holds runs of another experiment.
    """
    settings = {
        "experiment": options.experiment,
        "budget": options.budget,
        "data_dir": canonical_path(options.data_dir),
        "stage0": canonical_path(options.stage0),
        "arguments": list(arguments),
    }
    name, runs = "experiment", "."
    if options.experiment == "sweep":
        if any(output.glob(f"trials/*/seed*/{LOG_FILE}")):
            raise UserError(
                f"{output} holds a sweep of an earlier version, whose trials were judged otherwise; it "
                "cannot be resumed: choose another --output_dir"
            )
        name, runs = f"experiment_{options.sweep_stage}", f"trials/{options.sweep_stage}"
    has_runs = any((output / runs).glob(f"*/seed*/{LOG_FILE}"))
    pin_settings(output / f"{name}.json", settings, has_runs)


def canonical_path(name: str | None) -> str | None:
    """A folder by its whole path, as the scripts find it; a Hub id, or nothing, as it is."""
    folder = ROOT / (name or "")
    return str(folder.resolve()) if name and folder.exists() else name


def finish(runner: ExperimentRunner, report: str) -> None:
    """Write the report and show it."""
    (runner.output / "report.md").write_text(report, encoding="utf-8")
    logger.info("%s", report)
    logger.info("report.md and the figures lie in %s", runner.output)


def search(runner: ExperimentRunner, stage: str, trials: int, fixed: dict[str, Any], note: str) -> str:
    """Run the sweep, draw Fig. 3, and return Fig. 2's table as Markdown."""
    sweep = SWEEPS[stage]
    study = open_study(sweep, runner.output / "sweep.db", stage, seed=None)
    run_sweep(runner, sweep, study, trials, fixed)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    failed = study.get_trials(states=(TrialState.FAIL,))
    best_first = sorted(complete, key=lambda trial: trial.value, reverse=sweep.direction == "maximize")
    names = [name for name in complete[0].params if name not in fixed]  # the others had no effect
    lines = [f"# Sweep of {sweep.script}", "", *([f"**{note}**", ""] if note else [])]
    lines += [f"{len(complete)} trials complete, {len(pruned)} pruned, {len(failed)} failed or interrupted."]
    lines += [f"Not searched in this budget: {name} {value}." for name, value in fixed.items()] + [""]
    heads = [*names, sweep.label]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for trial in best_first:
        used = (trial.params[name] for name in names)
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in used]
        cells.append(f"{trial.value:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    by_forest = importances(study, names) if len(complete) > 1 else {}
    by_correlation = {name: value for name, value in correlations(study).items() if name in names}
    figures.influence_bars(
        by_correlation, by_forest, runner.output / "fig3.png",
        title=f"Influence on {sweep.label}, as Fig. 3 ({len(complete)} trials)", note=note,
    )  # fmt: skip
    lines += ["", "| hyper-parameter | correlation | importance (random forest) |", "|---|---|---|"]
    for name in names:
        lines.append(f"| {name} | {by_correlation[name]:.2f} | {by_forest.get(name, float('nan')):.2f} |")
    return "\n".join(lines) + "\n"


def draw(
    runner: ExperimentRunner, arms: Sequence[Arm], seeds: Sequence[int], name: str, title: str, column: str,
    value: str, note: str,
) -> None:  # fmt: skip
    """One figure: a line an arm, from the logs; a run whose loss became NaN or infinite has its own."""
    curves: dict[str, list[dict[int, float]]] = {}
    for arm in arms:
        for seed in seeds:
            step = runner.diverged_at(arm.name, seed)
            label = (
                arm.label if step is None else f"{arm.label}, seed {seed}, NaN or infinite from step {step}"
            )
            curves.setdefault(label, []).append(curve_of(runner, arm, seed, column))
    figures.arm_curves(curves, runner.output / name, title=title, value=value, note=note)


if __name__ == "__main__":
    leave_on_signals()
    run_script(main)
