"""A sweep over a stand-in script (a real process that writes a real log): values, pruning, resuming."""

import math
import subprocess
import sys

import optuna
import pytest

from medhiera import sweep as sweep_module
from medhiera.experiments import Laboratory, RunFailedError
from medhiera.sweep import Sweep, correlations, importances, open_study, read_column, run_sweep

# Writes what train_mae.py would, in no time: the loss is the rate, and a rate above 0.9 fails.
SCRIPT = """
import csv, json, pathlib, sys, time
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
rate, out = float(words["--rate"]), pathlib.Path(words["--output_dir"])
if rate > 0.9:
    sys.exit("too high")
with open(out / "training_log.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, ("step", "eval_loss"))
    writer.writeheader()
    for step in range(4):
        writer.writerow({"step": step, "eval_loss": rate})
        file.flush()
        time.sleep(float(words["--pause"]))
(out / "metrics.json").write_text(json.dumps({"evaluation": {"masked_loss": rate}}))
(out / "README.md").write_text("card")
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "_POLL_SECONDS", 0.02)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    laboratory = Laboratory(tmp_path / "out", "DATA", None, {str(script): ("--pause", "0")})

    def sweep(low, high):
        return Sweep(
            str(script), "eval_loss", "masked_loss", "minimize",
            lambda trial: {"rate": trial.suggest_float("rate", low, high)},
        )  # fmt: skip

    return laboratory, sweep


def test_trials_are_kept_and_a_second_call_adds_only_what_is_missing(workplace, tmp_path):
    laboratory, make = workplace
    sweep = make(0.1, 0.8)
    for wanted in (3, 3, 5):
        study = open_study(sweep, tmp_path / "sweep.db", "mae")
        run_sweep(laboratory, sweep, study, wanted, {})
        ended = [trial for trial in study.trials if trial.state.is_finished()]
        assert len(ended) == wanted
    assert all(trial.value is None or trial.value == trial.params["rate"] for trial in ended)
    assert all(0 not in trial.intermediate_values for trial in ended)


def test_a_trial_far_behind_is_ended_early(workplace, tmp_path):
    laboratory, make = workplace
    study = open_study(make(0.1, 0.2), tmp_path / "sweep.db", "mae")
    run_sweep(laboratory, make(0.1, 0.2), study, 5, {})
    slow = Laboratory(laboratory.output, "DATA", None, {k: ("--pause", "5") for k in laboratory.words})
    run_sweep(slow, make(0.7, 0.8), study, 6, {})
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED
    assert not (laboratory.folder(f"trials/{study.trials[-1].number}", 0) / "README.md").exists()


def test_a_failed_script_is_told_with_the_place_of_its_message(workplace, tmp_path):
    laboratory, make = workplace
    study = open_study(make(0.95, 0.99), tmp_path / "sweep.db", "mae")
    with pytest.raises(RunFailedError, match=r"exit code 1; see .*printed\.txt"):
        run_sweep(laboratory, make(0.95, 0.99), study, 1, {})
    assert "too high" in (laboratory.folder("trials/0", 0) / "printed.txt").read_text()


def test_two_processes_share_the_trials(workplace, tmp_path):
    laboratory, make = workplace
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from medhiera import sweep as s\n"
        "from medhiera.experiments import Laboratory\n"
        "s._POLL_SECONDS = 0.02\n"
        "script, out = sys.argv[2:]\n"
        "lab = Laboratory(Path(out), 'DATA', None, {script: ('--pause', '0.1')})\n"
        "sw = s.Sweep(script, 'eval_loss', 'masked_loss', 'minimize',"
        " lambda t: {'rate': t.suggest_float('rate', 0.1, 0.8)})\n"
        "s.run_sweep(lab, sw, s.open_study(sw, Path(out) / 'sweep.db', 'mae', seed=None), 6, {})\n"
    )
    script = next(iter(laboratory.words))
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(sweep_module.ROOT),
        script,
        str(laboratory.output),
    ]
    open_study(make(0.1, 0.8), laboratory.output / "sweep.db", "mae")
    both = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    study = open_study(make(0.1, 0.8), laboratory.output / "sweep.db", "mae")
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
