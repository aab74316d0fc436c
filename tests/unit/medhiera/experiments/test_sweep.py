"""A sweep over a stand-in script (a real process that writes a real log): values, pruning, resuming."""

import json
import logging
import math
import subprocess
from dataclasses import asdict

import optuna
import pytest
from stage_records import pretraining_record
from warm_python import warm_python

import reproduce
from medhiera.errors import RunFailedError
from medhiera.experiments import sweep as sweep_module
from medhiera.experiments.runner import ExperimentRunner, read_column
from medhiera.experiments.sweep import (
    SWEEPS,
    Sweep,
    correlations,
    importances,
    open_study,
    run_sweep,
    schedule_of,
)
from medhiera.training.callbacks import CSVLoggerCallback

# Writes what a training script would, in no time: the loss is the rate, and a rate above 0.9 fails.
SCRIPT = """
import csv, json, pathlib, sys, time
RECORD, COLUMNS = %r, %r
args = dict(zip(sys.argv[2::2], sys.argv[3::2]))
rate, out = float(args["--rate"]), pathlib.Path(args["--output_dir"])
steps = int(args["--max_steps"])
if rate > 0.9:
    sys.exit("too high")
with open(out / "training_log.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for step in range(steps + 1):
        row = {"step": step, "epoch": step / steps}
        auroc = "" if rate < 0.1 else {1: 0.9, steps: 0.7}.get(step, 0.5)
        writer.writerow(row | {"eval_loss": rate, "eval_selection_auroc": auroc})
        file.flush()
        time.sleep(float(args["--pause"]))
best = int(args["--best_step"]) if "--best_step" in args else None
record = json.loads(RECORD)
record["training"]["best_step"] = best
(out / "metrics.json").write_text(json.dumps(record))
(out / "README.md").write_text("card")
"""


POLL_SECONDS = 0.02


@pytest.fixture
def workplace(tmp_path):
    script, recipe = tmp_path / "script.py", tmp_path / "recipe.yaml"
    script.write_text(SCRIPT % (json.dumps(asdict(pretraining_record())), CSVLoggerCallback.columns))
    recipe.write_text("max_steps: 3")
    arguments = (str(recipe), "--pause", "0", "--max_steps", "3")
    runner = ExperimentRunner(tmp_path / "out", "DATA", None, {str(script): arguments})

    def sweep(low, high):
        return Sweep(
            str(script), "eval_loss", "loss", "minimize",
            lambda trial: {"rate": trial.suggest_float("rate", low, high)},
        )  # fmt: skip

    return runner, sweep


def saying(runner, *more):
    """The same runner with more arguments."""
    arguments = {script: (*arguments, *more) for script, arguments in runner.arguments.items()}
    return ExperimentRunner(runner.output, "DATA", None, arguments)


def test_trials_are_kept_and_a_second_call_adds_only_what_is_missing(workplace, tmp_path):
    runner, make = workplace
    sweep = make(0.1, 0.8)
    for wanted in (3, 3, 5):
        study = open_study(sweep, tmp_path / "sweep.db", "mae")
        run_sweep(runner, sweep, study, wanted, {}, POLL_SECONDS)
        ended = [trial for trial in study.trials if trial.state.is_finished()]
        assert len(ended) == wanted
    assert all(trial.value is None or trial.value == trial.params["rate"] for trial in ended)
    assert all(0 not in trial.intermediate_values for trial in ended)


def test_a_trial_far_behind_is_ended_early(workplace, tmp_path):
    runner, make = workplace
    study = open_study(make(0.1, 0.2), tmp_path / "sweep.db", "mae")
    run_sweep(runner, make(0.1, 0.2), study, 5, {}, POLL_SECONDS)
    run_sweep(saying(runner, "--pause", "5"), make(0.7, 0.8), study, 6, {}, POLL_SECONDS)
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED
    assert not (runner.folder(f"trials/mae/{study.trials[-1].number}", 0) / "README.md").exists()


def test_trials_are_compared_at_the_same_share_of_their_schedules_after_a_warm_up(workplace, tmp_path):
    runner, make = workplace
    study = open_study(make(0.1, 0.2), tmp_path / "sweep.db", "mae")
    run_sweep(saying(runner, "--max_steps", "8"), make(0.1, 0.2), study, 4, {}, POLL_SECONDS)
    assert study.trials[0].intermediate_values.keys() == {12, 25, 37, 50, 62, 75, 87, 100}
    # Behind at once, and still let go on as long as its learning rate rises; half as long as the others.
    slow = saying(runner, "--max_steps", "4", "--pause", "0.4")
    run_sweep(slow, make(0.7, 0.8), study, 5, {}, POLL_SECONDS)
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED
    assert study.trials[-1].intermediate_values.keys() == {25, 50}


def test_the_schedule_is_the_recipes_unless_a_word_says_otherwise(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_steps: 400\nlearning_rate: 1e-3")
    assert schedule_of((str(recipe), "--learning_rate", "1")) == (400, 3)
    assert schedule_of((str(recipe), "--num-train-epochs=2")) == (-1, 2)  # as the script takes it
    arguments = (str(recipe), "--max_steps", "-1", "--num_train_epochs", "5", "--num_train_epochs", "2")
    assert schedule_of(arguments) == (-1, 2)
    recipe.write_text("num_train_epochs: 80")
    assert schedule_of((str(recipe), "--max-steps=7")) == (7, 80)


def test_where_only_epochs_are_asked_for_their_share_is_reported(tmp_path):
    log = tmp_path / "training_log.csv"
    log.write_text("step,epoch,eval_loss\n0,0,2.0\n5,1.0,1.0\n5,1.0,\n10,2.0,0.5\n")
    study = optuna.create_study()
    trial = study.ask()
    sweep_module._report(trial, log, "eval_loss", (-1, 3), set())
    assert study.trials[0].intermediate_values == {33: 1.0, 66: 0.5}


@pytest.mark.parametrize(("arguments", "expected"), [(("--best_step", "1"), 0.9), ((), 0.7)])
def test_a_classifier_is_judged_by_the_validation_split_at_the_weights_it_keeps(
    arguments, expected, workplace, tmp_path, monkeypatch
):
    runner, make = workplace
    by_auroc = SWEEPS["cls"]
    sweep = Sweep(
        make(0.1, 0.8).script, by_auroc.column, by_auroc.label, by_auroc.direction, make(0.1, 0.8).propose,
    )  # fmt: skip
    monkeypatch.setitem(SWEEPS, "cls", sweep)
    report = reproduce.search(saying(runner, *arguments), "cls", 1, {}, "")
    assert "| rate | validation AUROC |" in report
    assert f"| {expected:.4f} |" in report


def test_a_trial_of_a_classifier_does_not_read_the_test_split():
    proposed = SWEEPS["cls"].propose(optuna.create_study().ask())
    assert proposed["score_test"] is False


def test_a_classifier_without_a_validation_value_is_a_failed_trial(workplace, tmp_path, caplog):
    runner, make = workplace
    sweep = Sweep(make(0, 1).script, "eval_selection_auroc", "AUROC", "maximize", make(0.01, 0.09).propose)
    study = open_study(sweep, tmp_path / "sweep.db", "cls")
    with pytest.raises(RunFailedError, match=r"trial 2 has no AUROC .* eval_selection_auroc"):
        run_sweep(runner, sweep, study, 1, {}, POLL_SECONDS)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.FAIL] * 3


def test_a_search_goes_on_after_a_failed_trial(workplace, tmp_path, caplog):
    runner, make = workplace
    study = open_study(make(0, 1), tmp_path / "sweep.db", "mae")
    for rate in (0.95, 0.95, 0.3, 0.95, 0.95, 0.4):
        study.enqueue_trial({"rate": rate})
    with caplog.at_level(logging.WARNING, "medhiera.experiments.sweep"):
        run_sweep(runner, make(0, 1), study, 2, {}, POLL_SECONDS)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "COMPLETE"] * 2
    assert "trials/mae/0/seed0/stdout.log ends with:\n  too high\nthe search continues" in caplog.text


def test_three_failures_in_a_row_end_the_search_with_the_last_ones_message(workplace, tmp_path):
    runner, make = workplace
    study = open_study(make(0.95, 0.99), tmp_path / "sweep.db", "mae")
    with pytest.raises(
        RunFailedError, match=r"3 trials in a row failed; trial 2 .*stdout\.log.*\n  too high"
    ):
        run_sweep(runner, make(0.95, 0.99), study, 20, {}, POLL_SECONDS)
    assert len(study.trials) == 3


def test_the_trials_of_two_stages_lie_apart(workplace, tmp_path):
    runner, make = workplace
    for name in ("mae", "cls"):
        run_sweep(runner, make(0.1, 0.8), open_study(make(0.1, 0.8), tmp_path / "db", name), 1, {})
        assert (runner.output / "trials" / name / "0" / "seed0" / "metrics.json").is_file()


def test_two_processes_share_the_trials(workplace, tmp_path):
    runner, make = workplace
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medhiera.experiments import sweep as s\n"
        "from medhiera.experiments.runner import ExperimentRunner\n"
        "script, recipe, out = sys.argv[1:]\n"
        "arguments = (recipe, '--max_steps', '3', '--pause', '0.1')\n"
        "lab = ExperimentRunner(Path(out), 'DATA', None, {script: arguments})\n"
        "sw = s.Sweep(script, 'eval_loss', 'loss', 'minimize',"
        " lambda t: {'rate': t.suggest_float('rate', 0.1, 0.8)})\n"
        "s.run_sweep(lab, sw, s.open_study(sw, Path(out) / 'sweep.db', 'mae', seed=None), 6, {}, 0.02)\n"
    )
    script = next(iter(runner.arguments))
    (tmp_path / "searcher.py").write_text(code)
    words = [script, runner.arguments[script][0], str(runner.output)]
    arguments = [warm_python(), "-W", "ignore", str(tmp_path / "searcher.py"), *words]
    open_study(make(0.1, 0.8), runner.output / "sweep.db", "mae")
    both = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    study = open_study(make(0.1, 0.8), runner.output / "sweep.db", "mae")
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    assert 6 <= len(finished) <= 7  # the other may be in its last trial when the count is reached
    assert len({trial.params["rate"] for trial in finished}) == len(finished)


def test_correlation_and_importance_find_what_matters():
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda t: (
            math.log10(t.suggest_float("rate", 1e-5, 1e-1, log=True)) + 0 * t.suggest_float("idle", 0, 1)
        ),
        n_trials=30,
    )
    found = correlations(study)
    assert found["rate"] == pytest.approx(1.0)
    assert abs(found["idle"]) < 0.6
    for names in (["rate", "idle"], ["idle", "rate"]):
        assert importances(study, names)["rate"] > 0.8


def test_correlation_of_nothing_is_not_a_number():
    study = optuna.create_study()
    assert correlations(study) == {}
    study.add_trial(
        optuna.create_trial(
            params={"a": 1.0}, distributions={"a": optuna.distributions.FloatDistribution(0, 2)}, value=1.0
        )
    )
    assert math.isnan(correlations(study)["a"])


def test_a_log_that_is_not_there_yet_is_empty(tmp_path):
    assert read_column(tmp_path / "training_log.csv", "eval_loss") == {}


@pytest.mark.parametrize(("stage", "high"), [("mae", 5e-4), ("cls", 1e-4)])
def test_the_papers_code_draws_rates_uniformly_and_augments_with_rand_augment(stage, high):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = [SWEEPS[f"{stage}-legacy"].propose(study.ask()) for _ in range(60)]
    rates = [options["learning_rate"] for options in drawn]
    assert sum(rate > high / 2 for rate in rates) > 20  # by their logarithm it would be 15 % of them
    assert {options["rand_augment"] for options in drawn} == {False, True}
    assert not any(options.get(name) for options in drawn for name in ("rotation_degrees", "horizontal_flip"))
