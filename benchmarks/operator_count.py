"""What a training step asks of a Hopper GPU, counted without one: operators, bytes read and written.

Stands beside the project; nothing imports it but its test, whose bounds show a change that adds 5 %. The
forward of the masked autoencoder is traced on fake tensors of a GPU, so that PyTorch takes a GPU's paths; it,
its backward and the optimizer's step are then counted on tensors without memory.

    python -m benchmarks.operator_count
    python -m benchmarks.operator_count --size base --batch-size 64

Counted is the eager step, an operator as one kernel that reads its inputs once and writes its outputs once;
views cost nothing. `torch.compile` merges many of them (docs/performance.md).
"""

import argparse
import contextlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining, attention, fused_linear

PRECISIONS = ("autocast", "bf16_weights")
MASK_RATIO = 0.6

KINDS = {
    "products": ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"),
    "attention": ("attend", "_scaled_dot_product", "_flash_attention", "_efficient_attention"),
    "layer norm": ("native_layer_norm",),
    "GELU": ("gelu",),
    "casts": ("_to_copy",),
    "sums": ("sum",),
    "copies": ("clone", "copy_", "cat", "_foreach_copy_", "constant_pad_nd"),
    "indexing": ("embedding", "index", "gather", "scatter", "slice_backward", "sort", "select_backward"),
    "optimizer": ("_fused_adam",),
}
"""Kinds of operators by how their names begin; all others are elementwise."""


class OperatorCount(TorchDispatchMode):
    """Counts operators, and bytes read and written, by kind.

    Attributes:
        kernels: operators by kind.
        bytes: by kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator and count it."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not _is_free(function):
            kind = _kind(function.overloadpacket.__name__)
            read = {
                id(tensor): tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
            }
            written = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
            written += _written_in_place(function, args)
            self.kernels[kind] += 1
            self.bytes[kind] += sum(_bytes(tensor) for tensor in [*read.values(), *written])
        return result


def _is_free(function: Any) -> bool:
    """Whether the operator moves nothing: a view, a detached tensor, memory that is asked for."""
    name = function.overloadpacket.__name__
    returns_view = any(
        returned.alias_info is not None and not returned.alias_info.is_write
        for returned in function._schema.returns
    )
    return returns_view or name.startswith(("empty", "new_empty", "_unsafe_view", "lift_fresh"))


def _written_in_place(function: Any, args: Sequence[Any]) -> list[Tensor]:
    """Arguments that an operator without a result writes to, as the fused optimizers do."""
    if function._schema.returns:
        return []
    written = []
    for argument, value in zip(function._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += [tensor for tensor in tree_leaves(value) if isinstance(tensor, Tensor)]
    return written


def _kind(name: str) -> str:
    for kind, beginnings in KINDS.items():
        if name.startswith(beginnings):
            return kind
    return "elementwise"


def _bytes(tensor: Tensor) -> int:
    """Of the tensor's own numbers; one that is repeated along a dimension by a stride of 0 is read once."""
    sides = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sides) * tensor.element_size()


class _FlashAttention(TorchFunctionMode):
    """Takes flash attention, as a GPU does for such heads; torch asks the device, which is not there."""

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            query, key, value = (part.to(torch.bfloat16) for part in args)
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _autocast(is_on: bool) -> Iterator[None]:
    """As torch.autocast, which turns itself off where there is no GPU."""
    torch.set_autocast_enabled("cuda", is_on)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def count_step(size: str, batch: int, precision: str) -> OperatorCount:
    """Count one training step of the masked autoencoder at 224 pixels.

    Args:
        size: a published Hiera size.
        batch: images.
        precision: "autocast" over float32 weights, or "bf16_weights" with float32 masters in the optimizer.
    """
    model, graph = model_and_graph(size, batch, precision)
    weights = list(model.parameters())
    optimize = _optimizer(weights, is_half=precision == "bf16_weights")
    count = OperatorCount()
    with count:
        loss = graph(weights, *model_inputs(model, batch, "meta"))
        loss.backward()
        optimize()
    return count


def model_and_graph(
    size: str, batch: int, precision: str, *, is_compiled: bool = False
) -> tuple[nn.Module, torch.fx.GraphModule]:
    """The model without memory, and its `forward_graph`; see there and count_step for the arguments."""
    with torch.device("meta"):
        model = HieraMAEForPreTraining(HieraMAEConfig.from_size(size, mask_ratio=MASK_RATIO)).train()
    is_half = precision == "bf16_weights"
    if is_half:
        model.bfloat16()
    return model, forward_graph(model, batch, is_autocast=not is_half, is_compiled=is_compiled)


def forward_graph(
    model: nn.Module, batch: int, *, is_autocast: bool, is_compiled: bool
) -> torch.fx.GraphModule:
    """The loss as a GPU computes it, for tensors of the meta device.

    Autograd does not run on a device that is not there. So the forward alone is traced on fake tensors of a
    GPU, where autocast chooses as it does on one; what was traced then runs anywhere.

    Args:
        model: of the meta device.
        batch: images.
        is_autocast: under bf16 autocast.
        is_compiled: as torch.compile's tracer sees it in training.

    Returns:
        A function of the parameters, images and noise: the loss.
    """
    names = [name for name, _ in model.named_parameters()]

    def loss_of(weights: list[Tensor], images: Tensor, noise: Tensor) -> Tensor:
        loss: Tensor = functional_call(
            model, dict(zip(names, weights, strict=True)), (images,), {"noise": noise}
        ).loss
        return loss

    hopper = patch.object(attention, "can_run", lambda device: True)
    # A fake tensor in a weight's place is no nn.Parameter, by which the model knows a layer of an adapter's.
    plain = patch.object(fused_linear, "_is_untouched", lambda layer: True)
    training = patch.object(torch, "is_grad_enabled", lambda: True)  # as the model is told
    compiled = patch.object(torch.compiler, "is_compiling", lambda: is_compiled)
    with (
        FakeTensorMode(), torch.no_grad(), _autocast(is_autocast), _FlashAttention(),
        hopper, plain, training, compiled,
    ):  # fmt: skip
        weights = [
            torch.empty(weight.shape, dtype=weight.dtype, device="cuda") for weight in model.parameters()
        ]
        traced = make_fx(loss_of)(weights, *model_inputs(model, batch, "cuda"))
    for node in traced.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = node.kwargs | {"device": torch.device("meta")}
    traced.recompile()
    return traced


def model_inputs(model: nn.Module, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Images, three times the same channel, and the noise of their masks."""
    gray = torch.empty(batch, 1, 224, 224, device=device)
    return gray.expand(-1, 3, -1, -1), torch.empty(batch, math.prod(model.config.unit_grid), device=device)


def _optimizer(weights: list[nn.Parameter], is_half: bool) -> Callable[[], Any]:
    """The optimizer's step, its moments made beforehand."""
    masters = [torch.empty(weight.shape, device="meta") for weight in weights] if is_half else weights
    moments = [[torch.empty(weight.shape, device="meta") for weight in weights] for _ in range(2)]
    steps = [torch.empty((), device="meta") for _ in weights]

    def step() -> None:
        gradients: list[Any] = [weight.grad for weight in weights]
        if is_half:
            wide = [torch.empty(weight.shape, device="meta") for weight in weights]
            torch._foreach_copy_(wide, gradients)
            gradients = wide
        torch._fused_adamw_(
            masters, gradients, *moments, [], steps, lr=1e-4, beta1=0.9, beta2=0.95, weight_decay=0.05,
            eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        if is_half:
            torch._foreach_copy_(weights, masters)

    return torch.no_grad()(step)


def table(count: OperatorCount) -> str:
    """Kinds of operators as lines of a Markdown table, the heaviest first."""
    lines = [
        f"| {kind} | {count.kernels[kind]:,} | {moved / 1e9:.2f} |"
        for kind, moved in count.bytes.most_common()
    ]
    lines.append(f"| sum | {count.kernels.total():,} | {count.bytes.total() / 1e9:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line (see the top of this file)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    for precision in PRECISIONS:
        count = count_step(options.size, options.batch_size, precision)
        sys.stdout.write(f"\n| {precision}, eager | operators | GB |\n|---|---|---|\n{table(count)}\n")


if __name__ == "__main__":
    main()
