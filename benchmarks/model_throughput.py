"""How fast each Hiera trains and infers on a CPU: Meta's, hiera-optim, transformers', timm's and ours.

Stands beside the project; nothing imports it. Every model gets the same weights and the same mask, their
losses are compared before anything is timed, and repetitions go round the models in turn, so that a slow
moment of the machine falls on all.

    python -m benchmarks.model_throughput --cases train --precisions bf16
    python -m benchmarks.model_throughput --compile both --batch-sizes 1 16

A training step is forward and backward of the masked autoencoder at mask ratio 0.6; the optimizer is left
out, being the same for all. Training in bf16 is autocast over float32 weights; inference in bf16 has bf16
weights: the fastest documented setting of every library. Meta's package and hiera-optim are left out where
they are not installed (pip install ".[bench]"). On a GPU, where each model has a process of its own, it is
`make bench-gpu` (gpu_run.py).
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.hiera_models import (
    AGREEMENT,
    BUILDERS,
    Case,
    NotOfferedError,
    checked_values,
    make_step,
    product_work,
    relative_difference,
)
from modeling_hiera_mae.fused_linear import linear

CPU = torch.device("cpu")


@dataclass
class Result:
    """What one model did in one case.

    Attributes:
        case: what was measured.
        model: a key of BUILDERS.
        seconds: of each timed step; the same place in every model's list is the same round.
        peak_memory_mb: in a fresh process, of the tensors and of the whole process; or None.
        check: the loss, or logits.
    """

    case: Case
    model: str
    seconds: list[float]
    peak_memory_mb: tuple[float, float] | None
    check: list[float]

    @property
    def images_per_second(self) -> float:
        """Of the median step."""
        return self.case.batch / statistics.median(self.seconds)


def measure(
    cases: Iterable[Case], names: list[str], repeats: int, with_memory: bool
) -> Iterator[list[Result]]:
    """Time every model in every case, in turn.

    Args:
        cases: what to measure.
        names: keys of BUILDERS.
        repeats: timed steps of each model, after two that are not timed.
        with_memory: also run each model alone in a fresh process for its peak memory.

    Raises:
        SystemExit: the models do not compute the same loss.
    """
    for case in cases:
        steps, checks = {}, {}
        for name in names:
            try:
                steps[name] = make_step(name, case, CPU)
            except (ImportError, NotOfferedError) as error:
                sys.stderr.write(f"{name} left out: {error}\n")
                continue
            checks[name] = checked_values(steps[name]())
            steps[name]()
        reference = checks[next(iter(checks))]
        for name, values in checks.items():
            difference = relative_difference(values, reference)
            if not difference <= AGREEMENT[case.precision]:
                raise SystemExit(
                    f"{name} computes {values[:3]}, the others {reference[:3]}, in {case}: not comparable"
                )
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(repeats):
            for name, step in steps.items():
                seconds[name].append(_time(step))
        del steps
        yield [
            Result(
                case,
                name,
                times,
                _peak_memory(name, case) if with_memory else None,
                checks[name],
            )
            for name, times in seconds.items()
        ]


def _time(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _peak_memory(name: str, case: Case) -> tuple[float, float]:
    """Peak memory in a fresh process, in MB (10⁶ bytes), less what it held before its first step.

    Returns:
        Of the tensors that a step makes, and of the process over two steps. The second is larger by what the
        C library's heap cannot give to the next tensor, which differs from run to run.
    """
    request = json.dumps({"name": name, "case": asdict(case)})
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.model_throughput", "--memory-of", request],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    tensors, resident = process.stdout.strip().splitlines()[-1].split()
    return float(tensors), float(resident)


def report_memory(request: str) -> None:
    """The fresh process's part of `_peak_memory`."""
    content = json.loads(request)
    step = make_step(content["name"], Case(**content["case"]), CPU)
    before = _resident("VmRSS")
    step(), step()
    resident = _resident("VmHWM") - before
    tensors = _peak_of_tensors(step)
    sys.stdout.write(f"{tensors:.0f} {resident:.0f}\n")


def _peak_of_tensors(step: Callable[[], Any]) -> float:
    """Most MB that tensors made in this step hold at one time, from the CPU allocator's own record."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events)) / 1e6


def _resident(field: str) -> float:
    """VmRSS (now) or VmHWM (highest) of this process, in MB; getrusage's maximum would be the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("peak memory needs Linux (/proc/self/status)")


def matrix_rate(precision: str) -> float:
    """Measured rate of a large square matrix product, in GFLOP/s: the ceiling of any model.

    torch has two libraries for it; the faster one counts.
    """
    side = 2048
    one = torch.randn(side, side, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    products = (lambda: one @ one, lambda: linear(one, one, None))
    medians = [statistics.median([_time(product) for _ in range(7)][2:]) for product in products]
    return 2 * side**3 / min(medians) / 1e9


def table(results: list[Result], gflop: dict[str, float], rate: float) -> str:
    """One case as lines of a Markdown table, fastest first.

    Args:
        results: of the case.
        gflop: of the matrix products of each model's own step, an image.
        rate: of a square product, in GFLOP/s.
    """
    lines = []
    case = results[0].case
    how = "eager" if case.mode == "eager" else "compiled"
    peers = [r for r in results if r.model != "ours"]
    best = max(peers or results, key=lambda r: r.images_per_second)
    for result in sorted(results, key=lambda r: -r.images_per_second):
        memory = "" if result.peak_memory_mb is None else "{:.0f} / {:.0f}".format(*result.peak_memory_mb)
        pairs = sorted(theirs / own for theirs, own in zip(best.seconds, result.seconds, strict=True))
        ratio = f"{statistics.median(pairs):.2f} ({pairs[0]:.2f}–{pairs[-1]:.2f})"
        lines.append(
            f"| {case.task} {case.size} {case.pixels} ×{case.batch} {case.precision} "
            f"{how} | {result.model} | {result.images_per_second:.2f} "
            f"({case.batch / max(result.seconds):.2f}–{case.batch / min(result.seconds):.2f}) | {ratio} | "
            f"{memory} | "
            f"{result.images_per_second * gflop[result.model] / rate:.0%} |"
        )
    return "\n".join(lines)


HEADER = (
    "| case | model | images/s (slowest–fastest) | to best peer, by round | peak MB, tensors / process "
    "| of the products' ceiling |\n"
    "|---|---|---|---|---|---|"
)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    packages = ("torch", "transformers", "timm", "hiera-transformer", "hiera-optim")
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        models = [
            line.split(":")[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return {"name": name, "capability": capability, "threads": torch.get_num_threads(), "versions": versions}


def main() -> None:
    """Run the command line (see the top of this file)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["train", "infer"], choices=["train", "infer"])
    parser.add_argument("--sizes", nargs="+", default=["tiny"], help="Hiera sizes, or SIZE@PIXELS (base@512)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[16])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--compile", default="no", choices=["no", "yes", "both"])
    parser.add_argument("--models", nargs="+", default=list(BUILDERS), choices=list(BUILDERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--memory", action="store_true", help="also peak memory, each model in a fresh process"
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        report_memory(options.memory_of)
        return
    sizes = [(size.split("@")[0], int((size.split("@") + ["224"])[1])) for size in options.sizes]
    modes = {"no": ["eager"], "yes": ["default"], "both": ["eager", "default"]}[options.compile]
    cases = [
        Case(task, size, pixels, batch, precision, mode)
        for task in options.cases
        for size, pixels in sizes
        for batch in options.batch_sizes
        for precision in options.precisions
        for mode in modes
    ]
    rates = {precision: matrix_rate(precision) for precision in options.precisions}
    facts = machine(CPU)
    where = f"{facts['name']}, {facts['threads']} threads, {facts['capability']}"
    measured = ", ".join(f"{precision} {rate:.0f}" for precision, rate in rates.items())
    sys.stdout.write(f"{where}; {facts['versions']}\nmatrix products, GFLOP/s: {measured}\n\n{HEADER}\n")
    everything = []
    for results in measure(cases, options.models, options.repeats, options.memory):
        case = results[0].case
        gflop = {result.model: product_work(result.model, case, CPU) for result in results}
        sys.stdout.write(f"{table(results, gflop, rates[case.precision])}\n")
        sys.stdout.flush()
        everything += [asdict(result) for result in results]
    if options.json:
        content = {"machine": facts, "matrix_gflops": rates, "results": everything}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
