"""What both demos do: train a stage by its script, or reuse it; ask a process with stock transformers alone.

Above run.py and the rooms, below demo.py and demo_report.py.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from medhiera import shipped_files
from medhiera.layout import is_finished
from medhiera.training.checkpoints import latest_complete

_WITHOUT_US = """
import sys
for name in ("modeling_hiera_mae", "dataset_scripts", "medhiera"):
    assert name not in sys.modules
    sys.modules[name] = None  # to import it is an error from here on
"""


@dataclass
class Demo:
    """Where the demo works, and how long each step took (None: reused)."""

    folder: Path
    data: Path
    seconds: dict[str, float | None] = field(default_factory=dict)

    def stage(self, number: int, script: str, config: str, model: str | None, state: str) -> tuple[Path, str]:
        """Run one training script, resume from its checkpoint, or reuse its finished folder.

        Args:
            number: 1 or 2.
            script: train_mae.py, train_cls.py or train_report.py.
            config: the recipe in configs/.
            model: what the stage starts from; None is random weights.
            state: stands for everything the stage depends on that was made before it.

        Returns:
            The stage's folder, and what stands for its state.
        """
        output = self.folder / f"stage{number}"
        wanted = hashlib.sha256(f"{state}{model}{code_state(config)}".encode()).hexdigest()
        marker = output / "demo.json"
        is_same = marker.is_file() and json.loads(marker.read_text())["state"] == wanted
        if is_same and is_finished(output):
            say(f"stage {number}: reused, as {shown(output)} is complete")
            self.seconds[f"stage {number}"] = None
            return output, wanted
        if not is_same:
            shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps({"state": wanted}))
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no",
            "--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count()),
            shipped_files.script(script), *self.arguments(config, output, model),
        ]  # fmt: skip
        if latest_complete(output) is not None:
            command += ["--resume_from_checkpoint", "true"]
            say(f"stage {number}: {script} {config}, resuming from the checkpoint of an earlier run")
        else:
            say(f"stage {number}: {script} {config}" + ("" if model else ", from RANDOM weights"))
        started = time.monotonic()
        subprocess.run(command, check=True)
        self.seconds[f"stage {number}"] = time.monotonic() - started
        return output, wanted

    def arguments(self, config: str, output: Path, model: str | None) -> list[str]:
        """What a training script is given: the recipe, where data and results lie, what it starts from."""
        arguments = [
            str(shipped_files.RECIPES / config), "--output_dir", str(output),
            "--data_dir", str(self.data), "--build_dir", str(self.folder / "cocktail"),
        ]  # fmt: skip
        if model:  # a checkpoint has a geometry of its own, which the recipe's would contradict
            arguments += ["--model_name_or_path", model, "--model_overrides", "{}"]
        return arguments


def code_state(config: str) -> str:
    """Changes with the recipe and with our code."""
    digest = hashlib.sha256((shipped_files.RECIPES / config).read_bytes())
    packages = [shipped_files.PACKAGE.parent / name for name in ("modeling_hiera_mae", "dataset_scripts")]
    rooms = [*packages, shipped_files.PACKAGE, shipped_files.TEMPLATES]
    suffixes = {".py", ".j2", ".json"}
    files = {path for room in rooms for path in room.rglob("*") if path.suffix in suffixes}
    for path in sorted(files | set(shipped_files.SCRIPTS.glob("train_*.py"))):
        digest.update(path.relative_to(shipped_files.PACKAGE.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def ask_stock(code: str, *arguments: str) -> str:
    """What a user's code prints last who has this result and stock transformers, and nothing of ours.

    Args:
        code: of a process that cannot import this project.
        *arguments: its command line.

    Raises:
        CalledProcessError: it failed; its message has been printed.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _WITHOUT_US + code, *arguments],
            cwd=elsewhere, env=environment | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


def how_it_ended(status: int) -> str:
    """Why a step of the demo did not succeed, and what the user does next.

    Args:
        status: of its process: negative where a signal ended it, from 128 on where it ended itself after one.
    """
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"a step ended with exit code {status}; its message stands above"
    return (
        f"a step was ended by {name} (signal {number}), from outside; repeat the command, and it resumes "
        "from the last checkpoint"
    )


def say(text: str) -> None:
    """A line of the demo's own, told apart from the libraries' output."""
    print(f"\n── {text}", flush=True)


def shown(path: Path) -> str:
    """The path as the user would type it here."""
    return os.path.relpath(path)
