"""The paper's random searches (Fig. 2, Fig. 3): Optuna proposes, the scripts run, their logs are reported.

Stands beside runner.py, which runs fixed arms; reproduce.py draws. Trials lie in an SQLite file, so a
sweep that was killed resumes, and the same command in several processes shares the trials among them.
"""

import argparse
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import yaml

from medhiera.errors import RunFailedError
from medhiera.experiments.arms import STAGE0, Arm
from medhiera.experiments.runner import (
    ExperimentRunner,
    failure_message,
    has_option,
    locked_process,
    read_column,
)
from medhiera.hub.record import TrainedRecord
from medhiera.layout import LOG_FILE
from medhiera.shipped_files import find_recipe

logger = logging.getLogger(__name__)


_HEARTBEAT_SECONDS = 30

_FAILURES_IN_A_ROW = 3

WARM_UP_PERCENT = 30
"""Share of its schedule in which no trial is pruned: OneCycleLR's learning rate still rises."""


@dataclass(frozen=True)
class Sweep:
    """What is searched and by what it is judged: a measure of the validation split, never of the test split.

    Attributes:
        script: train_mae.py or train_cls.py.
        column: of training_log.csv, reported as the trial goes; at the kept checkpoint the trial's value.
        label: of that value, in tables and figures.
        direction: "minimize" or "maximize".
        propose: a trial → options of the script.
    """

    script: str
    column: str
    label: str
    direction: Literal["minimize", "maximize"]
    propose: Callable[[optuna.Trial], dict[str, Any]]


def propose_mae(trial: optuna.Trial, is_legacy: bool = False) -> dict[str, Any]:
    """The paper's space for pre-training.

    Args:
        trial: to draw from.
        is_legacy: as med-hiera draws it: rates uniformly, and RandAugment as its augmentation.
    """
    has_augmentation = trial.suggest_categorical("augmentation", [False, True])
    proposed = {
        "mask_ratio": trial.suggest_float("mask_ratio", 0.6, 0.8),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-4, log=not is_legacy),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 10, 50, step=10),
    }
    if is_legacy:
        return proposed | {"rand_augment": has_augmentation}
    return proposed | {
        "random_crop_scale": 0.2 if has_augmentation else 0.0,
        "horizontal_flip": has_augmentation,
    }


def propose_classifier(trial: optuna.Trial, is_legacy: bool = False) -> dict[str, Any]:
    """The paper's space for classification; arguments as `propose_mae`'s."""
    proposed = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=not is_legacy),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 1e-7),
        "num_train_epochs": trial.suggest_categorical("num_train_epochs", [10, 15, 20]),
        "classifier_dropout": trial.suggest_float("classifier_dropout", 0.0, 0.5),
        "score_test": False,
    }
    has_augmentation = trial.suggest_categorical("augmentation", [False, True])
    if is_legacy:
        return proposed | {"rotation_degrees": 0, "rand_augment": has_augmentation}
    return proposed | {"rotation_degrees": 30 if has_augmentation else 0}


SWEEPS = {
    "mae": Sweep("train_mae.py", "eval_loss", "masked validation loss", "minimize", propose_mae),
    "cls": Sweep(
        "train_cls.py",
        "eval_selection_auroc",
        "validation AUROC",
        "maximize",
        propose_classifier,
    ),
}
SWEEPS |= {
    "mae-legacy": replace(SWEEPS["mae"], propose=partial(propose_mae, is_legacy=True)),
    "cls-legacy": replace(SWEEPS["cls"], propose=partial(propose_classifier, is_legacy=True)),
}


def open_study(sweep: Sweep, file: Path, name: str, seed: int | None = 0) -> optuna.Study:
    """The study in an SQLite file, new or resumed.

    A trial whose process was killed is proposed again once its heartbeat has been silent for a while.

    Args:
        sweep: what is searched.
        file: of the storage.
        name: of the study in it.
        seed: of the random search; None where several processes share the trials.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Heartbeats are Optuna's only way to notice a killed trial, and still called experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{file}",
            engine_kwargs={"connect_args": {"timeout": 60}},
            heartbeat_interval=_HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2),
        )
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction=sweep.direction,
        sampler=optuna.samplers.RandomSampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=WARM_UP_PERCENT),
        load_if_exists=True,
    )


def run_sweep(
    runner: ExperimentRunner,
    sweep: Sweep,
    study: optuna.Study,
    trials: int,
    fixed: Mapping[str, Any],
    poll_seconds: float = 1.0,
) -> None:
    """Run trials until the study holds so many finished or pruned ones.

    A trial whose script fails (a learning rate at which the loss is NaN) is logged and skipped.

    Args:
        runner: where the runs lie; a folder `trials/STUDY/NUMBER` each.
        sweep: what is searched.
        study: from open_study.
        trials: in all, those of former runs and other processes included.
        fixed: options that win over proposed ones (a smoke budget's few steps).
        poll_seconds: between two looks at a trial's log.

    Raises:
        RunFailedError: three trials in a row failed, so the proposals are hardly the reason.
    """
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    failures = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal failures
        try:
            value = _run_trial(runner, sweep, trial, sweep.propose(trial) | dict(fixed), poll_seconds)
        except optuna.TrialPruned:
            failures = 0
            raise
        except RunFailedError as error:
            failures += 1
            if failures == _FAILURES_IN_A_ROW:
                raise RunFailedError(f"{failures} trials in a row failed; {error}") from error
            logger.warning("%s\nthe search continues without it", error)
            return float("nan")  # a failed trial, to Optuna
        failures = 0
        return value

    if len(study.get_trials(deepcopy=False, states=ended)) < trials:
        study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=ended)])


def _run_trial(
    runner: ExperimentRunner,
    sweep: Sweep,
    trial: optuna.Trial,
    options: Mapping[str, Any],
    poll_seconds: float,
) -> float:
    """One trial in a process of its own, ended early where its log falls behind the median."""
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retried = optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(frozen)
    name = f"trials/{trial.study.study_name}/{trial.number if retried is None else retried}"
    folder = runner.folder(name, 0)
    arguments = tuple(word for key, value in options.items() for word in (f"--{key}", str(value).lower()))
    command = runner.command(Arm(name, name, sweep.script, STAGE0 if runner.stage0 else None, arguments), 0)
    schedule = schedule_of((*runner.arguments[sweep.script], *arguments))
    logger.info("trial %d: %s", trial.number, " ".join(arguments))
    reported: set[int] = set()
    with locked_process(command, folder) as process:
        while process.poll() is None:
            time.sleep(poll_seconds)
            _report(trial, folder / LOG_FILE, sweep.column, schedule, reported)
            if trial.should_prune():
                logger.info("trial %d: pruned after %d %% of its steps", trial.number, max(reported))
                process.kill()  # it need not write a checkpoint
                raise optuna.TrialPruned
    _report(trial, folder / LOG_FILE, sweep.column, schedule, reported)  # what came after the last look
    record = runner.record(name, 0)
    if process.returncode or not isinstance(record, TrainedRecord):
        raise failure_message(f"trial {trial.number}", process.returncode, folder)
    curve = read_column(folder / LOG_FILE, sweep.column)
    kept = record.training.best_step  # None where the last weights are kept
    value = curve.get(max(curve, default=0) if kept is None else kept, float("nan"))
    if not math.isfinite(value):
        raise RunFailedError(
            f"trial {trial.number} has no {sweep.label} of the checkpoint it kept: {folder / LOG_FILE} has "
            f"no number under {sweep.column} there; is eval_strategy off?"
        )
    return value


def schedule_of(arguments: Sequence[str]) -> tuple[int, float]:
    """Optimizer steps and epochs that a script is to train; the epochs count where there are no steps.

    Args:
        arguments: of the script, the recipe first; a word wins over the recipe, a later one over an earlier,
            and epochs of the command line over steps of the recipe.

    Returns:
        Steps, not positive where only the epochs count; epochs.
    """
    recipe = yaml.safe_load(find_recipe(arguments[0]).read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    typed = arguments[1:]
    steps = -1 if has_option(typed, "num_train_epochs") else recipe.get("max_steps", -1)
    parser.add_argument("--max_steps", "--max-steps", type=int, default=steps)
    parser.add_argument(
        "--num_train_epochs", "--num-train-epochs", type=float, default=recipe.get("num_train_epochs", 3)
    )
    asked, _ = parser.parse_known_args(typed)
    return asked.max_steps, asked.num_train_epochs


def _report(
    trial: optuna.Trial, log: Path, column: str, schedule: tuple[int, float], reported: set[int]
) -> None:
    """Tell the study what is new, by percent of the trial's own schedule: trials differ in length.

    Step 0, before training, is the same for all and says nothing.
    """
    steps, epochs = schedule
    epoch = read_column(log, "epoch")
    for step, value in read_column(log, column).items():
        percent = 100 * step // steps if steps > 0 else int(100 * epoch[step] / epochs + 1e-6)
        if percent and percent not in reported:
            trial.report(value, percent)
            reported.add(percent)


def correlations(study: optuna.Study) -> dict[str, float]:
    """Pearson's correlation of each hyper-parameter with the value, over complete trials (Fig. 3).

    NaN where a parameter or the value never changed. A rate searched on a logarithmic scale enters as its
    logarithm.
    """
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    values = np.array([trial.value for trial in complete], dtype=np.float64)
    found = {}
    for name, distribution in (complete[0].distributions if complete else {}).items():
        column = np.array([float(trial.params[name]) for trial in complete])
        column = np.log(column) if getattr(distribution, "log", False) else column
        varies = len(complete) > 1 and np.ptp(column) > 0 and np.ptp(values) > 0
        found[name] = float(np.corrcoef(column, values)[0, 1]) if varies else float("nan")
    return found


def importances(study: optuna.Study, names: Sequence[str]) -> dict[str, float]:
    """Share of each hyper-parameter by a random forest (mean decrease in impurity), over complete trials.

    Args:
        study: with two complete trials at least.
        names: of the hyper-parameters that the trials used as proposed.
    """
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    # Sorted, because Optuna 5.0 gives this evaluator's values to the wrong names in any other order.
    found: dict[str, float] = optuna.importance.get_param_importances(
        study, evaluator=evaluator, params=sorted(names)
    )
    return found
