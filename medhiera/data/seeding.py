"""Random choices by key: (seed, epoch, image_id), never by worker or position.

So a resumed run and a run with another number of workers or ranks see the same pictures and masks. No
library's random state is read or written: a picture's numbers are a function of its key and of their place.
"""

import hashlib

import numpy as np
import numpy.typing as npt

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def derive_seed(seed: int, epoch: int, image_id: str, purpose: str) -> int:
    """A 63-bit seed from what a random choice may depend on."""
    key = f"{seed}\x1f{epoch}\x1f{image_id}\x1f{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def uniform(keys: npt.NDArray[np.uint64], start: int, count: int) -> npt.NDArray[np.float32]:
    """Numbers from [0, 1) for each key: those at the places `start` to `start + count` of its sequence.

    SplitMix64 read at a place of one's choice: its state is a counter, so a whole batch is computed at once.

    Args:
        keys: (n,), one of each picture, from `derive_seed`.
        start: first place of the sequence.
        count: how many.

    Returns:
        (n, count), multiples of 2⁻²⁴, which float32 holds exactly.

    Source: Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators", OOPSLA.
    """
    places = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    state = keys[:, None] + places * _STEP  # wraps at 2⁶⁴, as all that follows
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
