"""The labels experiment: what is asked for, and what it reached.

Stands on arms.py; reproduce.py runs the arms, labels_report.py shows the results.
"""

import json
from collections.abc import Sequence

from medhiera.errors import UserError
from medhiera.experiments.arms import Arm, label_arms
from medhiera.experiments.label_share import LabelShare
from medhiera.experiments.runner import has_option, without_option
from medhiera.layout import read_config
from modeling_hiera_mae import HieraMAEConfig
from modeling_hiera_mae.configuration_hiera_mae import ENCODER_GEOMETRY, list_or_value

SCHEDULES = (
    (0.02, ("--num_train_epochs", "300", "--per_device_train_batch_size", "16")),
    (0.2, ("--num_train_epochs", "100", "--per_device_train_batch_size", "64")),
)
"""Up to a share of the labels: more epochs of smaller batches than configs/cls_rsna.yaml has for all."""


def check_shares(shares: Sequence[LabelShare]) -> None:
    """Refuse a share that is named twice.

    Raises:
        UserError: one is.
    """
    fractions = [share.fraction for share in shares]
    if twice := sorted({fraction for fraction in fractions if fractions.count(fraction) > 1}):
        raise UserError(f"--label_shares names {twice[0]:g} twice; name each share once, with its seeds")


def arms_of_shares(
    shares: Sequence[LabelShare],
    checkpoints: dict[str, str],
    arguments: Sequence[str],
    has_schedule: bool,
) -> dict[LabelShare, list[Arm]]:
    """The arms of each share, smallest first.

    Args:
        shares: checked.
        checkpoints: by name of the start, "stage0" or "stage1": a folder or Hub id; one at least.
        arguments: the user's own, which win over a share's schedule.
        has_schedule: fewer labels are trained longer; else all as the recipe has it.

    Raises:
        UserError: two checkpoints of different shapes, or one that cannot be read.
    """
    shapes = {name: encoder_shape(source) for name, source in checkpoints.items()}
    first, *others = shapes.items()
    for name, shape in others:
        if shape != first[1]:
            different = ", ".join(key for key in shape if shape[key] != first[1][key])
            raise UserError(
                f"--{first[0]} and --{name} are models of different shapes ({different}): they cannot be "
                "compared; name two of the same"
            )
    geometry = ("--model_overrides", json.dumps(first[1]))
    return {
        share: label_arms(
            share.fraction,
            ("random", *checkpoints),
            schedule_of(share.fraction, arguments) if has_schedule else (),
            geometry,
        )
        for share in sorted(shares, key=lambda share: share.fraction)
    }


def schedule_of(fraction: float, arguments: Sequence[str]) -> tuple[str, ...]:
    """The options that so few labels ask for; those that the user sets are left out."""
    words: tuple[str, ...] = next((words for most, words in SCHEDULES if fraction <= most), ())
    for name in ("num_train_epochs", "per_device_train_batch_size"):
        if has_option(arguments, name) or (name == "num_train_epochs" and has_option(arguments, "max_steps")):
            words = without_option(words, name)
    return words


def encoder_shape(source: str) -> dict[str, object]:
    """The fields of a checkpoint's config.json that give random weights its shapes, as JSON.

    Raises:
        UserError: see read_config.
    """
    config = HieraMAEConfig.from_dict(read_config(source))
    names = (*ENCODER_GEOMETRY, "position_interpolation")
    return {name: list_or_value(getattr(config, name)) for name in names}
