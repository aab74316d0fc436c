"""A frozen vision model whose features the masked autoencoder predicts: opened, and asked for a map of them.

Stands beside the Trainer, outside of the model that trains: no checkpoint or average holds a teacher.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError, one_line
from medhiera.loading import load_processor
from modeling_hiera_mae.weight_files import find_weights, read_weights

logger = logging.getLogger(__name__)

MOST_EXTRA_TOKENS = 64
"""Class and register tokens that stand before the grid; published models have at most a handful."""


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
        self.source = source
        self.model, self.config, weights = _load(source)
        self.input_size, self.mean, self.std, self.factor = _inputs_of(source, self.config)
        self.channels = int(getattr(self.config, "num_channels", 3) or 3)
        described = f"{self.input_size}{self.mean}{self.std}{self.factor}"
        self.fingerprint = _fingerprint(weights, described)
        self.model = self.model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.dtype, self.device = dtype, torch.device(device)
        self._mean, self._std = (
            torch.tensor(each, device=self.device)[:, None, None] for each in (self.mean, self.std)
        )
        try:
            first, second = (self._tokens(torch.zeros(1, 1, *self.input_size)) for _ in range(2))
        except UserError:
            raise
        except Exception as error:  # whatever a model of another kind makes of pixel_values
            raise UserError(
                f"teacher {source} ({self.config.model_type}) cannot be asked for the features of an image "
                f"({type(error).__name__}: {one_line(error)}); wanted a vision model, such as a ViT, DINOv2, "
                "ResNet or ConvNeXt of transformers, or one of timm"
            ) from error
        if not torch.equal(first, second):
            raise UserError(
                f"teacher {source} ({self.config.model_type}) gives other features each time, as one that "
                "draws masks does; take a model that sees the whole image"
            )
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
            return self._grid_of(pixels).float()

    def _grid_of(self, pixels: Tensor) -> Tensor:
        """The last layer's tokens as a map, (batch, size, rows, columns)."""
        if self.config.model_type == "timm_wrapper":
            [last] = self.model.timm_model.forward_intermediates(
                pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )
            return last
        if self.config.model_type == "hiera":  # the order of its tokens is its own
            output = self.model(pixels, output_hidden_states=True)
            return output.reshaped_hidden_states[-1].permute(0, 3, 1, 2)
        hidden = self.model(pixels).last_hidden_state
        if hidden.dim() == 4:
            return hidden
        rows, columns = self._token_grid(hidden.shape[1])
        return hidden[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    def _token_grid(self, count: int) -> tuple[int, int]:
        """(rows, columns) of so many tokens, row by row, behind what stands before them.

        Raises:
            UserError: they are no grid.
        """
        patch = getattr(self.config, "patch_size", None)
        height, width = (patch, patch) if isinstance(patch, int) else patch or (0, 0)
        if height and width:
            rows, columns = self.input_size[0] // height, self.input_size[1] // width
            if 0 < rows * columns <= count <= rows * columns + MOST_EXTRA_TOKENS:
                return rows, columns
        side = round(count**0.5)
        if side * side == count and self.input_size[0] == self.input_size[1]:  # merged patches, as of Swin
            return side, side
        raise UserError(
            f"teacher {self.source} ({self.config.model_type}) gives {count} tokens of an image of "
            f"{self.input_size}, which are no grid of patches of {patch}; take another teacher"
        )


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


def _load(source: str) -> tuple[Any, Any, dict[str, Tensor]]:
    """A model in single precision, its configuration, and its weights as they were stored.

    Raises:
        UserError: see Teacher.
    """
    try:
        weights = read_weights(find_weights(source, {}, use_safetensors=True))
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        with _without_report():
            model, info = AutoModel.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # a folder of any library: whatever its files make transformers raise
        raise UserError(
            f"teacher {source} cannot be opened ({one_line(error)}); name a folder or Hub id of a vision "
            "model of transformers or timm, with safetensors"
        ) from error
    vision = getattr(model, "vision_model", None)
    prefix = "" if vision is None else "vision_model."
    absent = [
        name for name in info["missing_keys"]
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(("pooler.", "head."))
    ]  # fmt: skip
    if absent or info["mismatched_keys"]:
        names = sorted(absent) or sorted(str(key[0]) for key in info["mismatched_keys"])
        raise UserError(
            f"teacher {source} lacks {len(names)} weights of {type(model).__name__}, first {names[0]}: a "
            "teacher with random weights teaches nothing; get it again, or name the folder that "
            "save_pretrained wrote"
        )
    if isinstance(vision, nn.Module):  # CLIP, SigLIP and the like
        return vision, config.vision_config, weights
    return model, config, weights


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from listing a head that is left out; what is missing is refused."""
    loading = logging.getLogger("transformers.modeling_utils")
    before = loading.level
    loading.setLevel(logging.ERROR)
    try:
        yield
    finally:
        loading.setLevel(before)


def _inputs_of(source: str, config: Any) -> tuple[tuple[int, int], list[float], list[float], float]:
    """(height, width), mean and std by channel, and what a byte is multiplied by before them.

    Raises:
        UserError: the image processor says no size.
    """
    if config.model_type == "timm_wrapper":  # its config.json says it all
        pretrained = config.pretrained_cfg
        _, height, width = pretrained["input_size"]
        return (height, width), list(pretrained["mean"]), list(pretrained["std"]), 1 / 255
    processor = load_processor(source)
    crop, size = (getattr(processor, name, None) or {} for name in ("crop_size", "size"))
    sizes = [crop] if getattr(processor, "do_center_crop", False) else []
    for sides in [*sizes, size]:
        edge = sides.get("shortest_edge")
        height, width = sides.get("height", edge), sides.get("width", edge)
        if height and width:
            break
    else:
        raise UserError(f"teacher {source}: its preprocessor_config.json says no size ({dict(size)})")
    normalizes = bool(getattr(processor, "do_normalize", True))
    mean = processor.image_mean if normalizes else 0.0
    std = processor.image_std if normalizes else 1.0
    as_lists = [list(each) if isinstance(each, list | tuple) else [float(each)] for each in (mean, std)]
    return (int(height), int(width)), as_lists[0], as_lists[1], float(processor.rescale_factor)


def _fingerprint(weights: dict[str, Tensor], described: str) -> str:
    """Twelve hexadecimal digits that depend on stored weights and on a text."""
    digest = hashlib.sha256(described.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
