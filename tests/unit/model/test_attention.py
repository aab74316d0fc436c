"""Attention in parts: the same numbers as all at once, and no scores are kept."""

import pytest
import torch
from model_configs import tiny_config

from modeling_hiera_mae import attention
from modeling_hiera_mae.attention import HieraMAEMaskUnitAttention, _AttentionInParts, _weights


def qkv(dtype, requires_grad=True):
    torch.manual_seed(0)
    # As the model hands them over: views of one product, heads split, queries pooled to fewer tokens.
    part = torch.randn(5, 12, 3 * 16, dtype=dtype).requires_grad_(requires_grad)
    query, key, value = (each.unflatten(-1, (2, 8)).transpose(1, 2) for each in part.split(16, dim=-1))
    return part, query[:, :, :7], key, value


@pytest.mark.parametrize("part_bytes", [1, 2 * 2 * 7 * 12 * 8, 10**9])
def test_parts_give_what_the_whole_gives(monkeypatch, part_bytes):
    monkeypatch.setattr(attention, "_PART_BYTES", part_bytes)
    results = []
    for function in (
        lambda q, k, v: _AttentionInParts.apply(q, k, v, 0.3),
        lambda q, k, v: _weights(q, k, 0.3) @ v,
    ):
        source, query, key, value = qkv(torch.float64)
        out = function(query, key, value)
        out.square().sum().backward()
        results.append((out, source.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_long_training_windows_go_in_parts_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(attention, "_PART_BYTES", 1000)
    taken = []
    real = _AttentionInParts.apply
    monkeypatch.setattr(_AttentionInParts, "apply", lambda *a: taken.append(1) or real(*a))
    layer = HieraMAEMaskUnitAttention(tiny_config(), 8, 8, 1, pools_queries=False, within_units=False)
    tokens = torch.randn(2, 4, 16, 8)
    layer(tokens)
    assert len(taken) == 1
    with torch.no_grad():
        layer(tokens)
    layer(tokens, output_attentions=True)
    layer.config._attn_implementation = "eager"
    layer(tokens)
    assert len(taken) == 1


def test_scores_are_not_kept(monkeypatch):
    monkeypatch.setattr(attention, "_PART_BYTES", 1)
    kept = []
    _, query, key, value = qkv(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        _AttentionInParts.apply(query, key, value, 0.3)
    assert (5, 2, 7, 12) not in kept and len(kept) == 3
