"""Runs of the scripts as processes, one for each arm and seed.

Stands above the two scripts and below reproduce.py. A run is finished when its card is there; an interrupted
one resumes from its checkpoint.
"""

import contextlib
import csv
import fcntl
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dataset_scripts.build.atomic_files import whole_file
from medhiera.errors import RunFailedError, UserError
from medhiera.experiments.arms import SCORING, STAGE0, STAGE1, Arm
from medhiera.formatting import mark_of
from medhiera.hub.record import AnyRecord, TrainedRecord, read_record
from medhiera.layout import LOG_FILE, METRICS_FILE, NONFINITE_FILE, is_finished
from medhiera.shipped_files import script
from medhiera.training.checkpoints import latest_complete

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentRunner:
    """Where the runs lie and what they share.

    Attributes:
        output: a folder for each arm and seed goes below it.
        data_dir: as the scripts take it.
        stage0: folder or Hub id of ImageNet MAE weights, or None.
        arguments: options of each script, by its name; the recipe first.
        stage1: folder or Hub id of a pre-training that was made before, or None.
    """

    output: Path
    data_dir: str
    stage0: str | None
    arguments: Mapping[str, tuple[str, ...]]
    stage1: str | None = None

    def folder(self, arm: str, seed: int) -> Path:
        """Where one run writes."""
        return self.output / arm / f"seed{seed}"

    def record(self, arm: str, seed: int) -> AnyRecord | None:
        """The record of a finished run; None where it is not finished."""
        folder = self.folder(arm, seed)
        return read_record(folder) if is_finished(folder) else None

    def figure_mark(self) -> str:
        """What figures of these runs say of themselves, from the records of those that are finished."""
        records = [read_record(file.parent) for file in sorted(self.output.rglob(METRICS_FILE))]
        known = [record for record in records if record is not None]
        return mark_of(
            is_smoke_run=any(record.kind == "smoke" for record in known),
            has_phantoms=any(record.phantom_sources for record in known),
            has_images=not all(record.is_phantom for record in known),
        )

    def command(self, arm: Arm, seed: int) -> list[str]:
        """What a user would type for this run."""
        folder = self.folder(arm.name, seed)
        shared = self.arguments[arm.script]
        if arm.script in SCORING:
            assert arm.start is not None, f"{arm.name} scores no arm"
            words = ["--model", str(self.folder(arm.start, seed)), "--data_dir", self.data_dir]
            words += ["--build_dir", str(self.output / "cocktail"), "--output_dir", str(folder)]
            return [sys.executable, "-W", "ignore", script(arm.script), *words, *shared, *arm.arguments]
        if arm.as_long_as is not None:
            shared = without_option(shared, "num_train_epochs")  # the script takes one length, not two
        arguments = [*shared, "--data_dir", self.data_dir, "--output_dir", str(folder)]
        arguments += ["--build_dir", str(self.output / "cocktail"), "--seed", str(seed), *arm.arguments]
        if arm.start is not None:
            given = {STAGE0: self.stage0, STAGE1: self.stage1}
            source = given[arm.start] if arm.start in given else str(self.folder(arm.start, seed))
            assert source is not None, f"{arm.name} needs {arm.start}"
            arguments += ["--model_name_or_path", source]
        if arm.as_long_as is not None:
            longer = self.record(arm.as_long_as, seed)
            assert isinstance(longer, TrainedRecord), f"{arm.name} comes after {arm.as_long_as}"
            arguments += ["--max_steps", str(longer.training.steps)]
        if latest_complete(folder) is not None:
            arguments += ["--resume_from_checkpoint", "true"]
        return [sys.executable, "-W", "ignore", script(arm.script), *arguments]

    def diverged_at(self, arm: str, seed: int) -> int | None:
        """The step from which an unfinished run's loss is NaN or infinite; None where it is finite."""
        folder = self.folder(arm, seed)
        if is_finished(folder):
            return None
        named = folder / NONFINITE_FILE
        if named.is_file():
            return int(json.loads(named.read_text(encoding="utf-8"))["step"])
        # Gradients that overflow after a step whose loss was sound show in the next evaluation.
        losses = read_column(folder / LOG_FILE, "eval_loss")
        return next((step for step, loss in losses.items() if not math.isfinite(loss)), None)

    def run(self, arm: Arm, seed: int) -> bool:
        """Run one arm with one seed, or resume it; False where it had ended before.

        Raises:
            RunFailedError: the script failed, or another process writes into the run's folder.
        """
        folder = self.folder(arm.name, seed)
        has_exploded = arm.may_diverge and self.diverged_at(arm.name, seed) is not None
        is_scored = arm.script in SCORING and (folder / METRICS_FILE).is_file()  # its last file
        if has_exploded or is_scored or self.record(arm.name, seed) is not None:
            return False
        with locked_process(self.command(arm, seed), folder) as process:
            status = process.wait()
        step = self.diverged_at(arm.name, seed) if arm.may_diverge else None
        if step is not None:
            logger.info("        the loss is NaN or infinite from step %d: the run ends there", step)
        elif status:
            raise failure_message(f"{arm.name} with seed {seed}", status, folder)
        return True


@contextlib.contextmanager
def locked_process(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script as a process of its own; whoever leaves before its end ends it.

    It is sent SIGTERM, after which a training script writes a checkpoint, and waited for. Its folder is
    locked as long as it lives, even where this process is killed and it continues alone.

    Args:
        command: from ExperimentRunner.command.
        folder: where the script writes; stdout.log there takes what it prints.

    Raises:
        RunFailedError: another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "lock").open("a+", encoding="utf-8") as lock,
        (folder / "stdout.log").open("a", encoding="utf-8") as printed,
    ):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunFailedError(
                f"process {lock.read() or 'that just started'} still writes into {folder}. Wait for its end, "
                "or end it with `kill`; then repeat the command, which resumes from its checkpoint"
            ) from None
        except OSError as error:
            logger.warning("%s cannot be locked (%s); let no second run write there", folder, error)
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=printed,
            stderr=subprocess.STDOUT, pass_fds=(lock.fileno(),),
        )  # fmt: skip
        try:
            lock.truncate(0)
            lock.write(str(process.pid))
            lock.flush()
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def leave_on_signals() -> None:
    """From here on SIGTERM and Ctrl-C end this process through `running`, with 128 + the signal's number."""

    def leave(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # once is enough: the script is writing its checkpoint
        raise SystemExit(128 + number)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, leave)


def has_option(words: Sequence[str], name: str) -> bool:
    """Whether words of a command line set this field, in any of its spellings."""
    return any(word.split("=")[0] in _spellings(name) for word in words)


def without_option(words: Sequence[str], name: str) -> tuple[str, ...]:
    """The words without a field and its one value."""
    kept: list[str] = []
    is_value = False
    for word in words:
        if not is_value and word.split("=")[0] not in _spellings(name):
            kept.append(word)
        is_value = not is_value and word in _spellings(name)
    return tuple(kept)


def _spellings(name: str) -> tuple[str, str]:
    return f"--{name}", f"--{name.replace('_', '-')}"


def failure_message(what: str, status: int, folder: Path) -> RunFailedError:
    """What a failed script said last: its whole message, or the end of a trace."""
    log = folder / "stdout.log"
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    messages = [number for number, line in enumerate(lines) if re.match(r"\w+\.py: ", line)]
    first = min(messages[-1] if messages else len(lines), len(lines) - 8)
    return RunFailedError(
        f"{what} ended with exit code {status}; {log} ends with:\n  " + "\n  ".join(lines[max(first, 0) :])
    )


def read_column(log: Path, column: str) -> dict[int, float]:
    """Step → value of one column of a training_log.csv; empty where there is none yet.

    A row that is being written is left for the next look.
    """
    if not log.is_file():
        return {}
    with log.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return {int(row["step"]): float(row[column]) for row in rows}


def pin_settings(file: Path, settings: Mapping[str, Any], has_runs: bool) -> None:
    """Write down what defines an experiment, and refuse to mix it with runs of another one.

    Args:
        file: a JSON beside the runs.
        settings: as JSON gives them back.
        has_runs: something has trained there; until then the settings may still change.

    Raises:
        UserError: the runs there were made with other settings, or nobody wrote down with which.
    """
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if found == settings:
        return
    if has_runs and not found:
        raise UserError(
            f"{file.parent} holds runs and no {file.name} that says how they were made. Choose another "
            f"--output_dir; or, if this very command made them, write this into {file}:\n"
            + json.dumps(settings)
        )
    if has_runs:
        differences = "; ".join(
            f"{key} was {found.get(key)!r}, now {value!r}"
            for key, value in settings.items()
            if found.get(key) != value
        )
        raise UserError(
            f"the runs in {file.parent} were made with other settings ({differences}). Choose another "
            f"--output_dir for these, or repeat the command with those of {file}"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file, by_several=True) as part:  # processes that share a sweep may start together
        part.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def run_all(runner: ExperimentRunner, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Run every arm with every seed, in order; what has ended is skipped.

    Raises:
        RunFailedError: see ExperimentRunner.run; the finished runs stay, and the same command continues.
    """
    total, number = len(arms) * len(seeds), 0
    for seed in seeds:
        for arm in arms:
            number += 1
            logger.info("[%d/%d] %s, seed %d: %s", number, total, arm.name, seed, arm.label)
            if not runner.run(arm, seed):
                logger.info("        finished before, skipped")
