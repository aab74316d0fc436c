"""Runs that are killed with -9 and go on, and what is compared afterwards."""

import contextlib
import csv
import os
import shutil
import subprocess
import time

import psutil
from safetensors.torch import load_file
from warm_python import NOTED

from medhiera.training.checkpoints import by_step


def weights(folder):
    return load_file(folder / "model.safetensors")


def logged(folder):
    """Every row of training and validation; seconds differ between runs."""
    with (folder / "training_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def kill_after_checkpoint(workshop, script, output, *words, step=4, ranks=1):
    """Start the script; kill -9 all its processes as soon as this step's checkpoint is whole."""
    noted = output.with_name(output.name + "-processes")
    noted.mkdir()
    process = subprocess.Popen(
        workshop.command(script, output, *words, ranks=ranks), cwd=workshop.root, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {NOTED: str(noted)},
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (output / f"checkpoint-{step}" / "complete.json").is_file():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.02)
    pids = {process.pid, *(int(path.name) for path in noted.iterdir())}  # the launcher's, and each rank's
    with_workers = {psutil.Process(pid) for pid in pids}
    with_workers |= {child for each in with_workers for child in each.children(recursive=True)}
    for each in with_workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(with_workers, timeout=60)
    assert not (output / "README.md").exists(), "the run was complete before the kill"
    for path in by_step(output):  # a loaded machine kills late: the run is to go on from this very step
        if int(path.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(path)
