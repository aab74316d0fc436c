"""Perceptual hashes that people look for copies with, beside the leakage guard: only called.

leakage_table.py prints what they find. They are no dependency: `pip install ImageHash` (BSD-2) and
`pip install imagededup` (Apache 2.0); where one is absent, the table says so.
"""

from importlib.util import find_spec

import numpy as np
from PIL import Image

MOST_BITS = 10  # that may differ of 64: imagededup's default, and the usual threshold of ImageHash's pHash

_BY_IMAGEDEDUP = {"imagededup pHash": "PHash", "imagededup dHash": "DHash", "imagededup wHash": "WHash"}


def available() -> list[str]:
    """Return the names of the hashes that this installation can compute."""
    names = ["ImageHash pHash"] if find_spec("imagehash") else []
    return names + (list(_BY_IMAGEDEDUP) if find_spec("imagededup") else [])


def hashes(image: Image.Image, names: list[str]) -> np.ndarray:
    """Return (hashes, 8), uint8: the 64 bits of each."""
    found = []
    for name in names:
        if name in _BY_IMAGEDEDUP:
            from imagededup.methods import hashing  # no dependency: see above

            method = getattr(hashing, _BY_IMAGEDEDUP[name])(verbose=False)
            text = method.encode_image(image_array=np.asarray(image.convert("RGB")))
        else:
            import imagehash  # no dependency: see above

            text = str(imagehash.phash(image))
        found.append(np.frombuffer(bytes.fromhex(text), np.uint8))
    return np.stack(found) if found else np.zeros((0, 8), np.uint8)


def distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return (queries, references): how many bits differ between (…, 8) and (…, 8)."""
    return np.bitwise_count(queries[:, None] ^ references[None]).sum(axis=2, dtype=np.int64)
