"""One model in a process of its own: builds it, compiles it, answers with times. Started by gpu_run.py.

A CUDA error ends the context of the process that it happens in, so each model has one. It prints a line when
its first steps are done, and one for each number of steps that it is told on its standard input; lines that
begin with MARK are meant for gpu_run.py, and all others are the libraries'.

    python -m benchmarks.gpu_worker '{"name": "ours", "device": "cuda", "case": {…}}'
    python -m benchmarks.gpu_worker '{"rates": true, "device": "cuda"}'
"""

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.hiera_models import (
    GRAPH_MODES,
    Case,
    NotOfferedError,
    checked_values,
    make_step,
    product_work,
)

MARK = "@gpu_run "
WARM_UP = 4
"""Steps after the first: a CUDA graph is recorded in the second or third."""
LISTED = 60
"""Names of kernels that the record keeps."""


def answer(**content: Any) -> None:
    """One line for gpu_run.py."""
    sys.stdout.write(f"\n{MARK}{json.dumps(content)}\n")
    sys.stdout.flush()


def wait_for(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(work: Callable[[], Any], count: int, device: torch.device) -> float:
    """Mean time of one of `count` calls, without waiting between them; a GPU's is by its own events."""
    wait_for(device)
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - started) * 1e3 / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def square_rates(device: torch.device) -> dict[str, float]:
    """Rate of a square product in TFLOP/s by type: what a model's products are measured against."""
    side, count = (8192, 30) if device.type == "cuda" else (1024, 3)
    rates = {}
    for precision, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32), ("fp32", torch.float32)):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(one)

        def product(one: Tensor = one, other: Tensor = other, out: Tensor = out) -> None:
            torch.mm(one, other, out=out)

        milliseconds(product, 3, device)
        rates[precision] = 2 * side**3 / min(milliseconds(product, count, device) for _ in range(3)) / 1e9
    return rates


def profile_kernels(step: Callable[[], Tensor], device: torch.device) -> dict[str, Any]:
    """Kernels that one step runs on a GPU, those of a replayed graph among them; copies do not count.

    Returns:
        kernels: how many; kernel_times: a [name, how many, microseconds] for each name, the slowest first.
        None and nothing on a CPU.
    """
    if device.type != "cuda":
        return {"kernels": None, "kernel_times": []}
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        step()
        wait_for(device)
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in record.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation:
            counts[event.name] += 1
            times[event.name] += event.time_range.elapsed_us()
    is_copy = {name: name.lower().startswith(("memcpy", "memset")) for name in counts}
    return {
        "kernels": sum(count for name, count in counts.items() if not is_copy[name]),
        "kernel_times": [[name[:160], counts[name], time] for name, time in times.most_common(LISTED)],
    }


def first_steps(step: Callable[[], Tensor], device: torch.device) -> dict[str, Any]:
    """What the first steps show: seconds of the first and of the others, values, memory, kernels."""
    started = time.perf_counter()
    values = checked_values(step())
    first = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    wait_for(device)
    facts: dict[str, Any] = {"first_seconds": first, "warm_up_seconds": time.perf_counter() - started}
    facts |= {"values": values, "memory_gb": None, "reserved_gb": None}
    if device.type == "cuda":
        facts["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        facts["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
    return facts | profile_kernels(step, device)


def main() -> None:
    """Answer the request on the command line, then times until the input ends."""
    request = json.loads(sys.argv[1])
    device = torch.device(request["device"])
    if "rates" in request:
        name = torch.cuda.get_device_name() if device.type == "cuda" else None
        answer(rates=square_rates(device), card=name)
        return
    case = Case(**request["case"])
    try:
        gflop = product_work(request["name"], case, device)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = make_step(request["name"], case, device)
        facts = first_steps(step, device)
    except (ImportError, NotOfferedError) as error:
        answer(left_out=str(error))
        return
    if device.type == "cuda" and case.mode not in GRAPH_MODES:
        torch.cuda.empty_cache()  # room for those that wait for their turn beside this one
    answer(gflop=gflop, **facts)
    for line in sys.stdin:
        answer(milliseconds=milliseconds(step, int(line), device))


if __name__ == "__main__":
    main()
