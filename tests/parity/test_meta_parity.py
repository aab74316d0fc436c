"""Meta's own weights, converted, give Meta's own numbers, in float64 to 1e-8."""

import pytest
import torch
from parity_models import GEOMETRIES, assert_same, assert_same_gradients, randomise

from modeling_hiera_mae.convert import convert


def meta_model(meta_hiera, geometry, kind):
    from hiera.hiera_mae import MaskedAutoencoderHiera

    shape = GEOMETRIES[geometry]
    fields = {
        "input_size": (96, 96),
        "embed_dim": shape["embed_dim"],
        "num_heads": shape["num_heads"][0],
        "stages": tuple(shape["depths"]),
    }
    if kind == "mae":
        model = MaskedAutoencoderHiera(
            **fields, q_pool=2, decoder_embed_dim=32, decoder_depth=3, decoder_num_heads=16
        )
    else:
        model = meta_hiera.Hiera(**fields, num_classes=5)
    randomise(model)
    return model


def converted(model, geometry, folder):
    torch.save({"model_state": model.state_dict()}, folder / "weights.pth")
    return convert(str(folder / "weights.pth"), num_heads=GEOMETRIES[geometry]["num_heads"][0])


@pytest.mark.parametrize("geometry", ["tiny", "base_plus"])
def test_mae(meta_hiera, geometry, tmp_path):
    theirs = meta_model(meta_hiera, geometry, "mae")
    conversion = converted(theirs, geometry, tmp_path)
    ours, theirs = conversion.model.double().train(), theirs.double().train()
    torch.manual_seed(1)
    images, noise = torch.randn(2, 3, 96, 96, dtype=torch.float64), torch.rand(2, 9)
    got = ours(images, noise=noise, output_logits=True, output_hidden_states=True)
    is_kept = ours(images, noise=noise).ids_restore < 3  # 40 % of 9 units
    with torch.no_grad():
        _, stages = super(type(theirs), theirs).forward(images, is_kept, return_intermediates=True)
    assert_same(got.reshaped_hidden_states[1:], stages, 1e-8, "stages")
    loss, predictions, _, _ = theirs(images, mask=is_kept)
    assert_same(got.loss, loss, 1e-8, "loss")
    assert_same(got.logits[~got.bool_masked_pos], predictions, 1e-8, "predictions of masked tokens")
    got.loss.backward()
    loss.backward()
    assert_same_gradients(ours, theirs, conversion.mapped, 1e-8)


@pytest.mark.parametrize("geometry", ["tiny", "base_plus"])
def test_classifier(meta_hiera, geometry, tmp_path):
    theirs = meta_model(meta_hiera, geometry, "classifier")
    conversion = converted(theirs, geometry, tmp_path)
    # Meta's head applies a softmax in evaluation; its training mode gives logits.
    ours, theirs = conversion.model.double().train(), theirs.double().train()
    torch.manual_seed(2)
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    got = ours(images, output_hidden_states=True)
    logits, stages = theirs(images, return_intermediates=True)
    assert_same(got.reshaped_hidden_states[1:], stages, 1e-8, "stages")
    assert_same(got.logits, logits, 1e-8, "logits")
    got.logits.square().sum().backward()
    logits.square().sum().backward()
    assert_same_gradients(ours, theirs, conversion.mapped, 1e-8)
