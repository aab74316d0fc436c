"""Hiera masked autoencoder and classifier, interchangeable with transformers' Hiera."""

from .configuration_hiera_mae import HieraMAEConfig
from .masking import noise_from_scores
from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
from .modeling_hiera_mae import HieraMAEForPreTraining

__all__ = [
    "HieraMAEConfig",
    "HieraMAEForImageClassification",
    "HieraMAEForPreTraining",
    "HieraMAEModel",
    "noise_from_scores",
]
