"""What the decoder predicts beside pixels, or in their place: a teacher's features of hidden units.

Stands beside the masked autoencoder, which holds a FeatureHead while it trains so and is saved without it:
the finished weights are those of any other masked autoencoder.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from transformers.models.hiera.modeling_hiera import HieraForPreTrainingOutput

from .fused_linear import project
from .windowing import take_units, unroll

FeatureLoss = Literal["smooth_l1", "cosine"]


@dataclass
class FeaturePredictionOutput(HieraForPreTrainingOutput):
    """transformers' output, and what its loss is the sum of.

    Attributes:
        pixel_loss: a scalar; None where pixels are not predicted.
        feature_loss: a scalar, not weighted.
    """

    pixel_loss: torch.Tensor | None = None
    feature_loss: torch.Tensor | None = None


class FeatureHead(nn.Module):
    """A linear layer from the decoder's tokens to a teacher's features, and the loss between them.

    Args:
        width: of the decoder.
        size: of the features.
        loss: smooth L1 with a threshold of 1, or one minus the cosine.
        weight: of this loss beside that of pixels.
        with_pixels: pixels are predicted too.

    Source: Baevski et al. 2022, arXiv:2202.03555 (data2vec: normalized features, smooth L1); Fang et al.
        2023, arXiv:2211.07636 (EVA: a teacher's features, cosine).
    """

    def __init__(
        self, width: int, size: int, loss: FeatureLoss = "smooth_l1", weight: float = 1.0,
        with_pixels: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.prediction = nn.Linear(width, size)
        self.loss = loss
        self.weight = weight
        self.with_pixels = with_pixels

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, at least in float32.

        Args:
            tokens: (batch, masked units, tokens, width), of the decoder.
            targets: (batch, masked units, tokens, size).
        """
        dtype = torch.promote_types(targets.dtype, torch.float32)
        predictions, targets = project(tokens, self.prediction).to(dtype), targets.to(dtype)
        if self.loss == "cosine":
            return 1.0 - functional.cosine_similarity(predictions, targets, dim=-1).mean()
        return functional.smooth_l1_loss(predictions, targets)


def features_of_units(
    features: torch.Tensor, grid: tuple[int, int], stride: list[int], levels: int, units: torch.Tensor
) -> torch.Tensor:
    """A map of features → those of some mask units, each unit's in the order of the decoder's tokens.

    Args:
        features: (batch, rows, columns, size), spatial, one for each of the decoder's tokens.
        grid: (rows, columns) of the decoder's tokens.
        stride: (rows, columns) that one pooling merges.
        levels: poolings left in the decoder before a unit is one token.
        units: (batch, chosen) indices of mask units.

    Returns:
        (batch, chosen, tokens, size).

    Raises:
        ValueError: the map has another size.
    """
    if tuple(features.shape[1:3]) != grid:
        raise ValueError(
            f"target_features has {tuple(features.shape[1:3])} tokens; wanted one for each of the decoder's, "
            f"{grid}."
        )
    return take_units(unroll(features, stride, levels), units)
