"""Ends a run whose loss or weights are NaN or infinite, and names the images of that batch."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from medhiera.errors import UserError
from medhiera.layout import NONFINITE_FILE
from medhiera.training.checkpoints import latest_complete


class NonFiniteLossGuard:
    """Ends the run at a loss that is NaN or infinite, with the names of the batch's images.

    A step's loss is looked at when the next one has been started, so no step waits for the GPU.

    Args:
        output: the run's folder; nonfinite_batch.json is written there.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / NONFINITE_FILE
        self._pending: tuple[Tensor, torch.cuda.Event | None, Sequence[str], int, float] | None = None

    def note(self, loss: Tensor, image_ids: Sequence[str], step: int, learning_rate: float) -> None:
        """Hand over a batch's loss; looks at the one before it."""
        is_finite = torch.isfinite(loss.detach()).to("cpu", non_blocking=True)
        arrived = None
        if loss.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self.check()
        self._pending = (is_finite, arrived, image_ids, step, learning_rate)

    def check(self) -> None:
        """Look at the last loss now; called before anything is logged, evaluated or saved.

        Raises:
            UserError: it is not finite.
        """
        if self._pending is None:
            return
        is_finite, arrived, image_ids, step, learning_rate = self._pending
        self._pending = None
        if arrived is not None:
            arrived.synchronize()
        if not bool(is_finite):
            self._end(image_ids, step, learning_rate)

    def _end(self, image_ids: Sequence[str], step: int, learning_rate: float) -> None:
        record = {"step": step, "learning_rate": learning_rate, "image_ids": list(image_ids)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("x", encoding="utf-8") as file:  # the first rank to see it knows the batch
                json.dump(record, file, indent=1)
        except FileExistsError:
            pass
        before = latest_complete(self.path.parent)
        raise UserError(
            f"the loss of step {step} is not a finite number (learning rate {learning_rate:.3g}); the images "
            f"of that batch are named in {self.path}. Look at them; if they are sound, lower the learning "
            "rate, or set precision: fp32, and start a new run. "
            + (
                f"{before.name} was written before it: --resume_from_checkpoint true resumes from there"
                if before
                else "No checkpoint was written before it"
            )
        )


def check_finite_weights(model: torch.nn.Module, step: int) -> None:
    """Never write a checkpoint that cannot be resumed from.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    norms = torch._foreach_norm([parameter.detach() for parameter in model.parameters()])
    if not bool(torch.isfinite(torch.stack(norms)).all()):
        raise UserError(
            f"after step {step} weights of the model are not finite numbers: the gradients overflowed. Lower "
            "the learning rate, set max_grad_norm: 1, or precision: fp32; --resume_from_checkpoint true goes "
            "on from the last checkpoint, which is sound"
        )
