"""The moving average of weights: evaluated, saved with every checkpoint, and what a finished stage holds.

Stands beside the Trainer: it follows each optimizer step and lends its weights for evaluation. The raw
weights stay the Trainer's own, so resuming needs nothing of the average but its file.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

EMA_FILE = "ema.safetensors"
"""The average's weights in a checkpoint-N folder, beside the raw model.safetensors."""


class EMA:
    """An average with timm's warm-up, a file, and a loan of its weights.

    Args:
        model: the model in training, on its device; the average starts as its copy. Its tensors are looked up
            once, here: it must keep them.
        decay: share of the old average kept at each step; early steps keep less (timm's warm-up).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True)
        tensors = zip(model.state_dict().values(), self.average.module.state_dict().values(), strict=True)
        # A weight that two layers share stands there twice: averaged twice, and lent and taken back at once.
        once = {raw.data_ptr(): (raw, averaged) for raw, averaged in tensors}
        self._raw = [raw for raw, _ in once.values()]
        self._averaged = [averaged for _, averaged in once.values()]
        # Counters, such as a batch norm's batches, have no average.
        numbers = [pair for pair in once.values() if pair[0].is_floating_point()]
        self._followed = [averaged for _, averaged in numbers], [raw for raw, _ in numbers]
        self._counters = [pair for pair in once.values() if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow one optimizer step; `step` counts from 1 and sets the warm-up."""
        torch._foreach_lerp_(*self._followed, 1.0 - self.average.get_decay(step))
        for raw, averaged in self._counters:
            averaged.copy_(raw)

    def save(self, checkpoint: Path) -> None:
        """Write EMA_FILE."""
        weights = {name: tensor.contiguous() for name, tensor in self.average.module.state_dict().items()}
        names = {tensor.data_ptr(): name for name, tensor in weights.items()}  # shared weights once
        weights = {name: weights[name] for name in names.values()}
        save_file(weights, checkpoint / EMA_FILE, metadata={"format": "pt"})

    def load(self, checkpoint: Path) -> None:
        """Read EMA_FILE.

        Raises:
            FileNotFoundError: the checkpoint is of a run without an average.
        """
        weights, own = load_file(checkpoint / EMA_FILE), self.average.module.state_dict()
        held = {own[name].data_ptr(): weight for name, weight in weights.items()}
        self.average.module.load_state_dict({name: held[own[name].data_ptr()] for name in own})

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the model has the average's weights and the average the model's; after, as before.

        In place, one tensor at a time: compiled graphs and wrappers see the same storage.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for raw, average in zip(self._raw, self._averaged, strict=True):
            kept = raw.clone()
            raw.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """The model takes the average's weights for good."""
        torch._foreach_copy_(self._raw, self._averaged)


class EMACallback(TrainerCallback):
    """Updates the moving average after each optimizer step, before anything is evaluated or saved."""

    def __init__(self, average: EMA) -> None:
        self.average = average

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say the decay that the warm-up reaches: a short run averages over less than `ema_decay` says."""
        wanted, last = self.average.average.decay, state.max_steps
        reached = self.average.average.get_decay(last)
        if state.is_world_process_zero and reached < wanted:
            logger.info(
                "averaged weights: the decay rises with the steps (timm's warm-up) and is %.4f at the last, "
                "%d; ema_decay %g is not reached",
                reached, last, wanted,
            )  # fmt: skip

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the step just made."""
        self.average.update(state.global_step)
