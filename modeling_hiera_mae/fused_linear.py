"""Linear layers by the path that measures fastest; on a CPU that is oneDNN, fused with what follows.

Stands below layers and both model files; torch only. On x86 `functional.linear` multiplies float32 with MKL
and copies the bias into the output first; oneDNN's own operator does neither, and can add GELU or a residual
in the same pass. `torch.compile` fuses by itself, so compiled code takes the plain path, as does every other
device; so do torch.func, forward-mode derivatives and modes that count or trace operators.
docs/performance.md has the figures.
"""

from typing import Any, TypeGuard

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_CPU_FUSES = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)

_CPU_DTYPES = {torch.float32}

if _CPU_FUSES and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _CPU_DTYPES.add(torch.bfloat16)

_SMALLEST = 1 << 14
"""Numbers in the input below which a call costs more than it saves."""


def linear(
    tokens: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    gelu: bool = False,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """`tokens @ weight.T + bias`, then GELU or a sum.

    Args:
        tokens: (…, in).
        weight: (out, in).
        bias: (out,) or None.
        gelu: apply the (exact) GELU.
        added: (…, out), summed with the result.

    Returns:
        (…, out).
    """
    if _takes_onednn(tokens, weight):
        operands = (tokens, weight, bias, added)
        is_training = torch.is_grad_enabled() and any(
            each is not None and each.requires_grad for each in operands
        )
        if is_training and _dtype(tokens) == torch.float32:
            out = _Linear.apply(tokens, weight, bias)
        elif is_training or torch.is_autocast_enabled("cpu"):
            out = functional.linear(tokens, weight, bias)  # half precision: as fast, and casts weights once
        elif gelu:
            return _linear_pointwise(tokens, weight, bias, "gelu", [], "none")
        elif added is not None and added.dtype == tokens.dtype:
            return torch.ops.mkldnn._linear_pointwise.binary(tokens, added.contiguous(), weight, bias, "add")
        else:
            out = _linear_pointwise(tokens, weight, bias, "none", [], "")
    else:
        out = functional.linear(tokens, weight, bias)
    if gelu:
        out = functional.gelu(out)
    return out if added is None else added + out


def project(
    tokens: torch.Tensor, layer: nn.Module, *, gelu: bool = False, added: torch.Tensor | None = None
) -> torch.Tensor:
    """Run a linear layer, then GELU or a sum; see `linear`.

    A layer that has been wrapped, replaced or hooked (adapters, quantization, offloading) is called as it
    is, on (batch, units × tokens, in): some, such as bitsandbytes' 8-bit layers, take at most three
    dimensions.

    Args:
        tokens: (…, in).
        layer: an nn.Linear, or what stands in its place.
        gelu: apply the (exact) GELU.
        added: (…, out), summed with the result.
    """
    if is_plain(layer):
        return linear(tokens, layer.weight, layer.bias, gelu=gelu, added=added)
    out = layer(tokens.flatten(1, -2)).unflatten(1, tokens.shape[1:-1])
    if gelu:
        out = functional.gelu(out)
    return out if added is None else added + out


def gelu_mlp(
    tokens: torch.Tensor, first: nn.Module, second: nn.Module, *, added: torch.Tensor | None = None
) -> torch.Tensor:
    """Two linear layers with GELU between, then a sum; see `project`.

    In training on a CPU the GELU is computed again in the backward pass, which keeps one wide tensor less.
    Compiled for a GPU, GELU's backward also sums the first bias's gradient (see `_gelu_linear`).

    Args:
        tokens: (batch, …, in).
        first: an nn.Linear (in → hidden), or what stands in its place.
        second: the same (hidden → out).
        added: (…, out), summed with the result.
    """
    if (
        torch.is_grad_enabled()
        and is_plain(first)
        and is_plain(second)
        and _takes_onednn(tokens, first.weight)
    ):
        # Cast here, so that the function's inputs are what it multiplies; it may be differentiated twice.
        operands = (tokens, first.weight, first.bias, second.weight, second.bias)
        out: torch.Tensor = _GeluMlp.apply(
            *(each if each is None else each.to(_dtype(tokens)) for each in operands)
        )
        return out if added is None else added + out
    if _is_compiled_training(tokens.device) and is_plain(first) and first.bias is not None:
        return project(_gelu_linear(tokens, first.weight, first.bias), second, added=added)
    return project(project(tokens, first, gelu=True), second, added=added)


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling the layer is the same as multiplying by its weight."""
    return type(layer) is nn.Linear and _is_untouched(layer)


def is_plain_convolution(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether calling the convolution is the same as multiplying patches by its weight."""
    return type(layer) is nn.Conv2d and _is_untouched(layer)


def _is_untouched(layer: nn.Module) -> bool:
    """Whether a call of the layer runs its class's forward alone, on a weight that is its own."""
    return type(layer.weight) is nn.Parameter and is_unhooked(layer)


def is_unhooked(module: nn.Module) -> bool:
    """Whether a call of the module runs its class's forward alone: no hook of its own or of all modules."""
    return (
        "forward" not in vars(module)  # accelerate's hooks, which bring offloaded weights, stand there
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and not nn.modules.module._has_any_global_hook()
    )


def _takes_onednn(tokens: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        _CPU_FUSES
        and tokens.device.type == "cpu"
        and tokens.numel() >= _SMALLEST
        and (torch.is_autocast_enabled("cpu") or tokens.dtype == weight.dtype)
        and _dtype(tokens) in _CPU_DTYPES
        # torch.compile and exporters want plain operators.
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined]  # absent from torch's stubs
        # oneDNN's operator has neither derivatives nor a count of its own.
        and not (
            torch._C._are_functorch_transforms_active()
            or forward_ad._current_level >= 0
            or is_in_torch_dispatch_mode()
        )
    )


def _is_compiled_training(device: torch.device) -> bool:
    """Whether this is traced by torch.compile for a training step on a GPU; not by an exporter."""
    return (
        device.type == "cuda"
        and torch.is_grad_enabled()
        and torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
    )


def _gelu_linear(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer and GELU, so that compiled code sums the bias's gradient where it computes GELU's.

    The compiler reads a gradient again to sum it over all tokens at once. A sum over one image's tokens, in
    float32, it computes beside the gradient, and what is left is one row per image. In eager mode the wide
    sum below would be a tensor of its own.

    Args:
        tokens: (batch, …, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        (batch, …, out), of the product's type.
    """
    product = functional.linear(tokens, weight)
    of_images = bias.to(torch.promote_types(product.dtype, torch.float32))
    of_images = of_images.expand(product.shape[0], *[1] * (product.dim() - 2), -1)
    return functional.gelu(product + of_images).to(product.dtype)


def _dtype(tokens: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype


def _linear_pointwise(*arguments: Any) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(*arguments)
    return out


class _Linear(torch.autograd.Function):
    """functional.linear in float32 with oneDNN's products, forward and towards the input.

    The gradient of the weight stays with torch's own product, which is as fast. A gradient that is to be
    differentiated again is made of torch's own operators alone.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """(…, in) → (…, out)."""
        ctx.save_for_backward(tokens, weight)
        ctx.has_bias = bias is not None
        return _linear_pointwise(tokens, weight, bias, "none", [], "")

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Gradients by tokens, weight and bias."""
        tokens, weight = ctx.saved_tensors
        by_tokens = _by_input(gradient, weight) if ctx.needs_input_grad[0] else None
        rows = gradient.flatten(0, -2)
        by_weight = rows.t() @ tokens.flatten(0, -2) if ctx.needs_input_grad[1] else None
        by_bias = rows.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return by_tokens, by_weight, by_bias


class _GeluMlp(torch.autograd.Function):
    """Two linear layers with GELU between; keeps what went into the GELU, not what came out."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, *parameters: Any) -> torch.Tensor:
        """(…, in) → (…, out); parameters: weight, bias, weight, bias, of one type; a bias may be None."""
        weight, bias, second_weight, second_bias = parameters
        hidden = _product(tokens, weight, bias)
        ctx.save_for_backward(tokens, hidden, weight, bias, second_weight)
        return _product(functional.gelu(hidden), second_weight, second_bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients by tokens and the four parameters."""
        tokens, hidden, weight, bias, second_weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # differentiated again: what was kept does not know where it came from
            hidden = functional.linear(tokens, weight, bias)
        rows = gradient.flatten(0, -2)
        by_second_weight = rows.t() @ functional.gelu(hidden).flatten(0, -2)
        by_hidden = torch.ops.aten.gelu_backward(_by_input(gradient, second_weight), hidden)
        hidden_rows = by_hidden.flatten(0, -2)
        return (
            _by_input(by_hidden, weight) if ctx.needs_input_grad[0] else None,
            hidden_rows.t() @ tokens.flatten(0, -2),
            None if bias is None else hidden_rows.sum(0),
            by_second_weight,
            rows.sum(0) if ctx.needs_input_grad[4] else None,
        )


def _product(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A linear layer in training: oneDNN's operator is the faster one in float32 alone."""
    if tokens.dtype == torch.float32:
        return _linear_pointwise(tokens, weight, bias, "none", [], "")
    return functional.linear(tokens, weight, bias)


def _by_input(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Gradient of a linear layer by its input: oneDNN is the faster one in float32 alone.

    Its operator has no derivative, so it is left where the gradient is to be differentiated again.
    """
    if gradient.dtype == torch.float32 and not torch.is_grad_enabled():
        return _linear_pointwise(gradient, weight.t(), None, "none", [], "")
    return gradient @ weight
