"""Attention in Hiera's short windows on a GPU: our kernels beside PyTorch's, forward and backward.

Stands beside the project; tests alone import it. Each case is a kind of block of Hiera-T's masked
autoencoder at 224 pixels. All start from queries, keys and values side by side, as their projection leaves
them, and end with the gradient of that tensor, so that what is split, transposed and put together counts.
Times are those of the kernels, from the profiler; results are compared with float32 first.

    python -m benchmarks.short_attention
    python -m benchmarks.short_attention --sweep          other sizes of our kernels' programs
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from modeling_hiera_mae import packed_attention
from modeling_hiera_mae.packed_attention import attend

REPEATS = 20
PEERS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True)
class Block:
    """A kind of block.

    Attributes:
        name: what it is.
        count: how many of them the model has.
        windows: for each image.
        queries: of a window; fewer than keys where they are pooled or only some tokens ask.
        keys: of a window.
        heads: how many.
        width: of a head.
    """

    name: str
    count: int
    windows: int
    queries: int
    keys: int
    heads: int
    width: int


BLOCKS = [
    Block("stage 1", 1, 19, 64, 64, 1, 96),
    Block("stage 2, pooling", 1, 19, 16, 64, 2, 96),
    Block("stage 2", 1, 19, 16, 16, 2, 96),
    Block("stage 3, pooling", 1, 19, 4, 16, 4, 96),
    Block("stage 3", 6, 1, 76, 76, 4, 96),
    Block("stage 4", 2, 1, 76, 76, 8, 96),
    Block("decoder", 7, 1, 196, 196, 16, 32),
    Block("decoder, masked queries", 1, 1, 120, 196, 16, 32),
]


def inputs_of(block: Block, batch: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Packed tensor, queries where they lie apart, and a gradient; bf16."""
    torch.manual_seed(0)
    size, windows = block.heads * block.width, batch * block.windows
    packed = torch.randn(windows, block.keys, 3 * size, device="cuda", dtype=torch.bfloat16)
    query = None
    if block.queries != block.keys:
        packed = packed[..., size:].contiguous()
        query = torch.randn(windows, block.queries, size, device="cuda", dtype=torch.bfloat16)
        query.requires_grad_()
    gradient = torch.randn(windows, block.queries, size, device="cuda", dtype=torch.bfloat16)
    return packed.requires_grad_(), query, gradient


def attend_in_parts(packed: Tensor, query: Tensor | None, heads: int) -> Tensor:
    """The same by PyTorch's operators."""
    parts = [*packed.chunk(3, -1)] if query is None else [query, *packed.chunk(2, -1)]
    split = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    return functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def kernel_microseconds(work: Callable[[], Any]) -> float:
    """Time of the kernels of one call."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(REPEATS):
            work()
        torch.cuda.synchronize()
    found = [event for event in record.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return float(sum(event.time_range.elapsed_us() for event in found)) / REPEATS


def both_times(function: Callable[..., Tensor], block: Block, batch: int) -> tuple[float, float]:
    """Microseconds of the kernels, forward and backward."""
    packed, query, gradient = inputs_of(block, batch)
    wanted = [packed] if query is None else [packed, query]
    with torch.no_grad():
        forward = kernel_microseconds(lambda: function(packed, query, block.heads))
    out = function(packed, query, block.heads)
    backward = kernel_microseconds(lambda: torch.autograd.grad(out, wanted, gradient, retain_graph=True))
    return forward, backward


def errors(block: Block) -> list[float]:
    """Relative errors of result and gradients, by norm, from float32's."""
    packed, query, gradient = inputs_of(block, 4)
    found, wanted = [], []
    for function, convert, into in (
        (attend, torch.Tensor.bfloat16, found),
        (attend_in_parts, torch.Tensor.float, wanted),
    ):
        given = [convert(each.detach()).requires_grad_() for each in (packed, query) if each is not None]
        out = function(given[0], given[1] if len(given) > 1 else None, block.heads)
        into += [out, *torch.autograd.grad(out, given, convert(gradient))]
    return [float((a.float() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]


def sweep(block: Block, batch: int) -> list[dict[str, Any]]:
    """Times of our kernels for other sizes of a program."""
    warps = (1, 2) if block.keys <= 16 else (4, 8)
    sizes = [size for size in (16, 32, 64, 128) if size <= max(16, 2 * block.queries)]
    tiles = [tile for tile in (16, 32, 64, 128) if tile <= max(16, block.keys)]
    forward = [
        {"ROWS": size, "TILE": tile, "num_warps": count, "num_stages": stages}
        for size, tile, count, stages in itertools.product(sizes[-2:], tiles[-3:], warps, (1, 2))
        if size * 4 >= count * 16
    ]
    backward = [
        {"ROWS": size, "num_warps": count, "num_stages": stages} | most
        for size, count, stages in itertools.product(sizes[:2], warps, (1, 2))
        for most in ({}, {"maxnreg": 128})
        if count == 8 or not most
    ]
    rows = []
    for place, plans in enumerate((forward, backward)):
        for plan in plans:
            name = "_backward_plan" if place else "_forward_plan"
            try:
                with patch.object(packed_attention, name, lambda *_, plan=plan: plan):
                    time = both_times(attend, block, batch)[place]
            except (
                Exception
            ) as error:  # of Triton's or CUDA's own kinds: a size that the card refuses is a row
                time = str(error)[:80]
            rows.append(plan | {"backward" if place else "forward": time})
    return rows


def main() -> None:
    """Print a row for each block, and the sum over the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--sweep", action="store_true", help="other sizes of our kernels' programs")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA GPU")
    content = []
    for block in BLOCKS:
        row: dict[str, Any] = {"block": block.name, "count": block.count, "errors": errors(block)}
        row["ours"] = both_times(attend, block, options.batch_size)
        for name, backend in PEERS.items():
            try:
                with sdpa_kernel(backend):
                    row[name] = both_times(attend_in_parts, block, options.batch_size)
            except RuntimeError as error:
                row[name] = str(error)[:80]
        if options.sweep and block.queries == block.keys and block.name != "stage 4":  # as stage 3
            row["sweep"] = sweep(block, options.batch_size)
        content.append(row)
        sys.stdout.write(f"{json.dumps(row)}\n")
        sys.stdout.flush()
        if options.json:
            options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    for name in ("ours", *PEERS):
        times = [(row["count"], row[name]) for row in content]
        if all(isinstance(pair, tuple) for _, pair in times):
            total = sum(count * sum(pair) for count, pair in times) / 1000
            sys.stdout.write(f"{name}: {total:.2f} ms a step\n")


if __name__ == "__main__":
    main()
