"""The small models of this folder's tests: 64×64 pixels, embed_dim 8."""

from typing import Any

import torch

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining

TINY = {
    "embed_dim": 8,
    "depths": [1, 2, 2, 1],
    "num_heads": [1, 1, 2, 2],
    "image_size": [64, 64],
    "decoder_hidden_size": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}


def tiny_config(**fields: Any) -> HieraMAEConfig:
    return HieraMAEConfig(**{**TINY, "mask_ratio": 0.5, **fields})


def tiny_mae(**fields: Any) -> HieraMAEForPreTraining:
    torch.manual_seed(0)
    return HieraMAEForPreTraining(tiny_config(**fields)).eval()


def tiny_classifier(**fields: Any) -> HieraMAEForImageClassification:
    torch.manual_seed(0)
    return HieraMAEForImageClassification(tiny_config(**{"num_labels": 3, **fields})).eval()
