"""Out of memory in training: tries halves of the batch, and says which options to change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import TrainingArguments

from medhiera.errors import UserError
from medhiera.fitting_batch import UNITS, largest_fitting


def end_run(
    loss_of: Callable[[dict[str, Any]], Tensor],
    batch: Mapping[str, Any],
    trained: Sequence[Tensor],
    without_moments: Sequence[Tensor],
    training: TrainingArguments | None,
) -> NoReturn:
    """Try halves of a batch that did not fit, then end the run with the largest that does.

    Args:
        loss_of: runs the model on a part of the batch.
        batch: that did not fit.
        trained: parameters, for which gradients must fit too; none in evaluation.
        without_moments: those for which the optimizer has not asked for its moments yet, float32.
        training: transformers' arguments; None in evaluation.

    Raises:
        UserError: always.
    """

    def attempt(count: int) -> None:
        loss = loss_of(first_images(batch, count))
        if trained:
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)  # no hooks of other ranks
            moments = [torch.zeros(one.shape, device=one.device) for one in without_moments for _ in range(2)]
            del gradients, moments

    size = len(batch["pixel_values"])
    unit = "studies" if "has_view" in batch else "images"
    fitting = largest_fitting(attempt, size)
    message = out_of_memory_message(size, fitting, training, unit, has_mixup="mixup_share" in batch)
    raise UserError(f"{rank_in_words()}{message}")


def end_writing(write: Callable[[dict[str, Any]], object], batch: Mapping[str, Any]) -> NoReturn:
    """The same where reports are written: beams and their cache need more than the loss does.

    Args:
        write: writes the reports of a part of the batch.
        batch: of studies, that did not fit.

    Raises:
        UserError: always.
    """
    size = len(batch["pixel_values"])
    fitting = largest_fitting(lambda count: write(first_images(batch, count)), size)
    if fitting:
        advice = f"{fitting} do (tried). Set per_device_eval_batch_size: {fitting}; the result is the same"
    else:
        advice = "and neither does one study. Set fewer num_beams, views or max_tokens"
    raise UserError(
        f"{rank_in_words()}out of memory while reports are written: a batch of {size} studies does not fit; "
        f"{advice}. What checkpoints hold is kept: --resume_from_checkpoint true continues from the last"
    )


def rank_in_words() -> str:
    """Which of several ranks speaks, as the beginning of a message; nothing where there is one."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() < 2:
        return ""
    return f"rank {distributed.get_rank()} of {distributed.get_world_size()}: "


def first_images(batch: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The same batch with its first images only."""
    return {
        name: value[:count] if isinstance(value, (Tensor, list)) else value for name, value in batch.items()
    }


def out_of_memory_message(
    batch_size: int,
    fitting: int,
    training: TrainingArguments | None,
    unit: str = "images",
    *,
    has_mixup: bool = False,
) -> str:
    """What to write in the recipe instead.

    Args:
        batch_size: images that did not fit.
        fitting: images that did, 0 for none.
        training: transformers' arguments; None in evaluation.
        unit: what a batch is of.
        has_mixup: a batch of another size is mixed otherwise.
    """
    if fitting and training is None:
        return (
            f"out of memory in evaluation: a batch of {batch_size} {unit} does not fit; {fitting} of the "
            f"same {unit} do (tried). Set per_device_eval_batch_size: {fitting}; the result is the same"
        )
    if fitting < (2 if has_mixup else 1):
        neither = "no smaller one that Mixup can mix does" if has_mixup else f"neither does one {UNITS[unit]}"
        return (
            f"out of memory: a batch of {batch_size} {unit} does not fit, and {neither}. Take a smaller "
            "image_size or model_size, or gradient_checkpointing: true"
        )
    assert training is not None
    step = training.train_batch_size * training.gradient_accumulation_steps
    least = 2 if has_mixup else 1
    size = next((size for size in range(fitting, least, -1) if step % size == 0), least)
    steps = -(-step // size)
    result = f"a step has the same {unit} as before, each of the same weight"
    if training.world_size > 1:
        result += ", but for those that are seen twice to fill up the last batches of an epoch"
    if training.dataloader_drop_last:
        result = (
            "with dataloader_drop_last an epoch would leave fewer out, so this is another run: start it anew"
        )
    if has_mixup:
        result = "with Mixup, which mixes the images of a batch, this is another run: start it anew"
    return (
        f"out of memory: a batch of {batch_size} {unit} does not fit; {fitting} of the same {unit} do "
        f"(tried). Set per_device_train_batch_size: {size} and gradient_accumulation_steps: {steps}; "
        f"{result}"
    )
