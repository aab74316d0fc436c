"""What Hiera's author fine-tunes each size with, and which layer decay a depth bears.

Stands on model_config.py. run.py fills the values in as soon as the model's geometry is known, and refuses a
layer decay under which the first block would not learn, and a lowest rate above the rate.
"""

import logging
from typing import Any

from transformers import TrainingArguments

from medhiera.config.arguments import Config, ModelArguments, images_per_step
from medhiera.config.model_config import unit_pixels
from medhiera.errors import UserError
from medhiera.layout import read_config
from modeling_hiera_mae import HieraMAEConfig

logger = logging.getLogger(__name__)

FILLED_IN = ("layer_decay", "drop_path_rate", "base_learning_rate")
"""Options that `size_defaults` fills in where neither file nor command line gives them."""

SMALLEST_SHARE = 1e-4
"""Of the head's learning rate that the first block must keep."""


def author_values(config: HieraMAEConfig) -> dict[str, float]:
    """Layer decay, drop path and learning rate for 256 images, as Hiera's author fine-tunes on ImageNet.

    Args:
        config: of any size; one that was not published has the values of the published ones of its depth and
            width.

    Source: the training branch of Ryali et al.'s code: decay .65 (T, S), .7 (B, B+), .85 (L, H); drop path
    .1 (H .3); rate at a batch of 1024 2e-3 (T, S, B), 1e-3 (B+, L, H).
    """
    blocks = sum(config.depths)
    return {
        "layer_decay": 0.65 if blocks <= 16 else 0.7 if blocks <= 24 else 0.85,
        "drop_path_rate": 0.3 if config.embed_dim >= 256 else 0.1,
        "base_learning_rate": 5e-4 if config.embed_dim <= 96 else 2.5e-4,
    }


def fill_in(config: Config[Any]) -> None:
    """Give the options that `size_defaults` leaves to the model's size their values, and say them.

    Args:
        config: parsed; its checkpoint, where it names one, can be read.

    Raises:
        UserError: the layer decay leaves the first block less than SMALLEST_SHARE of the head's rate, or the
            schedule's lowest rate is none.
    """
    optimization, geometry = config.optimization, _geometry(config.model)
    if config.left_to_size:
        values = author_values(geometry)
        if config.model.model_name_or_path is None:
            values["layer_decay"] = 1.0  # random weights below have as much to learn as those above
        values["base_learning_rate"] *= optimization.size_rate_factor
        chosen = {name: values[name] for name in config.left_to_size}
        for name, value in chosen.items():
            setattr(optimization, name, value)
        if "base_learning_rate" in chosen:
            step = images_per_step(config.training)
            config.training.learning_rate = optimization.base_learning_rate * step / 256
        blocks = sum(geometry.depths)
        listed = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
        logger.info("by the model's size (%d blocks, %d wide): %s", blocks, geometry.embed_dim, listed)
    if getattr(config.stage, "encoder_rate", 1) == 0 and optimization.drop_path_rate:
        logger.info(
            "drop_path_rate %g is left out: the encoder is frozen, and its features stay the same",
            optimization.drop_path_rate,
        )
        optimization.drop_path_rate = 0.0
    _check_layer_decay(optimization.layer_decay, sum(geometry.depths))
    _check_lowest_rate(config.training)


def _geometry(options: ModelArguments) -> HieraMAEConfig:
    source = options.model_name_or_path
    if source is not None:
        return HieraMAEConfig.from_dict(read_config(source))
    one_unit = list(unit_pixels(options, None))  # which is an image of any mask unit
    return HieraMAEConfig.from_size(options.model_size, **options.model_overrides, image_size=one_unit)


def _check_layer_decay(decay: float, blocks: int) -> None:
    share = decay**blocks
    if share < SMALLEST_SHARE:
        raise UserError(
            f"layer_decay is {decay:g}, which leaves the first of this model's {blocks} blocks {share:.1e} "
            f"of the head's learning rate; wanted at least {SMALLEST_SHARE:g} of it, a layer_decay of "
            f"{SMALLEST_SHARE ** (1 / blocks):.2f} or more. Leave it out and set size_defaults: true for the "
            "value of this size"
        )


def _check_lowest_rate(training: TrainingArguments) -> None:
    """Refuse a `min_lr` above the learning rate, which follows from the batch: the rate would rise to it."""
    kwargs = training.lr_scheduler_kwargs
    lowest = kwargs.get("min_lr") if isinstance(kwargs, dict) else None
    if isinstance(lowest, int | float) and lowest >= training.learning_rate:
        raise UserError(
            f"lr_scheduler_kwargs has min_lr {lowest:g}, and the learning rate of this batch is "
            f"{training.learning_rate:g}: it would rise where it is to fall. Give a share, such as "
            "--lr_scheduler_kwargs '{\"min_lr_rate\": 0.02}', or a lower min_lr"
        )
