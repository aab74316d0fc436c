"""Makes transformers' Auto classes know our configurations, when a name of this package is first used.

`AutoModel.from_config` of a HieraMAEConfig is then a HieraMAEModel. Folders are none of this: they say
`model_type: "hiera"`, which stays transformers' own, so that a folder opens as the same class without us.
"""

from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

from .configuration_hiera_mae import HieraMAEBackboneConfig, HieraMAEConfig
from .modeling_backbone import HieraMAEBackbone
from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
from .modeling_hiera_mae import HieraMAEForPreTraining

AutoConfig.register(HieraMAEBackboneConfig.model_type, HieraMAEBackboneConfig, exist_ok=True)
AutoModel.register(HieraMAEConfig, HieraMAEModel, exist_ok=True)
AutoModelForPreTraining.register(HieraMAEConfig, HieraMAEForPreTraining, exist_ok=True)
AutoModelForImageClassification.register(HieraMAEConfig, HieraMAEForImageClassification, exist_ok=True)
# Not by AutoBackbone.register, which takes one configuration class a model.
MODEL_FOR_BACKBONE_MAPPING.register(HieraMAEConfig, HieraMAEBackbone, exist_ok=True)
MODEL_FOR_BACKBONE_MAPPING.register(HieraMAEBackboneConfig, HieraMAEBackbone, exist_ok=True)
