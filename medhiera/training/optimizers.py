"""Which parameters learn how fast, and which decay: timm's groups over Hiera's blocks."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

NO_WEIGHT_DECAY = ("*position_embeddings", "*mask_token")
"""Beside all vectors (norms and biases): what weight decay would only pull towards nothing."""

_BLOCK = re.compile(r"(?:hiera\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.")


@dataclass(frozen=True)
class _Grouped:
    """A model as timm wants to see it: named parameters, and the layer of each."""

    model: nn.Module
    depths: tuple[int, ...]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def group_matcher(self, coarse: bool) -> Callable[[str], int]:
        def layer(name: str) -> int:
            if "embeddings." in name and "decoder" not in name:
                return 0
            block = _BLOCK.match(name)
            if block:
                return 1 + sum(self.depths[: int(block[1])]) + int(block[2])
            return 1 + sum(self.depths)  # final norm, head, decoder: what is new learns fastest

        return layer


def layer_decay_groups(
    model: Any, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW; a scheduler that multiplies keeps their ratios.

    Args:
        model: a HieraMAE model.
        learning_rate: of the head; each block below has layer_decay times the rate of the one above.
        weight_decay: of matrices; norms, biases, position embeddings and mask token have none.
        layer_decay: 1 for the same rate everywhere.

    Source: BEiT, arXiv:2106.08254, by timm.optim.param_groups_layer_decay.
    """
    grouped = _Grouped(model, tuple(model.config.depths))
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        grouped, weight_decay=weight_decay, no_weight_decay_list=NO_WEIGHT_DECAY, layer_decay=layer_decay
    )
    for group in groups:
        group["lr"] = learning_rate * group.pop("lr_scale")
    return groups
