"""Damages the content of a file as disks, networks and strangers do."""

import numpy as np

_EXTREMES = [
    b"\xff" * 4,
    b"\0" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x80\0\0\0",
    b"nan ",
]


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: flipped bits, a cut, a hole, noise, a number at its extreme, a part twice.

    Half of it hits the first kilobyte, where headers are.
    """
    for _ in range(rng.integers(1, 5)):
        reach = len(content) if rng.random() < 0.5 else min(1024, len(content))
        at = int(rng.integers(reach)) if reach else 0
        length = int(rng.integers(1, 64))
        part = content[at : at + length]
        noise = rng.integers(0, 256, length, np.uint8).tobytes()
        extreme = _EXTREMES[rng.integers(len(_EXTREMES))]
        flipped = bytes(byte ^ (1 << int(rng.integers(8))) for byte in part[:4])
        content = [
            content[:at] + flipped + content[at + len(flipped) :],
            content[:at],
            content[:at] + content[at + length :],
            content[:at] + noise + content[at + length :],
            content[:at] + noise + content[at:],
            content[:at] + extreme + content[at + 4 :],
            content[:at] + part + content[at:],
        ][rng.choice(7, p=[0.35, 0.08, 0.1, 0.12, 0.05, 0.25, 0.05])]
    return content
