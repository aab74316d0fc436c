"""What the models see: what the masked autoencoder fills in, and where the classifier looks for a finding.

Reads a model and a batch, returns arrays; figures.py and evaluation_figures.py draw them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from medhiera.transforms import Preprocessing
from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.windowing import reroll, undo_windowing


@dataclass(frozen=True)
class Reconstruction:
    """Gray pictures in [0, 1], each (batch, height, width), float32 on the CPU.

    Attributes:
        original: what went in.
        masked: the same with hidden patches at one half.
        filled: hidden patches as the decoder draws them, visible ones as they were.
    """

    original: Tensor
    masked: Tensor
    filled: Tensor


@torch.no_grad()
def reconstruct(
    model: PreTrainedModel,
    pixel_values: Tensor,
    preprocessing: Preprocessing,
    noise: Tensor,
    mask_ratio: float,
) -> Reconstruction:
    """Fill in what the mask hides.

    The decoder predicts patches normalised by their own mean and deviation (He et al. 2022, section 3,
    "reconstruction target"); these two numbers are taken from the original, as the paper's figures do.

    Args:
        model: HieraMAEForPreTraining; put into evaluation mode and back.
        pixel_values: (batch, 3, height, width), normalised.
        preprocessing: its mean and std undo the normalisation.
        noise: (batch, mask_units); the smallest stay visible.
        mask_ratio: share of mask units hidden.

    Returns:
        Three pictures per image.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    output = model(pixel_values.to(device), noise=noise.to(device), mask_ratio=mask_ratio)
    model.train(was_training)

    channels, height, width = pixel_values.shape[1:]
    prediction, is_kept = output.logits.float().cpu(), output.bool_masked_pos.cpu()
    side = round((prediction.shape[-1] / channels) ** 0.5)
    patches = _patchify(pixel_values.float().cpu(), side)
    if model.config.normalize_pixel_loss:
        mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
        prediction = prediction * (variance + 1e-6).sqrt() + mean

    hidden = ~is_kept.unsqueeze(-1)
    middle = torch.full_like(patches, (0.5 - preprocessing.mean) / preprocessing.std)
    pictures = (patches, torch.where(hidden, middle, patches), torch.where(hidden, prediction, patches))

    def to_gray(tokens: Tensor) -> Tensor:
        picture = _unpatchify(tokens, channels, height, width, side).mean(dim=1)
        return (picture * preprocessing.std + preprocessing.mean).clamp(0, 1)

    return Reconstruction(*(to_gray(tokens) for tokens in pictures))


def _patchify(pixels: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, H/side × W/side, C × side × side), row by row, channel first."""
    batch, channels, height, width = pixels.shape
    grid = pixels.reshape(batch, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def _unpatchify(patches: Tensor, channels: int, height: int, width: int, side: int) -> Tensor:
    """The inverse of `_patchify`."""
    grid = patches.reshape(-1, height // side, width // side, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


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
