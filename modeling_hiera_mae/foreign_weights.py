"""Weights as Meta and timm name them: the geometry that they show, and their names in transformers.

Stands below convert.py and, like it, does not ship to the Hub.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .configuration_hiera_mae import HieraMAEConfig
from .sizes import SIZES
from .weight_files import Weights

# Meta's and timm's names → transformers'. `blocks.N` becomes `stages.S.layers.L` first.
_RENAMES = (
    (r"^patch_embed\.proj\.", "hiera.embeddings.patch_embeddings.projection."),
    (r"^pos_embed$", "hiera.embeddings.position_embeddings"),
    (r"^stages\.", "hiera.encoder.stages."),
    (r"^decoder_blocks\.", "decoder.decoder_block.layers."),
    (r"^decoder_embed\.", "decoder.decoder_embeddings."),
    (r"^decoder_pos_embed$", "decoder.decoder_position_embeddings"),
    (r"^(mask_token$|decoder_norm\.|decoder_pred\.)", r"decoder.\1"),
    (r"^multi_scale_fusion_heads\.", "multiscale_fusion.multi_scale_fusion_heads."),
    (r"^(norm|head\.norm)\.", "hiera.pooler.layernorm."),
    (r"^head\.(projection|fc)\.", "classifier."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


# Our fields, and what Meta's and timm's arguments call them; weights show none of these surely.
_STATED = {
    "image_size": ("img_size", "input_size"),
    "num_query_pool": ("q_pool",),
    "query_stride": ("q_stride",),
    "masked_unit_size": ("mask_unit_size",),
    "masked_unit_attention": ("mask_unit_attn",),
    "embed_dim_multiplier": ("dim_mul",),
    "patch_stride": ("patch_stride",),
    "patch_padding": ("patch_padding",),
    "decoder_num_heads": ("decoder_num_heads",),
}

# Arguments for which this model has one value.
_FIXED = {
    "use_expand_proj": (True,),
    "init_values": (None,),
    "norm_layer": ("LayerNorm", "layernorm", None),
    "sep_pos_embed": (False,),
    "abs_win_pos_embed": (False,),
    "global_pool": ("avg",),
}


def infer_config(state: Weights, neighbour: Mapping[str, Any], num_heads: int | None) -> HieraMAEConfig:
    """Geometry of Meta's or timm's weights.

    Args:
        state: the weights, under their names.
        neighbour: the content of the config.json beside them; empty where there is none. Its arguments (for
            timm those in `model_args`) settle what weights do not show.
        num_heads: attention heads of the first stage; None takes those stated, then the published size's.

    Raises:
        ValueError: these weights are no image Hiera's, the arguments ask for what this model does not have,
            or the geometry is not to be known from either.
    """
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        kind = "a video Hiera" if "pos_embed_spatial" in state else "not a Hiera"
        raise ValueError(
            f"These weights are {kind} ({len(state)} tensors, first {next(iter(state), 'none')}); wanted an "
            "image Hiera of Meta or timm, with patch_embed.proj and pos_embed."
        )
    patch, positions = state["patch_embed.proj.weight"], state["pos_embed"]
    head = state.get("head.projection.weight", state.get("head.fc.weight"))
    if patch.dim() != 4 or positions.dim() != 3:
        raise ValueError(
            f"patch_embed.proj.weight has shape {tuple(patch.shape)} and pos_embed {tuple(positions.shape)}; "
            "wanted 4 and 3 dimensions. Video models and timm's abswin models are other architectures."
        )
    arguments = _arguments(neighbour, has_head=head is not None)
    stated = _stated_geometry(arguments)
    blocks = _count_blocks(state, "blocks")
    first_layer = state.get("blocks.0.mlp.fc1.weight")
    if not blocks or first_layer is None or first_layer.dim() != 2:
        raise ValueError("These weights lack blocks.0.mlp.fc1.weight: the file is damaged, or another model.")
    starts = [0, *(n for n in range(blocks) if f"blocks.{n}.proj.weight" in state), blocks]
    pools = sum(re.fullmatch(r"multi_scale_fusion_heads\.\d+\.weight", key) is not None for key in state)
    fields: dict[str, Any] = {
        "embed_dim": patch.shape[0],
        "depths": [after - start for start, after in zip(starts, starts[1:], strict=False)],
        "num_channels": patch.shape[1],
        "patch_size": list(patch.shape[2:]),
        "mlp_ratio": first_layer.shape[0] / patch.shape[0],
        "num_query_pool": pools or 3,
        **stated,
    }
    if isinstance(arguments.get("stages"), list):  # the same, but for stages of one width
        fields["depths"] = arguments["stages"]
    if "decoder_embed.weight" in state:
        fields["decoder_hidden_size"] = state["decoder_embed.weight"].shape[0]
        fields["decoder_depth"] = _count_blocks(state, "decoder_blocks")
    if fields["patch_size"] != [7, 7] and "patch_padding" not in stated:
        raise ValueError(
            f"patch_embed.proj.weight has a kernel of {tuple(patch.shape[2:])}, and weights do not show how "
            "it is padded; wanted 7 x 7, or the config.json with its patch_padding beside the weights."
        )
    if "image_size" not in stated:
        fields["image_size"] = _square_size(positions.shape[1], stated.get("patch_stride", [4, 4]))
    fields["num_heads"] = _heads_of(fields, arguments, num_heads)
    config = HieraMAEConfig.from_dict({**fields, "architectures": None})
    if head is not None:
        _set_labels(config, max(head.numel() // config.hidden_size, 1), neighbour.get("label_names"))
    return config


def _set_labels(config: HieraMAEConfig, count: int, names: Any) -> None:
    """Set the number of labels, and timm's names of them where there are as many."""
    config.num_labels = count
    if isinstance(names, list) and len(names) == count:
        config.id2label = {number: str(name) for number, name in enumerate(names)}
        config.label2id = {name: number for number, name in config.id2label.items()}


def _arguments(neighbour: Mapping[str, Any], *, has_head: bool) -> dict[str, Any]:
    """The arguments of the model's class, as a config.json of timm (in `model_args`) or Meta states them."""
    inner = neighbour.get("model_args")
    arguments = {**neighbour, **(inner if isinstance(inner, dict) else {})}
    if not has_head:
        arguments.pop("global_pool", None)  # it says how a head pools
    return arguments


def _stated_geometry(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields, as far as the arguments of Meta's or timm's model state them.

    Raises:
        ValueError: one asks for what this model does not have.
    """
    for name, values in _FIXED.items():
        if name in arguments and arguments[name] not in values:
            raise ValueError(
                f"The config.json beside these weights says {name} {arguments[name]!r}; this model has "
                f"{values[0]!r} alone. The weights would compute something else here."
            )
    fields = {
        field: arguments[name] for field, names in _STATED.items() for name in names if name in arguments
    }
    if isinstance(fields.get("image_size"), int):
        fields["image_size"] = [fields["image_size"]] * 2
    attention = fields.get("masked_unit_attention")
    if isinstance(attention, list) and any(
        later and not earlier for earlier, later in zip(attention, attention[1:], strict=False)
    ):
        raise ValueError(
            f"The config.json beside these weights says mask_unit_attn {attention}. In timm's and Meta's "
            "Hiera the first block of a stage attends as the stage before; this model cannot have that here."
        )
    return fields


def _square_size(tokens: int, patch_stride: Sequence[int]) -> list[int]:
    """The image size that so many positions show, where it is square.

    Raises:
        ValueError: it is not.
    """
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise ValueError(
            f"pos_embed has {tokens} positions, which is no square, and weights do not show height and "
            "width; wanted the config.json with its img_size beside the weights."
        )
    return [side * stride for stride in patch_stride]


def _count_blocks(state: Weights, part: str) -> int:
    """How many blocks weights have.

    Raises:
        ValueError: they are not numbered 0, 1, 2, ….
    """
    numbers = {key.split(".")[1] for key in state if key.startswith(f"{part}.")}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise ValueError(
            f"The weights' {part} are numbered {', '.join(sorted(numbers)[:5])} …; wanted 0 to "
            f"{len(numbers) - 1}. The file is damaged, or another model."
        )
    return len(numbers)


def _heads_of(fields: Mapping[str, Any], arguments: Mapping[str, Any], num_heads: int | None) -> list[int]:
    """Heads of each stage, which no weight shows: given, stated, or those of the published size."""
    first = num_heads or arguments.get("num_heads")
    if not isinstance(first, int):
        for size in SIZES:
            named = HieraMAEConfig.from_size(size)
            if (named.embed_dim, list(named.depths)) == (fields["embed_dim"], fields["depths"]):
                return list(named.num_heads)
        raise ValueError(
            f"embed_dim {fields['embed_dim']} with depths {fields['depths']} is none of the published sizes, "
            "and weights do not show their attention heads; state those of the first stage with --num-heads."
        )
    multiplier = arguments.get("head_mul", 2)
    if not isinstance(multiplier, int | float):
        raise ValueError(
            f"The config.json beside these weights says head_mul {multiplier!r}; wanted a number."
        )
    heads = [first]
    for _ in fields["depths"][1:]:
        heads.append(int(heads[-1] * multiplier))
    return heads


def map_names(state: Weights, depths: Sequence[int]) -> tuple[dict[str, str], dict[str, str]]:
    """Source name → transformers' name; and what has no place, with the reason."""
    places = [(stage, layer) for stage, depth in enumerate(depths) for layer in range(depth)]
    has_head = "head.projection.weight" in state or "head.fc.weight" in state
    mapped, left_out = {}, {}
    for key in state:
        if key.startswith("head.norm.") and not has_head:
            left_out[key] = "timm keeps the MAE's encoder_norm there, which serves nothing but its decoder"
            continue
        name = re.sub(r"^blocks\.(\d+)\.", lambda m: "stages.{}.layers.{}.".format(*places[int(m[1])]), key)
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        mapped[key] = name
    return mapped, left_out
