"""Rows of the cocktail → examples → batches, in an order derived from seed and epoch.

Every random choice (augmentation and MAE mask alike) is seeded by (seed, epoch, image_id) and, where a mix
repeats an image, by the number of the repetition; see seeding.py.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from medhiera.data.preprocessing import Preprocessing, gray_bytes
from medhiera.data.seeding import derive_seed, seeded

EVALUATION_EPOCH = -1
"""The epoch in the key of evaluation masks: the same masks in every evaluation of every run."""


class RadiographDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of the cocktail as examples for a stage.

    Args:
        rows: columns `image` and `image_id`, and `labels` if `with_labels`.
        preprocessing: resize, crop and normalization.
        seed: the run's seed.
        crop: a random function from whole gray bytes to the model's input, in place of preprocessing's resize
            and center crop; or None.
        augment: a random function of (1, height, width) uint8 pixels, or None.
        mask_units: number of mask units to draw MAE noise for; None in stage 2.
        mask_ratio: passed to the model with each batch in place of the config's (evaluation).
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
        """The examples of a batch, read from the table at once; torch's DataLoader calls this."""
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
            with seeded(derive_seed(self.seed, epoch, key_id, "augment")):
                if self.crop is not None:
                    pixels = self.crop(gray_bytes(row["image"]))
                if self.augment is not None:
                    pixels = self.augment(pixels)
        example: dict[str, Any] = {"pixels": pixels, "image_id": image_id, "epoch": epoch}
        if self.mask_units is not None:
            # Evaluation masks do not depend on the run's seed, so that runs can be compared.
            seed = 0 if epoch == EVALUATION_EPOCH else self.seed
            generator = torch.Generator().manual_seed(derive_seed(seed, epoch, key_id, "mask"))
            example["noise"] = torch.rand(self.mask_units, generator=generator)
        if self.mask_ratio is not None:
            example["mask_ratio"] = self.mask_ratio
        if self.with_labels:
            example["labels"] = torch.tensor(row["labels"], dtype=torch.float32)
        return example


def _repeats(rows: Dataset) -> dict[int, int]:
    """Row → n for rows that repeat an image for the n-th time: a mixed source may repeat its images."""
    seen: Counter[str] = Counter()
    turns = {}
    for row, image_id in enumerate(rows.select_columns("image_id")[:]["image_id"]):
        if seen[image_id]:
            turns[row] = seen[image_id]
        seen[image_id] += 1
    return turns


@dataclass(frozen=True)
class RadiographCollator:
    """Examples → a batch of contiguous tensors, still gray bytes, a quarter of floats and a third of RGB.

    Such a batch is cheap to send from a worker and can be pinned; `Preprocessing.model_inputs` turns it into
    the model's input on the device.

    Args:
        with_ids: the batch says which images it holds (`image_ids`), for the Trainer's guards.
        mixup_alpha: each training image and its labels are mixed with the one before it in the batch, by a
            share from Beta(α, α), seeded by seed, epoch and the batch's images; 0 for none. A label that
            is missing from either is NaN. The pixels are mixed with the normalization, by `mixup_share`.
        seed: the run's seed, for Mixup.

    Source: Zhang et al. 2018, arXiv:1710.09412.
    """

    with_ids: bool = False
    mixup_alpha: float = 0.0
    seed: int = 0

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Stack the examples of a RadiographDataset into a batch."""
        batch: dict[str, Any] = {"pixel_values": torch.stack([example["pixels"] for example in examples])}
        for name in ("noise", "labels"):
            if name in examples[0]:
                batch[name] = torch.stack([example[name] for example in examples])
        if "mask_ratio" in examples[0]:
            batch["mask_ratio"] = examples[0]["mask_ratio"]
        image_ids = [example["image_id"] for example in examples]
        if self.mixup_alpha and examples[0]["epoch"] != EVALUATION_EPOCH:
            key = derive_seed(self.seed, examples[0]["epoch"], "\x1f".join(image_ids), "mixup")
            with seeded(key):
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
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch, "", "order"))
        order = torch.randperm(self.length, generator=generator).tolist()
        epoch = self.epoch
        yield from ((epoch, row) for row in order)
