"""Shared memory that a loader's worker writes its batches into, again and again.

torch sends each batch in memory of its own. The system makes its pages anew each time, which can cost a
worker twice what all else does. Here the worker keeps its memory, and the receiver copies out of it.
"""

import math
from typing import Any

import torch
from torch import Tensor

_HEADER = 64
"""Bytes before the pixels; the first of them says that a batch waits there to be received."""


class BatchMemory:
    """The memory of one worker; it grows to as many batches as wait to be received, by prefetch_factor."""

    def __init__(self) -> None:
        self._slots: list[Tensor] = []

    def take(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Memory for a batch, with whatever was in it.

        Args:
            shape: of the batch.

        Returns:
            The slot, and its part of this shape, uint8; both go into one `SentPixels`.
        """
        size = math.prod(shape)
        free = [slot for slot in self._slots if not slot[0]]
        slot = next((slot for slot in free if len(slot) >= _HEADER + size), None)
        if slot is None:
            self._slots = [slot for slot in self._slots if not any(slot is small for small in free[:1])]
            slot = torch.empty(_HEADER + size + size // 8, dtype=torch.uint8).share_memory_()
            self._slots.append(slot)
        slot[0] = 1
        return slot, slot[_HEADER : _HEADER + size].view(shape)


class SentPixels:
    """A batch's pixels in a worker's memory, which arrive in the process that trains as a tensor of its own.

    Args:
        slot: from `BatchMemory.take`.
        shape: of the pixels.
    """

    def __init__(self, slot: Tensor, shape: torch.Size) -> None:
        self.slot = slot
        self.shape = shape

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self.slot, self.shape)


def _receive(slot: Tensor, shape: torch.Size) -> Tensor:
    """Copy a batch out, and give its memory back to the worker."""
    pixels = slot[_HEADER : _HEADER + math.prod(shape)].view(shape).clone()
    slot[0] = 0
    return pixels
