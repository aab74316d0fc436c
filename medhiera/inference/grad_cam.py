"""Where a classifier looks: Grad-CAM on the tokens of a stage.

Localization and the page stand on it.
"""

import torch
from torch import Tensor
from torch.nn import functional

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import reroll, undo_windowing


def heat_maps(
    model: HieraMAEForImageClassification, pixel_values: Tensor, finding: int, stage: int = -2
) -> Tensor:
    """Heat maps of a finding: Grad-CAM on a stage's tokens, brought back to image space.

    Each token is weighted by the gradient of the finding's logit, averaged over the tokens; evidence against
    the finding is set to 0. The largest value of an image is 1 however small the probability is: the map says
    where, not whether.

    Args:
        model: put into evaluation mode and back; its parameters get no gradients.
        pixel_values: (batch, channels, height, width), normalized.
        finding: index of the output.
        stage: whose tokens; the last (-1) has one for every mask unit, usually 32 × 32 pixels, the one before
            one for a quarter of it, which points better (docs/decisions.md).

    Returns:
        (batch, height, width), float32 in [0, 1] on the CPU; all 0 without evidence for the finding.

    Raises:
        ValueError: no such finding or stage.

    Source: Selvaraju et al. 2017, arXiv:1610.02391.
    """
    _check(model, finding, stage)
    was_training = model.training
    model.eval()
    pixel_values = pixel_values.to(model.device)
    stage %= len(model.config.depths)
    tokens, gradient = _tokens_and_gradient(model, pixel_values, finding, stage)
    model.train(was_training)

    weights = gradient.mean(dim=(1, 2), keepdim=True)
    # Differs from Grad-CAM: the image's mean token is subtracted from each token. The norm after the mean
    # removes offsets, so the sign of the plain product means nothing (a map may come out empty).
    apart = tokens - tokens.mean(dim=(1, 2), keepdim=True)
    evidence = (weights * apart).sum(dim=-1, keepdim=True).relu().float()
    return _to_image(model, evidence, stage, pixel_values.shape[2:])


def _check(model: HieraMAEForImageClassification, finding: int, stage: int) -> None:
    """Refuse outputs and stages that the model does not have."""
    if not 0 <= finding < model.config.num_labels:
        raise ValueError(f"finding {finding}; this model has outputs 0 to {model.config.num_labels - 1}")
    depth = len(model.config.depths)
    if not -depth <= stage < depth:
        raise ValueError(f"stage {stage}; this model has stages 0 to {depth - 1}, or -{depth} to -1")


def _tokens_and_gradient(
    model: HieraMAEForImageClassification, pixel_values: Tensor, finding: int, stage: int
) -> tuple[Tensor, Tensor]:
    """A stage's tokens and the gradient of the finding's logit by them.

    Returns:
        Two tensors (batch, units, tokens, channels), unrolled (see modeling_hiera_mae.windowing).
    """
    pooler = model.hiera.pooler
    assert pooler is not None  # the classifier's __init__ makes one
    with torch.no_grad():
        tokens = model.hiera.embeddings(pixel_values, None)
        for block in model.hiera.encoder.stages[: stage + 1]:
            tokens, _ = block(tokens, False)
    with torch.enable_grad():
        leaf = tokens.detach().requires_grad_()
        later = leaf
        for block in model.hiera.encoder.stages[stage + 1 :]:
            later, _ = block(later, False)
        logits = model.classifier(pooler(later))
        (gradient,) = torch.autograd.grad(logits[:, finding].sum(), leaf)
    return leaf.detach(), gradient


def _to_image(
    model: HieraMAEForImageClassification, values: Tensor, stage: int, size: tuple[int, ...]
) -> Tensor:
    """One value a token → one a pixel, the largest of each image 1.

    Args:
        model: whose layout the tokens have.
        values: (batch, units, tokens, 1), unrolled, not negative, float32.
        stage: whose tokens.
        size: (height, width) of the image in pixels.

    Returns:
        (batch, height, width), float32 in [0, 1] on the CPU.
    """
    config = model.config
    assert config.num_query_pool is not None  # set by the classifier's __init__
    levels_left = len(config.depths) - 1 - min(stage, config.num_query_pool)
    units = reroll(values, config.query_stride, levels_left)
    grid = [side // unit for side, unit in zip(size, config.unit_pixels, strict=True)]
    coarse = undo_windowing(units, grid).permute(0, 3, 1, 2)
    fine = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)[:, 0]
    largest = fine.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, fine / largest.clamp(min=1e-20), 0).clamp(0, 1).cpu()
