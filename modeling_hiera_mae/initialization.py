"""Random weights as Meta draws them, for the classifier and for the MAE.

Stands below the models, which call one or the other for every module. Written with transformers' own
initialisers, which leave alone what a checkpoint has already filled in.

Source: facebookresearch/hiera, hiera.py and hiera_mae.py.
"""

import math

from torch import nn
from transformers import initialization as init

from .layers import HieraMAEEmbeddings

_STD = 0.02

# Meta's head_init_scale: a new head begins near zero, so that its first gradients do not disturb the encoder.
_HEAD_SCALE = 0.001


def init_classifier_weights(module: nn.Module, layer_norm_weight: float) -> None:
    """Truncated normal weights; biases as large as their deviation.

    Args:
        module: one module, without its children.
        layer_norm_weight: what layer norms multiply by at first.
    """
    if isinstance(module, HieraMAEEmbeddings):
        init.trunc_normal_(module.position_embeddings, std=_STD)
    elif isinstance(module, nn.Conv2d):
        init.trunc_normal_(module.weight, std=_STD)
        _init_conv_bias(module)
    elif isinstance(module, nn.Linear):
        init.trunc_normal_(module.weight, std=_STD)
        init.constant_(module.bias, _STD)
    elif isinstance(module, nn.LayerNorm):
        init.constant_(module.weight, layer_norm_weight)
        init.constant_(module.bias, _STD)


def init_head_weights(head: nn.Linear) -> None:
    """A classification head that begins near zero."""
    init.trunc_normal_(head.weight, std=_STD * _HEAD_SCALE, a=-2 * _HEAD_SCALE, b=2 * _HEAD_SCALE)
    init.constant_(head.bias, _STD * _HEAD_SCALE)


def init_mae_weights(module: nn.Module) -> None:
    """Xavier linear layers, zero biases; convolutions are left to the two functions below.

    Differs from transformers, which starts the MAE like a classifier.

    Args:
        module: one module, without its children.
    """
    if isinstance(module, HieraMAEEmbeddings):
        init.trunc_normal_(module.position_embeddings, std=_STD)
    elif isinstance(module, nn.Linear):
        init.xavier_uniform_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)


def init_mae_patch_embedding(projection: nn.Conv2d) -> None:
    """Xavier for the weight seen as a matrix, (embed_dim, channels × height × width)."""
    bound = math.sqrt(6 / (projection.out_channels + projection.weight[0].numel()))
    init.uniform_(projection.weight, -bound, bound)
    _init_conv_bias(projection)


def init_mae_fusion_head(head: nn.Conv2d) -> None:
    """Draw as torch does by default, which Meta leaves as it is."""
    init.kaiming_uniform_(head.weight, a=math.sqrt(5))
    _init_conv_bias(head)


def init_mae_tokens(mask_token: nn.Parameter, positions: nn.Parameter) -> None:
    """The decoder's own parameters."""
    init.trunc_normal_(mask_token, std=_STD)
    init.trunc_normal_(positions, std=_STD)


def _init_conv_bias(module: nn.Conv2d) -> None:
    """Draw as torch does by default, which Meta leaves as it is in both models."""
    assert module.bias is not None  # Hiera has no convolution without one
    bound = 1 / math.sqrt(module.weight[0].numel())
    init.uniform_(module.bias, -bound, bound)
