"""A checkpoint's config.json: read, beside the one that is requested, and compared with it and the weights.

Stands between weight_files (the files) and pretrained (loading a model).
"""

import copy
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import HieraConfig

from .configuration_hiera_mae import (
    DECODER_GEOMETRY,
    ENCODER_GEOMETRY,
    HieraMAEBackboneConfig,
    HieraMAEConfig,
    list_or_value,
)
from .weight_files import Weights, check_finite, find_file, read_json

_ENCODER_LAYER = re.compile(r"(?:hiera\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.")
_DECODER_LAYER = re.compile(r"decoder\.decoder_block\.layers\.(\d+)\.")


def read_config_file(source: str, hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a Hiera's folder or Hub id, as it was written; see HieraMAEConfig for its fields.

    Args:
        source: folder or Hub id.
        hub_options: transformers' own: `revision`, `subfolder`, `token` and the like.

    Raises:
        ValueError: it is damaged, or no Hiera's.
        OSError: there is none, or it cannot be opened.
    """
    path = find_file(source, "config.json", hub_options)
    if path is None:
        is_adapter = (Path(source) / "adapter_config.json").is_file()
        raise OSError(
            f"{source} has no config.json; name the folder that save_pretrained wrote."
            + " (The folder of a peft adapter alone is opened on its model: "
            "peft.PeftModel.from_pretrained(model, folder).)" * is_adapter
        )
    content = read_json(path)
    check_finite(content, path.name)
    if content.get("model_type") not in (HieraMAEConfig.model_type, HieraMAEBackboneConfig.model_type):
        found = content.get("model_type") or content.get("architecture") or "none"
        raise ValueError(
            f"{source} holds a model of type {found!r}; wanted 'hiera'. Choose a Hiera checkpoint; Meta's or "
            "timm's own files become one with python -m modeling_hiera_mae.convert."
        )
    return content


def read_configs(
    name: str, hub_options: dict[str, Any], kwargs: dict[str, Any]
) -> tuple[HieraMAEConfig, HieraMAEConfig, dict[str, Any]]:
    """The checkpoint's configuration, the requested one, and the options left for transformers."""
    content = read_config_file(name, hub_options)
    stored = HieraMAEConfig.from_dict(copy.deepcopy(content))
    config = kwargs.pop("config", None)
    if isinstance(config, HieraConfig):
        return stored, copy.deepcopy(as_ours(config)), kwargs
    if config is not None:
        content, _ = HieraMAEConfig.get_config_dict(config, **hub_options)
    # A pooling that the caller names is kept; otherwise another task's gives way to this one's default.
    chosen_pool = kwargs.get("num_query_pool")
    wanted, unused = HieraMAEConfig.from_dict(copy.deepcopy(content), return_unused_kwargs=True, **kwargs)
    if chosen_pool is not None:
        wanted.architectures = None
    wanted.validate_architecture()
    return stored, wanted, unused


def as_ours(config: HieraConfig) -> HieraMAEConfig:
    """The configuration itself; a copy of stock's, or of ours as another copy of this package declares it."""
    if isinstance(config, HieraMAEConfig):
        return config
    ours = HieraMAEConfig.from_dict(config.to_dict())
    ours._attn_implementation = config._attn_implementation
    return ours


def refuse_other_geometry(
    name: str, stored: HieraMAEConfig, wanted: HieraMAEConfig, *, with_decoder: bool
) -> None:
    """Raise a ValueError that names every field in which the checkpoint differs from what is wanted."""
    fields = ENCODER_GEOMETRY + (DECODER_GEOMETRY if with_decoder else ())
    different = [
        f"{field} {list_or_value(getattr(stored, field))} (wanted {list_or_value(getattr(wanted, field))})"
        for field in fields
        if list_or_value(getattr(stored, field)) != list_or_value(getattr(wanted, field))
    ]
    if different:
        found = f" (size {stored.size_name!r})" if stored.size_name else ""
        raise ValueError(
            f"{name} is a Hiera of another size{found}: {', '.join(different)}. Choose a checkpoint of the "
            "size you configured, or leave the configuration to the checkpoint."
        )


def refuse_other_depths(name: str, config: HieraMAEConfig, weights: Weights, *, with_decoder: bool) -> None:
    """Raise where the names of the weights show more or fewer layers than the configuration has."""
    layers = {
        (int(match[1]), int(match[2])) for key in weights if (match := _ENCODER_LAYER.match(key)) is not None
    }
    held = Counter(stage for stage, _ in layers)
    found = [held[stage] for stage in range(max(held, default=-1) + 1)]
    wanted = list(config.depths)
    field = "depths"
    if found == wanted and with_decoder:
        blocks = {match[1] for key in weights if (match := _DECODER_LAYER.match(key)) is not None}
        found, wanted, field = [len(blocks)], [config.decoder_depth], "decoder_depth"
    if found not in ([], [0], wanted):  # without any layer it is no Hiera, which is said elsewhere
        raise ValueError(
            f"{name}: its weights have {field} {list_or_value(found)}, and its config.json says "
            f"{list_or_value(wanted)}. Load the config.json that was saved with the weights, or get both "
            "files again."
        )
