"""The encoder and the classifier on it: HieraMAEModel and HieraMAEForImageClassification.

Stands on layers; modeling_hiera_mae puts the MAE's decoder on the same encoder. Takes normalized pixel
values, gives transformers' own output classes.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers.models.hiera.modeling_hiera import HieraForImageClassificationOutput, HieraModelOutput
from transformers.utils.generic import can_return_tuple

from .checkpoint_config import as_ours
from .configuration_hiera_mae import HieraMAEConfig
from .exclusive_loss import MULTI_LABEL, SINGLE_LABEL, masked_cross_entropy, problem_type_of
from .initialization import init_head_weights, init_mae_patch_embedding, init_mae_weights
from .layers import HieraMAEEmbeddings, HieraMAELayer, HieraMAEStage
from .masking import UnitMask, check_pixel_values, choose_mask
from .pretrained import HieraMAEPreTrainedModel
from .windowing import reroll, to_stock_order, undo_windowing


class EncoderOutput(NamedTuple):
    """What the encoder hands on, unrolled.

    Attributes:
        last: (batch, units, tokens, channels) of the last stage.
        stages: outputs of the requested stages, by index.
        attentions: the last block's weights of every stage, or None.
    """

    last: torch.Tensor
    stages: dict[int, torch.Tensor]
    attentions: tuple[torch.Tensor, ...] | None


class HieraMAEEncoder(nn.Module):
    """Four stages; between them channels double and, at first, tokens merge."""

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        assert config.num_query_pool is not None  # set by the model's __init__
        drop_paths = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        dim = config.embed_dim
        for stage, depth in enumerate(config.depths):
            dim_out = int(config.embed_dim * config.embed_dim_multiplier**stage)
            layers = []
            for index in range(depth):
                # The first block still attends as the stage before it: it pools what that stage made.
                first = index == 0
                within_units = config.masked_unit_attention[stage] or (
                    first and config.masked_unit_attention[max(stage - 1, 0)]
                )
                layers.append(
                    HieraMAELayer(
                        config,
                        dim if first else dim_out,
                        dim_out,
                        config.num_heads[stage],
                        drop_path=drop_paths.pop(0),
                        pools_queries=first and 0 < stage <= config.num_query_pool,
                        within_units=within_units,
                    )
                )
            self.stages.append(HieraMAEStage(layers))
            dim = dim_out

    def forward(
        self, tokens: torch.Tensor, keep_stages: Collection[int] = (), output_attentions: bool = False
    ) -> EncoderOutput:
        """Run the stages.

        Args:
            tokens: (batch, units, tokens, embed_dim), unrolled.
            keep_stages: stages whose outputs are wanted; the others are dropped.
            output_attentions: also return attention weights.
        """
        kept: dict[int, torch.Tensor] = {}
        attentions: list[torch.Tensor] = []
        for index, stage in enumerate(self.stages):
            tokens, weights = stage(tokens, output_attentions)
            if index in keep_stages:
                kept[index] = tokens
            if weights is not None:
                attentions.append(weights)
        return EncoderOutput(tokens, kept, tuple(attentions) if output_attentions else None)


class HieraMAEPooler(nn.Module):
    """Mean over tokens, then the final norm. A separate module because transformers' names have `pooler`."""

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, units, tokens, channels) → (batch, channels)."""
        return self.layernorm(tokens.mean(dim=(1, 2)))


class HieraMAEModel(HieraMAEPreTrainedModel):
    """Hiera's encoder, whole images or visible mask units only.

    Args:
        config: the geometry; copied where `num_query_pool` has to be set, or where it is stock's HieraConfig.
        add_pooling_layer: end with the mean of all tokens and the final norm.
        is_mae: mask units by `noise`, as transformers' HieraModel(is_mae=True) does.
    Source: Ryali et al. 2023, arXiv:2306.00989.
    """

    new_weights = ("pooler.",)
    _keys_to_ignore_on_load_unexpected = [
        r"^classifier\.",
        r"^decoder\.",
        r"^encoder_norm\.",
        r"^multiscale_fusion\.",
    ]

    def __init__(self, config: HieraMAEConfig, add_pooling_layer: bool = True, is_mae: bool = False) -> None:
        config = as_ours(config)
        super().__init__(config if config.num_query_pool is not None else config.for_class("HieraModel"))
        self.is_mae = is_mae
        self.num_features = self.config.hidden_size
        self.embeddings = HieraMAEEmbeddings(self.config)
        self.encoder = HieraMAEEncoder(self.config)
        self.pooler = HieraMAEPooler(self.config) if add_pooling_layer else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not self.is_mae:
            super()._init_weights(module)
        elif isinstance(module, nn.Conv2d):
            init_mae_patch_embedding(module)
        else:
            init_mae_weights(module)

    @can_return_tuple  # type: ignore[untyped-decorator]  # transformers gives it no type
    def forward(
        self,
        pixel_values: torch.Tensor,
        noise: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        *,
        mask_ratio: float | None = None,
    ) -> HieraModelOutput:
        """Encode images.

        Args:
            pixel_values: (batch, channels, height, width), normalized; whole mask units (multiples of 32
                pixels).
            noise: (batch, mask units); the smallest stay visible. None draws it. Only where `is_mae`.
            output_attentions: return weights of each stage's last block (the "eager" path).
            output_hidden_states: keep and return every stage's output.
            interpolate_pos_encoding: True or None interpolate the position embeddings for images of another
                size than `config.image_size`; False refuses such images.
            mask_ratio: fraction to hide; None takes the configuration's. Only where `is_mae`.

        Returns:
            transformers' HieraModelOutput, tensors in transformers' order; `bool_masked_pos` is True for
            kept.

        Raises:
            ValueError: pixel_values, noise or mask_ratio do not fit.
        """
        wants_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        mask = None
        if self.is_mae:
            mask = choose_mask(self.config, pixel_values, noise, mask_ratio, interpolate_pos_encoding)
        elif noise is not None or mask_ratio is not None:
            raise ValueError(
                "noise and mask_ratio need a model that masks: build HieraMAEModel(config, is_mae=True)."
            )
        else:
            check_pixel_values(self.config, pixel_values, interpolate_pos_encoding)
        tokens = self.embeddings(pixel_values, mask)
        encoded = self.encoder(
            tokens,
            range(len(self.config.depths)) if wants_states else (),
            wants_attentions(self.config, output_attentions),
        )
        hidden, reshaped = None, None
        if wants_states:
            hidden, reshaped = stock_hidden_states(self.config, tokens, encoded, pixel_values, mask)
        return HieraModelOutput(
            last_hidden_state=to_stock_order(encoded.last),
            pooler_output=None if self.pooler is None else self.pooler(encoded.last),
            bool_masked_pos=None if mask is None else mask.is_kept,
            ids_restore=None if mask is None else mask.ids_restore,
            hidden_states=hidden,
            attentions=encoded.attentions,
            reshaped_hidden_states=reshaped,
        )


class HieraMAEForImageClassification(HieraMAEPreTrainedModel):
    """Classifier: Hiera's encoder, the mean of its tokens, one linear layer.

    Args:
        config: the geometry and `num_labels`; copied. With problem_type "single_label_classification" each
            image has exactly one label, with "multi_label_classification" any number. None stays None, as
            in stock, until a loss is trained on: the labels then say which. "regression" is refused.
    """

    new_weights = ("hiera.pooler.", "classifier.")
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^encoder_norm\.", r"^multiscale_fusion\."]
    # Or transformers' Trainer would pass a num_items_in_batch in which NaN and each share of an image count.
    # Ours counts what is annotated, and passes that.
    accepts_loss_kwargs = False

    def __init__(self, config: HieraMAEConfig) -> None:
        config = as_ours(config).for_class("HieraForImageClassification")
        if config.problem_type == "regression":
            raise ValueError(
                f"problem_type is 'regression', which this classifier has no loss for; wanted "
                f"{MULTI_LABEL!r} or {SINGLE_LABEL!r}. Put a head of your own on HieraMAEModel."
            )
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hiera = HieraMAEModel(config, add_pooling_layer=True)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.classifier:
            init_head_weights(self.classifier)

    @can_return_tuple  # type: ignore[untyped-decorator]  # transformers gives it no type
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        *,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> HieraForImageClassificationOutput:
        """Score every label; always logits, in training and evaluation alike.

        Args:
            pixel_values: (batch, channels, height, width), normalized; multiples of 32 pixels.
            labels: (batch, num_labels), floating point: 1 present, 0 absent, NaN not annotated. Of
                single-label classification also (batch,), integers, as in transformers: masked_cross_entropy.
                Where problem_type is None, integers mean single-label classification: problem_type_of.
            output_attentions: return weights of each stage's last block (the "eager" path).
            output_hidden_states: keep and return every stage's output.
            interpolate_pos_encoding: see HieraMAEModel.
            num_items_in_batch: annotated labels (of single-label classification: images) of the whole
                optimizer step; the loss is then divided by it instead of by those of this batch, so that
                accumulated batches weigh alike.

        Returns:
            transformers' output; `logits` is (batch, num_labels), `loss` a scalar where labels are given.

        Raises:
            ValueError: pixel_values or labels do not fit.
        """
        outputs = self.hiera(
            pixel_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
        )
        pooled = functional.dropout(outputs.pooler_output, self.config.classifier_dropout, self.training)
        logits = self.classifier(pooled)
        return HieraForImageClassificationOutput(
            loss=None if labels is None else self._measure(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )

    def _measure(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The loss, see forward."""
        problem_type = problem_type_of(self.config, labels)
        measure = masked_cross_entropy if problem_type == SINGLE_LABEL else masked_binary_cross_entropy
        loss = measure(logits, labels, num_items_in_batch)
        # Weights that follow this loss are to be read by its rule: saved with None, what was trained as
        # sigmoids would open as a softmax. Differs from transformers, which writes it under no_grad too: an
        # evaluation on 0s and 1s would turn a softmax checkpoint into sigmoids.
        if self.config.problem_type is None and loss.requires_grad:
            self.config.problem_type = problem_type
        return loss


def masked_binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Binary cross-entropy over annotated labels; shapes do not depend on how many there are.

    Args:
        logits: (batch, num_labels).
        labels: (batch, num_labels), floating point; NaN is not annotated.
        num_items_in_batch: divide by this instead of by the annotated labels here.

    Returns:
        A scalar, at least float32; 0 where nothing is annotated.

    Raises:
        ValueError: labels are integers or of another shape.
    """
    if not labels.is_floating_point():
        raise ValueError(
            f"labels are {labels.dtype}; wanted floating point (1 present, 0 absent, NaN not annotated). "
            "Call labels.float(); or, where each image has exactly one label, set problem_type to "
            f"{SINGLE_LABEL}."
        )
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}; wanted {tuple(logits.shape)}, one per image and label."
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    is_annotated = ~labels.isnan()
    targets = torch.where(is_annotated, labels, 0).to(dtype)
    losses = functional.binary_cross_entropy_with_logits(logits.to(dtype), targets, reduction="none")
    total = torch.where(is_annotated, losses, 0).sum()
    if num_items_in_batch is None:
        return total / is_annotated.sum().clamp(min=1)
    return total / num_items_in_batch


def wants_attentions(config: HieraMAEConfig, output_attentions: bool | None) -> bool:
    """Decide whether attention weights are returned.

    Raises:
        ValueError: they are requested with a fused path, which never forms them.
    """
    wanted = bool(config.output_attentions if output_attentions is None else output_attentions)
    if wanted and config._attn_implementation not in (None, "eager"):
        raise ValueError(
            f"output_attentions=True with attn_implementation {config._attn_implementation!r}, which gives "
            "no weights; load the model with attn_implementation='eager', or call "
            "model.set_attn_implementation('eager')."
        )
    return wanted


def stock_hidden_states(
    config: HieraMAEConfig,
    tokens: torch.Tensor,
    encoded: EncoderOutput,
    pixel_values: torch.Tensor,
    mask: UnitMask | None,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Bring the embeddings and every stage's output into transformers' two forms.

    Args:
        config: the model's.
        tokens: the embeddings, (batch, units, tokens, embed_dim), unrolled.
        encoded: with every stage kept.
        pixel_values: for the image's size.
        mask: None where all units are present.

    Returns:
        hidden_states, each (batch, tokens × units, channels), and reshaped_hidden_states, each (batch,
        height, width, channels), or (batch, kept units, unit height, unit width, channels) where masked.
    """
    assert config.num_query_pool is not None  # set by the model's __init__
    grid = [side // unit for side, unit in zip(pixel_values.shape[2:], config.unit_pixels, strict=True)]
    all_levels = len(config.depths) - 1
    states = [tokens, *encoded.stages.values()]
    levels = [all_levels, *(all_levels - min(i, config.num_query_pool) for i in range(len(config.depths)))]
    reshaped = []
    for state, left in zip(states, levels, strict=True):
        units = reroll(state, config.query_stride, left)
        reshaped.append(units if mask is not None else undo_windowing(units, grid))
    return tuple(to_stock_order(state) for state in states), tuple(reshaped)
