"""The kernels of packed_attention.py compiled for an H100 that is not there; prints JSON.

A process of its own, for Triton reads its environment when it is imported. Takes the blocks as JSON: queries,
keys and the width of a head.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # Triton's default; unsaid, it warns that it will change

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from modeling_hiera_mae import packed_attention
from modeling_hiera_mae.attention_kernels import attend_backward, attend_forward

H100 = GPUTarget("cuda", 90, 32)
TENSORS = {"query", "packed", "out", "gradient", "by_query", "by_packed"}
OTHERS = {"log_sums": "*fp32", "factor": "fp32", "scale": "fp32"}
IN_SIXTEENTHS = {"log_sums", "query_row", "packed_row", "first_key", "by_query_row", "by_packed_row"}
"""Multiples of 16, as pointers are; Triton compiles for what it is called with."""


def compiled(kernel, plan, queries, keys, width):
    """Shared memory, registers and spilled bytes of the program that a block launches."""
    options = {name: plan.pop(name) for name in ("num_warps", "num_stages")}
    sizes = plan | {"WIDTH": width, "CHANNELS": packed_attention._power_of_two(width)}
    if kernel is attend_backward:
        sizes["TILE"] = packed_attention._power_of_two(keys)
    names = kernel.arg_names
    types = {
        name: "constexpr" if name in sizes else OTHERS.get(name, "*bf16" if name in TENSORS else "i32")
        for name in names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name in TENSORS | IN_SIXTEENTHS
    }
    given = {(names.index(name),): size for name, size in sizes.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=given, attrs=aligned)
    program = triton.compile(source, target=H100, options=options)
    stack = re.search(r"STACK:(\d+)", resources(program.asm["cubin"]))
    return {
        "kernel": kernel.__name__, "queries": queries, "keys": keys, "width": width,
        "shared": program.metadata.shared, "stack": int(stack[1]),
    }  # fmt: skip


def resources(cubin):
    """What NVIDIA's own tool, which Triton brings, says of a program."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    file = Path(os.environ["TRITON_CACHE_DIR"]) / "program.cubin"
    file.write_bytes(cubin)
    return subprocess.run([tool, "-res-usage", file], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    json.dump(
        [
            compiled(kernel, plan(*block), *block)
            for block in json.loads(sys.argv[1])
            for kernel, plan in (
                (attend_forward, packed_attention._forward_plan),
                (attend_backward, packed_attention._backward_plan),
            )
        ],
        sys.stdout,
    )
