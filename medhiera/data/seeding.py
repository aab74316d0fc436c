"""Random choices by key: (seed, epoch, image_id), never by worker or position.

So a resumed run and a run with another number of workers or ranks see the same pictures and masks.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive_seed(seed: int, epoch: int, image_id: str, purpose: str) -> int:
    """A 63-bit seed from what a random choice may depend on."""
    key = f"{seed}\x1f{epoch}\x1f{image_id}\x1f{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a library's random transform under one seed, then put all generators back.

    torchvision draws from torch, timm's RandAugment from random and numpy: all three are seeded.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm draws from numpy's global state
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace in each call
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - as above
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - as above
