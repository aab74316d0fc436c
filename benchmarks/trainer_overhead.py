"""How much of the bare training step's speed is left in `accelerate launch train_mae.py` on real data.

Stands beside the project; nothing imports it. The bare step is forward, backward and optimizer of the
recipe's model on one batch that stays in memory; the trainer reads, decodes, crops, normalizes, masks, logs
and guards. Both run in processes of their own, in turn, and each round gives one ratio. On a GPU add
`--device cuda`.

    python -m benchmarks.trainer_overhead DATA
    python -m benchmarks.trainer_overhead DATA --recipe configs/mae_modern.yaml --batch_size 16
    python -m benchmarks.trainer_overhead DATA --profile

The last times the parts of the trainer's step, in this process, by the Trainer's own events.
"""

import argparse
import csv
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

import train_mae
from medhiera.config.arguments import Config
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments
from medhiera.training.model import start_model
from medhiera.training.optimizers import layer_decay_groups
from modeling_hiera_mae import HieraMAEForPreTraining

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 3


def words_of(options: argparse.Namespace, output: Path) -> list[str]:
    """The run as a user would type it, with nothing in it but training."""
    steps = str(WARM_UP + options.steps)
    return [
        options.recipe, "--data_dir", options.data, "--output_dir", str(output / "run"),
        "--build_dir", options.build_dir, "--max_steps", steps, "--logging_steps", "1",
        "--per_device_train_batch_size", str(options.batch_size), "--eval_strategy", "no",
        "--save_strategy", "no", "--max_eval_images", str(options.batch_size), "--max_train_images", "2000",
        "--dataloader_num_workers", str(options.workers), "--use_cpu", str(options.device == "cpu").lower(),
    ]  # fmt: skip


def bare_step(recipe: Config, device: torch.device) -> float:
    """Images a second of the step alone: the median of the timed ones."""
    torch.manual_seed(0)
    size = recipe.data.image_size
    model, _ = start_model(HieraMAEForPreTraining, recipe.model, image_size=[size, size])
    model = model.to(device).train()
    rate, decay = recipe.training.learning_rate, recipe.training.weight_decay
    if recipe.optimization.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(layer_decay_groups(model, rate, decay, 1.0))
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    batch = recipe.training.per_device_train_batch_size
    pixels = torch.randn(batch, 3, size, size, device=device)
    noise = torch.rand(batch, math.prod(model.config.unit_grid), device=device)
    seconds = []
    for _ in range(recipe.training.max_steps):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.training.bf16):
            loss = model(pixels, noise=noise).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return batch / statistics.median(seconds[WARM_UP:])


def trainer_rate(options: argparse.Namespace) -> float:
    """Images a second of train_mae.py, from its own log: the median of the steps after the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launch += ["--num_cpu_threads_per_process", str(torch.get_num_threads())]
        subprocess.run(
            [*launch, "train_mae.py", *words_of(options, Path(folder))],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with (Path(folder) / "run" / "training_log.csv").open(newline="", encoding="utf-8") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row["loss"]]
    # Written to a tenth of a second: the whole span, not the steps one by one.
    return options.batch_size * options.steps / (seconds[-1] - seconds[WARM_UP - 1])


class _Clock(TrainerCallback):
    """Notes when each part of a step ends."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.parts: dict[str, list[float]] = {}

    def _note(self, part: str) -> None:
        now = time.perf_counter()
        self.parts.setdefault(part, []).append(now - self.last)
        self.last = now

    def on_step_begin(self, *arguments: Any, **named: Any) -> None:
        self._note("next batch, log")

    def on_pre_optimizer_step(self, *arguments: Any, **named: Any) -> None:
        self._note("forward, backward")

    def on_optimizer_step(self, *arguments: Any, **named: Any) -> None:
        self._note("optimizer")

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self._note("schedule, guard, callbacks")


def profile(options: argparse.Namespace) -> None:
    """Print the median of each part of the trainer's step."""
    clock = _Clock()
    DEFAULT_CALLBACKS.append(clock)
    with tempfile.TemporaryDirectory() as folder:
        train_mae.main(words_of(options, Path(folder)))
    medians = {part: statistics.median(seconds[WARM_UP:]) for part, seconds in clock.parts.items()}
    for part, seconds in medians.items():
        share = seconds / sum(medians.values())
        sys.stdout.write(f"{part:<28} {seconds * 1e3:8.1f} ms {share:7.1%}\n")


def main() -> None:
    """Run both in turn, print the ratio of each round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="as train_mae.py's --data_dir")
    parser.add_argument("--recipe", default="configs/mae_paper.yaml")
    parser.add_argument("--build_dir", default=str(ROOT / ".cache" / "bench" / "built"))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="timed ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="of the data loader")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--profile", action="store_true", help="time the parts of the trainer's step, once")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.profile:
        profile(options)
        return
    if options.bare:
        recipe = parse_config(MAEArguments, words_of(options, Path("/nonexistent")))
        sys.stdout.write(f"{bare_step(recipe, torch.device(options.device))}\n")
        return
    rows = []
    for _ in range(options.rounds):
        bare = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.trainer_overhead", *sys.argv[1:], "--bare"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        rows.append((float(bare.stdout.split()[-1]), trainer_rate(options)))
        sys.stdout.write(f"bare step {rows[-1][0]:.2f}, trainer {rows[-1][1]:.2f} images/s\n")
        sys.stdout.flush()
    ratios = sorted(trainer / bare for bare, trainer in rows)
    sys.stdout.write(
        f"{options.recipe}, batch {options.batch_size}: {statistics.median(ratios):.2f} of the bare step "
        f"({ratios[0]:.2f}–{ratios[-1]:.2f}, {len(ratios)} rounds)\n"
    )


if __name__ == "__main__":
    main()
