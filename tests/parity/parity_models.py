"""What the parity tests share: geometries, random weights, comparing outputs."""

from typing import Any

import torch
from torch import nn
from transformers import HieraConfig

from modeling_hiera_mae import HieraMAEConfig

# Two sizes' own depths and heads, at a width and an image that run every stage in a second.
GEOMETRIES = {
    "tiny": {"embed_dim": 8, "depths": [1, 2, 7, 2], "num_heads": [1, 2, 4, 8]},
    "base_plus": {"embed_dim": 16, "depths": [2, 3, 16, 3], "num_heads": [2, 4, 8, 16]},
}
DECODER = {"decoder_hidden_size": 32, "decoder_depth": 3, "decoder_num_heads": 16}


def configs(geometry: str, **fields: Any) -> tuple[HieraMAEConfig, HieraConfig]:
    """Ours and stock's configuration of one geometry."""
    fields = {"image_size": [96, 96], **GEOMETRIES[geometry], **DECODER, **fields}
    return HieraMAEConfig(**fields), HieraConfig(**fields)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Move weights far enough from where they begin that no term of the model is near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.1 * noise).to(parameter.dtype))


def assert_same(ours: Any, theirs: Any, tolerance: float, name: str) -> None:
    """Compare tensors, or tuples of them, relative to the largest value (at least 1)."""
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs), f"{name}: {len(ours)} tensors, wanted {len(theirs)}"
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, tolerance, f"{name}[{index}]")
        return
    assert ours.shape == theirs.shape, f"{name}: shape {tuple(ours.shape)}, wanted {tuple(theirs.shape)}"
    ours, theirs = ours.detach().double(), theirs.detach().double()
    difference = (ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
    assert difference <= tolerance, f"{name} differs by {difference:.2e}, more than {tolerance:.0e}"


def assert_same_gradients(
    ours: nn.Module, theirs: nn.Module, names: dict[str, str] | None, tolerance: float
) -> None:
    """Compare every parameter's gradient; `names` maps theirs to ours where they differ."""
    own = dict(ours.named_parameters())
    seen = 0
    for name, parameter in theirs.named_parameters():
        gradient = own[names[name] if names else name].grad
        assert parameter.grad is not None and gradient is not None, f"{name} has no gradient"
        assert_same(gradient, parameter.grad, tolerance, f"gradient of {name}")
        seen += 1
    assert seen == len(own)
