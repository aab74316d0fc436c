"""Shared memory that a loader's worker writes its batches into, again and again.

torch sends each batch in memory of its own. The system makes its pages anew each time and maps them anew in
the process that receives, which can cost either side twice what all else does. Here the worker keeps its
memory, the receiver keeps it mapped, and each batch is copied out of it.
"""

import itertools
import math
import multiprocessing
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADER = 64
"""Bytes before the pixels; the first of them says that a batch waits there to be received."""

_numbers = itertools.count()

_mapped: dict[tuple[int, int], Tensor] = {}
"""What this process has received of its workers' memory, by the worker's process id and the slot's number."""

_changing = threading.Lock()


class Slot:
    """Memory of a worker for one batch at a time.

    Args:
        number: no other slot of the worker has it.
        size: bytes of pixels.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.memory = torch.empty(_HEADER + size, dtype=torch.uint8).share_memory_()
        self.is_sent = False

    @property
    def is_free(self) -> bool:
        """Whether no batch waits here."""
        return not self.memory[0]

    def give_back(self) -> None:
        """Say that the batch has been received."""
        self.memory[0] = 0

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor lies in this memory."""
        return tensor.untyped_storage().data_ptr() == self.memory.untyped_storage().data_ptr()


class BatchMemory:
    """The memory of one worker; it grows to as many batches as wait to be received, by prefetch_factor."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def take(self, *shape: int) -> tuple[Slot, Tensor]:
        """Memory for a batch, with whatever was in it.

        Args:
            shape: of the batch.

        Returns:
            The slot, and its part of this shape, uint8; both go into one `SentBatch`.
        """
        size = math.prod(shape)
        free = [slot for slot in self._slots if slot.is_free]
        slot = next((slot for slot in free if len(slot.memory) >= _HEADER + size), None)
        if slot is None:
            replaced = free[:1]  # whose number it takes over, so that the receiver lets go of its memory
            slot = Slot(replaced[0].number if replaced else next(_numbers), size + size // 8)
            self._slots = [each for each in self._slots if each not in replaced] + [slot]
        slot.memory[0] = 1
        return slot, slot.memory[_HEADER : _HEADER + size].view(shape)


class SentBatch(dict[str, Any]):
    """A worker's batch, which arrives in the process that trains as a plain dict with tensors of its own.

    Its pixels lie in the worker's memory. All else goes through the pipe as it is, a few hundred bytes an
    image: torch would send a file handle for each tensor, and map each, which costs as much as the pixels do.
    A loader has to be handed this very object: a copy of it is a dict, whose pixels torch sends in its way.

    Args:
        batch: `pixel_values`, uint8, as `BatchMemory.take` gave them, and whatever else.
        slot: that the pixels lie in.
        pin_memory: whether the pixels arrive in pinned memory, and the DataLoader need not copy them again.
    """

    def __init__(self, batch: Mapping[str, Any], slot: Slot, *, pin_memory: bool = False) -> None:
        super().__init__(batch)
        self.slot = slot
        self.pin_memory = pin_memory

    def __reduce__(self) -> tuple[Any, ...]:
        memory = None if self.slot.is_sent else self.slot.memory
        self.slot.is_sent = True
        rest = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in self.items()
            if name != "pixel_values"
        }
        shape = self["pixel_values"].shape
        return _receive, (os.getpid(), self.slot.number, memory, shape, self.pin_memory, rest)


def _receive(
    worker: int, number: int, memory: Tensor | None, shape: torch.Size, pin_memory: bool, rest: dict[str, Any]
) -> dict[str, Any]:
    """Copy a batch's pixels out, and give their memory back to the worker.

    Args:
        worker: its process id.
        number: of the slot.
        memory: of the slot when it is sent for the first time; None: it is mapped here.
        shape: of the pixels.
        pin_memory: see SentBatch.
        rest: of the batch, with arrays for tensors.
    """
    if memory is None:
        memory = _mapped[worker, number]
    else:
        forget_ended_workers()
        with _changing:
            _mapped[worker, number] = memory
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pin_memory)
    pixels.copy_(memory[_HEADER : _HEADER + math.prod(shape)].view(shape))
    memory[0] = 0
    tensors = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in rest.items()
    }
    return {"pixel_values": pixels} | tensors


def forget_ended_workers() -> None:
    """Give back the memory of workers that are gone; what a process received it has copied."""
    with _changing:
        running = {child.pid for child in multiprocessing.active_children()}
        for key in [key for key in _mapped if key[0] not in running]:
            del _mapped[key]
