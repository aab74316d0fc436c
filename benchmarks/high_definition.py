"""A training step in high definition: ours, stock Hiera, and plain ViTs on the paper's 64-pixel patches.

Stands beside the project; nothing imports it. Every model is a masked autoencoder of one channel that hides
the same share; a step is forward, backward and AdamW's update, of which the last weighs more the smaller the
batch is (--no_optimizer leaves it out). Rounds go through the models in turn, so that a slow moment of
the machine falls on all, and each model's peak memory is that of a process of its own.

    python -m benchmarks.high_definition
    python -m benchmarks.high_definition --device cuda --batch_size 16 --precision bf16

`vit-l` is the geometry of "Pre-training on High Definition X-ray Images": ViT-L, patches of 64 pixels, a
decoder of 512 × 8, .885 hidden; by transformers' ViTMAE, as the paper's code has no package.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import HieraForPreTraining, ViTMAEConfig, ViTMAEForPreTraining

from benchmarks.peak_memory import PeakMemory
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining

MODELS = {
    "ours, 32-px tokens": "Hiera-T, num_query_pool 3 (mae_hd.yaml)",
    "ours, 32-px tokens, light": "the same, decoder of 256 × 2 (mae_hd_modern.yaml)",
    "ours, 16-px tokens": "Hiera-T, num_query_pool 2",
    "stock, 32-px tokens": "transformers' Hiera-T, num_query_pool 3",
    "vit-s": "ViT-S, 64-px patches",
    "vit-l": "ViT-L, 64-px patches: the paper's",
}
REFERENCE = "vit-l"
MASK_RATIO = 0.885
LIGHT = {"decoder_hidden_size": 256, "decoder_depth": 2, "decoder_num_heads": 8}


def make_model(name: str, pixels: int) -> torch.nn.Module:
    """One of MODELS for images of one channel and this side, with random weights."""
    if name.startswith("vit"):
        width, depth, heads = {"vit-s": (384, 12, 6), "vit-l": (1024, 24, 16)}[name]
        config = ViTMAEConfig(
            image_size=pixels, patch_size=64, num_channels=1, mask_ratio=MASK_RATIO, norm_pix_loss=True,
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
            intermediate_size=4 * width, decoder_hidden_size=512, decoder_num_hidden_layers=8,
            decoder_num_attention_heads=16, decoder_intermediate_size=2048,
        )  # fmt: skip
        return ViTMAEForPreTraining(config)
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[pixels] * 2, num_channels=1, mask_ratio=MASK_RATIO,
        num_query_pool=2 if "16-px" in name else 3, **(LIGHT if name.endswith("light") else {}),
    )  # fmt: skip
    return HieraForPreTraining(config) if name.startswith("stock") else HieraMAEForPreTraining(config)


def make_step(
    name: str, pixels: int, batch: int, precision: str, has_optimizer: bool, device: torch.device
) -> Callable[[], float]:
    """A training step on a random batch; returns the loss."""
    torch.manual_seed(0)
    model = make_model(name, pixels).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True) if has_optimizer else None
    images = torch.randn(batch, 1, pixels, pixels, device=device)
    half = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    def step() -> float:
        model.zero_grad(set_to_none=True)
        with half:
            loss = model(images).loss
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        return float(loss.detach())  # waits for the device

    return step


def peak_memory(arguments: dict[str, Any]) -> float:
    """MiB that two steps of one model need in a process of its own, less what it held before the first."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.high_definition", "--memory_of", json.dumps(arguments)],
        cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def report_memory(arguments: dict[str, Any]) -> None:
    """The part of `peak_memory` that runs in the fresh process; the weights count."""
    device = torch.device(arguments.pop("device"))
    if device.type == "cuda":
        step = make_step(**arguments, device=device)
        step(), step()
        sys.stdout.write(f"{torch.cuda.max_memory_allocated() / 2**20:.0f}\n")
        return
    with PeakMemory() as memory:
        step = make_step(**arguments, device=device)
        step(), step()
    sys.stdout.write(f"{memory.peak - memory.before:.0f}\n")


def measure(names: list[str], device: torch.device, rounds: int, **shared: Any) -> dict[str, list[float]]:
    """Seconds of each model's step, a round after the other; `shared` as make_step takes it."""
    steps = {name: make_step(name, **shared, device=device) for name in names}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def row(name: str, seconds: dict[str, list[float]], pixels: int, batch: int, memory: float | None) -> str:
    """A model's line of the Markdown table; the ratio to REFERENCE is of steps in the same round."""
    own, median = seconds[name], statistics.median(seconds[name])
    ratio = "–"
    if REFERENCE in seconds:
        pairs = sorted(theirs / mine for theirs, mine in zip(seconds[REFERENCE], own, strict=True))
        ratio = f"{statistics.median(pairs):.2f} ({pairs[0]:.2f}–{pairs[-1]:.2f})"
    held = "" if memory is None else f"{memory:,.0f}"
    took = f"{median:.3g} ({min(own):.3g}–{max(own):.3g})"
    return f"| {pixels} | {MODELS[name]} | {took} | {batch / median:.2f} | {ratio} | {held} |"


def main() -> None:
    """Run the command line (see the top of this file)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 1280], help="multiples of 64")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no_optimizer", action="store_true", help="forward and backward alone")
    parser.add_argument("--no_memory", action="store_true", help="leave the processes for peak memory out")
    parser.add_argument("--json", type=Path, help="write the seconds here")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        report_memory(json.loads(options.memory_of))
        return
    device = torch.device(options.device)
    sys.stdout.write(
        f"{'forward and backward' if options.no_optimizer else 'forward, backward and AdamW'}, "
        f"{options.precision}, batch {options.batch_size}, {torch.get_num_threads()} threads, {device}\n\n"
        "| pixels | model | seconds a step (fastest–slowest) | images/s | to ViT-L, by round | peak MiB |\n"
        "|---|---|---|---|---|---|\n"
    )
    everything = {}
    for pixels in options.sizes:
        shared = {"pixels": pixels, "batch": options.batch_size, "precision": options.precision}
        shared["has_optimizer"] = not options.no_optimizer
        seconds = measure(options.models, device=device, rounds=options.rounds, **shared)
        everything[pixels] = seconds
        for name in options.models:
            of = {"name": name, "device": options.device, **shared}
            memory = None if options.no_memory else peak_memory(of)
            sys.stdout.write(row(name, seconds, pixels, options.batch_size, memory) + "\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
