"""The largest batch that fits into memory, where one did not: found by trying, and said in one message.

On the floor of medhiera: commands with `--batch_size` run their model through it, training its steps.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from medhiera.errors import UserError

T = TypeVar("T")

UNITS = {"images": "image", "studies": "study"}
"""What a batch may be of → one of them."""


def run_or_name_batch(
    work: Callable[[], T], attempt: Callable[[int], object], batch_size: int, unit: str = "images"
) -> T:
    """What `work` returns; where it runs out of memory, one message with the batch that fits.

    Args:
        work: of a command with the option `--batch_size`.
        attempt: does the same to so many images.
        batch_size: images that `work` takes at a time.
        unit: what a batch is of, see UNITS.

    Raises:
        UserError: out of memory.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, so that the failed batch's tensors are gone.
    fitting = largest_fitting(attempt, batch_size)
    if fitting:
        raise UserError(
            f"out of memory: a batch of {batch_size} {unit} does not fit; {fitting} do (tried). Repeat the "
            f"command with --batch_size {fitting}; the result is the same"
        )
    raise UserError(
        f"out of memory: a batch of {batch_size} {unit} does not fit, and neither does one "
        f"{UNITS[unit]}. Another process may hold the memory (nvidia-smi shows a GPU's); else take "
        "--device cpu"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU's allocator ran out; the latter says so in words only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
    is_raw = isinstance(error, RuntimeError)
    return is_raw and any(phrase in text for phrase in phrases)


def largest_fitting(attempt: Callable[[int], object], size: int) -> int:
    """The largest half of a half of … a batch that fits, found by trying.

    Args:
        attempt: runs a step on so many images of the batch.
        size: images of the batch that did not fit.

    Returns:
        A number of images, or 0 where not even one fits.
    """
    fitting = 0
    # Upwards: what a failed attempt held is not always given back, and nothing is asked after the first.
    for count in reversed([size >> halvings for halvings in range(1, size.bit_length())]):
        free_memory()
        try:
            attempt(count)
        except (RuntimeError, MemoryError) as error:
            # Memory has run out once, and oneDNN names no reason where it gets none for its kernels.
            if not is_out_of_memory(error) and "could not create a primitive" not in str(error):
                raise
            break
        fitting = count
    return fitting


def free_memory() -> None:
    """Let go of what a failed step left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
