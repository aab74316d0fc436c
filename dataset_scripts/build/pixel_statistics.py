"""Exact mean and standard deviation of a training split, in one pass, by histogram.

Builder (each worker counts its own images) → merge → `pixel_statistics.json` → both training stages.

Every image has equal weight whatever its resolution, because training resizes them all to one size.
Sums are integers, so the result does not depend on the number of processes or their order.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_scripts.build.layout import STATISTICS_FILE

_ONE = 1 << 40  # one image's weight in fixed point: 2^22 images fit into 63 bits


@dataclass(slots=True)
class PixelHistogram:
    """Counts gray levels of 8-bit images; `weights[level]` is the fixed-point share summed over images."""

    images: int = 0
    weights: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    sum_of_stds: int = 0

    def add(self, image: npt.NDArray[np.uint8]) -> None:
        """Count one image, (height, width), uint8."""
        share = np.bincount(image.reshape(-1), minlength=256) / image.size
        levels = np.arange(256) / 255.0
        mean = float(share @ levels)
        variance = float(share @ (levels - mean) ** 2)
        self.images += 1
        self.weights += np.rint(share * _ONE).astype(np.int64)
        self.sum_of_stds += round(math.sqrt(variance) * _ONE)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain numbers, for a worker to hand over."""
        return {"images": self.images, "weights": self.weights.tolist(), "sum_of_stds": self.sum_of_stds}

    @classmethod
    def merged(cls, parts: Iterable[dict[str, Any]]) -> "PixelHistogram":
        """Add up what workers handed over."""
        total = cls()
        for part in parts:
            total.images += part["images"]
            total.weights += np.asarray(part["weights"], np.int64)
            total.sum_of_stds += part["sum_of_stds"]
        return total

    def statistics(self) -> dict[str, Any]:
        """Return mean and std in [0, 1] units, with what they were counted on.

        `std` is the standard deviation of all pixels; `mean_of_stds` is the mean of each image's own,
        which the MedTransformer recipe uses in its place (it leaves out what differs between images).

        Raises:
            ValueError: no image was counted.
        """
        if self.images == 0:
            raise ValueError("No image was counted, so there is no mean. Wanted at least one training image.")
        share = self.weights / self.weights.sum()
        levels = np.arange(256) / 255.0
        mean = float(share @ levels)
        return {
            "mean": mean,
            "std": math.sqrt(float(share @ (levels - mean) ** 2)),
            "mean_of_stds": self.sum_of_stds / _ONE / self.images,
            "images": self.images,
            "split": "train",
            "weighting": "every image equally",
            "histogram": [round(float(value), 9) for value in share],
        }


def read_statistics(folder: Path | str) -> dict[str, Any]:
    """Read `pixel_statistics.json` of a built dataset's folder.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    path = Path(folder) / STATISTICS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. Wanted the folder of a dataset built by dataset_scripts (builder.cache_dir "
            "or the command line's --output_dir); build it again, or pass mean and std yourself."
        )
    statistics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return statistics
