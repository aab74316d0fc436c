"""Which device a model runs on: one rule, one option and one error for every command that opens a model.

    python -m medhiera.device                   what is there, and the versions
    python -m medhiera.device --device cuda     the same, or an error where there is none

Training takes its devices from `accelerate launch` instead (one a process), and logs them through this file.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import sys

from medhiera.command_line import add_device_option, new_parser


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    add_device_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import logging
import os
import re
from importlib.metadata import version

import torch
from torch import Tensor

from medhiera.errors import UserError, run_script

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


def choose_device(wanted: str = "auto") -> torch.device:
    """The device that an option's word means, after a first computation on it.

    auto never takes MPS: PyTorch there computed silently wrong numbers from non-contiguous tensors, of which
    this model is full, and nobody has compared ours (docs/decisions.md). It has to be asked for by name.

    Args:
        wanted: auto, cpu, cuda, cuda:N or mps.

    Returns:
        A GPU with its number.

    Raises:
        UserError: no such word, no such device, or one that cannot be used.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?|mps", wanted):
        raise UserError(f"--device {wanted}: wanted auto, cpu, cuda, cuda:N (such as cuda:1) or mps")
    name, _, number = wanted.partition(":")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            f"--device mps: PyTorch {torch.__version__} sees no Apple GPU here; take --device cpu, or auto"
        )
    device = _cuda(wanted, number) if name == "cuda" else torch.device(name)
    try:
        torch.ones(1, device=device).add(1).item()
        if device.type == "cuda":
            torch.cuda.set_device(device)  # pinned memory belongs to the current one
            # cuDNN's convolutions round float32 to TF32 unless told not to, and nothing else here does.
            torch.backends.cudnn.allow_tf32 = False
    except RuntimeError as error:  # in use by another process, too old for this build, a broken driver
        raise UserError(
            f"--device {wanted}: {device} is there and cannot be used ({str(error).splitlines()[0]}); take "
            "another, or --device cpu"
        ) from error
    return device


def _cuda(wanted: str, number: str) -> torch.device:
    """The GPU of this number, or the current one where the number is empty."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        build = "is built without CUDA" if torch.version.cuda is None else "sees no CUDA GPU here"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        raise UserError(
            f"--device {wanted}: PyTorch {torch.__version__} {build}{note}; nvidia-smi says what the driver "
            "sees. Take --device cpu, or auto"
        )
    index = int(number) if number else torch.cuda.current_device()
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UserError(f"--device {wanted}: there is {there}; take one of these, or auto")
    return torch.device("cuda", index)


def move(batch: Tensor, device: torch.device) -> Tensor:
    """A batch on the model's device; to a GPU from pinned memory and without waiting.

    Args:
        batch: contiguous, on the CPU or already there.
        device: where the model is.
    """
    if device.type == "cuda" and batch.device.type == "cpu":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)  # to MPS never without waiting: what is read there may not have arrived


def describe(device: torch.device) -> str:
    """Its name as PyTorch has it, and what it is."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{device} ({torch.cuda.get_device_name(device)}, {total / 1e9:.0f} GB)"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def log_device(device: torch.device, processes: int = 1) -> None:
    """Say where the model runs.

    Args:
        device: of this process.
        processes: how many have one each.
    """
    logger.info("device: %s%s", describe(device), f", {processes} processes" if processes > 1 else "")


def log_peak_memory(device: torch.device) -> None:
    """Say what this process has used of a GPU's memory at most: room for a larger batch, or none."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        logger.info("peak memory on %s: %.1f MB", device, peak / 1e6)


def main(argv: list[str]) -> None:
    """Print every GPU, the device that is chosen, and the versions that shape what it computes."""
    options = read_options(argv)
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    for device in devices:
        major, minor = torch.cuda.get_device_capability(device)
        print(f"{describe(device)}, compute capability {major}.{minor}")
    if not devices:
        print("no CUDA GPU is visible to PyTorch")
    print(f"{options.device} is {describe(choose_device(options.device))}")
    libraries = ("torch", "torchvision", "transformers", "accelerate", "datasets", "timm")
    print(", ".join(f"{name} {version(name)}" for name in libraries) + f"; CUDA {torch.version.cuda}")


if __name__ == "__main__":
    run_script(main)
