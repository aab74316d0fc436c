"""Where a classifier looks: what it says of each mask unit by itself.

Localization and the page stand on it.
"""

import torch
from torch import Tensor
from torch.nn import functional

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import undo_windowing

METHOD = "each mask unit read alone"
"""Written into the record beside the hit rate, which is that of these maps and no others."""

_LEAST_DIFFERENCE = 1e-5
"""Logits of units that differ by less are equal but for rounding."""


def heat_maps(model: HieraMAEForImageClassification, pixel_values: Tensor) -> Tensor:
    """Heat maps of every finding: how much more a place speaks for it than the rest of the image.

    See `unit_logits`; units that speak for the finding less than the image's mean unit are set to 0. The
    largest value of a map is 1 however small the probability is: it says where, not whether. It is as coarse
    as the mask units, usually 32 × 32 pixels, and cannot show a finding that takes several units to see.

    Args:
        model: put into evaluation mode and back.
        pixel_values: (batch, channels, height, width), normalized.

    Returns:
        (batch, findings, height, width), float32 in [0, 1] on the CPU; all 0 where no unit says more than
        another.
    """
    logits = unit_logits(model, pixel_values)
    evidence = (logits - logits.mean(dim=(2, 3), keepdim=True)).relu()
    height, width = pixel_values.shape[2:]
    unit_height, unit_width = model.config.unit_pixels
    # A rim of zeros falls off towards the image's edge. Without it an outer unit's value would reach the edge
    # undiminished, and the peak of its plateau would not be the unit's center.
    fine = functional.interpolate(
        functional.pad(evidence, (1, 1, 1, 1)),
        (height + 2 * unit_height, width + 2 * unit_width),
        mode="bilinear",
        align_corners=False,
    )[:, :, unit_height:-unit_height, unit_width:-unit_width]
    largest = fine.amax(dim=(2, 3), keepdim=True)
    return torch.where(largest > _LEAST_DIFFERENCE, fine / largest.clamp(min=_LEAST_DIFFERENCE), 0).cpu()


@torch.inference_mode()
def unit_logits(model: HieraMAEForImageClassification, pixel_values: Tensor) -> Tensor:
    """Logits of every mask unit as if it were the whole image, at the cost of one forward.

    Hiera may be given any part of the units (that is how its MAE trains), so each goes through the encoder as
    an image of one unit, at its own position. Attention over the whole image is where other methods lose the
    place: the model writes what it saw in one unit into the tokens of all others (docs/decisions.md).

    Args:
        model: put into evaluation mode and back.
        pixel_values: (batch, channels, height, width), normalized.

    Returns:
        (batch, findings, rows, columns) of units, float32, on the model's device.
    """
    was_training = model.training
    model.eval()
    pooler = model.hiera.pooler
    assert pooler is not None  # the classifier's __init__ makes one
    pixel_values = pixel_values.to(model.device, model.dtype)
    tokens = model.hiera.embeddings(pixel_values, None)  # (batch, units, tokens, channels)
    alone = tokens.flatten(0, 1)[:, None]  # (batch × units, 1, tokens, channels)
    logits = model.classifier(pooler(model.hiera.encoder(alone).last)).float()
    model.train(was_training)
    units = logits.unflatten(0, tokens.shape[:2])[:, :, None, None]  # (batch, units, 1, 1, findings)
    grid = [side // unit for side, unit in zip(pixel_values.shape[2:], model.config.unit_pixels, strict=True)]
    return undo_windowing(units, grid).permute(0, 3, 1, 2)
