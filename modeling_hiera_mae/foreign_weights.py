"""Weights as Meta and timm name them: the geometry that they show, and their names in transformers.

Stands below convert.py and, like it, does not ship to the Hub.
"""

import re
from collections.abc import Sequence

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


def infer_config(state: Weights, num_heads: int | None) -> HieraMAEConfig:
    """Geometry of Meta's or timm's weights."""
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        kind = "a video Hiera" if "pos_embed_spatial" in state else "not a Hiera"
        raise ValueError(
            f"These weights are {kind} ({len(state)} tensors, first {next(iter(state), 'none')}); wanted an "
            "image Hiera of Meta or timm, with patch_embed.proj and pos_embed."
        )
    patch, positions = state["patch_embed.proj.weight"], state["pos_embed"]
    if patch.dim() != 4 or positions.dim() != 3:
        raise ValueError(
            f"patch_embed.proj.weight has shape {tuple(patch.shape)} and pos_embed {tuple(positions.shape)}; "
            "wanted 4 and 3 dimensions. Video models and timm's abswin models are other architectures."
        )
    side = int(positions.shape[1] ** 0.5)
    blocks = _count_blocks(state, "blocks")
    first_layer = state.get("blocks.0.mlp.fc1.weight")
    if not blocks or first_layer is None or first_layer.dim() != 2:
        raise ValueError("These weights lack blocks.0.mlp.fc1.weight: the file is damaged, or another model.")
    starts = [0, *(n for n in range(blocks) if f"blocks.{n}.proj.weight" in state), blocks]
    pools = sum(re.fullmatch(r"multi_scale_fusion_heads\.\d+\.weight", key) is not None for key in state)
    config = HieraMAEConfig(
        embed_dim=patch.shape[0],
        depths=[after - start for start, after in zip(starts, starts[1:], strict=False)],
        num_channels=patch.shape[1],
        image_size=[4 * side, 4 * side],
        mlp_ratio=first_layer.shape[0] / patch.shape[0],
        num_query_pool=pools or 3,
        architectures=None,
    )
    if "decoder_embed.weight" in state:
        config.decoder_hidden_size = state["decoder_embed.weight"].shape[0]
        config.decoder_depth = _count_blocks(state, "decoder_blocks")
    if "head.projection.weight" in state or "head.fc.weight" in state:
        head = state.get("head.projection.weight", state.get("head.fc.weight"))
        assert head is not None
        config.num_labels = max(head.numel() // config.hidden_size, 1)
    return _with_heads(config, num_heads)


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


def _with_heads(config: HieraMAEConfig, num_heads: int | None) -> HieraMAEConfig:
    """Settle the heads, which no weight shows: those stated, or those of the published size."""
    if num_heads is None:
        for size in SIZES:
            named = HieraMAEConfig.from_size(size)
            if (named.embed_dim, list(named.depths)) == (config.embed_dim, list(config.depths)):
                config.num_heads = named.num_heads
                return config
        raise ValueError(
            f"embed_dim {config.embed_dim} with depths {list(config.depths)} is none of the published sizes, "
            "and weights do not show their attention heads; state those of the first stage with --num-heads."
        )
    config.num_heads = [num_heads * 2**stage for stage in range(len(config.depths))]
    config.validate_architecture()
    return config


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
