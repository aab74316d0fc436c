"""Mask-unit attention, and how it is computed where the caller leaves it open.

Stands between windowing (the layout) and the block in layers. Tokens travel as (batch, units, tokens,
channels), unrolled (see windowing). Names of parameters are transformers' own.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_hiera_mae import HieraMAEConfig
from .fused_linear import is_plain, linear, project
from .packed_attention import attend, can_run, is_short
from .windowing import pool_queries

# torch's fused CPU kernel multiplies half precision well only with AMX; older torch versions cannot tell.
CPU_HAS_AMX = hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16"))

# On a CPU, keys from which the fused kernel beats plain products (docs/performance.md).
_LONG_SINGLE = 128

_LONG_HALF_TRAINING = 768

_LONG_HALF_INFERENCE = 2048


def resolve_attention(
    implementation: str | None,
    device: torch.device,
    dtype: torch.dtype,
    needs_gradient: bool,
    keys: int,
    width: int,
    has_amx: bool = CPU_HAS_AMX,
) -> str:
    """Choose how attention is computed where the caller left it open.

    Measured, not guessed (docs/performance.md): fused kernels are for GPUs, for CPU inference in single
    precision, and for long windows. On a CPU their backward is several times slower than plain products for
    windows as small as most of Hiera's, and their forward too in half precision without AMX.

    Args:
        implementation: "sdpa", "eager", or a name of transformers' AttentionInterface force one; None
            chooses.
        device: where the tensors are.
        dtype: of queries, keys and values.
        needs_gradient: a backward pass will follow.
        keys: tokens that each query attends to.
        width: of a head.
        has_amx: the CPU multiplies bf16 matrices in hardware.

    Returns:
        "packed" (see packed_attention), "sdpa" or "eager", or the name that was given.
    """
    if implementation is not None:
        return implementation
    is_half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and is_half and is_short(keys, width) and can_run(device):
        return "packed"
    if device.type != "cpu":
        return "sdpa"
    if needs_gradient:
        return "eager" if keys < (_LONG_HALF_TRAINING if is_half else _LONG_SINGLE) else "sdpa"
    is_slow = is_half and not has_amx
    return "eager" if is_slow and keys < _LONG_HALF_INFERENCE else "sdpa"


class HieraMAEMaskUnitAttention(nn.Module):
    """Attention within each mask unit or over the whole image, optionally with pooled queries.

    A window is a sequence of its own, so every function of transformers' AttentionInterface can attend in it.

    Args:
        config: the model's; its `_attn_implementation` is read at every forward.
        dim: channels in.
        dim_out: channels out.
        heads: attention heads; divide dim_out.
        pools_queries: merge queries by `config.query_stride` first.
        within_units: attend within each unit rather than over the whole image.
    Source: Ryali et al. 2023, arXiv:2306.00989, section 3.
    """

    def __init__(
        self,
        config: HieraMAEConfig,
        dim: int,
        dim_out: int,
        heads: int,
        *,
        pools_queries: bool,
        within_units: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.dim_out = dim_out
        self.heads = heads
        self.head_dim = dim_out // heads
        self.scale = self.head_dim**-0.5
        self.pools_queries = pools_queries
        self.within_units = within_units
        self.is_causal = False  # functions of the AttentionInterface read it
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(
        self,
        tokens: torch.Tensor,
        output_attentions: bool = False,
        first_query: int = 0,
        added: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend.

        Args:
            tokens: (batch, units, tokens, dim), unrolled.
            output_attentions: also return the weights; needs the "eager" path.
            first_query: units before this one are attended to but ask nothing (global attention only).
            added: summed with the result (the block's shortcut).

        Returns:
            (batch, units - first_query, tokens after pooling, dim_out), and the weights as transformers
            orders them, (batch, heads, windows, queries, keys), or None.
        """
        units = tokens.shape[1]
        implementation = self.config._attn_implementation
        if implementation is None and output_attentions:
            implementation = "eager"
        query, packed = self._project(tokens, first_query)
        keys = self._windows(packed).shape[1]
        path = resolve_attention(
            implementation, packed.device, packed.dtype, packed.requires_grad, keys, self.head_dim
        )
        if path == "packed" and implementation is None:  # else it is a function that has this name
            return project(self._attend_packed(query, packed, first_query), self.proj, added=added), None
        query, key, value = self._parts(query, packed, first_query)
        shape = query.shape
        query, key, value = (self._split_heads(part) for part in (query, key, value))
        weights = None
        if path == "sdpa":
            attended = functional.scaled_dot_product_attention(query, key, value)
        elif path == "eager":
            weights = (query * self.scale @ key.transpose(-1, -2)).softmax(dim=-1)
            attended = weights @ value
        else:
            attended = self._attend_by_name(path, query, key, value)
        attended = attended.transpose(1, 2).reshape(shape)
        attentions = (
            self._stock_attentions(weights, units) if output_attentions and weights is not None else None
        )
        return project(attended, self.proj, added=added), attentions

    def _attend_packed(
        self, query: torch.Tensor | None, packed: torch.Tensor, first_query: int
    ) -> torch.Tensor:
        """What `_project` gave → (batch, asking units, tokens after pooling, dim_out), by one kernel."""
        if query is None and (self.pools_queries or first_query):
            query, packed = packed.split((self.dim_out, 2 * self.dim_out), dim=-1)
            query = self._pool(query[:, first_query:])
        shape = (packed if query is None else query).shape
        attended = attend(self._windows(packed), None if query is None else self._windows(query), self.heads)
        return attended.view(*shape[:3], self.dim_out)

    def _attend_by_name(
        self, name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """A function of transformers' AttentionInterface; all are (windows, heads, tokens, head_dim)."""
        attend = ALL_ATTENTION_FUNCTIONS[name]
        attended, _ = attend(self, query, key, value, None, scaling=self.scale, dropout=0.0, is_causal=False)
        return attended.transpose(1, 2)  # they return tokens before heads

    def _project(self, tokens: torch.Tensor, first_query: int) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Queries, keys and values side by side, or the queries apart.

        Returns:
            None and (batch, units, tokens, 3 × dim_out); or pooled queries of the asking units, (batch,
            asking units, tokens after pooling, dim_out), and keys and values, (batch, units, tokens,
            2 × dim_out).
        """
        # Queries that are pooled come first and alone where nothing is kept for a backward pass: the widest
        # tensor of an inference is then two thirds as large.
        is_query_apart = first_query > 0 or (self.pools_queries and not torch.is_grad_enabled())
        if not (is_query_apart and is_plain(self.qkv) and self.qkv.bias is not None):
            return None, project(tokens, self.qkv)
        sizes = (self.dim_out, 2 * self.dim_out)
        weight, bias = self.qkv.weight.split(sizes), self.qkv.bias.split(sizes)
        # Laid out: of a slice, a product without gradient repeats the weight for each unit.
        query = self._pool(linear(tokens[:, first_query:].contiguous(), weight[0], bias[0]))
        return query, linear(tokens, weight[1], bias[1])

    def _parts(
        self, query: torch.Tensor | None, packed: torch.Tensor, first_query: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `_project` gave, apart: pooled queries of the asking units, keys and values."""
        *together, key, value = packed.split(self.dim_out, dim=-1)
        if query is None:
            query = self._pool(together[0][:, first_query:])
        return query, key, value

    def _pool(self, query: torch.Tensor) -> torch.Tensor:
        return pool_queries(query, self.config.query_stride) if self.pools_queries else query

    def _windows(self, part: torch.Tensor) -> torch.Tensor:
        """(batch, units, tokens, …) → (windows, tokens, …)."""
        return part.flatten(0, 1) if self.within_units else part.flatten(1, 2)

    def _split_heads(self, part: torch.Tensor) -> torch.Tensor:
        """(batch, units, tokens, dim_out) → (windows, heads, tokens, head_dim); 4-D, so GPUs fuse it."""
        return self._windows(part).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def _stock_attentions(self, weights: torch.Tensor, units: int) -> torch.Tensor:
        """Bring weights into transformers' order: (batch, heads, windows, queries, keys), units innermost."""
        if self.within_units:
            return weights.unflatten(0, (-1, units)).transpose(1, 2)
        by_unit = weights.unflatten(3, (units, -1)).unflatten(2, (units, -1))
        return by_unit.transpose(2, 3).transpose(4, 5).flatten(4, 5).flatten(2, 3)[:, :, None]
