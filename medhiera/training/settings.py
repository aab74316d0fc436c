"""What a run was set to, kept with each checkpoint: a run that resumes from it must have the same.

Stands beside checkpoints.py; the Trainer asks before its first step, when the number of steps is known.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from medhiera.config.arguments import OptimizationArguments, images_per_step
from medhiera.errors import UserError

SETTINGS_FILE = "settings.json"
"""In a checkpoint-N folder."""

CONSTANT = ("constant", "reduce_lr_on_plateau", "greedy")
"""Schedules without a warm-up."""

ENDLESS = (*CONSTANT, "constant_with_warmup", "inverse_sqrt")
"""Schedules whose learning rate at a step does not depend on how many there are."""


def run_settings(
    recipe: Mapping[str, Any],
    training: TrainingArguments,
    optimization: OptimizationArguments,
    images: int,
    batches: int,
    max_steps: int,
) -> dict[str, Any]:
    """What decides which images a step sees and how it learns from them, by the words of a message.

    Batch size, gradient accumulation and ranks may change where their product stays; the batch size may not
    with Mixup, which gives each batch a share and mixes its images with each other.

    Args:
        recipe: our fields that a step depends on, and digests of the rows.
        training: transformers' arguments.
        optimization: ours.
        images: of the training rows.
        batches: of one rank in an epoch.
        max_steps: of the whole run, on which most schedules depend.
    """
    settings = {
        **recipe,
        "images a step": images_per_step(training),
        "training images": images,
        "steps an epoch": math.ceil(batches / training.gradient_accumulation_steps),
        "seed": training.seed,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "max_grad_norm": training.max_grad_norm,
        "optimizer": optimization.optimizer or training.optim.value,
        "layer_decay": optimization.layer_decay,
        "schedule": optimization.schedule or training.lr_scheduler_type.value,
        "ema_decay": optimization.ema_decay,
    }
    scheduler = training.lr_scheduler_type.value
    has_share = scheduler not in CONSTANT and 0 < training.warmup_steps < 1
    if optimization.schedule == "one_cycle" or scheduler not in ENDLESS or has_share:
        settings["steps of the whole run"] = max_steps
    if optimization.schedule is None:
        settings["warmup_steps"] = training.warmup_steps
        settings["lr_scheduler_kwargs"] = training.lr_scheduler_kwargs or {}
    if recipe.get("mixup_alpha"):
        settings["images a batch, which Mixup mixes,"] = training.train_batch_size
    return settings


def write_settings(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Write SETTINGS_FILE."""
    (checkpoint / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def check_settings(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Refuse to resume with other settings: epochs would be cut elsewhere, or the new values have no effect.

    Args:
        checkpoint: to resume from; one without SETTINGS_FILE is of an earlier version, and taken as it is.
        settings: of the run that resumes.

    Raises:
        UserError: they differ.
    """
    try:
        before = json.loads((checkpoint / SETTINGS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    differences = [
        f"{name} was {before[name]}, now {value}"
        for name, value in settings.items()
        if name in before and before[name] != value
    ]
    if differences:
        raise UserError(
            f"{checkpoint.name} is of a run with other settings ({'; '.join(differences)}). Resumed with "
            "these, an epoch would show some images twice and others never, the learning rate would jump, "
            "the optimizer would keep the values of before, or the record would say of the whole run what is "
            "true of its end. Resume with the settings and data of before (batch size, gradient accumulation "
            "and ranks may change where the images a step stay the same; with Mixup not the batch size), or "
            "start a new run from its weights: "
            f"--model_name_or_path {checkpoint} and another --output_dir"
        )


def check_batches(training: TrainingArguments, images: int, batches: int) -> None:
    """Refuse a run without a batch.

    Args:
        training: transformers' arguments.
        images: of the training rows.
        batches: of one rank in an epoch.

    Raises:
        UserError: as said.
    """
    if not batches:
        raise UserError(
            f"{images} training images do not fill one batch of "
            f"{training.train_batch_size * training.world_size}, and dataloader_drop_last leaves what does "
            "not fill one out: there would be no step. Set dataloader_drop_last: false, or a smaller "
            "per_device_train_batch_size"
        )


def check_schedule(
    training: TrainingArguments, optimization: OptimizationArguments, max_steps: int, epochs: float
) -> None:
    """Refuse a run that ends before its warm-up, or before the first evaluation, whose best is to be kept.

    Args:
        training: transformers' arguments.
        optimization: ours.
        max_steps: steps of the run.
        epochs: the same in epochs.

    Raises:
        UserError: as said.
    """
    warmup = training.get_warmup_steps(max_steps)
    has_warmup = optimization.schedule is None and training.lr_scheduler_type.value not in CONSTANT
    if has_warmup and warmup >= max_steps > 1:
        raise UserError(
            f"warmup_steps is {training.warmup_steps:g}, and the whole run has {max_steps} steps: the "
            "learning rate would never be reached. Set fewer warmup_steps, or train longer"
        )
    length = epochs if training.eval_strategy.value == "epoch" else max_steps
    if training.load_best_model_at_end and training.eval_delay > length:
        raise UserError(
            f"eval_delay is {training.eval_delay:g}, and the whole run has {length:g} "
            f"{'epochs' if length is epochs else 'steps'}: nothing would be evaluated to keep the best of. "
            "Set a smaller eval_delay, or load_best_model_at_end: false"
        )
