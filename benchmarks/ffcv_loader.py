"""FFCV's loader, one more row of the modern recipes' table in data_throughput.py, where FFCV is installed.

Debian's libopencv-dev and libturbojpeg0-dev, then `pip install numba opencv-python-headless assertpy fastargs
imgcat pytorch_pfn_extras terminaltables` and `pip install --no-deps --no-build-isolation ffcv` (1.0.2), into
an environment that has the versions of constraints.txt.

Source: Leclerc et al. 2023, "FFCV: Accelerating Training by Removing Data Bottlenecks", arXiv:2306.12517.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_ROWS = {
    "FFCV, raw RGB": ("raw", True),
    "FFCV, JPEG": ("jpg", True),
    "FFCV, raw RGB, no crop": ("raw", False),
}
"""How an image is stored, and whether it is cropped, see `time_ffcv`."""


def is_installed() -> bool:
    """Whether there is an FFCV to time: it needs libraries that pip does not bring."""
    try:
        importlib.import_module("ffcv")
    except (ImportError, OSError):
        return False
    return True


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
        mode: raw or jpg.
    """
    from ffcv.fields import RGBImageField
    from ffcv.writer import DatasetWriter

    writer = DatasetWriter(str(out), {"image": RGBImageField(write_mode=mode)}, num_workers=1)
    writer.from_indexed_dataset(_Pictures(sorted(images.glob("*.png"))))


def contenders(
    images: Path, work_dir: Path, batch: int, epochs: int
) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Name and measurement of each row; see `time_ffcv`.

    Args:
        images: a folder of PNGs.
        work_dir: gets FFCV's files.
        batch: images of one.
        epochs: how many are timed.
    """
    for called, (mode, has_crop) in _ROWS.items():
        file = work_dir / f"{mode}.beton"
        if not file.exists():
            write_file(images, file, mode)
        yield called, partial(time_ffcv, file, batch, epochs, has_crop=has_crop)


def time_ffcv(file: Path, batch: int, epochs: int, *, has_crop: bool) -> dict[str, float]:
    """Images a second by column of the table, as bytes in three channels.

    FFCV works in a thread of the process that trains and writes into memory that is used again, pinned where
    a GPU is. So there is one core, and no further copy.

    Args:
        file: from `write_file`.
        batch: images of one.
        epochs: how many are timed, after one that compiles.
        has_crop: random crops resized to 224, and a flip, which of ours the device does. False: whole images
            as they are stored, which is what a worker has to do of ours and three times the bytes.
    """
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    crop = RandomResizedCropRGBImageDecoder((224, 224), scale=(0.5, 1.0))
    steps = [crop, RandomHorizontalFlip(), ToTensor()] if has_crop else [SimpleRGBImageDecoder(), ToTensor()]
    loader = Loader(
        str(file), batch_size=batch, num_workers=1, order=OrderOption.RANDOM, os_cache=True, drop_last=True,
        pipelines={"image": steps},
    )  # fmt: skip
    images = sum(len(pixels) for [pixels] in loader) * epochs
    started, core = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        for _ in loader:
            pass
    return {
        "one worker": images / (time.perf_counter() - started),
        "both cores": images / (time.process_time() - core),
    }
