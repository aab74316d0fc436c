"""Attention within short windows on a Hopper GPU: one Triton kernel forward, one backward.

Stands between attention, which says when it is used, and attention_kernels; torch only. Queries, keys
and values are read side by side as their projection left them, and their gradients are written the same way:
nothing is transposed, split or put together in memory. Backward, all keys of a window and head are one
program's: no sums across programs, so that gradients are the same in every run.

Measured beside PyTorch's kernels in docs/performance.md.
Source of the mathematics: Dao et al. 2022, arXiv:2205.14135.
"""

import functools
import os
import re
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from .attention_kernels import HAS_TRITON, attend_backward, attend_forward

LONGEST = 256
"""Keys of the longest window."""
WIDEST = 128
"""Channels of the widest head."""
LARGEST = 128 * 128
"""Keys × width of a head, each rounded up to a power of two, that a program's memory holds backward."""

_LOG2_E = 1.4426950408889634

_NAMESPACE = re.sub("[^0-9A-Za-z]", "_", __name__) + f"_{zlib.crc32(__name__.encode()):08x}"
"""Of the operators; a copy of this file that a model's repository brings has its own."""


def is_short(keys: int, width: int) -> bool:
    """Whether a window is one that the kernels take.

    Args:
        keys: tokens that each query attends to.
        width: of a head.
    """
    return keys <= LONGEST and width <= WIDEST and _power_of_two(keys) * _power_of_two(width) <= LARGEST


# The compiler takes the answer as it is; torch has no type for the decorator.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def can_run(device: torch.device) -> bool:
    """Whether a device is one that the kernels were measured on: a Hopper GPU, with Triton and a C compiler.

    Exported and traced models are to run where this package is not, and torch.func differentiates no
    operator of ours: all keep PyTorch's own.
    """
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # absent from torch's stubs
    is_leaving = torch.compiler.is_exporting() or is_traced
    return not is_leaving and not torch._C._are_functorch_transforms_active() and _is_hopper(device)


@functools.cache
def _is_hopper(device: torch.device) -> bool:
    if not (HAS_TRITON and torch.cuda.is_available()) or torch.version.hip:
        return False  # an AMD GPU has numbers of its own that look the same
    has_compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(has_compiler) and torch.cuda.get_device_capability(device) == (9, 0)


def attend(packed: torch.Tensor, query: torch.Tensor | None, heads: int) -> torch.Tensor:
    """Softmax attention within each window, its scores scaled by the square root of a head's width.

    A gradient that is to be differentiated again is computed by PyTorch's operators.

    Args:
        packed: (windows, keys, 3 × heads × width), queries, keys and values side by side; or, with `query`,
            (windows, keys, 2 × heads × width), keys and values. Rows may lie apart.
        query: (windows, queries, heads × width), or None.
        heads: how many.

    Returns:
        (windows, queries, heads × width).
    """
    # Tracers and modes see an operator; a function of autograd takes half as long to call.
    is_plain = type(packed) is torch.Tensor and not packed.is_meta and not is_in_torch_dispatch_mode()
    if is_plain and not torch.compiler.is_compiling():
        return _Attention.apply(packed, query, heads)[0]
    out: torch.Tensor = attend_operator(packed, query, heads)[0]
    return out


def _forward(
    packed: torch.Tensor, query: torch.Tensor | None, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and log2 of each query's sum of exponentials, (windows × heads, queries), float32."""
    packed = _in_rows(packed)
    asking = packed if query is None else _in_rows(query)
    out, log_sums = _empty_results(packed, query, heads)
    windows, queries, size = out.shape
    keys, width = packed.shape[1], size // heads
    first_key = size if query is None else 0
    plan = _forward_plan(queries, keys, width)
    with torch.cuda.device_of(packed):
        attend_forward[(windows * heads, -(-queries // plan["ROWS"]))](
            asking, packed, out, log_sums, _LOG2_E * width**-0.5, queries, keys, heads, asking.stride(1),
            packed.stride(1), first_key, WIDTH=width, CHANNELS=_power_of_two(width), **plan,
        )  # fmt: skip
    return out, log_sums


def _backward(
    gradient: torch.Tensor,
    packed: torch.Tensor,
    query: torch.Tensor | None,
    heads: int,
    out: torch.Tensor,
    log_sums: torch.Tensor,
) -> list[torch.Tensor]:
    """Gradients by `packed` and, where it was given, by `query`.

    Args:
        gradient: by the result, (windows, queries, heads × width).
        packed: as `attend` was given it.
        query: the same.
        heads: the same.
        out: what `_forward` returned.
        log_sums: the same.
    """
    gradient, packed = gradient.contiguous(), _in_rows(packed)
    found = _empty_gradients(packed, query)
    asking, by_asking = (packed, found[0]) if query is None else (_in_rows(query), found[1])
    windows, queries, size = gradient.shape
    keys, width = packed.shape[1], size // heads
    first_key = size if query is None else 0
    with torch.cuda.device_of(packed):
        attend_backward[(windows * heads,)](
            asking, packed, out, log_sums, gradient, by_asking, found[0], _LOG2_E * width**-0.5, width**-0.5,
            queries, keys, heads, asking.stride(1), packed.stride(1), first_key, by_asking.stride(1),
            found[0].stride(1), WIDTH=width, TILE=_power_of_two(keys), CHANNELS=_power_of_two(width),
            **_backward_plan(queries, keys, width),
        )  # fmt: skip
    return found


def _empty_results(
    packed: torch.Tensor, query: torch.Tensor | None, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    windows, queries = (packed if query is None else query).shape[:2]
    size = packed.shape[-1] // (3 if query is None else 2)
    sums = packed.new_empty(windows * heads, queries, dtype=torch.float32)
    return packed.new_empty(windows, queries, size), sums


def _empty_gradients(packed: torch.Tensor, query: torch.Tensor | None) -> list[torch.Tensor]:
    return [each.new_empty(each.shape) for each in (packed, query) if each is not None]


attend_operator = torch.library.custom_op(f"{_NAMESPACE}::attend", _forward, mutates_args=())
attend_backward_operator = torch.library.custom_op(
    f"{_NAMESPACE}::attend_backward", _backward, mutates_args=()
)
attend_operator.register_fake(_empty_results)


@attend_backward_operator.register_fake
def _fake_gradients(
    gradient: torch.Tensor, packed: torch.Tensor, query: torch.Tensor | None, *_: Any
) -> list[torch.Tensor]:
    return _empty_gradients(packed, query)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    packed, query, ctx.heads = inputs
    ctx.save_for_backward(packed, query, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _by_inputs(attend_backward_operator, ctx, gradient)


def _by_inputs(
    backward: Callable[..., list[torch.Tensor]], ctx: Any, gradient: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    packed, query, *kept = ctx.saved_tensors
    if torch.is_grad_enabled():  # the kernels have no derivative, and a graph that ends in them ends silently
        return _differentiable_gradients(gradient, packed, query, ctx.heads)
    by_packed, *by_query = backward(gradient, packed, query, ctx.heads, *kept)
    return by_packed, by_query[0] if by_query else None, None


def _differentiable_gradients(
    gradient: torch.Tensor, packed: torch.Tensor, query: torch.Tensor | None, heads: int
) -> tuple[torch.Tensor | None, ...]:
    """The same by plain operators."""
    parts = packed.chunk(3, -1) if query is None else (query, *packed.chunk(2, -1))
    asked, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    weights = (asked @ key.transpose(-2, -1) * key.shape[-1] ** -0.5).softmax(-1)
    out = (weights @ value).transpose(1, 2).flatten(2)
    inputs = {
        place: each for place, each in enumerate((packed, query)) if each is not None and each.requires_grad
    }
    found = torch.autograd.grad(out, list(inputs.values()), gradient, create_graph=True)
    by_place = dict(zip(inputs, found, strict=True))
    return by_place.get(0), by_place.get(1), None


attend_operator.register_autograd(_differentiate, setup_context=_keep)


class _Attention(torch.autograd.Function):
    """The kernels, without a tracer between."""

    forward = staticmethod(_forward)

    setup_context = staticmethod(_keep)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients by `packed` and `query`."""
        return _by_inputs(_backward, ctx, gradient)


def _in_rows(tensor: torch.Tensor) -> torch.Tensor:
    """With channels side by side and windows a whole number of rows apart, as the kernels count."""
    row = tensor.stride(1)
    is_in_rows = tensor.stride(2) == 1 and tensor.stride(0) == row * tensor.shape[1]
    # Not contiguous(): of a tensor with one key it keeps whatever stride that dimension has.
    return tensor if is_in_rows else tensor.clone(memory_format=torch.contiguous_format)


def _power_of_two(number: int) -> int:
    """At least 16, the least that tensor cores multiply."""
    return max(16, 1 << (number - 1).bit_length())


def _forward_plan(queries: int, keys: int, width: int) -> dict[str, int]:
    """Queries and keys that a program takes at a time, and its warps: on an H100 fast, and compared there."""
    if keys <= 16:
        return {"ROWS": 16, "TILE": 16, "num_warps": 1, "num_stages": 2}
    rows = min(64, _power_of_two(queries))
    if keys <= 64:
        return {"ROWS": rows, "TILE": _power_of_two(keys), "num_warps": 4, "num_stages": 1}
    if width > 32:
        return {"ROWS": rows, "TILE": 32, "num_warps": 4, "num_stages": 2}
    return {"ROWS": rows, "TILE": 64, "num_warps": 4, "num_stages": 1}


def _backward_plan(queries: int, keys: int, width: int) -> dict[str, int]:
    """Queries that a program takes at a time, and its warps: on an H100 fast, and compared there."""
    if keys <= 16:
        return {"ROWS": 16, "num_warps": 1, "num_stages": 2}
    rows = min(32, _power_of_two(queries))
    if keys <= 64:
        return {"ROWS": rows, "num_warps": 4, "num_stages": 1}
    if width > 32:
        return {"ROWS": rows, "num_warps": 8, "num_stages": 1}
    return {"ROWS": 16, "num_warps": 4, "num_stages": 1}
