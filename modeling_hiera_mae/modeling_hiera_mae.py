"""The masked autoencoder: HieraMAEForPreTraining and its decoder.

Stands on the encoder of modeling_hiera. Visible mask units go through the encoder; its scales are fused; a
decoder sees them followed by mask tokens and predicts the pixels of what was hidden.

The decoder's attention does not care about order, so units stand as [visible, masked]: what is computed for
masked tokens only is a slice, every shape is static, and nothing is scattered. Spatial order returns with the
logits.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers.models.hiera.modeling_hiera import HieraForPreTrainingOutput
from transformers.utils.generic import can_return_tuple

from .checkpoint_config import as_ours
from .configuration_hiera_mae import HieraMAEConfig
from .feature_prediction import FeatureHead, FeatureLoss, FeaturePredictionOutput, features_of_units
from .fused_linear import is_plain_convolution, linear, project
from .initialization import init_mae_fusion_head, init_mae_tokens, init_mae_weights
from .layers import HieraMAELayer, HieraMAEStage, look_up_units
from .masking import UnitMask, choose_mask
from .modeling_hiera import HieraMAEModel, stock_hidden_states, wants_attentions
from .position_embeddings import resize_positions
from .pretrained import HieraMAEPreTrainedModel
from .windowing import cut_units, reroll, take_units, undo_windowing, unroll


class HieraMAEMultiScaleFusion(nn.Module):
    """Bring the stages' outputs to the last one's resolution and width, and add them.

    Each head is a convolution whose kernel covers exactly what merges into one token, so it runs as a linear
    layer over reshaped units (measured: +7–9 % of a training step on a CPU against the convolution).
    """

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        assert config.num_query_pool is not None  # set by the model's __init__
        self.stride = tuple(config.query_stride)
        self.pools = config.num_query_pool
        self.levels_left = len(config.depths) - 1 - self.pools  # before a mask unit is one token
        self.multi_scale_fusion_heads = nn.ModuleList()
        for stage in range(self.pools):
            kernel = tuple(side ** (self.pools - stage) for side in self.stride)
            dim = int(config.embed_dim * config.embed_dim_multiplier**stage)
            self.multi_scale_fusion_heads.append(nn.Conv2d(dim, config.hidden_size, kernel, stride=kernel))
        self.multi_scale_fusion_heads.append(nn.Identity())  # in transformers' list too; it has no weights

    def forward(self, stages: dict[int, torch.Tensor], last: torch.Tensor) -> torch.Tensor:
        """Fuse.

        Args:
            stages: outputs of the stages before each pooling, (batch, units, tokens, channels), unrolled.
            last: the last stage's output.

        Returns:
            (batch, units, tokens of the last stage, channels of the last stage).
        """
        fused = last
        for stage, head in enumerate(self.multi_scale_fusion_heads[: self.pools]):
            fused = fused + self._merge(head, stages[stage], self.pools - stage)
        return fused

    def _merge(self, head: nn.Module, tokens: torch.Tensor, levels: int) -> torch.Tensor:
        """One head, over the tokens of `levels` poolings at once."""
        batch, units, length, channels = tokens.shape
        if not is_plain_convolution(head):  # an adapter's or a hooked one has to be called
            maps = reroll(tokens, self.stride, self.levels_left + levels).flatten(0, 1).permute(0, 3, 1, 2)
            merged = unroll(head(maps).permute(0, 2, 3, 1), self.stride, self.levels_left)
            return merged.squeeze(1).unflatten(0, (batch, units))
        merging = math.prod(self.stride) ** levels
        # Unrolled, what merges is the slow part of a unit's tokens: (merging, remaining) → (remaining,
        # merging).
        patches = (
            tokens.reshape(batch, units, merging, length // merging, channels).transpose(2, 3).flatten(3)
        )
        weight = unroll(
            head.weight.permute(0, 2, 3, 1), self.stride, levels
        )  # the kernel's pixels in the same order
        return linear(patches, weight.flatten(1), head.bias)


class HieraMAEDecoder(nn.Module):
    """Transformer over visible and mask tokens that predicts pixels."""

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        assert config.num_query_pool is not None  # set by the model's __init__
        self.config = config
        self.levels = len(config.depths) - 1 - config.num_query_pool
        self.unit = tuple(side**self.levels for side in config.query_stride)  # tokens a mask unit has here
        self.grid = self._grid(config.unit_grid)
        width = config.decoder_hidden_size
        assert width is not None and config.decoder_depth is not None and config.decoder_num_heads is not None
        self.decoder_embeddings = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_position_embeddings = nn.Parameter(torch.zeros(1, math.prod(self.grid), width))
        self.decoder_block = HieraMAEStage(
            [
                HieraMAELayer(config, width, width, config.decoder_num_heads)
                for _ in range(config.decoder_depth)
            ]
        )
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        pixels = math.prod(config.unit_pixels) // math.prod(self.unit)
        self.decoder_pred = nn.Linear(width, pixels * config.num_channels)

    def forward(
        self, visible: torch.Tensor, mask: UnitMask, unit_grid: tuple[int, int], masked_only: bool
    ) -> torch.Tensor:
        """Decode; `predict_pixels` makes pixels of the result.

        Args:
            visible: (batch, kept units, tokens, channels of the encoder).
            mask: which units those are.
            unit_grid: (rows, columns) of mask units in the image.
            masked_only: decode masked units alone; the last block's queries, the norm and the head then run
                on them.

        Returns:
            (batch, units, tokens, decoder width), units ordered as [visible, masked], or [masked].
        """
        kept = visible.shape[1]
        tokens = project(visible, self.decoder_embeddings)
        hidden = self.mask_token.expand(tokens.shape[0], mask.masked.shape[1] * tokens.shape[2], -1)
        hidden = hidden.unflatten(1, (-1, tokens.shape[2])).to(tokens.dtype)
        positions = look_up_units(self._unit_positions(unit_grid), torch.cat([mask.kept, mask.masked], dim=1))
        tokens = torch.cat([tokens, hidden], dim=1) + positions
        tokens, _ = self.decoder_block(tokens, last_first_query=kept if masked_only else 0)
        normalized: torch.Tensor = self.decoder_norm(tokens)
        return normalized

    def predict_pixels(self, tokens: torch.Tensor) -> torch.Tensor:
        """(…, decoder width) → (…, pixels of a token × channels)."""
        return project(tokens, self.decoder_pred)

    def resize(self, unit_grid: tuple[int, int]) -> None:
        """Make another image size the one the parameters are for.

        Args:
            unit_grid: (rows, columns) of mask units.
        """
        grid = self._grid(unit_grid)
        self.decoder_position_embeddings = nn.Parameter(self._positions(grid).detach().clone())
        self.grid = grid

    def _grid(self, unit_grid: tuple[int, int]) -> tuple[int, int]:
        return unit_grid[0] * self.unit[0], unit_grid[1] * self.unit[1]

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        return resize_positions(
            self.decoder_position_embeddings, self.grid, grid, self.unit, self.config.position_interpolation
        )

    def _unit_positions(self, unit_grid: tuple[int, int]) -> torch.Tensor:
        grid = self._grid(unit_grid)
        positions = self._positions(grid).reshape(1, grid[0], grid[1], -1)
        return unroll(positions, self.config.query_stride, self.levels)


class HieraMAEForPreTraining(HieraMAEPreTrainedModel):
    """Hiera's masked autoencoder.

    Args:
        config: the geometry; copied where `num_query_pool` has to be set (2 unless a checkpoint says
            otherwise).
    Source: Ryali et al. 2023, arXiv:2306.00989, section 3; He et al. 2021, arXiv:2111.06377.
    """

    new_weights = ("decoder.", "encoder_norm.", "multiscale_fusion.")
    _keys_to_ignore_on_load_unexpected = [r"^classifier\.", r"^(hiera\.)?pooler\."]
    accepts_loss_kwargs = False

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__(as_ours(config).for_class("HieraForPreTraining"))
        self.hiera = HieraMAEModel(self.config, add_pooling_layer=False, is_mae=True)
        self.encoder_norm = nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)
        self.multiscale_fusion = HieraMAEMultiScaleFusion(self.config)
        self.decoder = HieraMAEDecoder(self.config)
        self.feature_head: FeatureHead | None = None
        self.post_init()

    def predict_features(
        self, size: int, loss: FeatureLoss = "smooth_l1", weight: float = 1.0, with_pixels: bool = False
    ) -> None:
        """From now on predict a teacher's features, which forward takes as `target_features`.

        The pixels' head is frozen where it is left out, as it gets no gradient, which DDP would wait for.

        Args:
            size: of the features.
            loss: see FeatureHead.
            weight: of the features' loss beside the pixels'.
            with_pixels: predict these too.
        """
        head = FeatureHead(self.decoder.decoder_pred.in_features, size, loss, weight, with_pixels)
        self._init_weights(head.prediction)
        self.feature_head = head.to(self.device)
        self.decoder.decoder_pred.requires_grad_(with_pixels)

    def drop_feature_head(self) -> None:
        """Be a masked autoencoder of pixels again, as it is saved."""
        self.feature_head = None
        self.decoder.decoder_pred.requires_grad_(True)

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
        target_features: torch.Tensor | None = None,
        output_logits: bool | None = None,
    ) -> HieraForPreTrainingOutput:
        """Hide mask units and predict their pixels, or a teacher's features.

        Args:
            pixel_values: (batch, channels, height, width), normalized; multiples of 32 pixels.
            noise: (batch, mask units); the int(units × (1 - mask_ratio)) smallest stay visible; None: drawn.
            output_attentions: return weights of each encoder stage's last block (the "eager" path).
            output_hidden_states: keep and return every encoder stage's output.
            interpolate_pos_encoding: see HieraMAEModel.
            mask_ratio: fraction to hide; None takes the configuration's.
            target_features: (batch, rows, columns, size), for `predict_features`, at each decoder token.
            output_logits: predict visible tokens too and return `logits`; None does so in evaluation only.

        Returns:
            transformers' output: `loss`, a scalar over masked tokens; `logits`, (batch, tokens, pixels of a
            token × channels) in spatial order, or None; `bool_masked_pos`, (batch, tokens), True for kept (as
            transformers has it); `ids_restore`, (batch, mask units).

        Raises:
            ValueError: pixel_values, noise or mask_ratio do not fit.
        """
        asked = output_hidden_states
        wants_states = self.config.output_hidden_states if asked is None else asked
        wants_logits = not self.training if output_logits is None else output_logits
        mask = choose_mask(self.config, pixel_values, noise, mask_ratio, interpolate_pos_encoding)
        height, width = self.config.unit_pixels
        unit_grid = (pixel_values.shape[2] // height, pixel_values.shape[3] // width)
        tokens = self.hiera.embeddings(pixel_values, mask)
        encoded = self.hiera.encoder(
            tokens,
            range(len(self.config.depths)) if wants_states else range(self.multiscale_fusion.pools),
            wants_attentions(self.config, output_attentions),
        )
        visible = self.encoder_norm(self.multiscale_fusion(encoded.stages, encoded.last))
        decoded = self.decoder(visible, mask, unit_grid, masked_only=not wants_logits)
        losses = self._losses(decoded[:, -mask.masked.shape[1] :], pixel_values, mask, target_features)
        hidden, reshaped = None, None
        if wants_states:
            hidden, reshaped = stock_hidden_states(self.config, tokens, encoded, pixel_values, mask)
        kind = HieraForPreTrainingOutput if target_features is None else FeaturePredictionOutput
        return kind(
            **losses,
            logits=self._pixels_in_space(decoded, mask, unit_grid) if wants_logits else None,
            bool_masked_pos=self._kept_tokens(mask, unit_grid),
            ids_restore=mask.ids_restore,
            hidden_states=hidden,
            attentions=encoded.attentions,
            reshaped_hidden_states=reshaped,
        )

    def resize_images(self, image_size: "list[int] | tuple[int, ...]") -> None:  # type: ignore[override]
        """See HieraMAEPreTrainedModel; the decoder's position embeddings follow too."""
        super().resize_images(image_size)
        self.decoder.resize(self.config.unit_grid)

    def fold_to_gray(self) -> None:
        """See HieraMAEPreTrainedModel; the decoder's head predicts the mean of its former R, G and B.

        Not exact: the targets of one channel are normalized by a deviation over a third of the values, which
        differs from that over all by a factor sqrt(765 / 767) for 16-pixel tokens, 0.1 %.
        """
        super().fold_to_gray()
        head = self.decoder.decoder_pred
        head.weight = nn.Parameter(head.weight.detach().unflatten(0, (3, -1)).mean(dim=0))
        head.bias = nn.Parameter(head.bias.detach().unflatten(0, (3, -1)).mean(dim=0))
        head.out_features = head.weight.shape[0]

    def spread_to_rgb(self) -> None:
        """Refused: the encoder alone can be spread, as a classifier's is; the decoder predicts gray pixels.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "This masked autoencoder has 1 channel, and its decoder predicts gray pixels: load it with "
            "num_channels=1, or its encoder alone (HieraMAEForImageClassification, HieraMAEModel) with 3."
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, HieraMAEDecoder):
            init_mae_tokens(module.mask_token, module.decoder_position_embeddings)
        elif isinstance(module, nn.Conv2d):
            init_mae_fusion_head(module)
        else:
            init_mae_weights(module)

    def _losses(
        self, decoded: torch.Tensor, pixel_values: torch.Tensor, mask: UnitMask, targets: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """`loss` by name, and with features what it is the sum of; see _pixel_loss and features_of_units.

        Args:
            decoded: (batch, masked units, tokens, decoder width).
            pixel_values: (batch, channels, height, width).
            mask: which units were hidden.
            targets: (batch, rows, columns, size) of features, or None.
        """
        losses: dict[str, torch.Tensor] = {}
        head = self.feature_head
        if head is None or targets is None or head.with_pixels:
            pixels = self._pixel_loss(self.decoder.predict_pixels(decoded), pixel_values, mask)
            if targets is None:
                return {"loss": pixels}
            losses["pixel_loss"] = pixels
        assert head is not None, "predict_features comes before target_features"
        of_units = features_of_units(
            targets, self.decoder.grid, self.config.query_stride, self.decoder.levels, mask.masked
        )
        losses["feature_loss"] = head(decoded, of_units)
        total = losses["feature_loss"] * head.weight if head.with_pixels else losses["feature_loss"]
        return losses | {"loss": total + losses["pixel_loss"] if head.with_pixels else total}

    def _pixel_loss(
        self, predictions: torch.Tensor, pixel_values: torch.Tensor, mask: UnitMask
    ) -> torch.Tensor:
        """Mean squared error against (normalized) pixels of masked tokens, at least in float32.

        Args:
            predictions: (batch, masked units, tokens, pixels of a token × channels).
            pixel_values: (batch, channels, height, width).
            mask: which units were hidden.
        """
        dtype = torch.promote_types(pixel_values.dtype, torch.float32)
        units = cut_units(pixel_values.to(dtype), self.config.unit_pixels, mask.masked)
        rows, columns = self.decoder.unit
        batch, masked, channels, height, width = units.shape
        # A token's pixels, channel by channel: (batch, masked, rows × columns, channels × height × width).
        tokens = units.reshape(batch, masked, channels, rows, height // rows, columns, width // columns)
        tokens = tokens.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        if self.config.normalize_pixel_loss:
            variance, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
            tokens = (tokens - mean) / (variance + 1e-6).sqrt()
        # Token by token first: compiled, the sum is taken where the targets are made, which are not stored.
        errors = functional.mse_loss(predictions.to(dtype), tokens, reduction="none").sum(dim=-1)
        return errors.mean() / tokens.shape[-1]

    def _pixels_in_space(
        self, decoded: torch.Tensor, mask: UnitMask, unit_grid: tuple[int, int]
    ) -> torch.Tensor:
        """Decoded units as [visible, masked] → (batch, tokens of the image row by row, pixels × channels)."""
        order = torch.argsort(torch.cat([mask.kept, mask.masked], dim=1), dim=1)
        predictions = self.decoder.predict_pixels(decoded)
        units = reroll(take_units(predictions, order), self.config.query_stride, self.decoder.levels)
        return undo_windowing(units, unit_grid).flatten(1, 2)

    def _kept_tokens(self, mask: UnitMask, unit_grid: tuple[int, int]) -> torch.Tensor:
        """(batch, units) → (batch, tokens of the decoder row by row); True is kept."""
        rows, columns = self.decoder.unit
        is_kept = mask.is_kept[:, :, None, None, None].expand(-1, -1, rows, columns, 1)
        return undo_windowing(is_kept, unit_grid).flatten(1)
