"""Dropout before the head: off by default, in training only, and unknown to stock transformers."""

import torch
from transformers import HieraForImageClassification

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification


def classifier(**fields):
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        "tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[32, 32], num_labels=4, **fields
    )
    return HieraMAEForImageClassification(config)


def test_dropout_acts_on_the_pooled_features_in_training_alone():
    pixels = torch.randn(2, 3, 32, 32)
    model, plain = classifier(classifier_dropout=0.5), classifier()
    assert plain.config.classifier_dropout == 0.0
    assert torch.equal(model.eval()(pixels).logits, plain.eval()(pixels).logits)
    pooled = plain.hiera(pixels).pooler_output
    torch.manual_seed(5)
    trained = model.train()(pixels).logits
    torch.manual_seed(5)
    expected = model.classifier(torch.nn.functional.dropout(pooled, 0.5))
    torch.testing.assert_close(trained, expected)
    assert not torch.allclose(trained, plain.train()(pixels).logits)


def test_without_dropout_no_random_number_is_drawn():
    model = classifier().train()
    torch.manual_seed(1)
    model(torch.zeros(1, 3, 32, 32))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_stock_transformers_opens_the_folder(tmp_path):
    model = classifier(classifier_dropout=0.3).eval()
    model.save_pretrained(tmp_path)
    stock = HieraForImageClassification.from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(stock(pixels).logits, model(pixels).logits, atol=1e-5, rtol=0)
    assert HieraMAEForImageClassification.from_pretrained(tmp_path).config.classifier_dropout == 0.3
