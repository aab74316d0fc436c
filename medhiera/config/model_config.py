"""The model configuration that a recipe asks for, judged before any weights are drawn or loaded.

Stands on arguments.py. validation.py asks while nothing has been fetched yet, training/model.py again when
it has read a Hub checkpoint's config.json.
"""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from medhiera.config.arguments import ModelArguments
from medhiera.errors import UserError
from medhiera.layout import read_config
from modeling_hiera_mae import HieraMAEConfig
from modeling_hiera_mae.configuration_hiera_mae import (
    DECODER_GEOMETRY,
    ENCODER_GEOMETRY,
    ImageSizeError,
    list_or_value,
    stock_name,
)

CONFIG_ERRORS = (ValueError, TypeError, StrictDataclassError)
"""What transformers and our configuration raise for fields that cannot be used."""

SET_ELSEWHERE = {
    "image_size": "set the recipe's own image_size instead",
    "drop_path_rate": "set the recipe's own drop_path_rate instead",
    "mask_ratio": "set stage 1's own mask_ratio instead",
    "classifier_dropout": "set stage 2's own classifier_dropout instead",
    "num_labels": "the labels are the dataset's",
    "id2label": "the labels are the dataset's",
    "label2id": "the labels are the dataset's",
    "problem_type": "the data says whether an image has one label or any number",
}
"""Config fields that model_overrides cannot set, and why."""


def local_config(options: ModelArguments) -> HieraMAEConfig | None:
    """The configuration of the checkpoint that training starts from, where it lies on this machine.

    Args:
        options: names a folder, a Hub id, or nothing.

    Returns:
        None for random weights, for a Hub id (nothing is fetched), and for a folder that holds no readable
        Hiera: training.model.check_source says what is wrong with it.
    """
    source = options.model_name_or_path
    if source is None or not Path(source).is_dir():
        return None
    try:
        return HieraMAEConfig.from_dict(read_config(source))
    except (UserError, *CONFIG_ERRORS):
        return None


def override_faults(options: ModelArguments, stored: HieraMAEConfig | None, *, is_mae: bool) -> list[str]:
    """Every reason why `model_overrides` cannot be applied, or an empty list.

    Args:
        options: whose `model_overrides` are judged.
        stored: the checkpoint's configuration; None for random weights, or where it is not known yet.
        is_mae: the stage trains HieraMAEForPreTraining.

    Returns:
        One sentence for each fault, with its fix.
    """
    overrides = options.model_overrides
    faults = [fault for name in overrides if (fault := _field_fault(name))]
    contradictions = _contradictions(options, stored, is_mae=is_mae) if stored else []
    if contradictions:
        faults.append(
            f"model_overrides contradicts the checkpoint {options.model_name_or_path}: "
            f"{', '.join(contradictions)}. Weights keep the geometry they were trained with: leave these "
            "fields out (--model_overrides {} drops all of the recipe's), or start from another checkpoint"
            + (
                ", or with a new decoder (reset_decoder: true)"
                if is_mae and not options.reset_decoder
                else ""
            )
        )
    if faults or (stored is None and options.model_name_or_path is not None):
        return faults
    try:
        if stored is None:
            HieraMAEConfig.from_size(options.model_size, **overrides)
        else:
            wanted, _ = HieraMAEConfig.from_dict(stored.to_dict(), return_unused_kwargs=True, **overrides)
            wanted.validate_architecture()
    except ImageSizeError:
        pass  # that of the default image size; the recipe's own is checked against `unit_pixels`
    except CONFIG_ERRORS as error:
        faults.append(f"model_overrides cannot be used: {error}")
    return faults


def unit_pixels(options: ModelArguments, stored: HieraMAEConfig | None) -> tuple[int, int]:
    """Height and width in pixels of a mask unit of the model that a recipe asks for.

    Args:
        options: model_size and model_overrides count where `stored` is None.
        stored: the checkpoint's configuration, see local_config.

    Returns:
        That of the published sizes where model_overrides cannot be used (override_faults says why).
    """
    if stored is not None:
        return stored.unit_pixels
    try:
        return HieraMAEConfig.from_size(options.model_size, **options.model_overrides).unit_pixels
    except ImageSizeError as error:
        return error.unit_pixels
    except CONFIG_ERRORS:
        return HieraMAEConfig.from_size(options.model_size).unit_pixels


def _field_fault(name: str) -> str | None:
    """Why no recipe can override this field; None where it can."""
    if name in SET_ELSEWHERE:
        return f"model_overrides cannot set {name}: {SET_ELSEWHERE[name]}"
    try:
        HieraMAEConfig.check_fields([name])
    except ValueError as error:
        return f"model_overrides: {error}"
    return None


def _contradictions(options: ModelArguments, stored: HieraMAEConfig, *, is_mae: bool) -> list[str]:
    """`field VALUE (the checkpoint has VALUE)` for each override that the checkpoint's weights rule out."""
    overrides, fixed = options.model_overrides, list(ENCODER_GEOMETRY)
    channels = (stored.num_channels, overrides.get("num_channels"))
    # RGB folds into gray, and without a decoder gray spreads over RGB.
    if channels != (3, 1) and (channels != (1, 3) or (is_mae and not options.reset_decoder)):
        fixed.append("num_channels")
    is_trained = "HieraForPreTraining" in {stock_name(name) for name in stored.architectures or []}
    if is_trained and not options.reset_decoder:
        # Without its decoder an MAE's weights fit any pooling.
        fixed += [*DECODER_GEOMETRY, *(["num_query_pool"] if is_mae else [])]
    return [
        f"{name} {overrides[name]} (the checkpoint has {list_or_value(getattr(stored, name))})"
        for name in fixed
        if name in overrides and overrides[name] != list_or_value(getattr(stored, name))
    ]
