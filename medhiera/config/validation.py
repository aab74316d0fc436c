"""What values are out of range or cannot stand together: one sentence each, with its fix.

parser.py asks before any data is read, and refuses with all of them at once.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from medhiera.config.arguments import Config, DataArguments, OptimizationArguments, StageArguments
from medhiera.config.before_imports import folder_faults
from medhiera.config.model_config import local_config, override_faults, unit_pixels
from medhiera.config.training_options import training_faults
from medhiera.errors import UserError
from modeling_hiera_mae.sizes import LARGEST_SIDE


def _optimization_faults(
    optimization: OptimizationArguments, training: TrainingArguments, given: set[str]
) -> list[str]:
    """Optimizer, learning rate, precision, averaged weights."""
    faults = []
    for name in ("bf16", "fp16"):
        if optimization.precision != "auto" and getattr(training, name):
            faults.append(f"{name} and precision are both set; set one alone")
    is_sharded = training.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if optimization.precision == "bf16_weights" and is_sharded:
        faults.append(
            "precision: bf16_weights keeps whole float32 weights beside the bf16 ones and cannot shard them "
            "(FSDP, which has bf16 weights of its own); use DDP, or precision: bf16"
        )
    if optimization.layer_decay != 1 and optimization.optimizer != "adamw":
        faults.append(
            f"layer_decay needs `optimizer: adamw`, not {optimization.optimizer or 'what optim says'}"
        )
    if optimization.base_learning_rate and "learning_rate" in given:
        faults.append(
            "learning_rate and base_learning_rate are both set; give one (--base_learning_rate 0 unsets the "
            "recipe's)"
        )
    if optimization.ema_decay and is_sharded:
        faults.append("ema_decay cannot average sharded weights (FSDP); use DDP, or ema_decay 0")
    return faults


def _size_faults(optimization: OptimizationArguments, stage: StageArguments) -> list[str]:
    """What `size_defaults` cannot stand with."""
    if not optimization.size_defaults:
        if optimization.size_rate_factor == 1:
            return []
        return [
            f"size_rate_factor {optimization.size_rate_factor:g} multiplies the rate that size_defaults "
            "gives; set size_defaults: true, or size_rate_factor 1"
        ]
    faults = []
    if optimization.optimizer != "adamw":
        faults.append(
            f"size_defaults needs `optimizer: adamw`, not {optimization.optimizer or 'what optim says'}"
        )
    if stage.is_mae:
        faults.append(
            "size_defaults gives values of fine-tuning, and this is pre-training; leave it out, and give "
            "base_learning_rate (5e-5 from ImageNet weights, 1.5e-4 from random ones: mae_modern.yaml)"
        )
    return faults


def _selection_faults(optimization: OptimizationArguments, training: TrainingArguments) -> list[str]:
    """Which weights are kept, and when to end."""
    if not optimization.early_stopping_patience:
        return []
    faults = []
    if not training.load_best_model_at_end or training.metric_for_best_model is None:
        faults.append(
            "early_stopping_patience needs load_best_model_at_end and metric_for_best_model: it is the best "
            "checkpoint that it waits for"
        )
    if training.eval_strategy == IntervalStrategy.NO:
        faults.append("early_stopping_patience needs eval_strategy steps or epoch: nothing is evaluated now")
    if optimization.keep_checkpoint == "last":
        faults.append(
            "early_stopping_patience ends at the best checkpoint; `keep_checkpoint: last` would drop it"
        )
    return faults


def check_config(recipe: Config[Any], given: set[str], more_faults: Sequence[str] = ()) -> None:
    """Refuse values that cannot work, all at once.

    Args:
        recipe: parsed.
        given: names that the file or the command line set, as against defaults.
        more_faults: found by others, told before these.

    Raises:
        UserError: there is a fault.
    """
    data, training, optimization = recipe.data, recipe.training, recipe.optimization
    faults = [*more_faults, *_optimization_faults(optimization, training, given)]
    faults += _size_faults(optimization, recipe.stage)
    faults += _selection_faults(optimization, training)
    faults += recipe.stage.faults(recipe) + training_faults(training, optimization, recipe.stage, given)
    if not data.data_dir:
        faults.append("data_dir is empty; give --data_dir FOLDER, a folder that holds the sources")
    faults += _model_faults(recipe)
    faults += folder_faults(
        {
            "data_dir": data.data_dir,
            "model_name_or_path": recipe.model.model_name_or_path,
            "teacher": getattr(recipe.stage, "teacher", None),
        }
    )
    if "model_size" in given and recipe.model.model_name_or_path:
        faults.append("model_size is for random weights, and a checkpoint is named; leave one of them out")
    if data.read_size > LARGEST_SIDE:
        faults.append(
            f"image_size {data.image_size} makes resize_size {data.read_size} by default, above "
            f"{LARGEST_SIDE}; add --resize_size {data.image_size}"
        )
    if data.stored_size and data.stored_size < (data.resize_size or data.image_size):
        faults.append(
            f"stored_size {data.stored_size} is below what is read; raise it, or 0 for the native size"
        )
    if data.resize_size is not None and data.resize_size < data.image_size:
        faults.append(f"resize_size {data.resize_size} is below image_size {data.image_size}; raise it")
    faults += _weight_faults(data)
    if training.output_dir in (None, "", "trainer_output"):
        faults.append("output_dir is not set; give --output_dir FOLDER for this stage")
    if faults:
        raise UserError("this recipe cannot run:\n  - " + "\n  - ".join(faults))


def _model_faults(recipe: Config[Any]) -> list[str]:
    """Overrides that cannot be applied, and an image size or mask ratios that do not fit the mask units."""
    options, stage, image_size = recipe.model, recipe.stage, recipe.data.image_size
    stored = local_config(options)
    faults = override_faults(options, stored, is_mae=stage.is_mae)
    height, width = unit_pixels(options, stored)
    side = math.lcm(height, width)
    if image_size % side or image_size < side:
        lower = max(1, image_size // side) * side
        faults.append(
            f"image_size is {image_size}; wanted a multiple of {side}, such as {lower} or {lower + side}"
        )
    else:
        faults += stage.mask_faults((image_size // height, image_size // width))
    return faults


def _weight_faults(data: DataArguments) -> list[str]:
    """What is wrong with `source_weights`, apart from names that only the data knows."""
    weights = data.source_weights
    faults = [
        f"source_weights gives {name!r} the weight {weight!r}; wanted a positive number, or the name left out"
        for name, weight in weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf
    ]
    outside = sorted(weights.keys() - set(data.sources or weights))
    if outside:
        faults.append(
            f"source_weights names {outside}, which `sources` leaves out; name them there too, or drop "
            "`sources`"
        )
    return faults
