"""Where a classifier looks for one finding: Grad-CAM on the encoder's last stage."""

import torch
from torch import Tensor
from torch.nn import functional

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import reroll, undo_windowing


def heat_map(model: HieraMAEForImageClassification, pixel_values: Tensor, finding: int) -> Tensor:
    """Weight the last stage's channels by the finding's gradient; keep what speaks for it, on the image.

    Args:
        model: in evaluation mode.
        pixel_values: (N, channels, height, width), normalised.
        finding: index of the label.

    Returns:
        (N, height, width), float32 in 0…1; the largest is 1, or all is 0 where nothing speaks for it.

    Source: Selvaraju et al. 2017, arXiv:1610.02391.
    """
    seen: list[Tensor] = []
    last = model.hiera.encoder.stages[-1]
    handle = last.register_forward_hook(lambda module, given, output: seen.append(output[0]))
    try:
        with torch.enable_grad():
            logits = model(pixel_values.to(model.device, model.dtype)).logits
            [gradient] = torch.autograd.grad(logits[:, finding].sum(), seen[0])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(1, 2), keepdim=True)
    heat = (weights * seen[0].detach()).sum(dim=-1, keepdim=True).clamp(min=0).float()
    config = model.config
    assert config.num_query_pool is not None  # settled by the model's __init__
    levels = len(config.depths) - 1
    grid = [side // unit for side, unit in zip(pixel_values.shape[2:], config.unit_pixels, strict=True)]
    units = reroll(heat, config.query_stride, levels - min(levels, config.num_query_pool))
    spatial = undo_windowing(units, grid)
    image = functional.interpolate(
        spatial.permute(0, 3, 1, 2), size=tuple(pixel_values.shape[2:]), mode="bilinear", align_corners=False
    )[:, 0]
    return (image / image.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).cpu()
