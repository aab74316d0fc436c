"""What is drawn for each training image: crop, flip, RandAugment, rotation.

Workers draw here, by the image's key alone (seeding.py), and cut crops out, so that the rest of an image
stays behind; batch_augmentation.py does all else on the device.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medhiera.config.arguments import AugmentationArguments
from medhiera.data.batch_augmentation import OPERATIONS, ROUNDS
from medhiera.data.seeding import uniform

_TRIES = 10
_ASPECT_RATIOS = (3.0 / 4.0, 4.0 / 3.0)

# Places in the sequence of an image's key; each has one use, so that no draw depends on other options.
_CROP = 0
_FLIP = _CROP + 2 * _TRIES + 2
_ROTATION = _FLIP + 1
_OPERATIONS = _ROTATION + 1  # masks.py begins at 64


@dataclass(frozen=True)
class Augmentation:
    """The recipe's random changes of a training image, in this order; all off by default.

    Args:
        smallest_scale: smallest share of the image's area that a random crop keeps, 3:4 to 4:3, in place of
            resize and center crop; the largest is all of it. 0: no random crop.
        has_flip: every second image is mirrored.
        has_rand_augment: two of RandAugment's operations.
        rotation_degrees: largest angle of a rotation about the center; 0: none.
        has_nearest_rotation: it takes the nearest pixel, as med-hiera; else bilinear.
    """

    smallest_scale: float = 0.0
    has_flip: bool = False
    has_rand_augment: bool = False
    rotation_degrees: float = 0.0
    has_nearest_rotation: bool = False

    @classmethod
    def of(
        cls, options: AugmentationArguments, rotation_degrees: float = 0.0, has_nearest_rotation: bool = False
    ) -> "Augmentation":
        """The augmentation that a config asks for; the rotation is a stage's own option."""
        shared = (options.random_crop_scale, options.horizontal_flip, options.rand_augment)
        return cls(*shared, rotation_degrees, has_nearest_rotation)

    def boxes(self, keys: npt.NDArray[np.uint64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The random crop of each image, drawn as torchvision's RandomResizedCrop draws it.

        Args:
            keys: (batch,).
            sizes: (batch, 2), height and width of the images in pixels.

        Returns:
            (batch, 4): top, left, height, width in whole pixels.

        Source: Szegedy et al. 2015, arXiv:1409.4842, section 6.
        """
        drawn = uniform(keys, _CROP, 2 * _TRIES + 2).astype(np.float64)
        height, width = sizes[:, :1], sizes[:, 1:]
        area = height * width * (self.smallest_scale + (1.0 - self.smallest_scale) * drawn[:, :_TRIES])
        low, high = (math.log(ratio) for ratio in _ASPECT_RATIOS)
        ratio = np.exp(low + (high - low) * drawn[:, _TRIES : 2 * _TRIES])
        tried = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], -1))).astype(np.int64)
        fits = np.logical_and(tried > 0, tried <= sizes[:, None]).all(-1)
        has_box = np.logical_or.reduce(fits, axis=1, keepdims=True)
        box = np.take_along_axis(tried, fits.argmax(1)[:, None, None], 1)[:, 0]
        # None of ten fits a long image: the middle of it, as far as 3:4 and 4:3 reach.
        longest = np.rint(sizes[:, ::-1] * _ASPECT_RATIOS[1]).astype(np.int64)
        box = np.where(has_box, box, np.minimum(sizes, longest))
        free = sizes - box
        corner = np.floor(drawn[:, 2 * _TRIES :] * (free + 1)).astype(np.int64)
        corner = np.where(has_box, corner, free // 2)
        return np.concatenate([corner, box], 1)

    def draws(self, keys: npt.NDArray[np.uint64]) -> dict[str, Tensor]:
        """What the device does with each image after the crop; the names are the batch's.

        Args:
            keys: (batch,).

        Returns:
            As far as the recipe has them: `is_flipped` (batch,), bool; `operations` (batch, rounds, 2),
            float32, the index of an operation and the sign of its magnitude; `angle` (batch,), float32, in
            degrees, counter-clockwise, or `nearest_angle` where the rotation takes the nearest pixel.
        """
        drawn: dict[str, Tensor] = {}
        if self.has_flip:
            drawn["is_flipped"] = torch.from_numpy(uniform(keys, _FLIP, 1)[:, 0] < 0.5)
        if self.has_rand_augment:
            numbers = uniform(keys, _OPERATIONS, 2 * ROUNDS).reshape(-1, ROUNDS, 2)
            chosen = np.floor(numbers[..., 0] * len(OPERATIONS))
            sign = np.where(numbers[..., 1] < 0.5, -1.0, 1.0)
            drawn["operations"] = torch.from_numpy(np.stack([chosen, sign], -1).astype(np.float32))
        if self.rotation_degrees:
            angle = (uniform(keys, _ROTATION, 1)[:, 0] * 2 - 1) * np.float32(self.rotation_degrees)
            drawn["nearest_angle" if self.has_nearest_rotation else "angle"] = torch.from_numpy(angle)
        return drawn
