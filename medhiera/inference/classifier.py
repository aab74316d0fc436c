"""A classifier's folder or Hub id, ours or a stock Hiera's, opened for use.

    from medhiera import Classifier

    classifier = Classifier.from_pretrained("runs/stage2")
    print(classifier.predict(["chest1.png", "study.dcm"]))  # [{"Atelectasis": 0.31, …}, …]

The scripts, the export and the page open such folders through it.
"""

import hashlib
import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from medhiera.data.finding_names import find_names
from medhiera.data.preprocessing import CenterCrop, Preprocessing
from medhiera.device import CPU, choose_device, move
from medhiera.errors import UserError
from medhiera.inference.picture_files import Pictures, as_list, open_picture
from medhiera.layout import read_config
from medhiera.loading import load_model, load_processor
from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import applies_softmax

logger = logging.getLogger(__name__)

NOTICE = "Not for clinical use: nothing here has been validated for any patient's care."


_LARGEST_PIXEL = 10_000
"""Normalized pixels are a few units wide; with the smallest standard deviation that images have, hundreds."""


@dataclass(frozen=True)
class StockPreprocessing:
    """Another project's image processor, used as it is; it may normalize each channel differently.

    Attributes:
        processor: transformers' own.
    """

    processor: Any

    def pixels(self, image: Image.Image) -> Tensor:
        """(3, height, width), float32 and normalized already, of an image with 8 bits a channel."""
        rgb = image.convert("L").convert("RGB")
        return self.processor(images=[rgb], return_tensors="pt")["pixel_values"][0]

    def normalize(self, pixels: Tensor, channels: int = 3) -> Tensor:
        """The pixels themselves, which have three channels; Preprocessing has the same method."""
        return pixels

    def to_processor(self) -> Any:
        """The processor itself; Preprocessing has the same method."""
        return self.processor

    @property
    def resize_size(self) -> int:
        """The shorter side it resizes to, in pixels; 0 where it has none."""
        size = dict(self.processor.size or {})
        return int(size.get("shortest_edge") or min(size.get("height", 0), size.get("width", 0)))

    @property
    def crop(self) -> CenterCrop | None:
        """As Preprocessing.crop; None where it does not crop the center of the resized image."""
        size = dict(getattr(self.processor, "crop_size", None) or {})
        is_cropped = (
            getattr(self.processor, "do_center_crop", False) and "shortest_edge" in self.processor.size
        )
        if not is_cropped or size.get("height") != size.get("width") or "height" not in size:
            return None
        return CenterCrop(self.resize_size, int(size["height"]))


@dataclass(frozen=True)
class Classifier:
    """A stage-2 folder or Hub id, ours or a stock Hiera's, ready to use.

    Attributes:
        model: in evaluation mode.
        preprocessing: what its preprocessor_config.json says.
        names: label names, in the order of its outputs.
    """

    model: HieraMAEForImageClassification
    preprocessing: Preprocessing | StockPreprocessing
    names: list[str]

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str = CPU) -> "Classifier":
        """Load it.

        Args:
            source: the folder or Hub id.
            device: where it is to run: a device, or a word for `choose_device`.

        Raises:
            UserError: there is no such folder or repository, it is not a Hiera classifier, its weights are
                damaged, NaN or infinite, it names no labels or two outputs alike, or it has no usable
                preprocessor_config.json; or no such device.
        """
        config = read_config(source)
        is_classifier = any(
            str(name).endswith("Classification") for name in config.get("architectures") or []
        )
        if is_classifier and "id2label" not in config:
            raise UserError(
                f"{source} names no labels (config.json has no id2label), so its outputs mean nothing; write "
                'there what was trained: {"0": "Atelectasis", …}'
            )
        model, loading = load_model(HieraMAEForImageClassification, source)
        if loading["missing_keys"]:
            raise UserError(
                f"{source} has no trained classifier (no {sorted(loading['missing_keys'])[0]} in it): it is "
                "a stage 0 or 1; `medhiera train-cls` makes a stage 2 from it"
            )
        preprocessing = open_preprocessing(source, model)
        names = [model.config.id2label[index] for index in range(model.config.num_labels)]
        _check_names(source, names)
        place = choose_device(device) if isinstance(device, str) else device
        return cls(model.to(place), preprocessing, names)

    @property
    def is_exclusive(self) -> bool:
        """Whether an image has exactly one of the labels, whose probabilities then sum to 1."""
        return applies_softmax(self.model.config)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that depend on the weights, the findings and the preprocessing."""
        activation = "softmax" if self.is_exclusive else ""
        return fingerprint(self.model, f"{self.names}{self.preprocessing}{activation}")

    def predict(self, images: Pictures, batch_size: int = 32) -> list[dict[str, float]]:
        """The model's own probability of each finding, see `score`.

        Args:
            images: one or several: pictures with 8 bits a channel, of any mode and size, or files (PNG, JPEG,
                TIFF, DICOM). Both are turned as their EXIF says.
            batch_size: images at a time.

        Returns:
            For each image, finding → probability.

        Raises:
            UserError: a file cannot be read, a picture has more than 8 bits a channel, or a probability is
                NaN or infinite.
        """
        pixels = [self.preprocessing.pixels(open_picture(image)) for image in as_list(images)]
        rows = [
            row
            for start in range(0, len(pixels), batch_size)
            for row in self.score(self.pixel_values(pixels[start : start + batch_size])).tolist()
        ]
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """One probability per image and finding, see `score`.

        Args:
            images: 8 bits a channel, any mode and size; turned as their EXIF says.

        Raises:
            UserError: a picture has more than 8 bits a channel, or a probability is NaN or infinite.
        """
        return self.score(
            self.pixel_values([self.preprocessing.pixels(open_picture(image)) for image in images])
        )

    @torch.inference_mode()
    def pixel_values(self, pixels: Sequence[Tensor]) -> Tensor:
        """The model's input, see model_inputs.

        Args:
            pixels: of each image, what `preprocessing.pixels` makes of it.

        Returns:
            (images, channels, height, width).
        """
        return model_inputs(self.model, self.preprocessing, pixels)

    @torch.inference_mode()
    def score(self, pixel_values: Tensor, with_flip: bool = False, legacy_head: bool = False) -> Tensor:
        """One probability per image and finding: a sigmoid of each logit, or a softmax of exclusive labels'.

        Args:
            pixel_values: from the method of this name.
            with_flip: the mean over each image and its mirror image (test-time augmentation).
            legacy_head: med-hiera's sigmoid(softmax(logits)) instead, for comparison; not a probability.

        Returns:
            (images, findings), float64, on the CPU: in single precision scores near 1 would tie.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        views = [pixel_values, pixel_values.flip(-1)] if with_flip else [pixel_values]
        # To the CPU first: not every accelerator has double precision.
        scores = [
            score_logits(self.model(view).logits.float().cpu(), legacy_head, self.is_exclusive)
            for view in views
        ]
        return finite(torch.stack(scores).mean(dim=0))


def open_preprocessing(source: str | Path, model: PreTrainedModel) -> Preprocessing | StockPreprocessing:
    """What a folder's preprocessor_config.json says, tried on one picture.

    Args:
        source: the model's folder or Hub id.
        model: a Hiera, whose inputs it prepares.

    Raises:
        UserError: there is none, or it cannot be used, or gives what the model cannot take.
    """
    processor = load_processor(source)
    try:
        preprocessing: Preprocessing | StockPreprocessing = Preprocessing.from_processor(processor)
    except ValueError:
        preprocessing = StockPreprocessing(processor)
    _check_inputs(source, model, preprocessing)
    return preprocessing


def finite(outputs: Tensor) -> Tensor:
    """What a model computed, unless something is wrong with it.

    Raises:
        UserError: a value is NaN or infinite, see `nan_error`.
    """
    if not outputs.isfinite().all():
        raise nan_error()
    return outputs


def nan_error() -> UserError:
    """What is said of any model that computes NaN though its weights are finite."""
    return UserError(
        "the model computes NaN: its weights are finite and yet no trained ones, or its image processor is "
        "another model's; train it again, or copy the processor it was trained with"
    )


def model_inputs(
    model: PreTrainedModel, preprocessing: Preprocessing | StockPreprocessing, pixels: Sequence[Tensor]
) -> Tensor:
    """Prepared images as a model's input, on its device and in its precision.

    They travel as they are, which is a byte a pixel for our own preprocessing, and are normalized there.

    Args:
        model: where they go.
        preprocessing: that prepared them.
        pixels: of each image, what `preprocessing.pixels` makes of it.

    Returns:
        (images, channels, height, width).
    """
    batch = move(torch.stack(list(pixels)), model.device)
    channels = int(getattr(model.config, "num_channels", 3))  # timm's wrapper has no such field
    return preprocessing.normalize(batch, channels).to(model.dtype)


def fingerprint(model: PreTrainedModel, described: str) -> str:
    """Twelve hexadecimal digits that depend on a model's weights and on a text."""
    weights = ((name, tensor.float().cpu()) for name, tensor in model.state_dict().items())
    return digest_tensors(weights, described)


def digest_tensors(tensors: Iterable[tuple[str, Tensor]], described: str) -> str:
    """Twelve hexadecimal digits that depend on tensors of the CPU, their names and order, and on a text."""
    digest = hashlib.sha256(described.encode())
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _check_names(source: str | Path, names: Sequence[str]) -> None:
    """Refuse labels that do not tell the outputs apart.

    Raises:
        UserError: one has no name, or several have the same.
    """
    plain = [name.strip() for name in names]
    fault = None
    if "" in plain:
        fault = f"gives output {plain.index('')} an empty name"
    elif twice := [name for name in plain if plain.count(name) > 1]:
        fault = f"gives {twice[0]!r} to several outputs"
    if fault is not None:
        raise UserError(
            f"{source}: config.json {fault}, so nobody could tell whose probability is whose; write in its "
            'id2label what was trained, each once: {"0": "Atelectasis", …}'
        )


def _check_inputs(
    source: str | Path, model: PreTrainedModel, preprocessing: Preprocessing | StockPreprocessing
) -> None:
    """Prepare one picture and refuse what the model cannot take, before the first image of a long run.

    Raises:
        UserError: the processor gives NaN, other channels, or a size that does not split into mask units.
    """
    pixels = model_inputs(model, preprocessing, [preprocessing.pixels(Image.new("L", (64, 48), 128))])
    _, channels, *size = pixels.shape
    fault = None
    if channels != model.config.num_channels:
        fault = f"gives {channels} channels, and the model has {model.config.num_channels}"
    elif not pixels.abs().max() < _LARGEST_PIXEL:
        largest = f"{pixels.abs().max():.0e}"
        fault = f"makes pixels of {largest}; look at image_mean and image_std (is one of them near 0?)"
    elif any(side % unit for side, unit in zip(size, model.config.unit_pixels, strict=True)):
        fault = f"gives {size} pixels; the model wants multiples of {list(model.config.unit_pixels)}"
    if fault is not None:
        raise UserError(f"{source}: its preprocessor_config.json {fault}")


def score_logits(logits: Tensor, legacy_head: bool = False, is_exclusive: bool = False) -> Tensor:
    """The scores that images are ranked by: sigmoid(logits), or sigmoid(softmax(logits)) as in med-hiera.

    Softmax makes findings compete, so an image with two findings scores lower on both; for comparison only.

    Args:
        logits: (images, findings).
        legacy_head: as in med-hiera.
        is_exclusive: an image has exactly one of the labels: a softmax, whatever else is asked for.

    Returns:
        (images, findings), float64.
    """
    exact = logits.double()
    if is_exclusive:
        return exact.softmax(dim=1)
    return (exact.softmax(dim=1) if legacy_head else exact).sigmoid()


def absent_classes(classifier: Classifier, data_names: Sequence[str]) -> list[str]:
    """The labels of a model of exclusive labels that data with such labels lacks, with a warning of them.

    Args:
        classifier: of one that gives an image several labels there are none: it calls no image by one.
        data_names: the data's labels.
    """
    outputs = find_names(data_names, classifier.names)
    absent = [name for output, name in enumerate(classifier.names) if output not in outputs]
    if not absent or not classifier.is_exclusive:
        return []
    logger.warning(
        "the data lacks %s of the model's classes: an image that the model calls so counts as called wrongly",
        ", ".join(absent),
    )
    return absent


def match_findings(
    model_names: Sequence[str], data_names: Sequence[str], is_exclusive: bool = False
) -> list[int]:
    """Which output of the model is each finding of the data; spaces, underscores and case do not count.

    Args:
        model_names: of its outputs.
        data_names: of the findings.
        is_exclusive: each image has exactly one of them, so that none can be left out.

    Raises:
        UserError: the model lacks one of them, or has several that are spelled alike.
    """
    outputs = find_names(data_names, model_names)
    absent = [name for name, output in zip(data_names, outputs, strict=True) if output is None]
    if absent:
        found = f"{model_names[:5]} and {len(model_names) - 5} more" if len(model_names) > 9 else model_names
        shared = shlex.join(name for name in data_names if name not in absent)
        advice = f"; --findings {shared} scores what both have" if shared and not is_exclusive else ""
        raise UserError(
            f"the model has no output for {absent}, which the data labels; its outputs are {found}{advice}"
        )
    if len(model_names) > len(data_names):
        logger.info(
            "%d outputs of the model are not in the data: left out", len(model_names) - len(data_names)
        )
    return [output for output in outputs if output is not None]
