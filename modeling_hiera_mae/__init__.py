"""Hiera masked autoencoder and classifier, interchangeable with transformers' Hiera.

Importing the package makes transformers' Auto classes know our configurations: `AutoModel.from_config` of a
HieraMAEConfig is a HieraMAEModel. Folders are none of this: they say `model_type: "hiera"`, which stays
transformers' own, so that a folder opens as the same class with and without this import.
"""

from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

from .configuration_hiera_mae import HieraMAEBackboneConfig, HieraMAEConfig
from .masking import noise_from_scores
from .modeling_backbone import HieraMAEBackbone
from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
from .modeling_hiera_mae import HieraMAEForPreTraining

__all__ = [
    "HieraMAEBackbone",
    "HieraMAEBackboneConfig",
    "HieraMAEConfig",
    "HieraMAEForImageClassification",
    "HieraMAEForPreTraining",
    "HieraMAEModel",
    "noise_from_scores",
]

AutoConfig.register(HieraMAEBackboneConfig.model_type, HieraMAEBackboneConfig, exist_ok=True)
AutoModel.register(HieraMAEConfig, HieraMAEModel, exist_ok=True)
AutoModelForPreTraining.register(HieraMAEConfig, HieraMAEForPreTraining, exist_ok=True)
AutoModelForImageClassification.register(HieraMAEConfig, HieraMAEForImageClassification, exist_ok=True)
# Not by AutoBackbone.register, which takes one configuration class a model.
MODEL_FOR_BACKBONE_MAPPING.register(HieraMAEConfig, HieraMAEBackbone, exist_ok=True)
MODEL_FOR_BACKBONE_MAPPING.register(HieraMAEBackboneConfig, HieraMAEBackbone, exist_ok=True)
