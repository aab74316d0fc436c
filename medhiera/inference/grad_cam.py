"""Where a classifier looks: Grad-CAM on the tokens of a stage."""

import torch
from torch import Tensor
from torch.nn import functional

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import reroll, undo_windowing


def heat_maps(
    model: HieraMAEForImageClassification, pixel_values: Tensor, finding: int, stage: int = -2
) -> Tensor:
    """Where a stage's tokens speak for a finding: Grad-CAM, brought back to image space.

    Each token is weighed by the gradient of the finding's logit, averaged over the tokens; what speaks
    against the finding is cut off. The largest value of an image is 1 however small the probability is: the
    map says where, not whether.

    Args:
        model: put into evaluation mode and back; its parameters get no gradients.
        pixel_values: (batch, channels, height, width), normalised.
        finding: index of the output.
        stage: whose tokens; the last (-1) has one for every 32 × 32 pixels, the one before for 16 × 16 and
            points better (docs/decisions.md).

    Returns:
        (batch, height, width), float32 in [0, 1] on the CPU; all 0 where nothing speaks for the finding.

    Raises:
        ValueError: no such finding or stage.

    Source: Selvaraju et al. 2017, arXiv:1610.02391.
    """
    if not 0 <= finding < model.config.num_labels:
        raise ValueError(f"finding {finding}; this model has outputs 0 to {model.config.num_labels - 1}")
    depth, poolings, pooler = len(model.config.depths), model.config.num_query_pool, model.hiera.pooler
    assert poolings is not None and pooler is not None  # settled by the classifier's __init__
    if not -depth <= stage < depth:
        raise ValueError(f"stage {stage}; this model has stages 0 to {depth - 1}, or -{depth} to -1")
    was_training = model.training
    model.eval()
    pixel_values = pixel_values.to(model.device)
    wanted = stage % depth
    with torch.no_grad():
        tokens = model.hiera.embeddings(pixel_values, None)
        for block in model.hiera.encoder.stages[: wanted + 1]:
            tokens, _ = block(tokens, False)
    with torch.enable_grad():
        leaf = tokens.detach().requires_grad_()
        later = leaf
        for block in model.hiera.encoder.stages[wanted + 1 :]:
            later, _ = block(later, False)
        logits = model.classifier(pooler(later))
        (gradient,) = torch.autograd.grad(logits[:, finding].sum(), leaf)
    model.train(was_training)

    weights = gradient.mean(dim=(1, 2), keepdim=True)
    # Differs from Grad-CAM: each token as it differs from the image's mean token. The norm behind the mean
    # takes offsets away, so the sign of the plain product means nothing (a map may come out empty).
    tokens = leaf.detach()
    apart = tokens - tokens.mean(dim=(1, 2), keepdim=True)
    speaks_for = (weights * apart).sum(dim=-1, keepdim=True).relu().float()
    pooled = min(wanted, poolings)
    units = reroll(speaks_for, model.config.query_stride, depth - 1 - pooled)
    height, width = pixel_values.shape[2:]
    grid = [side // unit for side, unit in zip((height, width), model.config.unit_pixels, strict=True)]
    coarse = undo_windowing(units, grid).permute(0, 3, 1, 2)
    fine = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[:, 0]
    largest = fine.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, fine / largest.clamp(min=1e-20), 0).clamp(0, 1).cpu()
