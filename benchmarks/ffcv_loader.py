"""FFCV's loader, one more row of the modern recipes' table in data_throughput.py, where FFCV is installed.

Needs ffcv with OpenCV's and libturbojpeg's headers, beside the versions of constraints.txt.

Source: Leclerc et al. 2023, "FFCV: Accelerating Training by Removing Data Bottlenecks", arXiv:2306.12517.
"""

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH = 128
MODES = {"raw": "raw RGB", "jpg": "JPEG"}
"""How an image is stored, and what it is called."""


def is_installed() -> bool:
    """Whether there is an FFCV to time."""
    return importlib.util.find_spec("ffcv") is not None


class _Pictures:
    """Image files by their number, as FFCV's writer asks for them."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[np.ndarray[Any, Any]]:
        return (np.asarray(Image.open(self.files[number]).convert("RGB")),)


def write_file(images: Path, out: Path, mode: str) -> None:
    """Write FFCV's file.

    Args:
        images: a folder of PNGs.
        out: the file.
        mode: one of MODES.
    """
    from ffcv.fields import RGBImageField
    from ffcv.writer import DatasetWriter

    writer = DatasetWriter(str(out), {"image": RGBImageField(write_mode=mode)}, num_workers=1)
    writer.from_indexed_dataset(_Pictures(sorted(images.glob("*.png"))))


def time_ffcv(file: Path, epochs: int) -> dict[str, float]:
    """Images a second by column of the table: a random crop of 224, a flip, bytes (batch, 224, 224, 3).

    FFCV works in a thread of the process that trains and writes into memory that is used again, pinned where
    a GPU is. So there is one core, and no further copy.

    Args:
        file: from `write_file`.
        epochs: how many are timed, after one that compiles.
    """
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    crop = RandomResizedCropRGBImageDecoder((224, 224), scale=(0.5, 1.0))
    loader = Loader(
        str(file), batch_size=BATCH, num_workers=1, order=OrderOption.RANDOM, os_cache=True, drop_last=True,
        pipelines={"image": [crop, RandomHorizontalFlip(), ToTensor()]},
    )  # fmt: skip
    images = sum(len(batch) for [batch] in loader) * epochs
    started, core = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        for _ in loader:
            pass
    return {
        "one worker": images / (time.perf_counter() - started),
        "both cores": images / (time.process_time() - core),
    }
