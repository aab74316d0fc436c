"""Real signals, a real full disk, real memory limits: what the guards do in processes of their own."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from warm_python import start_warm, warm_python

from medhiera.training.checkpoints import is_complete

NO_EVALUATION = ("--eval_strategy", "no", "--load_best_model_at_end", "false")
THREADS = os.environ.get("OMP_NUM_THREADS", "2")  # as many as the run has that it is compared with
LONG = ("--max_steps", "100000", "--save_steps", "100000", *NO_EVALUATION)


def direct(workshop, script, output, *words):
    """The script without accelerate's launcher, so that a signal or a limit meets it alone."""
    own = [str(workshop.configs[script]), "--data_dir", str(workshop.raw), "--output_dir", str(output)]
    built = str(workshop.folder / "built")
    return [warm_python(), script, *own, "--build_dir", built, "--use_cpu", "true", *words]


class Run:
    """A process whose output goes to a file: a pipe that nobody reads would stop it.

    `pid` is its number and that of its group: of it and its loader workers.
    """

    def __init__(self, workshop, script, output, *words):
        self.printed = output.with_suffix(".printed")
        with self.printed.open("w") as file:
            self.process, self.pid = start_warm(
                direct(workshop, script, output, *words)[1:], cwd=workshop.root,
                stdout=file, stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": THREADS},
            )  # fmt: skip

    def end(self, status):
        """What it printed, once it has ended with this status."""
        code = self.process.wait(timeout=200)
        assert code == status, self.printed.read_text()
        return self.printed.read_text()


def wait_for_step(process, output, step):
    """Until training_log.csv has this step; a run that ends before it fails the test with what it printed."""
    deadline = time.monotonic() + 200
    log = output / "training_log.csv"
    while not (log.exists() and f"\n{step}," in log.read_text()):
        assert process.process.poll() is None, process.printed.read_text()
        assert time.monotonic() < deadline, f"no step {step} in time"
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sigterm_to_the_whole_group_writes_a_checkpoint_and_ends_with_143(workers, workshop, tmp_path):
    process = Run(workshop, "train_cls.py", tmp_path, *LONG, "--dataloader_num_workers", workers)
    wait_for_step(process, tmp_path, 3)
    os.killpg(process.pid, signal.SIGTERM)
    printed = process.end(143)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert is_complete(checkpoint)
    assert f"SIGTERM: writing {checkpoint.name} and ending" in printed
    assert not (tmp_path / "README.md").exists() and not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_ranks_agree_on_the_step_they_end_at(number, workshop, tmp_path):
    """torchrun passes Ctrl-C on, which the terminal has sent to each rank already: that is no second one."""
    command = workshop.command("train_cls.py", tmp_path / "run", *LONG, ranks=2)
    with (tmp_path / "printed").open("w") as file:
        process = subprocess.Popen(
            command, cwd=workshop.root, start_new_session=True, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    deadline = time.monotonic() + 200
    log = tmp_path / "run" / "training_log.csv"
    while not (log.exists() and "\n3," in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "printed").read_text()
        time.sleep(0.05)
    second = subprocess.run(  # the ranks are one writer
        direct(workshop, "train_cls.py", tmp_path / "run"),
        cwd=workshop.root,
        text=True,
        capture_output=True,
    )
    assert second.returncode == 1 and "is writing there" in second.stderr, second.stderr
    os.killpg(process.pid, number)
    assert process.wait(timeout=100) != 0
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert is_complete(checkpoint)
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}


@pytest.mark.slow
def test_a_preempted_run_ends_as_if_it_had_not_been(workshop, tmp_path):
    words = ("--max_steps", "40", "--save_steps", "20", "--eval_steps", "20", "--ema_decay", "0.9")
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    process = Run(workshop, "train_cls.py", whole, *words)
    process.end(0)
    process = Run(workshop, "train_cls.py", ended, *words)
    wait_for_step(process, ended, 3)
    os.kill(process.pid, signal.SIGTERM)
    process.end(143)
    again = ("--resume_from_checkpoint", "true")
    process = Run(workshop, "train_cls.py", ended, *words, *again)
    process.end(0)
    for name in ("model.safetensors", "raw/model.safetensors"):
        expected, found = load_file(whole / name), load_file(ended / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_it(workshop, tmp_path):
    """A limit on the size of files, set while the run goes, stands for the disk: each write past it fails."""
    whole = ("--max_steps", "400", *NO_EVALUATION)
    process = Run(workshop, "train_cls.py", tmp_path, *whole, "--save_steps", "4")
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("checkpoint-*/complete.json")):
        assert process.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    printed = process.end(1)
    assert "could not be written" in printed and "before it is complete" in printed
    left = list(tmp_path.glob("checkpoint-*"))
    assert left and all(is_complete(path) for path in left)
    resumed = Run(
        workshop, "train_cls.py", tmp_path, "--resume_from_checkpoint", "true", *whole, "--save_steps", "400"
    )
    printed = resumed.end(0)


def test_a_learning_rate_far_too_high_ends_with_words_and_names(workshop, tmp_path):
    process = Run(workshop, "train_mae.py", tmp_path, "--learning_rate", "1e30", "--max_steps", "20",
                    "--precision", "fp32", "--eval_strategy", "no")  # fmt: skip
    printed = process.end(1)
    message = printed.split("train_mae.py: ")[-1]
    assert "finite number" in message and "learning rate" in message, printed
    assert "Traceback" not in printed
    if "nonfinite_batch.json" in message:
        assert json.loads((tmp_path / "nonfinite_batch.json").read_text())["image_ids"]


@pytest.mark.slow
def test_a_cpu_out_of_memory_names_the_batch_that_fits(workshop, tmp_path):
    """A limit on the address space, a little above what the process has before its first step."""
    words = ("--per_device_train_batch_size", "64", "--image_size", "224", "--precision", "fp32",
             "--model_overrides", '{"embed_dim": 48, "depths": [1, 1, 1, 1]}', "--max_steps", "3",
             *NO_EVALUATION)  # fmt: skip
    limit = """
import resource, sys
from medhiera.errors import run_script
from medhiera.training import trainer as t
step = t.MedHieraTrainer.training_step
def limited(self, *args, **kwargs):
    if self.state.global_step == 0:
        pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + 700 * 2**20,) * 2)
    return step(self, *args, **kwargs)
t.MedHieraTrainer.training_step = limited
sys.argv = sys.argv[1:]
import train_cls
run_script(train_cls.main)
"""
    command = direct(workshop, "train_cls.py", tmp_path, *words)
    (tmp_path / "limited.py").write_text(limit)
    done = subprocess.run(
        [warm_python(), str(tmp_path / "limited.py"), *command[1:]],
        cwd=workshop.root, text=True, timeout=200, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": THREADS},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    message = done.stdout.split("train_cls.py: ")[-1]
    assert "out of memory: a batch of 64 images does not fit" in message, done.stdout
    assert "of the same images do (tried)" in message


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_mae.py", "train_cls.py"])
def test_one_run_a_folder_and_a_killed_one_is_no_hindrance(script, workshop, tmp_path):
    output = tmp_path / "run"
    workers = ("--dataloader_num_workers", "2")
    first = Run(workshop, script, output, *LONG, *workers)
    wait_for_step(first, output, 3)
    second = subprocess.run(
        direct(workshop, script, output),
        cwd=workshop.root, text=True, capture_output=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert second.returncode == 1, second.stderr
    assert f"{script}: " in second.stderr and "Traceback" not in second.stderr
    assert f"process {first.pid} on " in second.stderr and "is writing there. Wait for" in second.stderr
    assert first.process.poll() is None
    os.kill(first.pid, signal.SIGKILL)  # its workers live for some seconds more
    first.end(-signal.SIGKILL)
    few = ("--max_steps", "2", *NO_EVALUATION, "--ema_decay", "0.9")
    Run(workshop, script, output, *few).end(0)
    assert not (output / ".lock").exists()
    wanted = stat.S_IMODE((output / "config.json").stat().st_mode)
    weights = [*output.rglob("*.safetensors")]
    names = {path.relative_to(output).parts[0] for path in weights}
    assert names == {"model.safetensors", "raw", "checkpoint-2"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in weights} == {wanted}


@pytest.mark.slow
def test_a_checkpoint_of_a_run_that_goes_on_is_none_to_resume(workshop, tmp_path):
    """What is said is that the folder is in use, not that its checkpoint could be resumed."""
    output = tmp_path / "run"
    kept = ("--save_total_limit", "10000")  # none goes while it is looked at, on however fast a machine
    first = Run(workshop, "train_mae.py", output, *LONG, "--save_steps", "2", *kept)
    wait_for_step(first, output, 5)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in output.glob("checkpoint-2/*.*")}
    assert len(modes) == 1  # weights may be read by whoever may read the rest
    done = subprocess.run(
        direct(workshop, "train_mae.py", output),
        cwd=workshop.root,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert "is writing there" in done.stderr and "resume" not in done.stderr
    os.kill(first.pid, signal.SIGKILL)
    first.end(-signal.SIGKILL)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_writes_a_checkpoint_and_ends_with_one_line(workers, workshop, tmp_path):
    process = Run(workshop, "train_mae.py", tmp_path, *LONG, "--dataloader_num_workers", workers)
    wait_for_step(process, tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.end(130)
    assert "Traceback" not in printed
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert is_complete(checkpoint)
    assert "Ctrl-C: a checkpoint is written at the end of this step; press again" in printed
    said = printed.split("train_mae.py: interrupted; ")[-1].strip()
    assert said == f"{checkpoint.name} is kept: repeat the command with --resume_from_checkpoint true"


@pytest.mark.slow
def test_ctrl_c_ends_an_evaluation_with_one_line(stage2, workshop, tmp_path):
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "evaluate_cls.py", "--model", str(stage2), "--data_dir", str(workshop.raw),
             "--build_dir", str(workshop.folder / "built"), "--output_dir", str(tmp_path / "scores"),
             "--bootstrap_resamples", "1000000"],
            cwd=workshop.root, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 200
    while "100%" not in printed.read_text().split("Loading weights")[-1].split("\n", 1)[-1]:
        assert process.poll() is None and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.05)
    second = subprocess.run(
        [warm_python(), "evaluate_cls.py", "--model", "no/model", "--data_dir", str(workshop.raw),
         "--output_dir", str(tmp_path / "scores")],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert second.returncode == 1 and f"process {process.pid} on " in second.stderr
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=100) == 130, printed.read_text()
    assert "Traceback" not in printed.read_text()
    assert printed.read_text().splitlines()[-1].startswith("evaluate_cls.py: interrupted; nothing of a score")


def test_ctrl_c_ends_a_build_with_one_line(workshop, tmp_path):
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dataset_scripts", "--data_dir", str(workshop.raw), "--output_dir",
             str(tmp_path / "built"), "--num_proc", "1"],
            cwd=workshop.root, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (tmp_path / "built").is_dir():
        assert process.poll() is None and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=100) == 130, printed.read_text()
    assert "Traceback" not in printed.read_text()
    last = printed.read_text().splitlines()[-1]
    said = "interrupted; finished files are kept: repeat the command to resume"
    assert last == f"python -m dataset_scripts: {said}"
