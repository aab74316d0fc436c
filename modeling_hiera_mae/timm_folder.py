"""One of our models → a folder that timm opens: its names of the weights, and its config.json.

Stands beside foreign_weights (the other way), below convert.py, and like them does not ship to the Hub. timm
is not needed: `timm.create_model("local-dir:FOLDER", pretrained=True)` opens what is written here.
"""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .configuration_hiera_mae import HieraMAEConfig
from .pretrained import HieraMAEPreTrainedModel
from .weight_files import Weights

# transformers' names → timm's, without the "hiera." of a task's model; layers become `blocks.N` first.
_RENAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(pooler\.layernorm|encoder_norm)\.", "head.norm."),
    (r"^classifier\.", "head.fc."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)

_MAE_ALONE = ("decoder.", "multiscale_fusion.")
"""Parts that no model of timm has."""

_USAGE = """
```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # on the Hub: "hf-hub:NAME/REPOSITORY"
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
logits = model(prepare(image.convert("MODE")).unsqueeze(0))
```
"""

_TIMM_NORM_EPS = 1e-6

_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def usage(channels: int) -> str:
    """Python that opens a folder and prepares one image, for a card.

    Args:
        channels: of the model's input.
    """
    return _USAGE.replace("MODE", "L" if channels == 1 else "RGB")


def prepared_size(processor: Mapping[str, Any] | None) -> list[int] | None:
    """Height and width in pixels that an image processor gives; None where it does not say.

    Args:
        processor: the content of a preprocessor_config.json.
    """
    processor = processor or {}
    size = processor.get("crop_size" if processor.get("do_center_crop") else "size") or {}
    return [size["height"], size["width"]] if {"height", "width"} <= size.keys() else None


def timm_weights(model: HieraMAEPreTrainedModel) -> tuple[Weights, dict[str, str], dict[str, str]]:
    """The weights under timm's names.

    Args:
        model: an MAE (its encoder, with `encoder_norm` as the final norm, as timm's own "mae" weights have
            it), a classifier, or an encoder. Without a final norm timm's is one that has learned nothing.

    Returns:
        The weights; our name of each → timm's; and our parts that have no place there, with the reason.
    """
    state = model.state_dict()
    places = [(stage, layer) for stage, depth in enumerate(model.config.depths) for layer in range(depth)]
    numbers = {f"encoder.stages.{stage}.layers.{layer}.": n for n, (stage, layer) in enumerate(places)}

    def rename(name: str) -> str:
        name = name.removeprefix("hiera.")
        name = re.sub(r"^encoder\.stages\.\d+\.layers\.\d+\.", lambda m: f"blocks.{numbers[m[0]]}.", name)
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        return name

    left_out = {
        part.removesuffix("."): "timm has the MAE's encoder alone"
        for part in _MAE_ALONE
        if any(name.startswith(part) for name in state)
    }
    mapped = {name: rename(name) for name in state if not name.startswith(_MAE_ALONE)}
    weights = {target: state[name].detach().clone().contiguous() for name, target in mapped.items()}
    if "head.norm.weight" not in weights:
        width = model.config.hidden_size
        weights |= {"head.norm.weight": torch.ones(width), "head.norm.bias": torch.zeros(width)}
    return weights, mapped, left_out


def timm_config(model: HieraMAEPreTrainedModel, processor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of timm's config.json: the geometry as arguments of its Hiera, and how images are prepared.

    Args:
        model: what `timm_weights` takes.
        processor: the content of the preprocessor_config.json beside it; None leaves timm its own values,
            ImageNet's mean and standard deviation.

    Raises:
        ValueError: timm's Hiera cannot have this geometry.
    """
    config = model.config
    _refuse_other_geometry(config)
    has_head = "classifier.weight" in model.state_dict()
    is_mae = "decoder.mask_token" in model.state_dict()
    content: dict[str, Any] = {
        # Any of timm's Hieras would do: the arguments say the whole geometry.
        "architecture": f"hiera_{config.size_name or 'base'}_224",
        "num_classes": config.num_labels if has_head else 0,
        "num_features": config.hidden_size,
        "global_pool": "avg",
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.num_channels,
            "embed_dim": config.embed_dim,
            "num_heads": config.num_heads[0],
            "stages": list(config.depths),
            "q_pool": config.for_class("HieraModel").num_query_pool if is_mae else config.num_query_pool,
            "q_stride": list(config.query_stride),
            "mask_unit_size": list(config.masked_unit_size),
            "mask_unit_attn": [bool(entry) for entry in config.masked_unit_attention],
            "dim_mul": float(config.embed_dim_multiplier),
            "head_mul": _head_multiplier(config),
            "patch_kernel": list(config.patch_size),
            "patch_stride": list(config.patch_stride),
            "patch_padding": list(config.patch_padding),
            "mlp_ratio": float(config.mlp_ratio),
        },
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [config.num_channels, *config.image_size],
            "fixed_input_size": True,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
            **_preparation(processor or {}, config.num_channels),
        },
    }
    if has_head:
        content["label_names"] = [config.id2label[number] for number in range(config.num_labels)]
        content["problem_type"] = config.problem_type  # timm does not read it; convert does, on the way back
    return content


def write_timm_folder(
    model: HieraMAEPreTrainedModel, folder: Path, processor: Mapping[str, Any] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Write weights and config.json, at the size that images are prepared to.

    Args:
        model: see timm_weights.
        folder: made if absent.
        processor: see timm_config.

    Returns:
        What was mapped and what was left out, see timm_weights.

    Raises:
        ValueError: timm's Hiera cannot have this geometry.
        OSError: it cannot be written.
    """
    size = prepared_size(processor)
    if size is not None and size != list(model.config.image_size):
        model = copy.deepcopy(model)
        model.resize_images(size)  # timm's Hiera takes images of one size
    content = timm_config(model, processor)
    weights, mapped, left_out = timm_weights(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    return mapped, left_out


def processor_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The image processor that does what timm's evaluation transform does.

    Args:
        content: of a config.json of timm.

    Returns:
        The content of a preprocessor_config.json; None where `pretrained_cfg` does not say size, crop, mean
        and deviation, or says what that cannot do: a center crop that is no square, another crop_mode.
    """
    said = content.get("pretrained_cfg")
    needed = {"input_size", "mean", "std", "crop_pct"}
    if not isinstance(said, dict) or any(said.get(name) is None for name in needed):
        return None
    channels, height, width = said["input_size"]
    filters = {name: number for number, name in _PILLOW_FILTERS.items()}
    mode, resample = said.get("crop_mode") or "center", filters.get(said.get("interpolation", "bicubic"))
    if mode not in ("center", "squash") or (mode == "center" and height != width) or resample is None:
        return None
    # timm rounds down; a crop_pct of 32 / 93 would lose a pixel to floating point.
    resized = [int(side / said["crop_pct"] + 1e-6) for side in (height, width)]
    is_squashed = mode == "squash"
    both = {"height": resized[0], "width": resized[1]}
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": both if is_squashed else {"shortest_edge": resized[0]},
        "resample": resample,
        "do_center_crop": not is_squashed or resized != [height, width],
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(said["mean"]),
        "image_std": list(said["std"]),
    }


def _head_multiplier(config: HieraMAEConfig) -> float:
    return config.num_heads[1] / config.num_heads[0] if len(config.num_heads) > 1 else 2.0


def _refuse_other_geometry(config: HieraMAEConfig) -> None:
    """Raise a ValueError that names the first thing timm's Hiera has otherwise."""
    width, heads = config.embed_dim, config.num_heads[0]
    widths, all_heads = [width], [heads]
    for _ in config.depths[1:]:
        width, heads = int(width * config.embed_dim_multiplier), int(heads * _head_multiplier(config))
        widths.append(width)
        all_heads.append(heads)
    own = [int(config.embed_dim * config.embed_dim_multiplier**n) for n in range(len(config.depths))]
    attention = list(config.masked_unit_attention)
    faults = {
        f"hidden_act {config.hidden_act!r}; timm's has 'gelu'": config.hidden_act != "gelu",
        f"layer_norm_eps {config.layer_norm_eps}; timm's has {_TIMM_NORM_EPS}": (
            config.layer_norm_eps != _TIMM_NORM_EPS
        ),
        f"num_heads {list(config.num_heads)}; timm's multiplies them by one number from stage to stage": (
            all_heads != list(config.num_heads)
        ),
        f"embed_dim_multiplier {config.embed_dim_multiplier}; timm's rounds other widths": widths != own,
        f"masked_unit_attention {attention}; timm's first block of a stage attends as the stage before": (
            any(later and not earlier for earlier, later in zip(attention, attention[1:], strict=False))
        ),
    }
    for fault, is_found in faults.items():
        if is_found:
            raise ValueError(
                f"timm's Hiera cannot hold this model: {fault}. Keep it in transformers' format."
            )


def _preparation(processor: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Mean, deviation, size and crop of an image processor, as timm names them.

    Raises:
        ValueError: it normalizes three channels each in its own way, and the model has one.
    """
    found: dict[str, Any] = {}
    for name, field in (("mean", "image_mean"), ("std", "image_std")):
        numbers = processor.get(field)
        if numbers is None:
            continue
        if channels == 1 and isinstance(numbers, list):
            if len(set(numbers)) > 1:
                raise ValueError(
                    f"the image processor's {field} is {numbers}, and the model has one channel; timm would "
                    "want one number"
                )
            numbers = numbers[:1]
        found[name] = numbers
    if processor.get("resample") in _PILLOW_FILTERS:
        found["interpolation"] = _PILLOW_FILTERS[processor["resample"]]
    size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
    if processor.get("do_center_crop") and size.get("shortest_edge") and crop.get("height"):
        found |= {"crop_pct": crop["height"] / size["shortest_edge"], "crop_mode": "center"}
    elif size.get("height"):
        found |= {"crop_pct": 1.0, "crop_mode": "squash"}
    return found
