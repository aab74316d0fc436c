"""What the three models share: loading any Hiera checkpoint, and the switches the Trainer reads.

Stands between a folder (or Hub id) and the models. A checkpoint is first judged by its config.json
(checkpoint_config.py), its weights are read by weight_files.py, loaded at their own size, then stretched or
folded to the requested one.
"""

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .checkpoint_config import read_configs, refuse_other_depths, refuse_other_geometry
from .configuration_hiera_mae import HieraMAEConfig, check_image_size, stock_name
from .initialization import init_classifier_weights
from .weight_files import Weights, clean_weights, find_weights, read_weights

_HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "token",
    "revision",
    "subfolder",
    "proxies",
)

_MOST_NEW_WEIGHTS = 4 * 10**8
"""A new head or decoder is far smaller; a config.json that describes more is damaged."""

_TASK_PARTS = (
    "classifier.",
    "decoder.",
    "encoder_norm.",
    "multiscale_fusion.",
    "hiera.pooler.",
    "pooler.",
    "feature_head.",
    "hidden_states_norms.",  # of transformers' HieraBackbone
)
"""Parts that one task's model has and another's leaves behind; the encoder is in every one."""


class HieraMAEPreTrainedModel(PreTrainedModel):
    """Base of HieraMAEModel, HieraMAEForPreTraining and HieraMAEForImageClassification."""

    config_class = HieraMAEConfig
    config: HieraMAEConfig
    base_model_prefix = "hiera"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["HieraMAELayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Prefixes of weights that may be new when the checkpoint was trained for another task.
    new_weights: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder or Hub id, ours or stock Hiera's, trained for this task or another.

        Args:
            pretrained_model_name_or_path: what transformers takes.
            args: handed on to transformers.
            kwargs: transformers' own, and fields of the configuration. `image_size` stretches position
                embeddings; `num_channels=1` folds RGB weights into gray ones (see fold_to_gray), 3
                spreads gray ones (see spread_to_rgb). Weights are float32 unless `dtype`, or that of a
                `config` object, says otherwise; "auto" is config.json's, else that of the stored weights.

        Returns:
            The model in evaluation mode; with `output_loading_info=True` also transformers' report, whose
            "missing_keys" are the weights that are new.

        Raises:
            ValueError: a file is damaged, cut or something else; the checkpoint is not Hiera, has another
                geometry, lacks weights it should have, or holds NaN or infinite ones, or some that have no
                place in the model.
            OSError: there is no such folder or repository, or a file cannot be opened.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **kwargs)
        name = str(pretrained_model_name_or_path)
        hub_options = {option: kwargs[option] for option in _HUB_OPTIONS if option in kwargs}
        dtype = _take_dtype(kwargs)
        stored, wanted, kwargs = read_configs(name, hub_options, kwargs)
        stored_classes = {stock_name(architecture) for architecture in stored.architectures or []}
        same_task = stock_name(cls.__name__) in stored_classes
        with_decoder = same_task and cls.__name__.endswith("PreTraining")
        refuse_other_geometry(name, stored, wanted, with_decoder=with_decoder)

        # Load at the checkpoint's own size; resize and fold below.
        as_stored = cls.own_config(wanted)
        as_stored.image_size, as_stored.num_channels = stored.image_size, stored.num_channels
        with_info = kwargs.pop("output_loading_info", False)
        new_head = kwargs.pop("ignore_mismatched_sizes", False)
        weights = _weights_of(name, hub_options, kwargs)
        cls._refuse_other_amount(name, as_stored, weights)
        refuse_other_depths(name, as_stored, weights, with_decoder=with_decoder)
        with _without_report():
            model, info = super().from_pretrained(
                None,  # our own reader has read the weights; the name would make transformers read them
                *args,
                config=as_stored,
                state_dict=weights,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with a message that helps
                dtype=dtype,
                **kwargs,
            )
        model.name_or_path = model.config.name_or_path = name
        model._refuse_unfit_weights(name, info, same_task=same_task, new_head=new_head)
        model._refuse_unused_weights(name, weights)
        if tuple(wanted.image_size) != tuple(stored.image_size):
            model.resize_images(wanted.image_size)
        if wanted.num_channels != stored.num_channels:
            change = model.spread_to_rgb if wanted.num_channels == 3 else model.fold_to_gray
            change()
        return (model, info) if with_info else model

    @classmethod
    def own_config(cls, config: HieraMAEConfig) -> HieraMAEConfig:
        """A copy of a configuration as models of this class hold it."""
        return copy.deepcopy(config)

    @classmethod
    def _refuse_other_amount(cls, name: str, config: HieraMAEConfig, weights: Weights) -> None:
        """Refuse a configuration that no model can be built from, or that asks for absurd memory."""
        config = copy.deepcopy(config)
        config._attn_implementation = None  # whether a requested one can run here is another question
        try:
            with torch.device("meta"):
                model = cls(config)
        except Exception as error:  # nothing but the model's construction: the configuration is at fault
            raise ValueError(
                f"{name} describes a model that cannot be built ({type(error).__name__}: {error}): its "
                "config.json is damaged; load the one that was saved with the weights."
            ) from error
        described = sum(parameter.numel() for parameter in model.parameters())
        held = sum(tensor.numel() for tensor in weights.values())
        if described - held > _MOST_NEW_WEIGHTS:
            raise ValueError(
                f"{name} describes a model of {described:,} parameters, and its weights hold {held:,}: its "
                "config.json does not describe its weights; load the one that was saved with them."
            )

    def resize_images(self, image_size: Sequence[int]) -> None:
        """Make position embeddings those of another image size; call before building an optimizer.

        Forward takes any size without this; it then stretches the embeddings at every call.

        Args:
            image_size: (height, width) in pixels.

        Raises:
            ValueError: not a multiple of the mask unit.
        """
        check_image_size(tuple(image_size), self.config.unit_pixels, "image_size")
        self.base_model.embeddings.resize(image_size)
        self.config.image_size = [int(side) for side in image_size]

    def fold_to_gray(self) -> None:
        """Turn weights for RGB into weights for one channel.

        The encoder is exact: the patch embedding's channels are summed, so one gray channel gives what three
        equal ones gave.

        Raises:
            ValueError: the weights are not for three channels.
        """
        if self.config.num_channels != 3:
            raise ValueError(
                f"This checkpoint has {self.config.num_channels} channels; only 3 can be folded into 1. Load "
                f"it with num_channels={self.config.num_channels}."
            )
        projection = self.base_model.embeddings.patch_embeddings.projection
        projection.weight = nn.Parameter(projection.weight.detach().sum(dim=1, keepdim=True))
        projection.in_channels = 1
        self.config.num_channels = 1

    def spread_to_rgb(self) -> None:
        """Turn weights for one channel into weights for RGB: three equal channels give what the one gave.

        Stock pipelines convert every picture to RGB.

        Raises:
            ValueError: the weights are not for one channel.
        """
        if self.config.num_channels != 1:
            raise ValueError(
                f"This checkpoint has {self.config.num_channels} channels; only 1 can be spread."
            )
        projection = self.base_model.embeddings.patch_embeddings.projection
        projection.weight = nn.Parameter((projection.weight.detach() / 3).repeat(1, 3, 1, 1))
        projection.in_channels = 3
        self.config.num_channels = 3

    def get_correct_attn_implementation(
        self, requested_attention: str | None, is_init_check: bool = False
    ) -> str | None:
        """Accept None, which is kept: the layers then choose (see resolve_attention); or a name.

        A name is "eager", "sdpa", or another of transformers' AttentionInterface, its own ("flex_attention",
        "flash_attention_2") and registered ones.

        Raises:
            ValueError: an unknown name, or one for generation.
            ImportError: transformers says what the function lacks here.
        """
        if requested_attention in (None, "eager", "sdpa"):
            return requested_attention
        known = {name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if not name.startswith("paged|")}
        if requested_attention not in known:
            raise ValueError(
                f"attn_implementation is {requested_attention!r}; wanted 'eager', 'sdpa', another name of "
                f"transformers' AttentionInterface ({', '.join(sorted(known - {'sdpa'}))}), or None to "
                "choose by device, and by training or inference."
            )
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    def get_input_embeddings(self) -> nn.Module:
        """Return the patch embeddings, as transformers' Hiera does."""
        return cast(nn.Module, self.base_model.embeddings.patch_embeddings)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_classifier_weights(module, self.config.layer_norm_init)

    def _refuse_unfit_weights(
        self, name: str, info: dict[str, Any], *, same_task: bool, new_head: bool
    ) -> None:
        """Raise where weights have other shapes, or are missing although the checkpoint's task has them."""
        for key, found, expected in sorted(info["mismatched_keys"]):
            if key.startswith("classifier."):
                if new_head:
                    continue
                raise ValueError(
                    f"{name} classifies into {found[0]} labels; wanted {expected[0]}. Pass "
                    "ignore_mismatched_sizes=True to begin with a new head, or set num_labels to match."
                )
            raise ValueError(
                f"{name} holds {key} of shape {tuple(found)}; wanted {tuple(expected)}. Its config.json does "
                "not describe its weights: load the configuration that was saved with them."
            )
        may_be_new = () if same_task else self.new_weights
        absent = sorted(key for key in info["missing_keys"] if not key.startswith(may_be_new))
        if absent:
            raise ValueError(
                f"{name} lacks {len(absent)} weights of {type(self).__name__}, first {absent[0]}. The file "
                "is damaged or not a Hiera checkpoint: get it again, or convert it with python -m "
                "modeling_hiera_mae.convert."
            )

    def _refuse_unused_weights(self, name: str, weights: Weights) -> None:
        """Raise where weights have no place here, other than the parts of another task's model.

        Not by transformers' "unexpected_keys": a model there also ignores what its parts would ignore alone.
        """
        own = self.state_dict().keys()
        prefix = f"{self.base_model_prefix}."
        left_behind = tuple(part for part in _TASK_PARTS if not any(key.startswith(part) for key in own))
        unused = [
            key
            for key, weight in weights.items()
            if not {key, prefix + key, key.removeprefix(prefix)} & own
            and not key.startswith(left_behind)
            and weight.is_floating_point()  # a lone integer is a counter, such as a weight average's
        ]
        if unused:
            raise ValueError(
                f"{name} holds {len(unused)} weights that have no place in {type(self).__name__} as its "
                f"config.json describes it, first {min(unused)}. Load the config.json that was saved with "
                "the weights, or get both files again."
            )


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from listing what is missing: it is refused here, or told of by the caller."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    reporter = logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(is_other)
    try:
        yield
    finally:
        reporter.removeFilter(is_other)


def _take_dtype(kwargs: dict[str, Any]) -> Any:
    """The precision that the caller asks for, taken out: it is no field of the configuration."""
    config = kwargs.get("config")
    asked = [kwargs.pop("dtype", None), kwargs.pop("torch_dtype", None), getattr(config, "dtype", None)]
    return next((dtype for dtype in asked if dtype is not None), torch.float32)


def _weights_of(name: str, hub_options: Mapping[str, Any], kwargs: dict[str, Any]) -> Weights:
    """The weights that the caller gave, or those of the folder or Hub id, in their own precision."""
    given = kwargs.pop("state_dict", None)
    variant, use_safetensors = kwargs.pop("variant", None), kwargs.pop("use_safetensors", None)
    if given is not None:
        return clean_weights(given, keep_dtype=True)
    try:
        return read_weights(find_weights(name, hub_options, variant, use_safetensors), keep_dtype=True)
    except ValueError as error:
        raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from error
