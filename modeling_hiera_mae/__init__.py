"""Hiera masked autoencoder and classifier, interchangeable with transformers' Hiera.

Names are imported when they are first used: a command that only prints its help need not wait for PyTorch.
With the first of them transformers' Auto classes know ours (auto_classes.py).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_hiera_mae import HieraMAEBackboneConfig, HieraMAEConfig
    from .masking import noise_from_scores
    from .modeling_backbone import HieraMAEBackbone
    from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
    from .modeling_hiera_mae import HieraMAEForPreTraining

_HOMES = {
    "HieraMAEBackbone": "modeling_backbone",
    "HieraMAEBackboneConfig": "configuration_hiera_mae",
    "HieraMAEConfig": "configuration_hiera_mae",
    "HieraMAEForImageClassification": "modeling_hiera",
    "HieraMAEForPreTraining": "modeling_hiera_mae",
    "HieraMAEModel": "modeling_hiera",
    "noise_from_scores": "masking",
}
"""Name → the module of this package that defines it."""

__all__ = [
    "HieraMAEBackbone",
    "HieraMAEBackboneConfig",
    "HieraMAEConfig",
    "HieraMAEForImageClassification",
    "HieraMAEForPreTraining",
    "HieraMAEModel",
    "noise_from_scores",
]


def __getattr__(name: str) -> Any:
    """One of the names above, from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.auto_classes")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
