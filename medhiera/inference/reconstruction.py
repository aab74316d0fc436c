"""What the masked autoencoder fills in: three gray pictures for each image.

Stage 1's figure and the page are drawn from it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from medhiera.data.preprocessing import Preprocessing

NORMALIZED = (
    "Each hidden patch has the mean and contrast of the original, which the model does not predict;\n"
    "what it predicts is the pattern within a patch."
)
PLAIN = "Hidden patches are as the model predicts them."


@dataclass(frozen=True)
class Reconstruction:
    """Gray pictures in [0, 1], each (batch, height, width), float32 on the CPU.

    Attributes:
        original: the model's input.
        masked: the same with hidden patches at one half.
        filled: hidden patches as the decoder predicts them, visible ones unchanged.
        note: what the reader of the pictures must know of how they were made.
    """

    original: Tensor
    masked: Tensor
    filled: Tensor
    note: str


@torch.no_grad()
def reconstruct(
    model: PreTrainedModel,
    pixel_values: Tensor,
    preprocessing: Preprocessing,
    noise: Tensor,
    mask_ratio: float,
) -> Reconstruction:
    """Predict the patches that the mask hides.

    The decoder predicts patches normalized by their own mean and deviation (He et al. 2022, section 3,
    "reconstruction target"); these two numbers are taken from the original, as the paper's figures do.

    Args:
        model: HieraMAEForPreTraining; switched to evaluation mode and back.
        pixel_values: (batch, channels, height, width), normalized.
        preprocessing: its mean and std undo the normalization.
        noise: (batch, mask_units); the smallest stay visible.
        mask_ratio: share of mask units hidden.

    Returns:
        Three pictures per image.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        output = model(pixel_values.to(device), noise=noise.to(device), mask_ratio=mask_ratio)
    finally:
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

    note = NORMALIZED if model.config.normalize_pixel_loss else PLAIN
    original, masked, filled = (to_gray(tokens) for tokens in pictures)
    return Reconstruction(original, masked, filled, note)


def _patchify(pixels: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, H/side × W/side, C × side × side), row by row, channel first."""
    batch, channels, height, width = pixels.shape
    grid = pixels.reshape(batch, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def _unpatchify(patches: Tensor, channels: int, height: int, width: int, side: int) -> Tensor:
    """The inverse of `_patchify`."""
    grid = patches.reshape(-1, height // side, width // side, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)
