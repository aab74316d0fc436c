"""The moving average of weights: evaluated, saved with every checkpoint, and what a finished stage holds.

Stands beside the Trainer: it follows each optimizer step and lends its weights for evaluation. The raw
weights stay the Trainer's own, so resuming needs nothing of the average but its file.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EMA_FILE = "ema.safetensors"
"""The average's weights in a checkpoint-N folder, beside the raw model.safetensors."""


class EMA:
    """timm's ModelEmaV3 with its warm-up, a file, and a loan of its weights.

    Args:
        model: the model in training, on its device; the average starts as its copy.
        decay: share of the old average kept at each step; early steps keep less (timm's warm-up).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True)

    def update(self, model: nn.Module, step: int) -> None:
        """Follow one optimizer step; `step` counts from 1 and sets the warm-up."""
        self.average.update(model, step=step)

    def save(self, checkpoint: Path) -> None:
        """Write EMA_FILE."""
        weights = {name: tensor.contiguous() for name, tensor in self.average.module.state_dict().items()}
        save_file(weights, checkpoint / EMA_FILE, metadata={"format": "pt"})

    def load(self, checkpoint: Path) -> None:
        """Read EMA_FILE.

        Raises:
            FileNotFoundError: the checkpoint is of a run without an average.
        """
        self.average.module.load_state_dict(load_file(checkpoint / EMA_FILE))

    @contextlib.contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the average's weights and the average the model's; after, as before.

        In place, one tensor at a time: compiled graphs and wrappers see the same storage.
        """
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        pairs = zip(model.state_dict().values(), self.average.module.state_dict().values(), strict=True)
        for raw, average in pairs:
            kept = raw.clone()
            raw.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """The model takes the average's weights for good."""
        pairs = zip(model.state_dict().values(), self.average.module.state_dict().values(), strict=True)
        for raw, average in pairs:
            raw.copy_(average)


class EMACallback(TrainerCallback):
    """Updates the moving average after each optimizer step, before anything is evaluated or saved."""

    def __init__(self, average: EMA) -> None:
        self.average = average

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the step just made."""
        self.average.update(kwargs["model"], state.global_step)
