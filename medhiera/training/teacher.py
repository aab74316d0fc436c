"""A frozen vision model whose features the masked autoencoder predicts: opened, and asked for a map of them.

Stands beside the Trainer, outside of the model that trains: no checkpoint or average holds a teacher.
"""

import torch
from torch import Tensor
from torch.nn import functional

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.inference.classifier import digest_tensors
from medhiera.inference.vision_model import VisionModel, inputs_of


class Teacher:
    """A stock vision model of transformers, or of timm in transformers' wrapper, frozen.

    It sees the whole picture that the student sees a part of: the same crop, resized to its own input size,
    normalized as it is used to. What it gives is one token a place: a class token, registers and the like are
    left out, a convolutional network's map counts as tokens.

    Args:
        source: a folder or Hub id.
        dtype: that it computes in.
        device: where it computes.

    Attributes:
        size: of its features.
        grid: (rows, columns) of its tokens.
        fingerprint: of its weights and of what it sees.

    Raises:
        UserError: no such model, no safetensors, weights that are missing or not finite, a model of something
            else than single images, or one whose tokens are no grid.
    """

    def __init__(
        self, source: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        named = f"teacher {source}"
        self.source = source
        self._vision, weights = VisionModel.load(source, named)
        self.config = self._vision.config
        self.input_size, self.mean, self.std, self.factor = inputs_of(source, named, self.config)
        self.channels = int(getattr(self.config, "num_channels", 3) or 3)
        described = f"{self.input_size}{self.mean}{self.std}{self.factor}"
        self.fingerprint = digest_tensors(sorted(weights.items()), described)
        self.model = self._vision.model.to(device=device, dtype=dtype).requires_grad_(False)
        self.dtype, self.device = dtype, torch.device(device)
        self._mean, self._std = (
            torch.tensor(each, device=self.device)[:, None, None] for each in (self.mean, self.std)
        )
        try:
            first, second = (self._tokens(torch.zeros(1, 1, *self.input_size)) for _ in range(2))
        except UserError:
            raise
        except Exception as error:  # whatever a model of another kind makes of pixel_values
            raise self._vision.no_vision_model(error) from error
        if not torch.equal(first, second):
            raise self._vision.no_constant_features()
        self.grid = (first.shape[2], first.shape[3])
        self.size = first.shape[1]

    @torch.no_grad()
    def features(self, pixel_values: Tensor, student: Preprocessing, grid: tuple[int, int]) -> Tensor:
        """What the student is to predict of a batch.

        Args:
            pixel_values: (batch, channels, height, width), the student's own, normalized; equal channels.
            student: its mean and std undo the normalization.
            grid: (rows, columns) of the student's decoder's tokens.

        Returns:
            (batch, rows, columns, size), float32; each token normalized to mean 0 and deviation 1.
        """
        gray = pixel_values[:, :1].float() * student.std + student.mean
        tokens = resample(self._tokens(gray), grid).permute(0, 2, 3, 1)
        return functional.layer_norm(tokens, (self.size,))

    @torch.no_grad()
    def _tokens(self, gray: Tensor) -> Tensor:
        """Gray pictures in [0, 1], (batch, 1, height, width) → (batch, size, rows, columns), float32."""
        gray = gray.to(self.device)
        if tuple(gray.shape[-2:]) != self.input_size:
            gray = functional.interpolate(gray, self.input_size, mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (gray * (255.0 * self.factor)).expand(-1, self.channels, -1, -1)
        pixels = ((pixels - self._mean) / self._std).to(self.dtype)
        with torch.autocast(gray.device.type, enabled=False):
            return self._vision.grid(pixels).float()


def resample(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map of tokens at another size: the mean of the area where it shrinks, bilinear where it grows.

    Args:
        tokens: (batch, size, rows, columns).
        grid: (rows, columns) wanted.
    """
    rows, columns = tokens.shape[-2:]
    if (rows, columns) == grid:
        return tokens
    if rows >= grid[0] and columns >= grid[1]:
        return functional.interpolate(tokens, grid, mode="area")
    return functional.interpolate(tokens, grid, mode="bilinear", align_corners=False)
