"""Half-precision weights that compute, beside the float32 ones that learn (`precision: bf16_weights`).

Stands beside the Trainer. Its model stays float32: optimizer, average, checkpoints and the finished stage
know nothing of the copy that runs forward and backward.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class WorkingWeights:
    """A bf16 copy of a model, which follows each step of an optimizer over the model's own weights.

    Autocast casts each weight, and most of what stands between products, in every step; this copy has no
    casts inside. Small updates are not lost, for they are added up in float32.

    Args:
        master: the model whose weights learn, float32, on its device.

    Attributes:
        model: the copy; train and evaluate this one.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1.
    """

    def __init__(self, master: nn.Module) -> None:
        self.model = copy.deepcopy(master).to(torch.bfloat16)
        self._working: list[Tensor] = list(self.model.parameters())
        self._masters: list[Tensor] = list(master.parameters())

    def follow(self, optimizer: Optimizer) -> None:
        """From now on the optimizer's steps take the copy's gradients, and the copy takes their result.

        Args:
            optimizer: of the master's weights.
        """
        optimizer.register_step_pre_hook(self._take_gradients)
        optimizer.register_step_post_hook(self._take_weights)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the master's weights once more: something else than the optimizer has changed them."""
        torch._foreach_copy_(self._working, self._masters)

    @torch.no_grad()
    def _take_gradients(self, optimizer: Optimizer, arguments: Any, named: Any) -> None:
        pairs = [
            (master, working.grad)
            for master, working in zip(self._masters, self._working, strict=True)
            if working.grad is not None
        ]
        wide = [torch.empty_like(master) for master, _ in pairs]
        torch._foreach_copy_(wide, [gradient for _, gradient in pairs])
        for (master, _), gradient in zip(pairs, wide, strict=True):
            master.grad = gradient

    def _take_weights(self, optimizer: Optimizer, arguments: Any, named: Any) -> None:
        for master in self._masters:
            master.grad = None
        self.refresh()
