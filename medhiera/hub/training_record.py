"""How a run's training went, as its record says it.

Below record.py.
"""

import os
from dataclasses import dataclass

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from medhiera.evaluation.checkpoint_selection import Selection


@dataclass
class TrainingRecord:
    """How training went.

    Attributes:
        hardware: what it ran on, in words; None in records of earlier versions.
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

    @classmethod
    def of(
        cls, trainer: Trainer, result: TrainOutput, selection: Selection | None = None
    ) -> "TrainingRecord":
        """From the Trainer, when it has trained."""
        state = trainer.state
        return cls(
            steps=state.global_step,
            epochs=float(state.epoch or 0.0),
            seconds=result.metrics["train_runtime"],
            images_per_second=result.metrics["train_samples_per_second"],
            parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
            best_step=state.best_global_step if trainer.args.load_best_model_at_end else None,
            best_validation=state.best_metric,
            selection=selection,
            hardware=hardware_of(trainer.args),
        )


def hardware_of(args: TrainingArguments) -> str:
    """What a run computes on: "2 × NVIDIA H100 80GB HBM3", "CPU, 8 cores"."""
    if args.device.type == "cuda":
        name = torch.cuda.get_device_name(args.device)
        return f"{args.world_size} × {name}" if args.world_size > 1 else name
    if args.device.type == "cpu":
        processes = f"{args.world_size} processes on a " if args.world_size > 1 else ""
        return f"{processes}CPU, {os.cpu_count()} cores"
    return args.device.type.upper()
