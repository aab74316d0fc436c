"""The optimizers of our recipes: which parameters learn how fast, and which decay.

Groups are timm's over Hiera's blocks. Stands below the Trainer, which makes its optimizer here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from transformers import TrainingArguments

from medhiera.config.arguments import OptimizationArguments
from medhiera.errors import UserError

NO_WEIGHT_DECAY = ("*position_embeddings", "*mask_token")
"""Beside all vectors (norms and biases): what weight decay would only pull towards nothing."""

FUSED_DEVICES = ("cpu", "cuda")
"""Where torch's fused step is taken: one pass over weights, gradients and moments (docs/decisions.md)."""

_BLOCK = re.compile(r"(?:hiera\.|encoder\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.")


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


def build_optimizer(
    model: nn.Module,
    optimization: OptimizationArguments,
    training: TrainingArguments,
    encoder_rate: float = 1.0,
) -> Optimizer | None:
    """The recipe's own optimizer, or None where TrainingArguments name it.

    Args:
        model: on the device where it trains.
        optimization: says which: `adam` over all parameters, `adamw` over `layer_decay_groups`.
        training: learning rate, betas, epsilon, weight decay.
        encoder_rate: the encoder's learning rate as a share of what stands on it; 0 where it is frozen.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": training.learning_rate,
        "betas": (training.adam_beta1, training.adam_beta2),
        "eps": training.adam_epsilon,
        "fused": all(parameter.device.type in FUSED_DEVICES for parameter in trained) or None,
    }
    optimizer: Optimizer
    if optimization.optimizer == "adam":
        groups = encoder_rate_groups(model, training.learning_rate, encoder_rate)
        optimizer = Adam(groups, weight_decay=training.weight_decay, **options)
    elif optimization.optimizer == "adamw":
        groups = layer_decay_groups(
            model, training.learning_rate, training.weight_decay, optimization.layer_decay, encoder_rate
        )
        optimizer = AdamW(groups, **options)
    else:
        return None
    optimizer.register_load_state_dict_pre_hook(_fit_checkpoint)
    return optimizer


def encoder_of(model: Any) -> nn.Module:
    """What a decoder of reports or a classifier's head stands on, to its last norm."""
    encoder: nn.Module = model.encoder if hasattr(model.config, "encoder") else model.base_model
    return encoder


def encoder_rate_groups(model: nn.Module, learning_rate: float, encoder_rate: float) -> list[Any]:
    """All trained parameters, or the encoder's and the rest as two groups where their rates differ.

    Args:
        model: any; with a rate of its own for the encoder, see encoder_of.
        learning_rate: of the rest.
        encoder_rate: share of it that the encoder has.
    """
    trained = [one for one in model.parameters() if one.requires_grad]
    if encoder_rate == 1:
        return trained
    inside = {id(one) for one in encoder_of(model).parameters()}
    parts = [[one for one in trained if (id(one) in inside) == is_in] for is_in in (True, False)]
    rates = (learning_rate * encoder_rate, learning_rate)
    return [{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True) if part]


def layer_decay_groups(
    model: Any, learning_rate: float, weight_decay: float, layer_decay: float, encoder_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW, one for each pair of learning rate and weight decay.

    A scheduler that multiplies keeps their ratios.

    Args:
        model: a HieraMAE model.
        learning_rate: of the head; each block below has layer_decay times the rate of the one above.
        weight_decay: of matrices; norms, biases, position embeddings and mask token have none.
        layer_decay: 1 for the same rate everywhere.
        encoder_rate: share of that rate that the encoder's parameters have, see encoder_of.

    Source: BEiT, arXiv:2106.08254, by timm.optim.param_groups_layer_decay.
    """
    grouped = _Grouped(model, tuple(getattr(model.config, "encoder", model.config).depths))
    inside = {id(one) for one in encoder_of(model).parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in param_groups_layer_decay(
        grouped, weight_decay=weight_decay, no_weight_decay_list=NO_WEIGHT_DECAY, layer_decay=layer_decay
    ):
        # timm makes two groups a block, each with its own kernels, even where all blocks learn alike.
        for parameter in group["params"]:
            share = group["lr_scale"] * (encoder_rate if id(parameter) in inside else 1.0)
            groups.setdefault((share, group["weight_decay"]), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * share, "weight_decay": decay}
        for (share, decay), parameters in groups.items()
    ]


def _fit_checkpoint(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Refuse the state of other groups; the step stays fused, whatever machine wrote the state.

    Raises:
        UserError: the groups are not this optimizer's.
    """
    saved, own = state["param_groups"], optimizer.param_groups
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, own)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the optimizer's state in this checkpoint has {len(saved)} groups of parameters, "
            f"{sum(sizes[0])} in all, and this run has {len(own)}, {sum(sizes[1])} in all: another version "
            "of this software wrote it, which grouped them otherwise. Resume with that version, or start a "
            "new run from the checkpoint's weights with --model_name_or_path and another --output_dir"
        )
    state["param_groups"] = [
        group | {"fused": current["fused"]} for group, current in zip(saved, own, strict=True)
    ]
