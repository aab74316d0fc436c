"""PIL image → pixel_values: one preprocessing for training, evaluation and the published processor.

Second arrow after the data: rows of the cocktail become batches. Every random choice (augmentation and
MAE mask alike) is keyed by (seed, epoch, image_id) and, where a mix repeats an image, by which showing it is;
never by worker or position, so a resumed run and a run with another number of workers or ranks see the same
pictures.
"""

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf
from transformers import BitImageProcessor

from medhiera.options import AugmentationOptions

STEPS = ("do_resize", "resample", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize")
"""What an image processor does, beside its sizes, mean and deviation."""

EVALUATION_EPOCH = -1
"""The epoch in the key of evaluation masks: the same masks in every evaluation of every run."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, normalise; what preprocessor_config.json says.

    Args:
        image_size: side of the crop in pixels.
        resize_size: shorter side after the resize, in pixels; the paper has 256 for a crop of 224.
        mean: mean of the stage-1 training pixels, in units of [0, 1]; the same for all three channels.
        std: their standard deviation, in the same units.

    Source: MedTransformer, section on pre-processing: bicubic, centre crop, one normalisation in both stages.
    """

    image_size: int
    resize_size: int
    mean: float
    std: float

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized and cropped gray pixels, not yet normalised.

        Args:
            image: any mode; 8 bits a channel.

        Returns:
            (1, image_size, image_size), uint8.
        """
        gray = tvf.resize(
            gray_bytes(image), [self.resize_size], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        # torchvision's own centre crop rounds where the stock processor truncates: one pixel apart.
        top, left = ((side - self.image_size) // 2 for side in gray.shape[-2:])
        return gray[:, top : top + self.image_size, left : left + self.image_size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Gray bytes to the model's input.

        Args:
            pixels: (batch, 1, height, width), uint8.

        Returns:
            (batch, 3, height, width), float32, on the pixels' device; the three channels are equal and share
            memory, so such a tensor is made where it is used: it cannot be pinned.
        """
        return self._normalise_gray(pixels).expand(-1, 3, -1, -1)

    def _normalise_gray(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) - self.mean * 255.0) / (self.std * 255.0)

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What Collator hands over → what the model takes, on the device that the batch lies on.

        Args:
            batch: `pixel_values` (batch, 1, height, width), uint8; with Mixup also `mixup_share`.

        Returns:
            The batch with `pixel_values` (batch, 3, height, width), float32, normalised and mixed.
        """
        inputs = dict(batch)
        gray = self._normalise_gray(inputs["pixel_values"])
        share = inputs.pop("mixup_share", None)
        if share is not None:  # mixed once, not once a channel
            gray = gray.roll(1, 0).mul(1.0 - share).add(gray.mul(share))
        inputs["pixel_values"] = gray.expand(-1, 3, -1, -1)
        return inputs

    def pixel_values(self, images: Sequence[Image.Image]) -> Tensor:
        """(images, 3, image_size, image_size), float32, of images of any mode with 8 bits a channel."""
        return self.normalise(torch.stack([self.pixels(image) for image in images]))

    @property
    def crop(self) -> tuple[int, int]:
        """`resize_size` and `image_size`: what maps a place in an image to one in the model's input."""
        return self.resize_size, self.image_size

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
        """Read back what a stage's preprocessor_config.json holds.

        Raises:
            ValueError: the processor is not one that `to_processor` could have written.
        """
        try:
            mean, std = processor.image_mean, processor.image_std
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
                "radiographs are gray. Write the processor anew with Preprocessing(...).to_processor()"
            )
        result = cls(int(found[0]), resize_size, float(mean[0]), float(std[0]))
        ours = result.to_processor()
        others = [name for name in STEPS if getattr(processor, name, None) != getattr(ours, name)]
        if others:
            raise ValueError(f"{', '.join(others)} of this image processor differ from ours")
        return result


def gray_bytes(image: Image.Image) -> Tensor:
    """(1, height, width) uint8 of an image of any mode with 8 bits a channel."""
    return torch.from_numpy(np.array(image.convert("L"))).unsqueeze(0)


def random_crop(image_size: int, smallest_scale: float) -> Callable[[Tensor], Tensor]:
    """A random part of the image, 3:4 to 4:3, resized to the model's input; in place of resize and crop.

    Args:
        image_size: side of the result in pixels.
        smallest_scale: smallest share of the image's area; the largest is all of it.

    Returns:
        A function from (1, any height, any width) uint8 to (1, image_size, image_size).
    """
    crop: Callable[[Tensor], Tensor] = v2.RandomResizedCrop(
        image_size, scale=(smallest_scale, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    return crop


class GrayRandAugment(v2.RandAugment):
    """RandAugment, two of its operations at magnitude 9 of 31, without Color: radiographs are gray.

    Source: Cubuk et al. 2019, arXiv:1909.13719; N, M and the missing Color as in MedTransformer.
    """

    _AUGMENTATION_SPACE = {
        name: operation for name, operation in v2.RandAugment._AUGMENTATION_SPACE.items() if name != "Color"
    }

    def __init__(self) -> None:
        super().__init__(num_ops=2, magnitude=9, num_magnitude_bins=31)


def choose_augmentation(
    options: AugmentationOptions, rotation_degrees: float = 0.0
) -> Callable[[Tensor], Tensor] | None:
    """What the recipe does to a training image after its crop: flip, then rotation or RandAugment.

    Args:
        options: flip and RandAugment.
        rotation_degrees: largest angle in degrees; 0 for none.

    Returns:
        A random function of (1, height, width) uint8 pixels, or None where nothing is asked for.
    """
    steps: list[Callable[[Tensor], Tensor]] = []
    if options.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if options.rand_augment:
        steps.append(GrayRandAugment())
    if rotation_degrees:
        steps.append(random_rotation(rotation_degrees))
    if len(steps) < 2:
        return steps[0] if steps else None
    chain: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return chain


def random_rotation(degrees: float) -> Callable[[Tensor], Tensor]:
    """The paper's augmentation: rotation within ±degrees about the centre, black corners, after the crop.

    Args:
        degrees: largest angle in degrees; not negative.

    Returns:
        A function from (1, height, width) uint8 to the same shape.
    """
    rotation: Callable[[Tensor], Tensor] = v2.RandomRotation(
        degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=0
    )
    return rotation


def key_to_seed(seed: int, epoch: int, image_id: str, purpose: str) -> int:
    """A 63-bit seed from what a random choice may depend on."""
    key = f"{seed}\x1f{epoch}\x1f{image_id}\x1f{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


@contextlib.contextmanager
def keyed_randomness(seed: int) -> Iterator[None]:
    """Run a library's random transform under one seed, then put all generators back.

    torchvision draws from torch, timm's RandAugment from random and numpy: all three are seeded.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm draws from numpy's global state
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - as above
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - as above


class RadiographTable(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of the cocktail as examples for one of the two stages.

    Args:
        rows: columns `image` and `image_id`, and `labels` where they are asked for.
        preprocessing: resize, crop and normalisation.
        seed: the run's seed.
        crop: a random function from whole gray bytes to the model's input, in place of preprocessing's resize
            and centre crop; or None.
        augment: a random function of (1, height, width) uint8 pixels, or None.
        mask_units: number of mask units to draw MAE noise for; None in stage 2.
        mask_ratio: handed to the model with each batch where it is not the config's own (evaluation).
        with_labels: whether examples carry `labels`.
    """

    def __init__(
        self,
        rows: Dataset,
        preprocessing: Preprocessing,
        *,
        seed: int = 0,
        crop: Callable[[Tensor], Tensor] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        mask_units: int | None = None,
        mask_ratio: float | None = None,
        with_labels: bool = False,
    ) -> None:
        columns = ["image", "image_id"] + (["labels"] if with_labels else [])
        self.rows = rows.select_columns(columns)
        self.preprocessing = preprocessing
        self.seed = seed
        self.crop = crop
        self.augment = augment
        self.mask_units = mask_units
        self.mask_ratio = mask_ratio
        self.with_labels = with_labels
        self._turns = _repeats(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """One example; a key is (epoch, row) in training and a plain row in evaluation."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Any]]:
        """The examples of a batch, read from the table at once: torch's DataLoader asks for them so."""
        pairs = [key if isinstance(key, tuple) else (EVALUATION_EPOCH, key) for key in keys]
        columns = self.rows[[index for _, index in pairs]]
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return [self._example(*pair, row) for pair, row in zip(pairs, rows, strict=True)]

    def _example(self, epoch: int, index: int, row: Mapping[str, Any]) -> dict[str, Any]:
        image_id, turn = row["image_id"], self._turns.get(index)
        key_id = image_id if turn is None else f"{image_id}\x1f{turn}"
        if self.crop is None:
            pixels = self.preprocessing.pixels(row["image"])
        if self.crop is not None or self.augment is not None:
            with keyed_randomness(key_to_seed(self.seed, epoch, key_id, "augment")):
                if self.crop is not None:
                    pixels = self.crop(gray_bytes(row["image"]))
                if self.augment is not None:
                    pixels = self.augment(pixels)
        example: dict[str, Any] = {"pixels": pixels, "image_id": image_id, "epoch": epoch}
        if self.mask_units is not None:
            # Evaluation masks do not know the run's seed, so that two runs can be compared.
            seed = 0 if epoch == EVALUATION_EPOCH else self.seed
            generator = torch.Generator().manual_seed(key_to_seed(seed, epoch, key_id, "mask"))
            example["noise"] = torch.rand(self.mask_units, generator=generator)
        if self.mask_ratio is not None:
            example["mask_ratio"] = self.mask_ratio
        if self.with_labels:
            example["labels"] = torch.tensor(row["labels"], dtype=torch.float32)
        return example


def _repeats(rows: Dataset) -> dict[int, int]:
    """Rows that show an image again, and for the how-manieth time: a mixed source may repeat its images."""
    seen: Counter[str] = Counter()
    turns = {}
    for row, image_id in enumerate(rows.select_columns("image_id")[:]["image_id"]):
        if seen[image_id]:
            turns[row] = seen[image_id]
        seen[image_id] += 1
    return turns


@dataclass(frozen=True)
class Collator:
    """Examples → a batch of contiguous tensors, gray bytes still: a quarter of a float, a third of RGB.

    Workers hand it over, it can be pinned, and `Preprocessing.model_inputs` makes the model's input of it on
    the device.

    Args:
        with_ids: the batch says which images it holds (`image_ids`), for the Trainer's guards.
        mixup_alpha: each training image and its labels are mixed with the one before it in the batch, by a
            share from Beta(α, α), keyed by seed, epoch and the batch's images; 0 for none. A label that
            either lacks is NaN. The pixels are mixed with the normalisation, by `mixup_share`.
        seed: the run's seed, for Mixup.

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    with_ids: bool = False
    mixup_alpha: float = 0.0
    seed: int = 0

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Stack; see RadiographTable for the examples."""
        batch: dict[str, Any] = {"pixel_values": torch.stack([example["pixels"] for example in examples])}
        for name in ("noise", "labels"):
            if name in examples[0]:
                batch[name] = torch.stack([example[name] for example in examples])
        if "mask_ratio" in examples[0]:
            batch["mask_ratio"] = examples[0]["mask_ratio"]
        image_ids = [example["image_id"] for example in examples]
        if self.mixup_alpha and examples[0]["epoch"] != EVALUATION_EPOCH:
            key = key_to_seed(self.seed, examples[0]["epoch"], "\x1f".join(image_ids), "mixup")
            with keyed_randomness(key):
                share = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample().item()
            labels = batch["labels"]
            batch["labels"] = labels.roll(1, 0).mul(1.0 - share).add(labels.mul(share))
            batch["mixup_share"] = share
        if self.with_ids:
            batch["image_ids"] = image_ids
        return batch


class KeyedSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Every row once an epoch, in an order that depends on (seed, epoch) alone; yields (epoch, row).

    Args:
        length: number of rows.
        seed: the run's seed.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(key_to_seed(self.seed, self.epoch, "", "order"))
        order = torch.randperm(self.length, generator=generator).tolist()
        epoch = self.epoch
        yield from ((epoch, row) for row in order)
