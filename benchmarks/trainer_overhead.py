"""How much of the bare training step's speed is left in `accelerate launch train_mae.py` on real data.

Stands beside the project; gpu_run.py starts it on a GPU. The bare step is forward, backward and optimizer of
the recipe's model on one batch that stays in memory, in the recipe's precision and compiled where the recipe
is; the trainer reads, decodes, crops, normalizes, masks, logs and guards. Both run in processes of their own,
in turn, and each round gives one ratio. Options that are not this benchmark's go to both.

    python -m benchmarks.trainer_overhead DATA
    python -m benchmarks.trainer_overhead DATA --recipe configs/mae_modern.yaml --batch_size 16
    python -m benchmarks.trainer_overhead DATA --device cuda --recipe configs/mae_modern.yaml --workers 8 \
        --batch_size 128 --warm_up 40 --steps 200 --logging_steps 20 --torch_compile true
    python -m benchmarks.trainer_overhead DATA --profile

The last times the parts of the trainer's step, in this process, by the Trainer's own events.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

import train_mae
from medhiera.config.arguments import Config
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import MAEArguments
from medhiera.config.training_options import use_tf32
from medhiera.training.model import start_model
from medhiera.training.optimizers import build_optimizer
from medhiera.training.working_weights import WorkingWeights
from modeling_hiera_mae import HieraMAEForPreTraining

ROOT = Path(__file__).resolve().parent.parent


def words_of(options: argparse.Namespace, output: Path) -> list[str]:
    """The run as a user would type it, with nothing in it but training."""
    steps = str(options.warm_up + options.steps)
    return [
        options.recipe, "--data_dir", options.data, "--output_dir", str(output / "run"),
        "--build_dir", options.build_dir, "--max_steps", steps,
        "--logging_steps", str(options.logging_steps),
        "--per_device_train_batch_size", str(options.batch_size), "--eval_strategy", "no",
        "--save_strategy", "no", "--max_eval_images", str(options.batch_size), "--max_train_images",
        str(options.images),
        "--dataloader_num_workers", str(options.workers), "--use_cpu", str(options.device == "cpu").lower(),
        *options.more,
    ]  # fmt: skip


def bare_step(recipe: Config, device: torch.device, warm_up: int) -> float:
    """Images a second of the step alone, over the steps after the warm-up; nothing waits between them."""
    step = make_bare_step(recipe, device)
    for _ in range(warm_up):
        step()
    _wait_for(device)
    steps = recipe.training.max_steps - warm_up
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait_for(device)
    return recipe.training.per_device_train_batch_size * steps / (time.perf_counter() - start)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_bare_step(recipe: Config, device: torch.device) -> Callable[[], None]:
    """Forward, backward and optimizer on one batch, as the recipe computes them."""
    torch.manual_seed(0)
    use_tf32(bool(recipe.training.tf32))
    size = recipe.data.image_size
    model, _ = start_model(HieraMAEForPreTraining, recipe.model, image_size=[size, size])
    model = model.to(device).train()
    optimizer = build_optimizer(model, recipe.optimization, recipe.training)
    assert optimizer is not None, "the recipes name their own"
    computing: nn.Module = model
    if recipe.optimization.precision == "bf16_weights":
        working = WorkingWeights(model)
        working.follow(optimizer)
        computing = working.model
    mode = recipe.training.torch_compile_mode
    forward = torch.compile(computing, mode=mode) if recipe.training.torch_compile else computing
    batch = recipe.training.per_device_train_batch_size
    pixels = torch.randn(batch, 3, size, size, device=device)
    noise = torch.rand(batch, math.prod(model.config.unit_grid), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.training.bf16):
            loss = forward(pixels, noise=noise).loss
        loss.backward()
        optimizer.step()
        computing.zero_grad(set_to_none=True)

    return step


def trainer_rate(options: argparse.Namespace) -> float:
    """Images a second of train_mae.py over the steps after the warm-up, from its own log.

    Raises:
        SystemExit: it failed; says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launch += ["--num_cpu_threads_per_process", str(torch.get_num_threads())]
        done = subprocess.run(
            [*launch, "train_mae.py", *words_of(options, Path(folder))], cwd=ROOT, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:
            own = [line for line in done.stderr.splitlines() if line.startswith("train_mae.py: ")]
            raise SystemExit((own or done.stderr.splitlines())[-1])
        with (Path(folder) / "run" / "training_log.csv").open(newline="", encoding="utf-8") as file:
            seconds = {int(row["step"]): float(row["seconds"]) for row in csv.DictReader(file) if row["loss"]}
    # Written to a tenth of a second: the whole span, not the steps one by one.
    span = seconds[options.warm_up + options.steps] - seconds[options.warm_up]
    return options.batch_size * options.steps / span


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
    medians = {part: statistics.median(seconds[options.warm_up :]) for part, seconds in clock.parts.items()}
    for part, seconds in medians.items():
        share = seconds / sum(medians.values())
        sys.stdout.write(f"{part:<28} {seconds * 1e3:8.1f} ms {share:7.1%}\n")


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `more` holds what is not this benchmark's own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", help="as train_mae.py's --data_dir")
    parser.add_argument("--recipe", default="configs/mae_paper.yaml")
    parser.add_argument("--build_dir", default=str(ROOT / ".cache" / "bench" / "built"))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--images", type=int, default=2000, help="trained on; a multiple of the batch size")
    parser.add_argument("--steps", type=int, default=10, help="timed ones")
    parser.add_argument("--warm_up", type=int, default=3, help="steps before them")
    parser.add_argument("--logging_steps", type=int, default=1, help="divides both: the log has the times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="of the data loader")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write the figures here, after each round")
    parser.add_argument("--profile", action="store_true", help="time the parts of the trainer's step, once")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options, options.more = parser.parse_known_args(arguments)
    if options.warm_up % options.logging_steps or options.steps % options.logging_steps:
        parser.error("--warm_up and --steps must be multiples of --logging_steps")
    return options


def main() -> None:
    """Run both in turn, print the ratio of each round."""
    options = read_options(None)
    if options.profile:
        profile(options)
        return
    if options.bare:
        recipe = parse_config(MAEArguments, words_of(options, Path("/nonexistent")))
        sys.stdout.write(f"{bare_step(recipe, torch.device(options.device), options.warm_up)}\n")
        return
    rows: list[tuple[float, float]] = []
    for _ in range(options.rounds):
        bare = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.trainer_overhead", *sys.argv[1:], "--bare"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        rows.append((float(bare.stdout.split()[-1]), trainer_rate(options)))
        sys.stdout.write(f"bare step {rows[-1][0]:.2f}, trainer {rows[-1][1]:.2f} images/s\n")
        sys.stdout.flush()
        if options.json:
            content = {"recipe": options.recipe, "batch": options.batch_size, "workers": options.workers}
            content |= {"options": options.more, "images_per_second": rows}
            options.json.write_text(json.dumps(content), encoding="utf-8")
    ratios = sorted(trainer / bare for bare, trainer in rows)
    sys.stdout.write(
        f"{options.recipe}, batch {options.batch_size}: {statistics.median(ratios):.2f} of the bare step "
        f"({ratios[0]:.2f}–{ratios[-1]:.2f}, {len(ratios)} rounds)\n"
    )


if __name__ == "__main__":
    main()
