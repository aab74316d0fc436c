"""Where a classifier looks: what each mask unit changes when random halves of the units are left out.

Localization and the page stand on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.layers import HieraMAELayer
from modeling_hiera_mae.windowing import undo_windowing

METHOD = "random halves of the mask units left out"
"""Written into the record beside the hit rate, which is that of these maps and no others."""

PAIRS = 128
"""Random halves, each with its complement (docs/decisions.md: fewer made maps depend on the draw)."""

LARGEST_GRID = 10
"""Blocks a side, at most: of a larger image units are left out in blocks, as one of a thousand units changes
a logit less than the draw of the others does."""

_UNITS_AT_ONCE = 4096
"""Bounds the memory: mask units of all images and halves in one forward."""

_LEAST_EFFECT = 1e-5
"""Effects on a logit below this are rounding."""


def heat_maps(model: HieraMAEForImageClassification, pixel_values: Tensor) -> Tensor:
    """Heat maps of every finding: which places raise its logit.

    See `unit_effects`; what lowers the logit is set to 0. The largest value of a map is 1 however small the
    probability is: it says where, not whether. It is as coarse as the mask units, usually 32 × 32 pixels, and
    as blocks of them from 352 pixels a side on.

    Args:
        model: put into evaluation mode and back.
        pixel_values: (batch, channels, height, width), normalized.

    Returns:
        (batch, findings, height, width), float32 in [0, 1] on the CPU; all 0 where no unit raises the logit.
    """
    evidence = unit_effects(model, pixel_values).relu()
    height, width = pixel_values.shape[2:]
    block = block_side(*evidence.shape[2:])
    evidence = functional.avg_pool2d(evidence, block, ceil_mode=True, count_include_pad=False)
    block_height, block_width = (block * side for side in model.config.unit_pixels)
    # A rim of zeros falls off towards the image's edge. Without it an outer block's value would reach the
    # edge undiminished, and the peak of its plateau would not be the block's center.
    rows, columns = evidence.shape[2:]
    fine = functional.interpolate(
        functional.pad(evidence, (1, 1, 1, 1)),
        ((rows + 2) * block_height, (columns + 2) * block_width),
        mode="bilinear",
        align_corners=False,
    )[:, :, block_height : block_height + height, block_width : block_width + width]
    largest = fine.amax(dim=(2, 3), keepdim=True)
    return torch.where(largest > _LEAST_EFFECT, fine / largest.clamp(min=_LEAST_EFFECT), 0).cpu()


def block_side(rows: int, columns: int) -> int:
    """Side, in units, of the squares that are left out together in an image of so many units."""
    return -(-max(rows, columns) // LARGEST_GRID)


def draw_order(rows: int, columns: int) -> Tensor:
    """(PAIRS, units): the units of each draw in the order in which its first half is filled, block by block.

    The units of a block follow each other, so that at most one block is in both halves.
    """
    block = block_side(rows, columns)
    across, down = -(-columns // block), -(-rows // block)
    drawn = torch.rand(PAIRS, down * across, generator=torch.Generator().manual_seed(0))
    by_unit = drawn.unflatten(1, (down, across)).repeat_interleave(block, 1).repeat_interleave(block, 2)
    return by_unit[:, :rows, :columns].flatten(1).argsort(dim=1, stable=True)


@torch.inference_mode()
def unit_effects(model: HieraMAEForImageClassification, pixel_values: Tensor) -> Tensor:
    """How much higher each logit is with a mask unit than without it, beside a random half of the others.

    Hiera may be given any part of the units, as its MAE trains, so a unit is really left out: nothing has to
    be painted over it, which would be a sign of its own. Half of the units leave context to a model that
    needs it, and hide the second of two places that each would do alone. Attention over the whole image is
    where methods that read tokens or gradients lose the place: the model writes what it saw in one unit into
    the tokens of all others (docs/decisions.md).

    Args:
        model: put into evaluation mode and back.
        pixel_values: (batch, channels, height, width), normalized.

    Returns:
        (batch, findings, rows, columns) of units, float32, on the model's device; the halves are always the
        same, so the values are too. All 0 for an image of one unit. Units of a block (see LARGEST_GRID) are
        in the same half, and have one value but for draws whose halves meet in it.

    Source: RISE, Petsiuk et al. 2018, arXiv:1806.07421, with units in place of painted masks and each mask
        beside its complement.
    """
    was_training = model.training
    model.eval()
    try:
        pixel_values = pixel_values.to(model.device, model.dtype)
        tokens = model.hiera.embeddings(pixel_values, None)  # (batch, units, tokens, channels)
        blocks = [block for block in model.hiera.encoder.modules() if isinstance(block, HieraMAELayer)]
        # Units do not see each other in the first blocks, so these are computed once for all halves.
        count = next(
            (index for index, block in enumerate(blocks) if not block.attn.within_units), len(blocks)
        )
        for block in blocks[:count]:
            tokens, _ = block(tokens)
        units = tokens.shape[1]
        grid = [
            side // unit for side, unit in zip(pixel_values.shape[2:], model.config.unit_pixels, strict=True)
        ]
        order = draw_order(*grid)
        half = order[:, : units // 2]
        effects = torch.zeros(len(tokens), units, model.config.num_labels, device=model.device)
        if units > 1:
            logits = [
                _logits_of(model, blocks[count:], tokens, kept.sort(dim=1).values.to(model.device))
                for kept in (half, order[:, units // 2 :])
            ]
            difference = logits[0] - logits[1]  # (batch, pairs, findings)
            # With an odd number of units one half is larger, and its logits may differ for that alone.
            difference = difference - difference.mean(dim=1, keepdim=True)
            sign = torch.full((PAIRS, units), -1.0).scatter(1, half, 1.0).to(model.device)
            effects = torch.einsum("pu,bpf->buf", sign, difference) / PAIRS
    finally:
        model.train(was_training)
    return undo_windowing(effects[:, :, None, None], grid).permute(0, 3, 1, 2)


def _logits_of(
    model: HieraMAEForImageClassification, blocks: Sequence[HieraMAELayer], tokens: Tensor, kept: Tensor
) -> Tensor:
    """Logits where the encoder goes on with some of the units only.

    Args:
        model: in evaluation mode.
        blocks: those that see the kept units together, the encoder's last.
        tokens: (batch, units, tokens, channels), what the blocks before them make.
        kept: (sets, kept units), indices.

    Returns:
        (batch, sets, findings), float32.
    """
    pooler = model.hiera.pooler
    assert pooler is not None  # the classifier's __init__ makes one
    logits = []
    for sets in kept.split(max(1, _UNITS_AT_ONCE // (len(tokens) * kept.shape[1]))):
        seen = tokens[:, sets].flatten(0, 1)  # (batch × sets, kept units, tokens, channels)
        for block in blocks:
            seen, _ = block(seen)
        logits.append(model.classifier(pooler(seen)).float().unflatten(0, (len(tokens), len(sets))))
    return torch.cat(logits, dim=1)
