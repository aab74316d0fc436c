"""Rows of the cocktail → batches of gray bytes, in an order derived from seed and epoch.

Every random choice (augmentation and MAE mask alike) is keyed by (seed, epoch, image_id) and, where a mix
repeats an image, by the number of the repetition; see seeding.py. Workers read and draw, and cut random crops
out; the device does the rest (`Preprocessing.model_inputs`).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from medhiera.data.augmentation import Augmentation
from medhiera.data.batch_memory import BatchMemory, SentBatch
from medhiera.data.columns import ColumnReader, read_column
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing, resize_gray
from medhiera.data.seeding import derive_seed
from medhiera.data.stored_images import GrayArray, stored_images

EVALUATION_EPOCH = -1
"""The epoch in the key of evaluation masks: the same masks in every evaluation of every run."""

LARGEST_CROP = 2
"""Times the model's input: a random crop with a longer side is shrunk by the worker, as it would cost more to
hand over."""


class RadiographDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of the cocktail as batches for a stage.

    Args:
        rows: columns `image` and `image_id`, and `labels` if `with_labels`.
        preprocessing: resize, crop and normalization.
        seed: the run's seed.
        augmentation: random changes; a random crop takes the place of preprocessing's resize and center crop.
        masks: how to draw masks, in stage 1.
        mask_ratio: passed to the model with each batch in place of the config's (evaluation).
        with_labels: whether batches carry `labels`.

    Raises:
        UserError: masks follow contours, and the rows have none.
    """

    def __init__(
        self,
        rows: Dataset,
        preprocessing: Preprocessing,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        masks: MaskDrawing | None = None,
        mask_ratio: float | None = None,
        with_labels: bool = False,
    ) -> None:
        self.images = stored_images(rows)
        self._image_ids = ColumnReader(rows, "image_id", _open_strings)
        self._labels = ColumnReader(rows, "labels", _open_labels) if with_labels else None
        self.regions = masks.regions(rows) if masks else None
        self.preprocessing = preprocessing
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        self.masks = masks
        self.mask_ratio = mask_ratio
        self._length = len(rows)
        self._turns = _repeats(rows)
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """A batch of one; a key is (epoch, row) in training and a plain row in evaluation."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The rows of a batch, read at once; torch's DataLoader calls this and hands it to the collator.

        Returns:
            `pixel_values` (batch, 1, height, width), uint8, with what `Preprocessing.model_inputs` still has
            to do to them; `image_ids` and `epochs`, lists; in a worker the `slot` that the pixels lie in; and
            as far as asked for `noise` (batch, mask_units) and `labels` (batch, findings), float32, and
            `mask_ratio`.
        """
        pairs = [key if isinstance(key, tuple) else (EVALUATION_EPOCH, key) for key in keys]
        numbers = [row for _, row in pairs]
        image_ids = self._image_ids.read(numbers)
        # Evaluation masks do not depend on the run's seed, so that runs can be compared.
        picture_keys = np.array(
            [
                derive_seed(
                    0 if epoch == EVALUATION_EPOCH else self.seed, epoch, self._key_id(row, image_id), "image"
                )
                for (epoch, row), image_id in zip(pairs, image_ids, strict=True)
            ],
            np.uint64,
        )
        images = self.images.read(numbers)
        boxes = self._crop_boxes(images, picture_keys)
        draws = self.augmentation.draws(picture_keys)
        batch = self._pixels(images, boxes) | draws
        batch |= {"image_ids": image_ids, "epochs": [epoch for epoch, _ in pairs]}
        if self.masks is not None:
            inside = None
            if self.regions is not None:
                regions, views = self.regions.read(numbers), self._views(images, boxes)
                inside = self.masks.blocks_inside(regions, views, draws.get("is_flipped"))
            batch["noise"] = self.masks.noise(picture_keys, inside)
        if self.mask_ratio is not None:
            batch["mask_ratio"] = self.mask_ratio
        if self._labels is not None:
            batch["labels"] = torch.from_numpy(np.array(self._labels.read(numbers), np.float32))
        return batch

    def _key_id(self, row: int, image_id: str) -> str:
        turn = self._turns.get(row)
        return image_id if turn is None else f"{image_id}\x1f{turn}"

    def _crop_boxes(
        self, images: Sequence[GrayArray], keys: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64] | None:
        """(batch, 4): top, left, height, width of the random crops in pixels; None where there are none."""
        if not self.augmentation.smallest_scale:
            return None
        return self.augmentation.boxes(keys, np.array([image.shape for image in images]))

    def _views(
        self, images: Sequence[GrayArray], boxes: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float64]:
        """(batch, 4): top, left, bottom, right of the model's input, as shares of the image."""
        sizes = np.array([image.shape for image in images])
        if boxes is None:
            crops = [
                self.preprocessing.crop_box(width, height).in_image() for height, width in sizes.tolist()
            ]
            corners = np.array(crops)[:, [1, 0, 3, 2]]
        else:
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        views: npt.NDArray[np.float64] = corners / np.tile(sizes, 2)
        return views

    def _pixels(self, images: Sequence[GrayArray], boxes: npt.NDArray[np.int64] | None) -> dict[str, Any]:
        """The batch's gray bytes and the sizes of the crops among them."""
        if boxes is None:
            return self._stack([self.preprocessing.crop_gray(image) for image in images])
        crops = [
            image[top : top + height, left : left + width]
            for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True)
        ]
        side = self.preprocessing.image_size
        crops = [
            resize_gray(crop, side, side) if max(crop.shape) > LARGEST_CROP * side else crop for crop in crops
        ]
        return self._stack(crops) | {"crop_size": torch.tensor([crop.shape for crop in crops])}

    def _stack(self, images: Sequence[GrayArray]) -> dict[str, Any]:
        """`pixel_values`, as large as the largest image, and `slot`.

        Smaller images stand in the upper left. Beyond lies whatever the memory held: it does not count
        (`batch_augmentation.resize`), and to clear it took a worker some 15 % of its time.
        """
        shape = (len(images), 1, *(max(image.shape[side] for image in images) for side in (0, 1)))
        batch: dict[str, Any] = {}
        if torch.utils.data.get_worker_info() is None:
            pixels = torch.empty(shape, dtype=torch.uint8)
        else:
            batch["slot"], pixels = self._memory.take(*shape)
        for image, place in zip(images, pixels[:, 0].numpy(), strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        return batch | {"pixel_values": pixels}


def _open_strings(chunk: pa.StringArray) -> Callable[[int], str]:
    return lambda place: cast(str, chunk[place].as_py())


def _open_labels(chunk: pa.Array) -> Callable[[int], npt.NDArray[np.float32]]:
    if chunk.null_count or len(pc.unique(pc.list_value_length(chunk))) > 1:
        raise ValueError("the rows' labels are not of one length")
    findings = chunk.flatten().to_numpy(zero_copy_only=False)  # where they were not annotated is NaN
    by_row: npt.NDArray[np.float32] = findings.reshape(len(chunk), -1)
    return lambda place: by_row[place]


def _repeats(rows: Dataset) -> dict[int, int]:
    """Row → n for rows that repeat an image for the n-th time: a mixed source may repeat its images."""
    names = read_column(rows, "image_id")
    seen: Counter[str] = Counter()
    turns: dict[int, int] = {}
    if len(names.unique()) == len(names):  # a million names as Python strings would take 100 MB
        return turns
    for row, image_id in enumerate(names.to_pylist()):
        if seen[image_id]:
            turns[row] = seen[image_id]
        seen[image_id] += 1
    return turns


@dataclass(frozen=True)
class RadiographCollator:
    """The rows of a RadiographDataset → a batch: Mixup, and no more keys than the Trainer takes.

    Its tensors are contiguous, and pixels still gray bytes: a quarter of floats and a third of RGB, cheap to
    send from a worker, and to be pinned. `Preprocessing.model_inputs` makes the model's input on the device.

    Args:
        with_ids: the batch says which images it holds (`image_ids`), for the Trainer's guards.
        mixup_alpha: each training image and its labels are mixed with the one before it in the batch, by a
            share from Beta(α, α), seeded by seed, epoch and the batch's images; 0 for none. A label that
            is missing from either is NaN. The pixels are mixed with the normalization, by `mixup_share`.
        seed: the run's seed, for Mixup.
        pin_memory: as the DataLoader's.

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    with_ids: bool = False
    mixup_alpha: float = 0.0
    seed: int = 0
    pin_memory: bool = False

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Finish the batch that `RadiographDataset.__getitems__` has read; in a worker, to be sent."""
        batch = dict(rows)
        image_ids, epoch = batch.pop("image_ids"), batch.pop("epochs")[0]
        if self.mixup_alpha and epoch != EVALUATION_EPOCH:
            key = derive_seed(self.seed, epoch, "\x1f".join(image_ids), "mixup")
            share = float(np.random.default_rng(key).beta(self.mixup_alpha, self.mixup_alpha))
            labels = batch["labels"]
            batch["labels"] = labels.roll(1, 0).mul(1.0 - share).add(labels.mul(share))
            batch["mixup_share"] = share
        if self.with_ids:
            batch["image_ids"] = image_ids
        slot, pixels = batch.pop("slot", None), batch["pixel_values"]
        if slot is not None and slot.holds(pixels):
            return SentBatch(batch, slot, pin_memory=self.pin_memory)
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
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch, "", "order"))
        order = torch.randperm(self.length, generator=generator).tolist()
        return zip(itertools.repeat(self.epoch), order, strict=False)
