"""A Hiera's encoder, of any stage or a stock checkpoint, opened to embed images.

Beside classifier.py; `probe.py` fits linear classifiers on what it returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from medhiera.data.preprocessing import Preprocessing
from medhiera.device import CPU
from medhiera.errors import UserError
from medhiera.inference.classifier import (
    StockPreprocessing,
    fingerprint,
    model_inputs,
    open_preprocessing,
)
from medhiera.layout import read_config
from medhiera.loading import load_model
from modeling_hiera_mae import HieraMAEModel


@dataclass(frozen=True)
class Encoder:
    """The encoder of a folder or Hub id, ready to use.

    Attributes:
        model: in evaluation mode; what only a decoder or a classifier has is left out.
        preprocessing: what its preprocessor_config.json says.
    """

    model: HieraMAEModel
    preprocessing: Preprocessing | StockPreprocessing

    @classmethod
    def open(cls, source: str | Path, device: torch.device = CPU) -> "Encoder":
        """Load it.

        Args:
            source: a folder or Hub id: stage 0, 1 or 2, or a stock Hiera.
            device: where it is to run.

        Raises:
            UserError: there is no such folder or repository, it is not a Hiera, its weights are damaged, NaN
                or infinite, or it has no usable preprocessor_config.json.
        """
        read_config(source)  # its faults first, in words
        model, _ = load_model(HieraMAEModel, source)
        return cls(model.to(device), open_preprocessing(source, model))

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that depend on the weights and the preprocessing."""
        return fingerprint(self.model, f"{self.preprocessing}")

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """One vector an image, see `embed`.

        Args:
            images: 8 bits a channel, any mode and size.

        Raises:
            UserError: a feature is NaN or infinite.
        """
        return self.embed([self.preprocessing.pixels(image) for image in images])

    @torch.inference_mode()
    def embed(self, pixels: Sequence[Tensor]) -> Tensor:
        """The mean of the last stage's tokens behind the final norm, of whole images.

        A stage 1 was trained without that norm; it is new there and only brings each vector to mean 0 and
        variance 1.

        Args:
            pixels: of each image, what `preprocessing.pixels` makes of it.

        Returns:
            (images, hidden_size), float32, on the CPU.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        inputs = model_inputs(self.model, self.preprocessing, pixels)
        features: Tensor = self.model(inputs).pooler_output.float().cpu()
        if not features.isfinite().all():
            raise UserError(
                "the encoder computes NaN: its weights are finite and yet no trained ones, or its image "
                "processor is another model's; train it again, or copy the processor it was trained with"
            )
        return features
