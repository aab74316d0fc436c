"""How a run's training went, as its record says it.

Below record.py.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from medhiera.config.arguments import images_per_step
from medhiera.evaluation.checkpoint_selection import Selection
from medhiera.layout import LOG_FILE


@dataclass
class TrainingRecord:
    """How training went.

    Attributes:
        seconds: of all its processes, where it was interrupted and resumed.
        images_per_second: of the last of them that trained; of all where the last trained no step.
        hardware: what it ran on, in words; None in records of earlier versions.
        one_sided: findings that the training images show only present, only absent or not at all, with which.
    """

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    parameters: int
    best_step: int | None
    best_validation: float | None
    selection: Selection | None = None
    hardware: str | None = None
    one_sided: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        result: TrainOutput,
        selection: Selection | None = None,
        one_sided: Mapping[str, str] | None = None,
    ) -> "TrainingRecord":
        """From the Trainer, when it has trained."""
        state = trainer.state
        seconds, rate = result.metrics["train_runtime"], result.metrics["train_samples_per_second"]
        logged = last_logged_second(Path(trainer.args.output_dir) / LOG_FILE)
        if logged > seconds:  # transformers knows this process alone, the log those before it
            seconds = logged
            rate = rate or round(state.global_step * images_per_step(trainer.args) / seconds, 3)
        return cls(
            steps=state.global_step,
            epochs=float(state.epoch or 0.0),
            seconds=seconds,
            images_per_second=rate,
            parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
            best_step=state.best_global_step if trainer.args.load_best_model_at_end else None,
            best_validation=state.best_metric,
            selection=selection,
            hardware=hardware_of(trainer.args),
            one_sided=dict(one_sided or {}),
        )


def last_logged_second(log: Path) -> float:
    """How long a run had trained when it last logged a training loss, interruptions left out; 0 if never."""
    if not log.is_file():
        return 0.0
    with log.open(newline="", encoding="utf-8") as file:
        rows = (row for row in csv.DictReader(file) if row.get("loss") and row.get("seconds"))
        return max((float(row["seconds"]) for row in rows), default=0.0)


def hardware_of(args: TrainingArguments) -> str:
    """What a run computes on: "2 × NVIDIA H100 80GB HBM3", "CPU, 8 cores"."""
    if args.device.type == "cuda":
        name = torch.cuda.get_device_name(args.device)
        return f"{args.world_size} × {name}" if args.world_size > 1 else name
    if args.device.type == "cpu":
        processes = f"{args.world_size} processes on a " if args.world_size > 1 else ""
        return f"{processes}CPU, {os.cpu_count()} cores"
    return args.device.type.upper()
