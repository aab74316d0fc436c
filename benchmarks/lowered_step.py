"""Kernels of a compiled training step and the bytes they move, as Inductor lowers it for an H100 without one.

Stands beside operator_count.py, which counts the eager step; nothing imports it. Forward and backward of the
masked autoencoder are traced on tensors without memory, cut in two as torch.compile does, lowered and fused
for a GPU whose properties are given here. No code is generated and nothing is run, so that neither driver nor
C++ compiler is needed. It takes minutes, and private parts of one PyTorch (2.15), so it is not a test.

    python -m benchmarks.lowered_step
"""

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.config
import torch._inductor.scheduler as scheduling
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.compile_fx import _recursive_post_grad_passes
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from benchmarks.operator_count import PRECISIONS, model_and_graph, model_inputs

H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    warp_size=32, shared_memory_per_block=49152, shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472, L2_cache_size=50 * 2**20, gcnArchName="", is_integrated=0,
)  # fmt: skip
"""What Inductor asks a GPU."""


def pretend(stack: ExitStack) -> None:
    """From here on, until the stack closes, Inductor sees an H100."""
    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_properties": H100,
        "get_device_capability": (9, 0), "get_device_name": H100.name, "is_bf16_supported": True,
    }  # fmt: skip
    for name, answer in answers.items():
        stack.enter_context(patch.object(torch.cuda, name, lambda *_, _answer=answer, **__: _answer))
    of_interface = {name: answers[name] for name in ("is_available", "device_count", "current_device")}
    of_interface |= {"get_device_properties": H100, "get_compute_capability": 90, "is_bf16_supported": True}
    for name, answer in of_interface.items():
        given = staticmethod(lambda *_, _answer=answer, **__: _answer)
        stack.enter_context(patch.object(CudaInterface, name, given))
        if name in ("get_device_properties", "current_device"):
            stack.enter_context(patch.object(CudaInterface.Worker, name, given))
    stack.enter_context(patch.object(scheduling, "has_triton", lambda *_, **__: True))


def joint_graph(size: str, batch: int, precision: str, fake: FakeTensorMode) -> torch.fx.GraphModule:
    """Forward and backward as one graph of a GPU's tensors; see count_step for the arguments."""
    model, forward = model_and_graph(size, batch, precision, is_compiled=True)
    weights = [weight.detach().requires_grad_() for weight in model.parameters()]
    given = [*weights, *model_inputs(model, batch, "meta"), torch.ones((), device="meta")]

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        own = list(tensors[: len(weights)])
        loss = forward(own, *tensors[len(weights) : -1])
        return loss, *torch.autograd.grad(loss, own, tensors[-1])

    graph = make_fx(step, decomposition_table=select_decomp_table())(*given)
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for number, node in enumerate(placeholders, start=1):  # the names that the partitioner goes by
        node.target = node.name = "tangents_1" if number == len(given) else f"primals_{number}"
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = node.kwargs | {"device": torch.device("cuda:0")}
    graph.recompile()
    with fake:
        of_gpu = [
            torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device="cuda:0") for one in given
        ]
    FakeTensorProp(graph, fake).propagate_dont_convert_inputs(*of_gpu)
    return graph


def lower(graph: torch.fx.GraphModule, fake: FakeTensorMode) -> tuple[Counter[str], Counter[str]]:
    """Kernels and bytes by kind, after fusion."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    view_to_reshape(graph)
    with V.set_fake_mode(fake):
        FakeTensorProp(graph, fake).propagate_dont_convert_inputs(*inputs)
        _recursive_post_grad_passes(graph, is_inference=False)
        FakeTensorProp(graph, fake).propagate_dont_convert_inputs(*inputs)
    lowering = GraphLowering(graph, example_inputs=inputs)
    kernels: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    with V.set_graph_handler(lowering), V.set_fake_mode(fake), V.set_debug_handler(DebugContext()):
        lowering.run(*inputs)
        lowering._update_scheduler()
        for node in lowering.scheduler.nodes:
            own = type(node.node).__name__
            if own == "MultiOutput" or isinstance(node, scheduling.NopKernelSchedulerNode):
                continue  # a name for one of several results; memory
            is_library = isinstance(node, scheduling.ExternKernelSchedulerNode)
            kind = str(node.node.python_kernel_name) if is_library else "generated"
            kernels[kind] += 1
            moved[kind] += node.get_read_write_buffers_sizes()
    return kernels, moved


def main() -> None:
    """Run the command line (see the top of this file)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    options = parser.parse_args()
    for precision in options.precisions:
        fake = FakeTensorMode()
        graph = joint_graph(options.size, options.batch_size, precision, fake)
        with torch._inductor.config.patch(joint_graph_constant_folding=False):  # it computes, on the device
            joint_graph_passes(graph)
        halves = min_cut_rematerialization_partition(graph, None, num_fwd_outputs=1, compiler="inductor")
        with ExitStack() as stack:
            pretend(stack)
            kernels: Counter[str] = Counter()
            moved: Counter[str] = Counter()
            for half in halves:
                for total, part in zip((kernels, moved), lower(half, fake), strict=True):
                    total.update(part)
        sys.stdout.write(f"\n| {precision}, compiled | kernels | GB |\n|---|---|---|\n")
        for kind, size in moved.most_common():
            sys.stdout.write(f"| {kind} | {kernels[kind]:,} | {size / 1e9:.2f} |\n")
        sys.stdout.write(f"| sum | {kernels.total():,} | {moved.total() / 1e9:.2f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
