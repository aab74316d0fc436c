"""PIL image → pixel_values: one preprocessing for training, evaluation and the published processor.

Stands between reading and the dataset; inference, localization and the page ask it which part of an image the
model sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf
from transformers import BitImageProcessor

from medhiera.data.batch_augmentation import DRAWS, augment
from medhiera.data.stored_images import GrayArray

STEPS = ("do_resize", "resample", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize")
"""Settings of an image processor other than its sizes, mean and standard deviation."""


class CropBox(NamedTuple):
    """Where the model's input lies in one image: a square of the resized image.

    Attributes:
        left: first column of the crop in the resized image, in whole pixels; negative where it is padded.
        top: first row of it.
        side: of the crop in pixels of the resized image, which are those of the model's input.
        resized: shorter side of the resized image, in pixels.
        shorter: shorter side of the image itself.
    """

    left: int
    top: int
    side: int
    resized: int
    shorter: int

    @property
    def scale(self) -> float:
        """Pixels of the resized image per pixel of the image.

        Exact for the shorter side; the longer one is rounded down to whole pixels, so that a place at its far
        end is off by less than one pixel.
        """
        return self.resized / self.shorter

    def in_image(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of the image before its resize, with fractions."""
        corners = (self.left, self.top, self.left + self.side, self.top + self.side)
        left, top, right, bottom = (corner * self.shorter / self.resized for corner in corners)
        return left, top, right, bottom


@dataclass(frozen=True)
class CenterCrop:
    """A resize of the shorter side, then the square in the middle: which part of an image the model sees.

    Args:
        resize_size: shorter side after the resize, in pixels.
        image_size: side of the crop in pixels.
    """

    resize_size: int
    image_size: int

    def box(self, width: int, height: int) -> CropBox:
        """The crop of an image, rounded as torchvision and the stock image processors do.

        The longer side after the resize and the crop's corner are both rounded down; torchvision's own center
        crop rounds the corner to the nearest pixel, one apart.

        Args:
            width: of the image in pixels, before the resize.
            height: of the image in pixels.

        Returns:
            The box in pixels of the resized image; its `in_image` is the same in pixels of the image.
        """
        shorter = min(width, height)
        left, top = (
            (int(self.resize_size * length / shorter) - self.image_size) // 2 for length in (width, height)
        )
        return CropBox(left, top, self.image_size, self.resize_size, shorter)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the center, normalize; what preprocessor_config.json says.

    Args:
        image_size: side of the crop in pixels.
        resize_size: shorter side after the resize, in pixels; the paper has 256 for a crop of 224.
        mean: mean of the stage-1 training pixels, in units of [0, 1]; the same for all three channels.
        std: their standard deviation, in the same units.

    Source: MedTransformer, section on pre-processing: bicubic, center crop, one normalization in both stages.
    """

    image_size: int
    resize_size: int
    mean: float
    std: float

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized and cropped gray pixels, not yet normalized.

        Args:
            image: any mode; 8 bits a channel.

        Returns:
            (1, image_size, image_size), uint8.
        """
        return torch.from_numpy(self.crop_gray(np.array(image.convert("L")))).unsqueeze(0)

    def crop_gray(self, image: GrayArray) -> GrayArray:
        """The same of a gray array.

        Args:
            image: (height, width).

        Returns:
            (image_size, image_size); a view of the image where its shorter side is resize_size already.
        """
        height, width = image.shape
        box = self.crop_box(width, height)
        if min(image.shape) != self.resize_size:
            lengths = (int(self.resize_size * length / box.shorter) for length in image.shape)
            image = resize_gray(image, *lengths)
        return image[box.top : box.top + box.side, box.left : box.left + box.side]

    def normalize(self, pixels: Tensor, channels: int = 3) -> Tensor:
        """Gray bytes to the model's input.

        Args:
            pixels: (batch, 1, height, width), uint8.
            channels: that the model takes.

        Returns:
            (batch, channels, height, width), float32, on the pixels' device; the channels are equal and share
            memory, so the tensor cannot be pinned: make it on the device that uses it.
        """
        return self._normalize_gray(pixels).expand(-1, channels, -1, -1)

    def _normalize_gray(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) - self.mean * 255.0) / (self.std * 255.0)

    def model_inputs(self, batch: Mapping[str, Any], channels: int = 3) -> dict[str, Any]:
        """Turn the collator's batch into the model's inputs, on the batch's device.

        Args:
            batch: `pixel_values` (batch, 1, height, width), uint8; what was drawn for the images, see
                batch_augmentation.augment; with Mixup also `mixup_share`.
            channels: that the model takes.

        Returns:
            The batch with `pixel_values` (batch, channels, image_size, image_size), float32, augmented,
            normalized and mixed.
        """
        draws = {name: batch[name] for name in DRAWS if name in batch}
        inputs = {name: value for name, value in batch.items() if name not in DRAWS}
        gray = self._normalize_gray(augment(inputs["pixel_values"], draws, self.image_size))
        share = inputs.pop("mixup_share", None)
        if share is not None:  # mixed once, before it is widened to several channels
            gray = gray.roll(1, 0).mul(1.0 - share).add(gray.mul(share))
        inputs["pixel_values"] = gray.expand(-1, channels, -1, -1)
        return inputs

    def pixel_values(self, images: Sequence[Image.Image], channels: int = 3) -> Tensor:
        """(images, channels, image_size, image_size), float32; any mode with 8 bits a channel."""
        return self.normalize(torch.stack([self.pixels(image) for image in images]), channels)

    @property
    def crop(self) -> CenterCrop:
        """Which part of an image the model sees."""
        return CenterCrop(self.resize_size, self.image_size)

    def crop_box(self, width: int, height: int) -> CropBox:
        """Where the model's input lies in an image of this size, in pixels; see CenterCrop.box."""
        return self.crop.box(width, height)

    def to_processor(self) -> BitImageProcessor:
        """The stock image processor that does the same, for preprocessor_config.json.

        Three channels of mean and std: the stock pipeline converts to RGB and breaks on one channel.
        """
        return BitImageProcessor(
            size={"shortest_edge": self.resize_size},
            crop_size={"height": self.image_size, "width": self.image_size},
            image_mean=[self.mean] * 3,
            image_std=[self.std] * 3,
        )

    @classmethod
    def from_processor(cls, processor: Any) -> "Preprocessing":
        """Read a stage's preprocessor_config.json back.

        Raises:
            ValueError: the processor is not one that `to_processor` could have written.
        """
        try:
            mean, std = list(processor.image_mean), list(processor.image_std)
            found = (processor.crop_size["height"], processor.crop_size["width"])
            resize_size = int(processor.size["shortest_edge"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"this image processor ({type(processor).__name__}) has no shortest_edge and crop_size; "
                "wanted the preprocessor_config.json that train_mae.py or train_cls.py wrote"
            ) from error
        if found[0] != found[1] or len(set(mean)) != 1 or len(set(std)) != 1:
            raise ValueError(
                f"crop {found}, mean {mean} and std {std}: wanted a square crop and equal channels; "
                "radiographs are gray. Write a new processor with Preprocessing(...).to_processor()"
            )
        if found[0] > resize_size:
            raise ValueError(
                f"a crop of {found[0]} pixels from images whose shorter side is {resize_size}: wanted a crop "
                "that is not larger. Write a new processor with Preprocessing(...).to_processor()"
            )
        result = cls(int(found[0]), resize_size, float(mean[0]), float(std[0]))
        ours = result.to_processor()
        others = [name for name in STEPS if getattr(processor, name, None) != getattr(ours, name)]
        if others:
            raise ValueError(f"{', '.join(others)} of this image processor differ from ours")
        return result


def resize_gray(image: GrayArray, height: int, width: int) -> GrayArray:
    """Resize a gray array as torchvision does, which the published processor calls: bicubic, antialiased."""
    resized = tvf.resize(
        torch.tensor(image)[None], [height, width],
        interpolation=v2.InterpolationMode.BICUBIC, antialias=True,
    )  # fmt: skip
    array: GrayArray = resized[0].numpy()
    return array
