"""The loss of an evaluation, which does not depend on how its images are cut into batches.

Stands beside trainer.py. transformers weighs each batch's loss by its images, repeated ones among them;
ours is a mean over annotated labels (of reports: tokens), of which batches have more or fewer, or none.
"""

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class EvaluationLoss:
    """Adds up the batches of one evaluation."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def add(self, loss: Tensor, items: Tensor) -> None:
        """Take one batch of this rank.

        Args:
            loss: a scalar, the mean over `items`.
            items: a scalar: annotated labels, or images where there are no labels. A batch with 0 does not
                count.
        """
        self._batches.append(torch.stack([torch.where(items > 0, loss.float() * items, 0), items.float()]))

    def mean(self, accelerator: Accelerator) -> float | None:
        """The sum of all batches of all ranks by their items; None where none was added.

        Every rank must call it.
        """
        if not self._batches:
            return None
        own = torch.stack(self._batches).sum(dim=0)
        total, items = accelerator.gather(own).reshape(-1, 2).cpu().double().sum(dim=0).tolist()
        return float(total / items) if items else 0.0


def forget_repeated_images(batch: dict[str, Any], accelerator: Accelerator) -> int:
    """Where images of before fill up the last batches of several ranks, leave them out of the loss.

    Args:
        batch: as the loader gave it; changed. With `labels`, those of repeated images are made missing, and
            what is predicted of them is dropped where transformers gathers it; without, all tensors are cut.
        accelerator: of the evaluation in progress.

    Returns:
        Images of this rank that count; where it has none, one without labels is left, as a batch needs.
    """
    state, images = accelerator.gradient_state, len(batch["pixel_values"])
    if not state.end_of_dataloader or state.remainder <= 0:
        return images
    own = min(images, max(0, state.remainder - accelerator.process_index * images))
    labels = batch.get("labels")
    if labels is not None:
        batch["labels"] = labels.clone()
        batch["labels"][own:] = math.nan if labels.is_floating_point() else -100
        return own
    for name, value in batch.items():
        if isinstance(value, Tensor):
            batch[name] = value[: max(own, 1)]
    return own
