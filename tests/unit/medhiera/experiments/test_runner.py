"""Arms come after what they start from, commands are what a user would type, and failures are told."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict

import optuna
import pytest
from stage_records import pretraining_record
from warm_python import start_warm, warm_python

import reproduce
from dataset_scripts.build.records import content_hash, scan_folder
from medhiera.errors import RunFailedError, UserError
from medhiera.evaluation.results import ReconstructionReport
from medhiera.experiments.arms import STAGE0, Arm, ablation_arms, explode_arms, mask_arms
from medhiera.experiments.runner import (
    ExperimentRunner,
    failure_message,
    leave_on_signals,
    locked_process,
    pin_settings,
    run_all,
)
from medhiera.experiments.sweep import SWEEPS, open_study
from medhiera.training.checkpoints import mark_complete

WORDS = {"train_mae.py": ("mae.yaml",), "train_cls.py": ("cls.yaml",)}


EXPLODED = json.dumps(asdict(pretraining_record(evaluation=ReconstructionReport(1.2, 1.5, 0.6))))


def finish(runner, arm, seed, steps=7):
    folder = runner.folder(arm, seed)
    folder.mkdir(parents=True)
    pretraining_record(steps=steps, evaluation=ReconstructionReport(1.2, 1.0, 0.6)).write(folder)
    (folder / "README.md").write_text("card")


@pytest.mark.parametrize("has_stage0", [False, True])
@pytest.mark.parametrize("arms", [ablation_arms, lambda has: explode_arms(has, 1e-4), mask_arms])
def test_what_an_arm_starts_from_comes_before_it(arms, has_stage0):
    seen = set()
    for arm in arms(has_stage0):
        assert arm.start in seen | {None} | ({STAGE0} if has_stage0 else set())
        assert arm.as_long_as is None or arm.as_long_as in seen
        assert arm.name not in seen
        seen.add(arm.name)


def test_the_paper_has_three_and_four_arms_and_we_two_more_of_each():
    scripts = [arm.script for arm in ablation_arms(has_stage0=True)]
    assert (scripts.count("train_mae.py"), scripts.count("train_cls.py")) == (3 + 2, 4 + 2)


def test_help_names_the_experiments_that_there_are():
    # Its parser stands above the imports, and so names them once more.
    given = {action.dest: action.choices for action in reproduce.build_parser()._actions}
    assert given["experiment"] == tuple(reproduce.EXPERIMENTS)
    assert given["budget"] == tuple(sorted(reproduce.BUDGETS))
    assert given["sweep_stage"] == tuple(SWEEPS)


def test_a_command_says_all(tmp_path):
    runner = ExperimentRunner(tmp_path, "DATA", "ORG/STAGE0", WORDS)
    finish(runner, "long", 3, steps=41)
    arm = Arm("short", "short", "train_mae.py", STAGE0, ("--sources", "A"), as_long_as="long")
    command = " ".join(runner.command(arm, 3))
    for arguments in ("train_mae.py mae.yaml --data_dir DATA", "--seed 3", "--sources A", "--max_steps 41"):
        assert arguments in command
    assert "--model_name_or_path ORG/STAGE0" in command and "resume" not in command
    checkpoint = runner.folder("short", 3) / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    assert "resume" not in " ".join(runner.command(arm, 3))  # half written: not to be gone on from
    mark_complete(checkpoint)
    assert "--resume_from_checkpoint true" in " ".join(runner.command(arm, 3))


def test_a_run_is_given_one_length(tmp_path):
    words = {"train_mae.py": ("mae.yaml", "--num_train_epochs", "20", "--seed", "1", "--num-train-epochs=5")}
    runner = ExperimentRunner(tmp_path, "DATA", None, words)
    finish(runner, "long", 3, steps=41)
    command = runner.command(Arm("short", "short", "train_mae.py", as_long_as="long"), 3)
    assert not [word for word in command if "epochs" in word or word == "20"]
    assert command[command.index("--max_steps") + 1] == "41" and "mae.yaml" in command
    assert "--num_train_epochs 20" in " ".join(runner.command(Arm("plain", "plain", "train_mae.py"), 3))
    asked = reproduce.script_arguments(reproduce.BUDGETS["paper"], {}, ["--max_steps", "7"])
    assert asked["train_mae.py"] == ("configs/mae_paper.yaml", "--max_steps", "7")


def test_a_refusal_is_shown_to_its_first_line(tmp_path):
    faults = [f"  - fault {number}" for number in range(12)]
    lines = ["noise"] * 20 + ["train_mae.py: this recipe cannot run:", *faults]
    (tmp_path / "stdout.log").write_text("\n".join(lines))
    message = str(failure_message("arm", 1, tmp_path))
    assert "this recipe cannot run" in message and "fault 0" in message and "noise" not in message
    (tmp_path / "stdout.log").write_text("\n".join(f"line {number}" for number in range(20)))
    assert "line 12" in str(failure_message("arm", 1, tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials is 0; wanted a whole number from 1 up"),
        (["--seeds", "-2"], "--seeds is -2; wanted a whole number from 1 up"),
        (["--", "--max_steps", "3"], "a sweep searches num_train_epochs; leave --max_steps out"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        reproduce.main(["sweep", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path), *words])


def test_a_later_arm_starts_from_the_same_seed(tmp_path):
    runner = ExperimentRunner(tmp_path, "DATA", None, WORDS)
    command = runner.command(Arm("cls", "cls", "train_cls.py", "mae"), 1)
    assert str(tmp_path / "mae" / "seed1") in command


def test_finished_runs_are_skipped_and_a_failure_shows_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", warm_python())
    runner = ExperimentRunner(tmp_path, str(tmp_path / "nothing"), None, {"train_mae.py": ("no.yaml",)})
    finish(runner, "done", 0)
    run_all(runner, [Arm("done", "done", "train_mae.py")], [0])
    with pytest.raises(RunFailedError, match=r"exit code 1.*\n.*no recipe at no.yaml"):
        run_all(runner, [Arm("new", "new", "train_mae.py")], [0])


# Trains two steps; at a rate above 1 it ends as the guards end a run, or fails for a reason of its own.
EXPLODING = """
import json, pathlib, sys
RECORD = %r
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
out, rate = pathlib.Path(arguments["--output_dir"]), float(arguments["--learning_rate"])
last = {"1e3": "nan"}.get(arguments["--learning_rate"], "1.5")
(out / "training_log.csv").write_text(f"step,epoch,eval_loss\\n0,0,1.2\\n2,1,{last}\\n")
if arguments["--learning_rate"] == "1e2":
    (out / "nonfinite_batch.json").write_text(json.dumps({"step": 3}))
if rate > 1:
    sys.exit("the loss of step 3 is not a finite number")
(out / "metrics.json").write_text(RECORD)
(out / "README.md").write_text("card")
"""


def test_a_loss_that_is_no_number_is_an_ending_of_explodes_arms(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(EXPLODING % EXPLODED)
    runner = ExperimentRunner(tmp_path / "out", "DATA", None, {str(script): ("recipe.yaml",)})
    arms = [
        Arm(rate, f"rate {rate}", str(script), None, ("--learning_rate", rate), may_diverge=True)
        for rate in ("1", "1e2", "1e3")
    ]
    run_all(runner, arms, [0, 1])
    assert [runner.run(arm, 0) for arm in arms] == [False] * 3  # ended: not run again
    report = reproduce.explode_report(runner, arms, [0, 1], "")
    both = "NaN or infinite from step {0} (seed 0); NaN or infinite from step {0} (seed 1)"
    for line in (
        "| rate 1 | 1.2000 (1.2000 to 1.2000) | 1.5000 (1.5000 to 1.5000) | 1.5000 (1.5000 to 1.5000) |",
        f"| rate 1e2 | 1.2000 (1.2000 to 1.2000) | 1.5000 (1.5000 to 1.5000) | {both.format(3)} |",
        f"| rate 1e3 | 1.2000 (1.2000 to 1.2000) | 1.2000 (1.2000 to 1.2000) | {both.format(2)} |",
    ):
        assert line in report
    reproduce.draw(runner, arms, [0, 1], "fig5.png", "title", "eval_loss", "loss", "")
    assert (runner.output / "fig5.png").is_file()


@pytest.mark.parametrize(("rate", "may_diverge"), [("1e2", False), ("2", True)])
def test_any_other_failure_is_one(rate, may_diverge, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(EXPLODING % EXPLODED)
    runner = ExperimentRunner(tmp_path / "out", "DATA", None, {str(script): ("recipe.yaml",)})
    arm = Arm("arm", "", str(script), None, ("--learning_rate", rate), may_diverge=may_diverge)
    with pytest.raises(RunFailedError, match="exit code 1"):
        runner.run(arm, 0)


def test_only_the_rates_of_explode_may_explode():
    assert [arm.may_diverge for arm in explode_arms(False, 1e-4)] == [False, True, True, True]
    assert not any(arm.may_diverge for arm in ablation_arms(has_stage0=True))


# A training script that is asked to end writes its checkpoint, and takes its time for it.
WORKING = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
def save(number, frame):
    time.sleep(0.3)
    (out / "checkpoint").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(out / "started").touch()
time.sleep(60)
"""
CALLER = """
import sys
from pathlib import Path
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner, leave_on_signals
leave_on_signals()
ExperimentRunner(Path(sys.argv[2]), "DATA", None, {sys.argv[1]: ()}).run(Arm("arm", "", sys.argv[1]), 0)
"""


@pytest.fixture
def busy(tmp_path):
    """A process that runs an arm, the arm's folder, and the runner; the arm's script has started."""
    script = tmp_path / "script.py"
    script.write_text(WORKING)
    runner = ExperimentRunner(tmp_path / "out", "DATA", None, {str(script): ()})
    (tmp_path / "caller.py").write_text(CALLER)
    caller, pid = start_warm([str(tmp_path / "caller.py"), str(script), str(runner.output)])
    folder = runner.folder("arm", 0)
    deadline = time.monotonic() + 100
    while not (folder / "started").exists():
        assert caller.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    yield caller, pid, folder, runner, Arm("arm", "", str(script))
    caller.kill()
    caller.wait()


def test_sigterm_ends_the_script_first_and_waits_for_its_checkpoint(busy):
    caller, pid, folder, _, _ = busy
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)  # as a launcher that signals the process and its group
    assert caller.wait(100) == 143
    assert (folder / "checkpoint").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_process_once(number, status):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        leave_on_signals()
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(number)
        assert caught.value.code == status
        signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_script_that_outlives_its_caller_keeps_a_second_writer_out(busy):
    caller, pid, folder, runner, arm = busy
    os.kill(pid, signal.SIGKILL)
    caller.wait()
    script = int((folder / "lock").read_text())
    with pytest.raises(RunFailedError, match=rf"process {script} still writes into .*seed0"):
        runner.run(arm, 0)
    os.kill(script, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while not (folder / "checkpoint").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    with locked_process([sys.executable, "-c", ""], folder) as process:
        assert process.wait() == 0


def explode(tmp_path, *arguments):
    reproduce.main(
        ["explode", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), *arguments]
    )


@pytest.fixture
def finished_arms(tmp_path):
    """Every run of `explode` has finished, so that the command only draws and reports."""
    runner = ExperimentRunner(tmp_path / "out", "DATA", None, WORDS)
    for arm in explode_arms(False, 1e-4):
        for seed in range(5):
            finish(runner, arm.name, seed)
            has_trained(runner.folder(arm.name, seed))


def has_trained(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training_log.csv").write_text("step,epoch,eval_loss\n0,0,1.5\n1,1,1.0\n")


def test_settings_may_change_until_something_has_trained(tmp_path):
    file = tmp_path / "experiment.json"
    for budget in ("paper", "smoke"):
        pin_settings(file, {"budget": budget}, has_runs=False)
    assert json.loads(file.read_text()) == {"budget": "smoke"}
    with pytest.raises(UserError, match="budget was 'smoke', now 'paper'"):
        pin_settings(file, {"budget": "paper"}, has_runs=True)


def test_runs_of_other_settings_are_not_resumed(tmp_path, finished_arms):
    settings = {"experiment": "explode", "budget": "smoke", "data_dir": str(tmp_path), "stage0": None}
    (tmp_path / "labels.csv").write_text("image,Edema\n0.png,0\n")
    settings["data"] = content_hash(scan_folder(tmp_path), tmp_path / "out")
    (tmp_path / "out" / "experiment.json").write_text(json.dumps(settings | {"arguments": []}))
    os.utime(tmp_path / "labels.csv", (0, 0))
    explode(tmp_path)
    assert "| learning rate 0.01 | 1.5000" in (tmp_path / "out" / "report.md").read_text()
    explode(tmp_path, "--seeds", "5")  # more of the same
    for arguments, difference in (
        (["--budget", "paper"], r"budget was 'smoke', now 'paper'"),
        (["--stage0", "ORG/NAME"], "stage0 was None, now 'ORG/NAME'"),
        (["--", "--max_steps", "3"], r"arguments was \[\], now \['--max_steps', '3'\]"),
    ):
        with pytest.raises(UserError, match=f"{difference}.*another --output_dir"):
            explode(tmp_path, *arguments)
    for path, content in (("labels.csv", "image,Edema\n0.png,1\n"), ("1.png", "")):
        (tmp_path / path).write_text(content)
        with pytest.raises(UserError, match=r"data was '\w+', now '\w+'"):
            explode(tmp_path)
        (tmp_path / "labels.csv").write_text("image,Edema\n0.png,0\n")


def test_runs_that_nobody_wrote_the_settings_of_are_left_alone(tmp_path, finished_arms):
    with pytest.raises(UserError, match=r"no experiment\.json .*write this") as caught:
        explode(tmp_path)
    (tmp_path / "out" / "experiment.json").write_text(str(caught.value).splitlines()[-1])
    explode(tmp_path)
    assert (tmp_path / "out" / "fig5.png").is_file()


def complete_trials(file, stage, count):
    """A study as an earlier sweep left it."""
    made = optuna.create_study(direction=SWEEPS[stage].direction)
    for number in range(count):
        trial = made.ask()
        SWEEPS[stage].propose(trial)
        made.tell(trial, 0.5 + number / 10)
    open_study(SWEEPS[stage], file, stage).add_trials(made.trials)


def test_a_sweep_keeps_its_settings_by_stage(tmp_path):
    (tmp_path / "out").mkdir()
    for stage in ("mae", "cls"):
        complete_trials(tmp_path / "out" / "sweep.db", stage, 2)
    arguments = ["sweep", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--trials", "2"]
    reproduce.main(arguments)
    has_trained(tmp_path / "out" / "trials" / "mae" / "0" / "seed0")
    reproduce.main([*arguments, "--trials", "1"])
    reproduce.main([*arguments, "--sweep_stage", "cls", "--budget", "paper"])
    assert "2 trials complete" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(UserError, match="budget was 'smoke', now 'paper'"):
        reproduce.main([*arguments, "--budget", "paper"])
    has_trained(tmp_path / "out" / "trials" / "0" / "seed0")
    with pytest.raises(UserError, match="sweep of an earlier version"):
        reproduce.main(arguments)
