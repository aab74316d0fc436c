"""Random weights are Meta's: zero biases and Xavier in the MAE, truncated normal in the classifier."""

import math

import pytest
import torch
from model_configs import tiny_classifier, tiny_mae
from torch import nn

MAE, CLASSIFIER = tiny_mae(embed_dim=16), tiny_classifier(embed_dim=16)


def modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def test_mae_linear_layers_are_xavier_with_zero_bias():
    for layer in modules(MAE, nn.Linear):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert (layer.bias == 0).all()
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for norm in modules(MAE, nn.LayerNorm):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_the_mae_patch_embedding_is_drawn_as_a_linear_layer():
    weight = MAE.hiera.embeddings.patch_embeddings.projection.weight
    bound = math.sqrt(6 / (16 + 3 * 49))
    assert 0.9 * bound < weight.abs().max() <= bound


def test_mae_fusion_heads_keep_the_default_of_torch():
    head = MAE.multiscale_fusion.multi_scale_fusion_heads[0]
    bound = 1 / math.sqrt(16 * 16)
    assert 0.9 * bound < head.weight.abs().max() <= bound
    assert 0 < head.bias.abs().max() <= bound


@pytest.mark.parametrize(
    "tokens",
    [
        MAE.hiera.embeddings.position_embeddings,
        MAE.decoder.decoder_position_embeddings,
        MAE.decoder.mask_token,
        CLASSIFIER.hiera.embeddings.position_embeddings,
    ],
)
def test_tokens_are_normal(tokens):
    assert tokens.std().item() == pytest.approx(0.02, rel=0.5)


def test_classifier_layers_are_truncated_normal_with_small_biases():
    head = CLASSIFIER.classifier
    for layer in modules(CLASSIFIER, nn.Linear):
        scale = 0.001 if layer is head else 1.0
        assert torch.allclose(layer.bias, torch.tensor(0.02 * scale))
        assert layer.weight.std().item() == pytest.approx(0.02 * scale, rel=0.2)
    for norm in modules(CLASSIFIER, nn.LayerNorm):
        assert (norm.bias == 0.02).all()


def test_a_new_head_on_loaded_weights_is_drawn_the_same_way(tmp_path):
    MAE.save_pretrained(tmp_path)
    model = type(CLASSIFIER).from_pretrained(tmp_path, num_labels=3)
    assert torch.allclose(model.classifier.bias, torch.tensor(0.00002))
    assert (model.hiera.pooler.layernorm.bias == 0.02).all()
    loaded = model.hiera.embeddings.patch_embeddings.projection.weight
    assert torch.equal(loaded, MAE.hiera.embeddings.patch_embeddings.projection.weight)


def test_loading_never_draws_over_what_was_loaded(tmp_path):
    CLASSIFIER.save_pretrained(tmp_path)
    mae = type(MAE).from_pretrained(tmp_path)
    assert torch.equal(
        mae.hiera.embeddings.patch_embeddings.projection.weight,
        CLASSIFIER.hiera.embeddings.patch_embeddings.projection.weight,
    )
    assert (mae.encoder_norm.bias == 0).all()
