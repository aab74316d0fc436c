"""The same weights and noise give the same numbers in stock transformers, in float64 to 1e-8."""

import pytest
import torch
from parity_models import assert_same, assert_same_gradients, configs, randomise
from transformers import (
    AutoModelForImageClassification,
    HieraForImageClassification,
    HieraForPreTraining,
    HieraModel,
)

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining, HieraMAEModel

MAE_OUTPUTS = ("loss", "logits", "bool_masked_pos", "ids_restore", "hidden_states", "reshaped_hidden_states")
# Rounding of single precision over the whole depth; float64 shows that nothing else differs.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 5e-5}


def mae_pair(geometry, dtype=torch.float64, **fields):
    our_config, stock_config = configs(geometry, num_query_pool=2, **fields)
    ours, theirs = HieraMAEForPreTraining(our_config).to(dtype), HieraForPreTraining(stock_config).to(dtype)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def classifier_pair(geometry, dtype=torch.float64, **fields):
    fields = {"num_labels": 5, "problem_type": "multi_label_classification", **fields}
    our_config, stock_config = configs(geometry, **fields)
    ours = HieraMAEForImageClassification(our_config).to(dtype)
    theirs = HieraForImageClassification(stock_config).to(dtype)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("geometry", ["tiny", "base_plus"])
def test_mae_evaluation(geometry, dtype):
    ours, theirs = (model.eval() for model in mae_pair(geometry, dtype))
    torch.manual_seed(1)
    images, noise = torch.randn(2, 3, 96, 96, dtype=dtype), torch.rand(2, 9)
    with torch.no_grad():
        got = ours(images, noise=noise, output_hidden_states=True, output_attentions=True)
        wanted = theirs(images, noise=noise, output_hidden_states=True, output_attentions=True)
    for name in (*MAE_OUTPUTS, "attentions"):
        assert_same(got[name], wanted[name], TOLERANCES[dtype], name)


@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [(None, torch.float64), ("sdpa", torch.float64), ("eager", torch.float64), (None, torch.float32)],
)
@pytest.mark.parametrize("geometry", ["tiny", "base_plus"])
def test_mae_training_gradients(geometry, implementation, dtype):
    ours, theirs = (model.train() for model in mae_pair(geometry, dtype))
    if implementation:
        ours.set_attn_implementation(implementation)
    torch.manual_seed(2)
    images, noise = torch.randn(2, 3, 96, 96, dtype=dtype), torch.rand(2, 9)
    got, wanted = ours(images, noise=noise), theirs(images, noise=noise)
    assert got.logits is None
    got.loss.backward()
    wanted.loss.backward()
    assert_same(got.loss, wanted.loss, TOLERANCES[dtype], "loss")
    assert_same_gradients(ours, theirs, None, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("geometry", ["tiny", "base_plus"])
def test_classifier(geometry, dtype):
    ours, theirs = classifier_pair(geometry, dtype)
    torch.manual_seed(3)
    images, labels = torch.randn(2, 3, 96, 96, dtype=dtype), torch.randint(0, 2, (2, 5)).to(dtype)
    got = ours(images, labels=labels, output_hidden_states=True, output_attentions=True)
    wanted = theirs(images, labels=labels, output_hidden_states=True, output_attentions=True)
    for name in ("loss", "logits", "hidden_states", "reshaped_hidden_states", "attentions"):
        assert_same(got[name], wanted[name], TOLERANCES[dtype], name)
    got.loss.backward()
    wanted.loss.backward()
    assert_same_gradients(ours, theirs, None, TOLERANCES[dtype])


@pytest.mark.parametrize("is_mae", [False, True])
def test_encoder(is_mae):
    our_config, stock_config = configs("tiny", num_query_pool=2)
    ours = HieraMAEModel(our_config, is_mae=is_mae).double().eval()
    theirs = HieraModel(stock_config, is_mae=is_mae).double().eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    torch.manual_seed(4)
    images, noise = torch.randn(2, 3, 96, 96, dtype=torch.float64), torch.rand(2, 9) if is_mae else None
    with torch.no_grad():
        got, wanted = ours(images, noise=noise), theirs(images, noise=noise)
    assert wanted.keys() == got.keys()
    for name in wanted:
        assert_same(got[name], wanted[name], 1e-8, name)


def test_images_that_are_not_square():
    ours, theirs = (model.eval() for model in mae_pair("tiny", image_size=[64, 160]))
    torch.manual_seed(5)
    images, noise = torch.randn(2, 3, 64, 160, dtype=torch.float64), torch.rand(2, 10)
    with torch.no_grad():
        got, wanted = ours(images, noise=noise), theirs(images, noise=noise)
    for name in ("loss", "logits", "bool_masked_pos"):
        assert_same(got[name], wanted[name], 1e-8, name)


def test_drawn_noise_is_that_of_transformers():
    ours, theirs = (model.eval() for model in mae_pair("tiny"))
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    torch.manual_seed(6)
    got = ours(images)
    torch.manual_seed(6)
    wanted = theirs(images)
    assert torch.equal(got.bool_masked_pos, wanted.bool_masked_pos)
    assert torch.equal(got.ids_restore, wanted.ids_restore)


def test_bicubic_positions_are_those_of_transformers():
    ours, theirs = (model.eval() for model in classifier_pair("tiny"))
    images = torch.randn(1, 3, 160, 160, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(images, interpolate_pos_encoding=True)
        assert_same(ours(images).logits, wanted.logits, 1e-8, "logits at another size")


def test_pixels_can_stay_as_they_are():
    ours, theirs = (model.eval() for model in mae_pair("tiny", normalize_pixel_loss=False))
    images, noise = torch.randn(2, 3, 96, 96, dtype=torch.float64), torch.rand(2, 9)
    with torch.no_grad():
        assert_same(ours(images, noise=noise).loss, theirs(images, noise=noise).loss, 1e-8, "loss")


@pytest.mark.parametrize(
    ("pair", "ours_class", "stock_class"),
    [
        (mae_pair, HieraMAEForPreTraining, HieraForPreTraining),
        (classifier_pair, HieraMAEForImageClassification, AutoModelForImageClassification),
    ],
)
def test_folders_open_both_ways(tmp_path, pair, ours_class, stock_class):
    ours, theirs = pair("tiny", torch.float32)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    images, noise = torch.randn(1, 3, 96, 96), torch.rand(1, 9)
    extra = {"noise": noise} if ours_class is HieraMAEForPreTraining else {}
    outputs = []
    for cls, folder in ((stock_class, "ours"), (ours_class, "theirs"), (ours_class, "ours")):
        model, info = cls.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(info.values()), f"{cls.__name__} of {folder}: {info}"
        with torch.no_grad():
            outputs.append(model(images, **extra).logits)
    for output in outputs[1:]:
        assert_same(output, outputs[0], 5e-5, "logits")
