"""An image encoder, opened to embed images: a Hiera of any stage, or another model of transformers or timm.

    from medhiera import Encoder

    encoder = Encoder.from_pretrained("runs/stage1")
    features = encoder.features(["chest1.png", "study.dcm"])  # (2, hidden_size)

Beside classifier.py; `embed.py` writes what it returns, `probe.py` fits linear classifiers on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BitImageProcessor, PreTrainedModel

from medhiera.data.preprocessing import Preprocessing
from medhiera.device import CPU, choose_device
from medhiera.inference.classifier import (
    StockPreprocessing,
    fingerprint,
    finite,
    model_inputs,
    open_preprocessing,
)
from medhiera.inference.picture_files import Pictures, as_list, open_picture
from medhiera.inference.vision_model import Pooling, VisionModel
from medhiera.layout import read_config, read_model_type
from medhiera.loading import load_model, load_processor
from modeling_hiera_mae import HieraMAEModel
from modeling_hiera_mae.configuration_hiera_mae import HieraMAEConfig

_TIMM_CROP = 0.875
"""Side of the crop over the shorter side of the resized image, where a timm model does not say."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of a folder or Hub id, ready to use.

    Attributes:
        model: in evaluation mode; what only a decoder or a classifier has is left out.
        preprocessing: what its preprocessor_config.json says.
        pooling: how one vector is made of an image's tokens.
        vision: the same model, as other architectures than Hiera are asked; None of a Hiera.
    """

    model: PreTrainedModel
    preprocessing: Preprocessing | StockPreprocessing
    pooling: Pooling
    vision: VisionModel | None = None

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str = CPU) -> "Encoder":
        """Load it.

        Args:
            source: a folder or Hub id: stage 0, 1 or 2, a stock Hiera, or any model of single images that
                `AutoModel` opens, such as a ViT or RAD-DINO, or timm's.
            device: where it is to run: a device, or a word for `choose_device`.

        Raises:
            UserError: there is no such folder or repository, it is no vision model, its weights are damaged,
                NaN or infinite, or it has no usable preprocessor_config.json; or no such device.
        """
        place = choose_device(device) if isinstance(device, str) else device
        kind = read_model_type(source)
        if kind is None or kind in (HieraMAEConfig.model_type, "vision-encoder-decoder"):
            read_config(source)  # its faults first, in words
            model, _ = load_model(HieraMAEModel, source)
            preprocessing = open_preprocessing(source, model)
            return cls(model.to(place), preprocessing, "mean of tokens")
        vision, _ = VisionModel.load(str(source), str(source))
        stock = _open_stock_preprocessing(source, vision.config)
        # No plain picture: its patches are alike, so one that draws masks would give the same twice.
        tried = model_inputs(vision.model, stock, [stock.pixels(Image.linear_gradient("L"))])
        pooling = vision.check(tried)
        vision.model.to(place)
        return cls(vision.model, stock, pooling, vision)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that depend on the weights and the preprocessing."""
        return fingerprint(self.model, f"{self.preprocessing}")

    def features(self, images: Pictures, batch_size: int = 32) -> Tensor:
        """One vector an image, see `embed`.

        Args:
            images: one or several: pictures with 8 bits a channel, of any mode and size, or files (PNG, JPEG,
                TIFF, DICOM). Both are turned as their EXIF says.
            batch_size: images at a time.

        Returns:
            (images, size), float32, on the CPU.

        Raises:
            UserError: a file cannot be read, a picture has more than 8 bits a channel, or a feature is NaN or
                infinite.
        """
        pixels = [self.preprocessing.pixels(open_picture(image)) for image in as_list(images)]
        starts = range(0, len(pixels), batch_size)
        parts = [self.embed(pixels[start : start + batch_size]) for start in starts]
        return torch.cat(parts) if parts else torch.empty(0, self.size)

    @property
    def size(self) -> int:
        """Of one vector: how many features."""
        return self.embed(self.blank()).shape[1]

    def blank(self) -> list[Tensor]:
        """A batch of one gray image, prepared: what is embedded where only shapes are asked for."""
        return [self.preprocessing.pixels(Image.new("L", (64, 48), 128))]

    @torch.inference_mode()
    def embed(self, pixels: Sequence[Tensor]) -> Tensor:
        """One vector an image: of a Hiera the mean of the last stage's tokens behind the final norm.

        A stage 1 was trained without that norm; it is new there and only brings each vector to the same
        mean and variance. Of other models what their trained pooler gives, or else the class token
        (`pooling`).

        Args:
            pixels: of each image, what `preprocessing.pixels` makes of it.

        Returns:
            (images, size), float32, on the CPU.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        inputs = model_inputs(self.model, self.preprocessing, pixels)
        pooled = self.model(inputs).pooler_output if self.vision is None else self.vision.pooled(inputs)
        return finite(pooled.float().cpu())

    @torch.inference_mode()
    def embed_tokens(self, pixels: Sequence[Tensor]) -> Tensor:
        """The last layer's tokens of each image where they lie in it: of a Hiera before the final norm.

        Args:
            pixels: as `embed`.

        Returns:
            (images, rows, columns, size), float32, on the CPU.

        Raises:
            UserError: one of them is NaN or infinite, or the model's tokens are no grid.
        """
        inputs = model_inputs(self.model, self.preprocessing, pixels)
        if self.vision is not None:
            tokens = self.vision.grid(inputs).permute(0, 2, 3, 1).contiguous()
        else:
            tokens = self.model(inputs, output_hidden_states=True).reshaped_hidden_states[-1]
        return finite(tokens.float().cpu())


def _open_stock_preprocessing(source: str | Path, config: Any) -> Preprocessing | StockPreprocessing:
    """What the folder of another model than Hiera says of its images.

    Raises:
        UserError: it has no usable preprocessor_config.json, and is not timm's, whose config.json says it.
    """
    if config.model_type == "timm_wrapper":
        processor = _timm_processor(config.pretrained_cfg)
    else:
        processor = load_processor(source)
    try:
        return Preprocessing.from_processor(processor)
    except ValueError:
        return StockPreprocessing(processor)


def _timm_processor(pretrained: dict[str, Any]) -> BitImageProcessor:
    """Timm's evaluation transform as an image processor: resize the shorter side, crop the center."""
    _, height, width = pretrained["input_size"]
    is_bilinear = pretrained.get("interpolation") == "bilinear"
    return BitImageProcessor(
        size={"shortest_edge": int(min(height, width) / (pretrained.get("crop_pct") or _TIMM_CROP))},
        crop_size={"height": height, "width": width},
        resample=Image.Resampling.BILINEAR if is_bilinear else Image.Resampling.BICUBIC,
        image_mean=list(pretrained["mean"]),
        image_std=list(pretrained["std"]),
    )
