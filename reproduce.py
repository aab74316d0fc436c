r"""The paper's experiments: its arms run through the two scripts, its figures drawn from their logs.

On two CPU cores, and with ImageNet weights on a GPU:

    python reproduce.py ablation --data_dir DATA --budget smoke --output_dir runs/ablation
    python reproduce.py explode --data_dir DATA --budget paper --output_dir runs/explode \
        --stage0 facebook/hiera-tiny-224-mae-hf
    python reproduce.py sweep --data_dir DATA --budget smoke --output_dir runs/sweep --trials 8
    python reproduce.py masks --data_dir BUILT --budget smoke --output_dir runs/masks
    python reproduce.py ratios --data_dir DATA --budget smoke --output_dir runs/ratios
    python reproduce.py labels --data_dir DATA --stage1 runs/stage1 --output_dir runs/labels

`masks` asks whether masks that follow the chest help (docs/high_definition.md), `ratios` how much they should
hide (docs/recipe.md), `labels` what pre-training is worth where few images are labeled
(docs/reproduction.md). A run that is finished is skipped and one that was interrupted resumes, so the same
command can be repeated; a sweep's trials lie in an SQLite file, and the same command in several processes
shares them. What defines the experiment is kept beside its runs: with other options another --output_dir is
asked for.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser
from medhiera.experiments.label_share import DEFAULT_SHARES, SOURCES, LabelShare


def build_parser() -> argparse.ArgumentParser:
    """The options of this command; those of the training runs follow `--`."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "experiment",
        choices=("ablation", "sweep", "explode", "masks", "ratios", "labels"),
        help="which one is run",
    )
    parser.add_argument("--data_dir", required=True, help="as train_mae.py takes it")
    parser.add_argument("--output_dir", required=True, type=Path, help="runs, figures and report.md go here")
    parser.add_argument(
        "--budget", default="smoke", choices=("paper", "smoke"), help="paper, or smoke: minutes on a CPU"
    )
    parser.add_argument("--stage0", help="ImageNet MAE weights: a folder or Hub id (default: none, random)")
    parser.add_argument(
        "--task_sources", nargs="+", help="whose labels the classifiers learn (default: as train_cls.py; "
        f"labels: {SOURCES[0]})",
    )  # fmt: skip
    parser.add_argument("--nih_mapping", help="as train_mae.py takes it, for every script")
    parser.add_argument("--stage1", help="labels: the pre-training that is compared with random weights")
    parser.add_argument(
        "--label_shares", nargs="+", type=LabelShare.parse, default=DEFAULT_SHARES, metavar="SHARE:SEEDS",
        help="labels: shares of the labels, each with its number of seeds (default: 0.01:5 0.1:3 1:1)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, help="how many seeds each arm has (default: smoke 2, paper, masks and ratios 3)"
    )
    parser.add_argument("--trials", type=int, default=20, help="of a sweep, former runs' included")
    parser.add_argument(
        "--sweep_stage", default="mae", choices=("mae", "cls", "mae-legacy", "cls-legacy"),
        help="which stage is searched; legacy: rates drawn uniformly and RandAugment, as med-hiera",
    )  # fmt: skip
    parser.epilog = "options for every training run follow --"
    return parser


if __name__ == "__main__":  # --help is answered now
    build_parser().parse_known_args()

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from dataset_scripts.build.records import content_hash, scan_folder
from medhiera.errors import UserError, run_script
from medhiera.experiments import figures
from medhiera.experiments.arms import (
    HOW_MUCH_MASKED,
    SCORING,
    Arm,
    ablation_arms,
    explode_arms,
    mask_arms,
)
from medhiera.experiments.budgets import (
    BUDGETS,
    FROM_STAGE0,
    LABEL_BUDGETS,
    MASK_BUDGETS,
    MASK_SEEDS,
    MASKS_FROM_STAGE0,
    RATIO_BUDGETS,
    SEEDS,
)
from medhiera.experiments.labels import arms_of_shares, check_shares
from medhiera.experiments.labels_report import labels_report
from medhiera.experiments.masks_report import masks_report
from medhiera.experiments.report import ablation_report, curve_of, explode_report
from medhiera.experiments.runner import (
    ExperimentRunner,
    has_option,
    leave_on_signals,
    pin_settings,
    run_all,
    without_option,
)
from medhiera.experiments.sweep import SWEEPS, correlations, importances, open_study, run_sweep
from medhiera.layout import LOG_FILE
from medhiera.shipped_files import find_recipe

logger = logging.getLogger(__name__)


SMOKE_NOTE = "smoke budget: proves the software, says nothing about medicine"
MASKS_NOTE = (
    "smoke budget: a small model and few steps from random weights; nothing follows for full training"
)


def main(argv: list[str]) -> None:
    """Parse, run the arms, draw, write the tables."""
    options, arguments = read_options(argv)
    is_masks = options.experiment == "masks"
    if options.experiment == "labels" and options.task_sources is None:
        options.task_sources = SOURCES
    default_seeds = MASK_SEEDS if options.experiment in ("masks", "ratios") else SEEDS[options.budget]
    seeds = range(default_seeds if options.seeds is None else options.seeds)
    check_options(options, len(seeds), arguments)
    own_recipes = {"masks": MASK_BUDGETS, "ratios": RATIO_BUDGETS, "labels": LABEL_BUDGETS}
    recipes = own_recipes.get(options.experiment, BUDGETS)
    from_stage0 = MASKS_FROM_STAGE0 if is_masks else FROM_STAGE0
    geometry = from_stage0 if options.stage0 or options.stage1 else {}
    budget = script_arguments(
        recipes[options.budget], geometry, arguments, options.task_sources, options.nih_mapping
    )
    output = options.output_dir.resolve()
    runner = ExperimentRunner(output, options.data_dir, options.stage0, budget, options.stage1)
    check_settings(runner.output, options, arguments)
    if options.stage0 is None and options.stage1 is None:
        logger.info("no --stage0: every arm starts from random weights, the ImageNet arms are left out")
    note = SMOKE_NOTE if options.budget == "smoke" else ""
    finish(runner, EXPERIMENTS[options.experiment](runner, options, seeds, note))


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line: our options, and those for every training run."""
    parser = build_parser()
    own, arguments = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options = parser.parse_args(own)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in (__name__, "medhiera"):  # the libraries' chatter stays away
        logging.getLogger(name).setLevel(logging.INFO)
    return options, arguments


def ablation(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """Fig. 1 and Fig. 4 and their tables."""
    arms = ablation_arms(options.stage0 is not None)
    run_all(runner, arms, seeds)
    draw(runner, [a for a in arms if a.script == "train_mae.py"], seeds, "fig4.png",
         "Pre-training, as Fig. 4", "eval_loss", "masked validation loss", note)  # fmt: skip
    draw(runner, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1.png",
         "Classification, as Fig. 1", "eval_loss", "validation loss", note)  # fmt: skip
    draw(runner, [a for a in arms if a.script == "train_cls.py"], seeds, "fig1_auroc.png",
         "Classification", "eval_mean_auroc", "validation mean AUROC", note)  # fmt: skip
    return ablation_report(runner, arms, seeds, note)


def explode(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """Fig. 5 and its table."""
    file = find_recipe(runner.arguments["train_mae.py"][0])
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    arms = explode_arms(options.stage0 is not None, float(recipe["learning_rate"]))
    run_all(runner, arms, seeds)
    draw(runner, [a for a in arms if a.name != "before"], seeds, "fig5.png",
         "Learning rate too high, as Fig. 5", "eval_loss", "masked validation loss", note)  # fmt: skip
    return explode_report(runner, arms, seeds, note)


def sweep(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """Fig. 2 as a table, and Fig. 3."""
    fixed = {"num_train_epochs": 2} if note else {}
    return search(runner, options.sweep_stage, options.trials, fixed, note)


def masks(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """The tables of masks that follow the chest."""
    arms = mask_arms(options.stage0 is not None)
    run_all(runner, arms, seeds)
    return masks_report(runner, seeds, MASKS_NOTE if note else "", arms[0].label)


def ratios(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """The tables of mask ratios."""
    arms = mask_arms(options.stage0 is not None, HOW_MUCH_MASKED)
    run_all(runner, arms, seeds)
    return masks_report(runner, seeds, MASKS_NOTE if note else "", arms[0].label, HOW_MUCH_MASKED)


def labels(runner: ExperimentRunner, options: argparse.Namespace, seeds: range, note: str) -> str:
    """The label-efficiency figure and its tables."""
    given = {"stage0": options.stage0, "stage1": options.stage1}
    checkpoints = {name: source for name, source in given.items() if source is not None}
    words = runner.arguments["train_cls.py"]
    by_share = arms_of_shares(options.label_shares, checkpoints, words, has_schedule=not note)
    for share, arms in by_share.items():
        run_all(runner, arms, range(share.seeds))
    task = " and ".join(options.task_sources)
    return labels_report(runner, list(by_share), ("random", *checkpoints), task, note)


EXPERIMENTS = {
    "ablation": ablation,
    "sweep": sweep,
    "explode": explode,
    "masks": masks,
    "ratios": ratios,
    "labels": labels,
}


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
    if options.experiment != "labels":
        if options.stage1 is not None:
            raise UserError(f"--stage1 is of the labels experiment; leave it out of {options.experiment}")
        return
    if options.stage0 is None and options.stage1 is None:
        raise UserError("labels compares a pre-training with random weights: name its folder by --stage1")
    if options.seeds is not None:
        raise UserError("labels has seeds for each share, such as --label_shares 0.01:5; leave --seeds out")
    for name in ("model_overrides", "label_fraction"):
        if has_option(arguments, name):
            raise UserError(f"labels sets --{name} itself, by --stage1 and --label_shares; leave it out")
    check_shares(options.label_shares)


def script_arguments(
    recipes: Mapping[str, tuple[str, ...]],
    geometry: Mapping[str, tuple[str, ...]],
    arguments: Sequence[str],
    task_sources: Sequence[str] | None = None,
    nih_mapping: str | None = None,
) -> dict[str, tuple[str, ...]]:
    """The arguments that each script gets in every arm.

    Args:
        recipes: a budget's, by script.
        geometry: what takes the place of a recipe's own geometry, by script; empty without a stage 0.
        arguments: the user's own, of the scripts that train; they come last and win.
        task_sources: whose labels are learned and scored; None leaves it to the scripts.
        nih_mapping: what names the images behind RSNA's identifiers, for every script.
    """
    recipes = dict(recipes)
    if has_option(arguments, "max_steps"):  # the user's length takes the place of the budget's
        recipes = {
            script: without_option(without_option(words, "num_train_epochs"), "max_steps")
            for script, words in recipes.items()
        }
    task = () if task_sources is None else ("--sources", *task_sources)
    mapping = () if nih_mapping is None else ("--nih_mapping", nih_mapping)
    training = {
        script: (*words, *geometry.get(script, ()), *mapping, *arguments) for script, words in recipes.items()
    }
    training["train_cls.py"] += task
    return training | dict.fromkeys(SCORING, (*task, *mapping))


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
    data = Path(options.data_dir)
    if data.is_dir():  # every run reads it anew: all are to be of the same images and labels
        settings["data"] = content_hash(scan_folder(data), output)
    if options.task_sources is not None:
        settings["task_sources"] = options.task_sources
    for name in ("stage1", "nih_mapping"):
        if getattr(options, name) is not None:
            settings[name] = canonical_path(getattr(options, name))
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
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def finish(runner: ExperimentRunner, report: str) -> None:
    """Write the report and show it."""
    (runner.output / "report.md").write_text(report, encoding="utf-8")
    logger.info("%s", report)
    logger.info("report.md and the figures lie in %s", runner.output)


def value_of(trial: FrozenTrial) -> float:
    """What a complete trial reached."""
    assert trial.value is not None, "a complete trial has a value"
    return trial.value


def search(runner: ExperimentRunner, stage: str, trials: int, fixed: dict[str, Any], note: str) -> str:
    """Run the sweep, draw Fig. 3, and return Fig. 2's table as Markdown."""
    sweep = SWEEPS[stage]
    study = open_study(sweep, runner.output / "sweep.db", stage, seed=None)
    run_sweep(runner, sweep, study, trials, fixed)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    failed = study.get_trials(states=(TrialState.FAIL,))
    best_first = sorted(complete, key=value_of, reverse=sweep.direction == "maximize")
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
        mark=runner.figure_mark(),
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
    mark = runner.figure_mark()
    figures.arm_curves(curves, runner.output / name, title=title, value=value, note=note, mark=mark)


if __name__ == "__main__":
    leave_on_signals()
    run_script(main)
