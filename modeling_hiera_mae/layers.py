"""The model's parts: patch embedding, MLP, block, stage.

Stands between attention and windowing (the layout) and the two model files (encoder, decoder). Tokens
travel as (batch, units, tokens, channels), unrolled (see windowing). Names of parameters are transformers'
own.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import HieraMAEMaskUnitAttention
from .configuration_hiera_mae import HieraMAEConfig
from .fused_linear import gelu_mlp, is_plain_convolution, is_unhooked, linear, project
from .masking import UnitMask
from .position_embeddings import resize_positions
from .windowing import cut_units, pool_queries, take_units, unroll


class HieraMAEPatchEmbeddings(nn.Module):
    """Overlapping patches of pixels to tokens, for all units or the visible ones alone."""

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = len(config.depths) - 1
        self.projection = nn.Conv2d(
            config.num_channels,
            config.embed_dim,
            kernel_size=tuple(config.patch_size),
            stride=tuple(config.patch_stride),
            padding=tuple(config.patch_padding),
        )

    def forward(self, pixel_values: torch.Tensor, mask: UnitMask | None = None) -> torch.Tensor:
        """Zero the masked pixels, then embed patches.

        Zeroing first keeps what is masked from leaking through kernels that reach over a unit's border.

        Args:
            pixel_values: (batch, channels, height, width), normalized.
            mask: which units are visible; None embeds all.

        Returns:
            (batch, units, tokens, embed_dim), unrolled; only visible units where a mask is given.
        """
        pixel_values = pixel_values.to(
            self.projection.weight.dtype
        )  # as targets of the loss they stay float32
        if mask is None:
            return self._embed_all(pixel_values)
        visible = self._zero_masked(pixel_values, mask)
        if not is_plain_convolution(self.projection):  # an adapter's or a hooked one has to be called
            return take_units(self._embed_all(visible), mask.kept)
        patches = self._cut_patches(visible, mask)
        return linear(patches, self.projection.weight.flatten(1), self.projection.bias)

    def _embed_all(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.projection(pixel_values).permute(0, 2, 3, 1)
        return unroll(tokens, self.config.query_stride, self.levels)

    def _zero_masked(self, pixel_values: torch.Tensor, mask: UnitMask) -> torch.Tensor:
        unit_height, unit_width = self.config.unit_pixels
        rows, columns = pixel_values.shape[2] // unit_height, pixel_values.shape[3] // unit_width
        is_kept = mask.is_kept.reshape(-1, 1, rows, 1, columns, 1).to(pixel_values.dtype)
        visible = pixel_values.unflatten(3, (columns, unit_width)).unflatten(2, (rows, unit_height)) * is_kept
        return visible.flatten(4, 5).flatten(2, 3)

    def _cut_patches(self, visible: torch.Tensor, mask: UnitMask) -> torch.Tensor:
        """Lay out visible pixels, (batch, kept, tokens, channels × patch height × patch width)."""
        (kernel_y, kernel_x), (stride_y, stride_x) = self.config.patch_size, self.config.patch_stride
        pad_y, pad_x = self.config.patch_padding
        # A unit's patches reach `padding` before it and `kernel - stride - padding` past it.
        reach = (kernel_y - stride_y, kernel_x - stride_x)
        padded = functional.pad(visible, (pad_x, reach[1] - pad_x, pad_y, reach[0] - pad_y))
        units = cut_units(padded, self.config.unit_pixels, mask.kept, reach=reach)
        batch, kept = units.shape[:2]
        patches = units.flatten(0, 1).unfold(2, kernel_y, stride_y).unfold(3, kernel_x, stride_x)
        patches = patches.permute(0, 2, 3, 1, 4, 5)  # batch × kept, row, column, channels, patch: a view
        patches = unroll(patches, self.config.query_stride, self.levels)
        return patches.reshape(batch, kept, patches.shape[2], -1)


class HieraMAEEmbeddings(nn.Module):
    """Patch embeddings plus position embeddings."""

    def __init__(self, config: HieraMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = len(config.depths) - 1
        self.grid = _token_grid(config.image_size, config.patch_stride)
        self.patch_embeddings = HieraMAEPatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], config.embed_dim))

    def forward(self, pixel_values: torch.Tensor, mask: UnitMask | None = None) -> torch.Tensor:
        """Embed patches and say where they are.

        Args:
            pixel_values: (batch, channels, height, width), normalized, whole mask units.
            mask: which units are visible; None takes all.

        Returns:
            (batch, units, tokens, embed_dim), unrolled; visible units only where a mask is given.
        """
        tokens = self.patch_embeddings(pixel_values, mask)
        positions = self._unit_positions(_token_grid(pixel_values.shape[2:], self.config.patch_stride))
        if mask is None:
            return tokens + positions
        return tokens + look_up_units(positions, mask.kept)

    def resize(self, image_size: Sequence[int]) -> None:
        """Make another image size the one the parameters are for; call before building an optimizer.

        Args:
            image_size: (height, width) in pixels.
        """
        grid = _token_grid(image_size, self.config.patch_stride)
        self.position_embeddings = nn.Parameter(self._positions(grid).detach().clone())
        self.grid = grid

    def _positions(self, grid: Sequence[int]) -> torch.Tensor:
        return resize_positions(
            self.position_embeddings,
            self.grid,
            grid,
            self.config.masked_unit_size,
            self.config.position_interpolation,
        )

    def _unit_positions(self, grid: Sequence[int]) -> torch.Tensor:
        positions = self._positions(grid).reshape(1, grid[0], grid[1], -1)
        return unroll(positions, self.config.query_stride, self.levels)


class HieraMAEMlp(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: HieraMAEConfig, dim: int) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.is_gelu = config.hidden_act == "gelu"
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """(…, dim) → (…, dim), summed with `added` (the block's shortcut)."""
        if self.is_gelu:
            return gelu_mlp(tokens, self.fc1, self.fc2, added=added)
        return project(self.activation(project(tokens, self.fc1)), self.fc2, added=added)


class HieraMAELayer(GradientCheckpointingLayer):
    """One transformer block: attention, then MLP, each added to what came in.

    Args:
        config: the model's.
        dim: channels in.
        dim_out: channels out; where it differs, the shortcut is projected too.
        heads: attention heads.
        drop_path: probability of dropping a branch, per sample, in training.
        pools_queries: this block merges tokens by `config.query_stride`.
        within_units: attention stays within each mask unit.
    """

    def __init__(
        self,
        config: HieraMAEConfig,
        dim: int,
        dim_out: int,
        heads: int,
        *,
        drop_path: float = 0.0,
        pools_queries: bool = False,
        within_units: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.drop_path = drop_path
        self.pools_queries = pools_queries
        self.layernorm_before = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attn = HieraMAEMaskUnitAttention(
            config, dim, dim_out, heads, pools_queries=pools_queries, within_units=within_units
        )
        self.layernorm_after = nn.LayerNorm(dim_out, eps=config.layer_norm_eps)
        self.mlp = HieraMAEMlp(config, dim_out)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(
        self, tokens: torch.Tensor, output_attentions: bool = False, first_query: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the block.

        Args:
            tokens: (batch, units, tokens, dim), unrolled.
            output_attentions: also return attention weights.
            first_query: compute only the units from this one on (the others are still attended to).

        Returns:
            (batch, units - first_query, tokens after pooling, dim_out), and the weights or None.
        """
        normed = self.layernorm_before(tokens)
        shortcut = tokens[:, first_query:]
        if self.proj is not None:
            shortcut = project(normed[:, first_query:], self.proj)
            if self.pools_queries:
                shortcut = pool_queries(shortcut, self.config.query_stride)
        is_dropped = self.training and self.drop_path > 0
        if is_dropped or not _adds_shortcut(self.attn, HieraMAEMaskUnitAttention):
            attended, attentions = self.attn(normed, output_attentions, first_query)
            tokens = shortcut + self._drop(attended)
            del attended
        else:
            tokens, attentions = self.attn(normed, output_attentions, first_query, added=shortcut)
        del normed, shortcut  # frees memory for the MLP's wide tensor
        if is_dropped or not _adds_shortcut(self.mlp, HieraMAEMlp):
            return tokens + self._drop(self.mlp(self.layernorm_after(tokens))), attentions
        return self.mlp(self.layernorm_after(tokens), added=tokens), attentions

    def _drop(self, branch: torch.Tensor) -> torch.Tensor:
        """Stochastic depth (Huang et al. 2016): drop the branch of some samples, scale up the others."""
        if self.drop_path == 0.0 or not self.training:
            return branch
        keep = 1 - self.drop_path
        is_kept = torch.rand(branch.shape[0], 1, 1, 1, dtype=branch.dtype, device=branch.device) < keep
        return branch * is_kept / keep


class HieraMAEStage(nn.Module):
    """Blocks in a row. A separate module because transformers' parameter names have `.layers`."""

    def __init__(self, layers: Sequence[HieraMAELayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, tokens: torch.Tensor, output_attentions: bool = False, last_first_query: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the blocks.

        Args:
            tokens: (batch, units, tokens, dim), unrolled.
            output_attentions: also return the last block's attention weights.
            last_first_query: `first_query` of the last block (see HieraMAELayer).

        Returns:
            What the last block returns.
        """
        attentions = None
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            is_last = index == last
            tokens, attentions = layer(
                tokens, output_attentions and is_last, last_first_query if is_last else 0
            )
        return tokens, attentions


def _adds_shortcut(branch: nn.Module, own_class: type[nn.Module]) -> bool:
    """Whether nothing but our own class sees what a branch gives, so that it may add the shortcut itself."""
    return type(branch) is own_class and is_unhooked(branch)


def look_up_units(table: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """One shared table of units → the chosen units of each sample.

    Args:
        table: (1, units, tokens, channels).
        units: (batch, chosen) indices.

    Returns:
        (batch, chosen, tokens, channels).
    """
    return functional.embedding(units, table[0].flatten(1)).unflatten(-1, table.shape[2:])


def _token_grid(image_size: Sequence[int], patch_stride: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tokens in an image."""
    return image_size[0] // patch_stride[0], image_size[1] // patch_stride[1]
