"""The model's configuration: transformers' HieraConfig plus what we add.

Stands at the start of the model: every other file of this package reads it. `model_type` stays "hiera", so a
folder saved with it opens in stock transformers with no flag.
"""

import copy
import dataclasses
import difflib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import HieraConfig
from transformers.activations import ACT2FN

from .sizes import SIZES

ENCODER_GEOMETRY = (
    "embed_dim",
    "depths",
    "num_heads",
    "mlp_ratio",
    "embed_dim_multiplier",
    "patch_size",
    "patch_stride",
    "patch_padding",
    "masked_unit_size",
    "query_stride",
)
"""Fields that a checkpoint's encoder fixes: the shapes or the meaning of its weights depend on them."""

DECODER_GEOMETRY = ("decoder_hidden_size", "decoder_depth", "decoder_num_heads")
"""The same for the MAE's decoder."""

_DECODER = {"decoder_hidden_size": 512, "decoder_depth": 8, "decoder_num_heads": 16}

_PAIRS = ("image_size", "patch_size", "patch_stride", "patch_padding", "masked_unit_size", "query_stride")
"""Fields of (height, width)."""

_LARGEST = {"embed_dim": 8192, "decoder_hidden_size": 8192, "decoder_depth": 1000, "num_channels": 1000}
"""Far above any Hiera: a config.json with more is damaged, and would ask for all memory or never end."""

_MOST_LABELS = 100_000

_NOT_FOLLOWED = (
    "quantization_config",
    "fusion_config",
    "per_layer_config",
    "distributed_config",
    "transformers_weights",
)
"""Entries with which a config.json steers transformers' loader; weights are read here (weight_files.py)."""

_POSITION_INTERPOLATIONS = ("bicubic", "windowed")

# Queries are pooled between this many stages, by what a class is for. The MAE keeps 2 x 2 tokens a mask unit.
_QUERY_POOLS = {
    "HieraForPreTraining": 2,
    "HieraForImageClassification": 3,
    "HieraModel": 3,
    "HieraBackbone": 3,
}


@strict  # the parent's own checks of types, for the fields declared here
class HieraMAEConfig(HieraConfig):
    """Hiera's geometry, its MAE decoder, and how position embeddings follow the image size.

    Every field of transformers' HieraConfig keeps its name and meaning. Differences:

    Args:
        num_query_pool: stages that begin by pooling their queries; None means the task's default: 2 for
            HieraMAEForPreTraining, 3 for HieraMAEForImageClassification and HieraMAEModel.
        decoder_hidden_size: width of the MAE decoder; None means 512.
        decoder_depth: blocks of the MAE decoder; None means 8.
        decoder_num_heads: heads of the MAE decoder; None means 16.
        position_interpolation: "bicubic" (as stock transformers) or "windowed" (arXiv:2311.05613: the part
            that repeats in every mask unit is tiled, only the rest is interpolated). Used where an image's
            size is not `image_size`.
        classifier_dropout: probability that a pooled feature is zeroed before the classifier's head, in
            training. Stock transformers ignores it.

    Raises:
        ValueError: the geometry cannot be built, or `image_size` does not split into whole mask units.
    """

    model_type = "hiera"

    num_query_pool: int | None = None
    decoder_hidden_size: int | None = 512
    decoder_depth: int | None = 8
    decoder_num_heads: int | None = 16
    position_interpolation: str = "bicubic"
    classifier_dropout: float | int = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        # A stock classifier's config.json holds null here; an MAE started from it needs values.
        for name, default in _DECODER.items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        super().__post_init__(**kwargs)
        self.validate_architecture()  # here, so that a ValueError reaches the user as one

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from the content of a config.json; any fault is a ValueError.

        Args:
            config_dict: the content.
            kwargs: fields that override it, and `return_unused_kwargs`.

        Raises:
            ValueError: a field has a wrong type or value, or the geometry cannot be built.
        """
        _check_content(config_dict)
        # The class's own is not a field: a backbone's would stand in a classifier's configuration.
        content = {name: value for name, value in config_dict.items() if name != "model_type"}
        try:
            config = super().from_dict(content, **kwargs)
        except ValueError:
            raise
        except Exception as error:  # strict dataclasses and transformers raise classes of many kinds
            raise ValueError(f"the configuration cannot be used: {' '.join(str(error).split())}") from error
        return config

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> "HieraMAEConfig":
        """Build the configuration of one of the six published sizes.

        Args:
            size: a key of SIZES.
            overrides: any field of the configuration (also `num_labels` and `attn_implementation`).

        Raises:
            ValueError: an unknown size or field; the message names the nearest known one.
        Source: Ryali et al. 2023, arXiv:2306.00989, appendix.
        """
        if size not in SIZES:
            raise ValueError(f"Unknown Hiera size {size!r}; wanted one of {', '.join(SIZES)}.")
        cls.check_fields(overrides)
        return cls(**{**copy.deepcopy(SIZES[size]), **overrides})

    @classmethod
    def check_fields(cls, names: Iterable[str]) -> None:
        """Refuse names that are not fields of the configuration.

        Args:
            names: of fields; `num_labels` and `attn_implementation` count as such.

        Raises:
            ValueError: an unknown one; the message names the nearest known one.
        """
        known = {field.name for field in dataclasses.fields(cls)} | {"num_labels", "attn_implementation"}
        for name in names:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
                raise ValueError(f"Unknown field {name!r} for HieraMAEConfig{hint}")

    @property
    def size_name(self) -> str | None:
        """The published size this geometry is, or None."""
        for name, geometry in SIZES.items():
            if all(list_or_value(getattr(self, field)) == value for field, value in geometry.items()):
                return name
        return None

    @property
    def unit_pixels(self) -> tuple[int, int]:
        """Height and width of a mask unit, in pixels: images are made of whole ones."""
        height, width = (s * m for s, m in zip(self.patch_stride, self.masked_unit_size, strict=True))
        return height, width

    @property
    def unit_grid(self) -> tuple[int, int]:
        """Rows and columns of mask units in an image of `image_size`."""
        height, width = (i // u for i, u in zip(self.image_size, self.unit_pixels, strict=True))
        return height, width

    def for_class(self, stock_class: str) -> "HieraMAEConfig":
        """Copy with `num_query_pool` set for one task.

        A number that came with a checkpoint of another task (an MAE's 2 in a classifier) is replaced by the
        default of this one.

        Args:
            stock_class: "HieraForPreTraining", "HieraForImageClassification", "HieraModel" or
                "HieraBackbone".
        """
        config = copy.deepcopy(self)
        trained_as = {stock_name(name) for name in config.architectures or []}
        if config.num_query_pool is None or (trained_as and stock_class not in trained_as):
            config.num_query_pool = _QUERY_POOLS[stock_class]
        return config

    def validate_architecture(self) -> None:
        """Refuse a geometry that cannot be built.

        Raises:
            ValueError: see the class.
        """
        _check_options(self)
        stages = len(self.depths)
        if len(self.num_heads) != stages or len(self.masked_unit_attention) != stages:
            raise ValueError(
                "depths, num_heads and masked_unit_attention must have one entry per stage; got "
                f"{self.depths}, {self.num_heads} and {self.masked_unit_attention}."
            )
        if self.num_query_pool is not None and not 0 <= self.num_query_pool < stages:
            raise ValueError(
                f"num_query_pool is {self.num_query_pool}; wanted 0 to {stages - 1} for {stages} stages."
            )
        for side, (unit, stride) in enumerate(zip(self.masked_unit_size, self.query_stride, strict=True)):
            if unit != stride ** (stages - 1):
                raise ValueError(
                    f"masked_unit_size[{side}] is {unit}; wanted query_stride ** (stages - 1) = "
                    f"{stride ** (stages - 1)}, so that pooling uses up exactly one mask unit."
                )
        if self.position_interpolation not in _POSITION_INTERPOLATIONS:
            raise ValueError(
                f"position_interpolation is {self.position_interpolation!r}; wanted one of "
                f"{', '.join(_POSITION_INTERPOLATIONS)}."
            )
        _check_heads(self)
        check_image_size(tuple(self.image_size), self.unit_pixels, "image_size")

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write a config.json whose `auto_map` names code that lies beside it, or on the Hub, alone."""
        saved, folder = copy.deepcopy(self), Path(json_file_path).parent
        named = getattr(saved, "auto_map", None) or {}
        found = {
            name: code
            for name, code in named.items()
            if "--" in str(code) or (folder / f"{str(code).split('.')[0]}.py").is_file()
        }
        if found:
            saved.auto_map = found
        elif hasattr(saved, "auto_map"):
            del saved.auto_map
        HieraConfig.to_json_file(saved, json_file_path, use_diff)

    def to_dict(self) -> dict[str, Any]:
        """Serialise, naming stock transformers' classes, so that stock code opens the folder unaided."""
        content = super().to_dict()
        if content.get("architectures"):
            content["architectures"] = [stock_name(name) for name in content["architectures"]]
        if content.get("num_query_pool") is None:
            content.pop("num_query_pool", None)
        return content


@strict
class HieraMAEBackboneConfig(HieraMAEConfig):
    """The same under a model type of its own, for a detector's or segmenter's `backbone_config`.

    Such a model saves this configuration inside its own and makes the backbone of its model type alone:
    "hiera" would give transformers' HieraBackbone, whose feature maps are not in the image's order.
    """

    model_type = "hiera_mae_backbone"


class ImageSizeError(ValueError):
    """An image size that does not split into whole mask units.

    Attributes:
        unit_pixels: (height, width) of a mask unit in pixels.
    """

    def __init__(self, message: str, unit_pixels: tuple[int, int]) -> None:
        super().__init__(message)
        self.unit_pixels = unit_pixels


def stock_name(class_name: str) -> str:
    """Name of stock transformers' class with the same weights: HieraMAEModel → HieraModel."""
    return class_name.replace("HieraMAE", "Hiera")


def list_or_value(value: Any) -> Any:
    """Tuples as lists (JSON makes lists of both), anything else unchanged."""
    return list(value) if isinstance(value, tuple) else value


def check_image_size(size: tuple[int, ...], unit_pixels: tuple[int, int], name: str) -> None:
    """Refuse an image size that does not split into whole mask units.

    Args:
        size: (height, width) in pixels.
        unit_pixels: (height, width) of a mask unit in pixels.
        name: what `size` is called in the message.

    Raises:
        ValueError: not two numbers.
        ImageSizeError: with the nearest sizes that fit.
    """
    if len(size) != 2:
        raise ValueError(f"{name} is {tuple(size)}; wanted (height, width).")
    if all(side > 0 and side % unit == 0 for side, unit in zip(size, unit_pixels, strict=True)):
        return
    below = tuple(max(side // unit, 1) * unit for side, unit in zip(size, unit_pixels, strict=True))
    above = tuple(max(math.ceil(side / unit), 1) * unit for side, unit in zip(size, unit_pixels, strict=True))
    nearest = f"{below[0]}×{below[1]}" + (f" or {above[0]}×{above[1]}" if above != below else "")
    raise ImageSizeError(
        f"{name} is {size[0]}×{size[1]} pixels; wanted multiples of {unit_pixels[0]}×{unit_pixels[1]} (one "
        f"mask unit). Resize or pad the image to {nearest}.",
        unit_pixels,
    )


def _check_content(content: dict[str, Any]) -> None:
    """Refuse what transformers would choke on, or take without a word.

    Raises:
        ValueError: with the field.
    """
    labels, count, dtype = content.get("id2label"), content.get("num_labels"), content.get("dtype")
    for name in content:
        if callable(getattr(HieraMAEConfig, str(name), None)):
            raise ValueError(f"the configuration sets {name!r}, which is no field of it")
    for name in _NOT_FOLLOWED:
        if content.get(name) is not None:
            raise ValueError(f"the configuration sets {name}, which is not followed here; remove it")
    if labels is not None:
        names = list(labels.values()) if isinstance(labels, dict) else []
        if not isinstance(labels, dict) or not all(isinstance(name, str) for name in names):
            raise ValueError("id2label is not a table from numbers to names")
        if sorted(map(str, labels)) != sorted(map(str, range(len(labels)))):
            raise ValueError(
                f"id2label numbers its {len(labels)} names {list(labels)[:5]}…; wanted 0, 1, 2, …"
            )
    if count is not None and (not isinstance(count, int) or not 0 < count <= _MOST_LABELS):
        raise ValueError(f"num_labels is {count!r}; wanted 1 to {_MOST_LABELS:,}")
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype is {dtype!r}; wanted one of torch's, such as 'float32'")


def _check_options(config: HieraMAEConfig) -> None:
    """Refuse numbers that no model has.

    Raises:
        ValueError: with the field.
    """
    for name in ("depths", "num_heads", "masked_unit_attention", *_PAIRS):
        value = getattr(config, name)
        length = 2 if name in _PAIRS else None
        lowest = 0 if name in ("masked_unit_attention", "patch_padding") else 1
        is_list = isinstance(value, list | tuple) and all(isinstance(entry, int) for entry in value)
        if name != "image_size" and (
            not is_list or len(value) not in (length, length or len(value)) or not value
        ):
            raise ValueError(f"{name} is {value!r}; wanted {length or 'some'} whole numbers")
        if not is_list or any(
            not lowest <= entry <= (1000 if name == "depths" else 2**20) for entry in value
        ):
            raise ValueError(f"{name} is {value!r}; wanted whole numbers from {lowest} on, of a usual size")
    for name, largest in _LARGEST.items():
        value = getattr(config, name)
        if not isinstance(value, int) or not 1 <= value <= largest:
            raise ValueError(f"{name} is {value!r}; wanted 1 to {largest}")
    for name in ("mlp_ratio", "embed_dim_multiplier", "layer_norm_eps"):
        value = getattr(config, name)
        if not isinstance(value, int | float) or not 0 < value <= 1000:
            raise ValueError(f"{name} is {value!r}; wanted a positive number")
    for name in ("drop_path_rate", "classifier_dropout"):
        value = getattr(config, name)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}; wanted 0 to 1")
    if config.hidden_act not in ACT2FN:
        raise ValueError(
            f"hidden_act is {config.hidden_act!r}; wanted one that transformers knows, such as 'gelu'"
        )


def _check_heads(config: HieraMAEConfig) -> None:
    """Refuse heads that do not divide the width of their stage.

    Raises:
        ValueError: with the widths.
    """
    widths = [
        int(config.embed_dim * config.embed_dim_multiplier**stage) for stage in range(len(config.depths))
    ]
    pairs = [
        *zip(widths, config.num_heads, strict=True),
        (config.decoder_hidden_size, config.decoder_num_heads),
    ]
    if any(not heads or width % heads for width, heads in pairs):
        raise ValueError(
            f"widths of {widths} do not divide among {list_or_value(config.num_heads)} heads, or the "
            f"decoder's {config.decoder_hidden_size} among {config.decoder_num_heads}"
        )
