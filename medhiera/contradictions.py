"""What options cannot stand together or are out of range: one sentence each, with its fix.

recipe.py asks before any data is read, and refuses with all of them at once.
"""

import importlib.util
import os
from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from dataset_scripts import Cocktail, chestxray14, image_folder
from medhiera.options import AugmentationOptions, ClassifierOptions, MAEOptions, OptimizationOptions

TRACKERS = ("tensorboard", "trackio", "wandb")


def contradictions(
    optimization: OptimizationOptions,
    augmentation: AugmentationOptions,
    stage: MAEOptions | ClassifierOptions,
    training: TrainingArguments,
    given: set[str],
) -> list[str]:
    """Every fault of these options, or an empty list.

    Args:
        optimization: parsed.
        augmentation: parsed.
        stage: parsed.
        training: parsed.
        given: names that the file or the command line set, as against defaults.
    """
    faults = _optimization_faults(optimization, training, given) + _selection_faults(optimization, training)
    if not 0 <= augmentation.random_crop_scale <= 1:
        faults.append(
            f"random_crop_scale is {augmentation.random_crop_scale}; wanted a share from 0 (off) to 1, "
            "such as 0.5"
        )
    if isinstance(stage, MAEOptions):
        for name in ("mask_ratio", "eval_mask_ratio"):
            ratio = getattr(stage, name)
            if not 0 < ratio < 1:
                faults.append(f"{name} is {ratio}; wanted a share between 0 and 1, such as 0.6")
    else:
        faults += _classifier_faults(stage, augmentation, training)
        if optimization.halt_on_explosion:
            faults.append("halt_on_explosion is for stage 1; stage 2 has early_stopping_patience")
    return faults + _tracker_faults(training) + _hub_faults(training, given)


def unused_options(optimization: OptimizationOptions, given: set[str]) -> list[str]:
    """What was set and has no effect, because another option has taken its place; a sentence each."""
    names = {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"} & given
    unused = [
        f"{name} has no effect with schedule: one_cycle; set schedule: trainer" for name in sorted(names)
        if optimization.schedule == "one_cycle"
    ]  # fmt: skip
    if "optim" in given and optimization.optimizer != "trainer":
        unused.append(f"optim has no effect with optimizer: {optimization.optimizer}; set optimizer: trainer")
    return unused


def missing_validation(data_dir: Path) -> list[str]:
    """A sentence where the sources under a folder hold no validation image out: before hours of building.

    Args:
        data_dir: as the recipe has it; folders of one's own and built data are not looked into.
    """
    present = [folder for folder in Cocktail.LISTERS if (data_dir / folder).is_dir()]
    if not present or {chestxray14.FOLDER, image_folder.FOLDER} & set(present):
        return []
    return [
        f"data_dir holds {', '.join(present)} and so no validation images; add {chestxray14.FOLDER}, whose "
        f"lists hold some out, or {image_folder.FOLDER} with yours"
    ]


def _optimization_faults(
    optimization: OptimizationOptions, training: TrainingArguments, given: set[str]
) -> list[str]:
    """Optimiser, learning rate, precision, averaged weights."""
    faults = []
    for name in ("bf16", "fp16"):
        if optimization.precision != "auto" and getattr(training, name):
            faults.append(f"{name} and precision are both set; set one alone")
    if not 0 < optimization.layer_decay <= 1:
        faults.append(
            f"layer_decay is {optimization.layer_decay}; wanted above 0 and at most 1 (1: none), such as 0.55"
        )
    elif optimization.layer_decay != 1 and optimization.optimizer != "adamw":
        faults.append(f"layer_decay needs `optimizer: adamw`, not {optimization.optimizer}")
    if optimization.base_learning_rate < 0:
        faults.append(f"base_learning_rate is {optimization.base_learning_rate}; wanted a positive number")
    if optimization.base_learning_rate and "learning_rate" in given:
        faults.append(
            "learning_rate and base_learning_rate are both set; give one (--base_learning_rate 0 unsets the "
            "recipe's)"
        )
    if not 0 <= optimization.drop_path_rate < 1:
        faults.append(f"drop_path_rate is {optimization.drop_path_rate}; wanted from 0 to below 1")
    if not 0 <= optimization.ema_decay < 1:
        faults.append(
            f"ema_decay is {optimization.ema_decay}; wanted from 0 (off) to below 1, such as 0.9998: at 1 "
            "the average would never leave the initial weights"
        )
    if optimization.ema_decay and (training.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"):
        faults.append("ema_decay cannot average sharded weights (FSDP); use DDP, or ema_decay 0")
    return faults


def _selection_faults(optimization: OptimizationOptions, training: TrainingArguments) -> list[str]:
    """Which weights are kept, and when to end."""
    patience = optimization.early_stopping_patience
    if patience < 0:
        return [f"early_stopping_patience is {patience}; wanted a number of evaluations, or 0 for never"]
    if not patience:
        return []
    faults = []
    if not training.load_best_model_at_end or training.metric_for_best_model is None:
        faults.append(
            "early_stopping_patience needs load_best_model_at_end and metric_for_best_model: it is the best "
            "checkpoint that it waits for"
        )
    if training.eval_strategy == IntervalStrategy.NO:
        faults.append("early_stopping_patience needs eval_strategy steps or epoch: nothing is evaluated now")
    if optimization.keep == "last":
        faults.append("early_stopping_patience ends at the best checkpoint; `keep: last` would drop it")
    return faults


def _classifier_faults(
    stage: ClassifierOptions, augmentation: AugmentationOptions, training: TrainingArguments
) -> list[str]:
    """Augmentation, dropout and loss of stage 2."""
    faults = []
    if stage.rotation_degrees < 0:
        faults.append(f"rotation_degrees is {stage.rotation_degrees}; wanted 0 or above")
    if stage.rotation_degrees and augmentation.rand_augment:
        faults.append(
            "rotation_degrees and rand_augment are both set; RandAugment rotates by itself: set one to 0 or "
            "false"
        )
    if not 0 <= stage.classifier_dropout < 1:
        faults.append(f"classifier_dropout is {stage.classifier_dropout}; wanted from 0 to below 1")
    if stage.mixup_alpha < 0:
        faults.append(f"mixup_alpha is {stage.mixup_alpha}; wanted 0 (off) or above, such as 0.8")
    if stage.mixup_alpha and training.per_device_train_batch_size < 2:
        faults.append(
            "mixup_alpha mixes the images of one batch; per_device_train_batch_size 1 has none to mix"
        )
    if not 0 <= stage.label_smoothing < 1:
        faults.append(f"label_smoothing is {stage.label_smoothing}; wanted from 0 to below 1, such as 0.1")
    if training.label_smoothing_factor:
        faults.append(
            "label_smoothing_factor is for one label an image; use label_smoothing, which keeps NaN apart"
        )
    return faults


def _tracker_faults(training: TrainingArguments) -> list[str]:
    """Trackers that are asked for and not installed."""
    return [
        f"report_to {name} needs the package {name}: pip install {name}, or leave it out"
        for name in training.report_to
        if name in TRACKERS and importlib.util.find_spec(name) is None
    ]


def _hub_faults(training: TrainingArguments, given: set[str]) -> list[str]:
    """Options of transformers' own push, which is not ours: one finished stage goes up, once."""
    names = {"hub_strategy", "hub_always_push", "hub_revision"} & given
    faults = [f"{name}: only the finished stage is published, once; leave it out" for name in sorted(names)]
    if training.hub_model_id and not training.push_to_hub:
        faults.append("hub_model_id is set without push_to_hub; add --push_to_hub true")
    return faults
