"""A vision model of transformers or timm: opened, and asked for its tokens as a grid and for one vector.

Below encoder.py and training/teacher.py. Nothing of a folder is executed, and weights are safetensors.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from medhiera.errors import UserError, one_line
from medhiera.layout import refuse_mistyped
from medhiera.loading import load_processor
from modeling_hiera_mae.weight_files import find_weights, read_weights

MOST_EXTRA_TOKENS = 64
"""Class and register tokens that stand before the grid; published models have at most a handful."""

Pooling = Literal["pooler", "class token", "mean of tokens"]
"""How one vector is made of an image's tokens: by the model's own trained pooler, or in its absence."""


@dataclass(frozen=True)
class VisionModel:
    """A model of single images, in evaluation mode.

    Attributes:
        named: the model in messages: "teacher google/vit".
        model: transformers' own class.
        config: of the part that sees images.
        has_class_token: the first of its tokens is of no place.
        has_trained_pooler: the checkpoint holds whatever its pooler needs.
    """

    named: str
    model: Any
    config: Any
    has_class_token: bool
    has_trained_pooler: bool

    @classmethod
    def load(cls, source: str, named: str) -> tuple["VisionModel", dict[str, Tensor]]:
        """Load it in single precision, and its weights as they were stored.

        Args:
            source: a folder or Hub id.
            named: how messages name it.

        Raises:
            UserError: no such model, no safetensors, or weights that are missing or not finite.
        """
        refuse_mistyped(source)
        try:
            weights = read_weights(find_weights(source, {}, use_safetensors=True))
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            with without_report():
                model, info = AutoModel.from_pretrained(
                    source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
                    output_loading_info=True,
                )  # fmt: skip
        except Exception as error:  # a folder of any library: whatever its files make transformers raise
            raise UserError(
                f"{named} cannot be opened ({one_line(error)}); name a folder or Hub id of a vision model of "
                "transformers or timm, with safetensors"
            ) from error
        vision = getattr(model, "vision_model", None)
        prefix = "" if vision is None else "vision_model."
        missing = [name.removeprefix(prefix) for name in info["missing_keys"] if name.startswith(prefix)]
        absent = [name for name in missing if not name.startswith(("pooler.", "head."))]
        if absent or info["mismatched_keys"]:
            names = sorted(absent) or sorted(str(key[0]) for key in info["mismatched_keys"])
            raise UserError(
                f"{named} lacks {len(names)} weights of {type(model).__name__}, first {names[0]}: features "
                "of random weights mean nothing; get it again, or name the folder that save_pretrained wrote"
            )
        if isinstance(vision, nn.Module):  # CLIP, SigLIP and the like
            model, config = vision, config.vision_config
        has_class_token = any(name.endswith(("cls_token", "class_embedding")) for name in weights)
        return cls(named, model.eval(), config, has_class_token, len(missing) == len(absent)), weights

    def grid(self, pixels: Tensor) -> Tensor:
        """The last layer's tokens as a map, (batch, size, rows, columns).

        Args:
            pixels: (batch, channels, height, width), normalized.

        Raises:
            UserError: they are no grid.
        """
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
        rows, columns = self._token_grid(hidden.shape[1], pixels)
        return hidden[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    def pooled(self, pixels: Tensor) -> Tensor:
        """One vector an image, (batch, size).

        Args:
            pixels: (batch, channels, height, width), normalized.
        """
        return self._pool(self.model(pixels))[0]

    def _pool(self, output: Any) -> tuple[Tensor, Pooling]:
        """The vectors, and how they were made."""
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self.has_trained_pooler:
            return pooled.flatten(1), "pooler"  # a convolutional network's has height and width 1
        hidden = output.last_hidden_state
        if hidden.dim() == 4:
            return hidden.mean(dim=(2, 3)), "mean of tokens"
        if self.has_class_token:
            return hidden[:, 0], "class token"
        return hidden.mean(dim=1), "mean of tokens"

    def _token_grid(self, count: int, pixels: Tensor) -> tuple[int, int]:
        """(rows, columns) of so many tokens, row by row, behind what stands before them.

        Raises:
            UserError: they are no grid.
        """
        patch = getattr(self.config, "patch_size", None)
        height, width = (patch, patch) if isinstance(patch, int) else patch or (0, 0)
        size = (pixels.shape[-2], pixels.shape[-1])
        if height and width:
            rows, columns = size[0] // height, size[1] // width
            if 0 < rows * columns <= count <= rows * columns + MOST_EXTRA_TOKENS:
                return rows, columns
        side = round(count**0.5)
        if side * side == count and size[0] == size[1]:  # merged patches, as of Swin
            return side, side
        raise UserError(
            f"{self.named} ({self.config.model_type}) gives {count} tokens of an image of {size}, which are "
            f"no grid of patches of {patch}; take another model"
        )

    def check(self, pixels: Tensor) -> Pooling:
        """Ask for what is to be asked of many images, and say how one vector is made.

        Args:
            pixels: of one image.

        Raises:
            UserError: it is a model of something else, or gives other features each time.
        """
        try:
            with torch.inference_mode():
                (first, pooling), (second, _) = (self._pool(self.model(pixels)) for _ in range(2))
        except Exception as error:  # whatever a model of another kind makes of pixel_values
            raise self.no_vision_model(error) from error
        if not torch.equal(first, second):
            raise self.no_constant_features()
        return pooling

    def no_vision_model(self, error: Exception) -> UserError:
        """What to say where it cannot be asked for features of an image."""
        return UserError(
            f"{self.named} ({self.config.model_type}) cannot be asked for the features of an image "
            f"({type(error).__name__}: {one_line(error)}); wanted a vision model, such as a ViT, DINOv2, "
            "ResNet or ConvNeXt of transformers, or one of timm"
        )

    def no_constant_features(self) -> UserError:
        """What to say where two calls gave two answers."""
        return UserError(
            f"{self.named} ({self.config.model_type}) gives other features each time, as one that draws "
            "masks does; take a model that sees the whole image"
        )


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Keep transformers from listing a head that is left out; what is missing is refused."""
    loading = logging.getLogger("transformers.modeling_utils")
    before = loading.level
    loading.setLevel(logging.ERROR)
    try:
        yield
    finally:
        loading.setLevel(before)


def inputs_of(
    source: str, named: str, config: Any
) -> tuple[tuple[int, int], list[float], list[float], float]:
    """(height, width), mean and std by channel, and what a byte is multiplied by before them.

    Args:
        source: the model's folder or Hub id.
        named: how messages name it.
        config: of the model.

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
        raise UserError(f"{named}: its preprocessor_config.json says no size ({dict(size)})")
    normalizes = bool(getattr(processor, "do_normalize", True))
    mean = processor.image_mean if normalizes else 0.0
    std = processor.image_std if normalizes else 1.0
    as_lists = [list(each) if isinstance(each, list | tuple) else [float(each)] for each in (mean, std)]
    return (int(height), int(width)), as_lists[0], as_lists[1], float(processor.rescale_factor)
