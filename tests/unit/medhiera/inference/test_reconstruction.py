"""Reconstructions: visible patches are what they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from medhiera.data.preprocessing import Preprocessing
from medhiera.inference.reconstruction import _patchify, _unpatchify, reconstruct
from medhiera.training.figures import reconstruction_rows, training_curves
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining


def tiny_model():
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[64, 96], embed_dim=8, depths=[1, 1, 1, 1], decoder_hidden_size=16,
        decoder_depth=1, decoder_num_heads=2,
    )  # fmt: skip
    return HieraMAEForPreTraining(config)


def test_patches_go_there_and_back():
    pixels = torch.rand(2, 3, 64, 96)
    patches = _patchify(pixels, 16)
    assert patches.shape == (2, 24, 768)
    assert torch.equal(patches[0, 7].reshape(3, 16, 16), pixels[0, :, 16:32, 16:32])
    assert torch.equal(_unpatchify(patches, 3, 64, 96, 16), pixels)


def test_visible_stays_hidden_is_filled_and_the_mode_is_kept():
    model = tiny_model().train()
    preprocessing = Preprocessing(64, 73, mean=0.5, std=0.25)
    pixels = torch.rand(2, 1, 64, 96).expand(-1, 3, -1, -1)
    noise = torch.arange(6.0).repeat(2, 1)  # the first two units of 32 pixels stay visible
    result = reconstruct(model, preprocessing_input(pixels), preprocessing, noise, mask_ratio=0.6)
    assert model.training
    original = result.original
    torch.testing.assert_close(original, pixels[:, 0], atol=1e-5, rtol=0)
    for picture in (result.masked, result.filled):
        torch.testing.assert_close(picture[:, :32, :64], original[:, :32, :64])
    torch.testing.assert_close(result.masked[:, 32:], torch.full((2, 32, 96), 0.5))
    assert not torch.allclose(result.filled[:, 32:], original[:, 32:])
    means = [picture[:, 32:48, :16].mean() for picture in (original, result.filled)]
    torch.testing.assert_close(*means, atol=0.2, rtol=0)  # drawn around the patch's own mean


def test_the_mode_is_kept_where_the_model_refuses():
    model = tiny_model().train()
    with pytest.raises(ValueError, match="noise"):
        reconstruct(model, torch.rand(2, 3, 64, 96), Preprocessing(64, 73, 0.5, 0.25), torch.rand(2, 5), 0.6)
    assert model.training


def preprocessing_input(pixels):
    """[0, 1] → normalized."""
    return (pixels - 0.5) / 0.25


def test_the_pictures_are_written(tmp_path):
    pixels = torch.rand(2, 1, 64, 96).expand(-1, 3, -1, -1)
    preprocessing = Preprocessing(64, 73, mean=0.5, std=0.25)
    result = reconstruct(tiny_model(), preprocessing_input(pixels), preprocessing, torch.rand(2, 6), 0.6)
    assert "the mean and contrast of the original" in result.note  # the tiny model normalizes patches
    reconstruction_rows(result, ["a", "b"], tmp_path / "figures" / "rows.png")
    history = [
        {"step": 0, "eval_loss": 1.2},
        {"step": 1, "loss": 1.0, "learning_rate": 1e-4},
        {"step": 2, "loss": 0.9, "learning_rate": 2e-4},
        {"step": 2, "eval_loss": 1.0},
    ]
    training_curves(history, tmp_path / "figures" / "loss.png", loss_name="loss")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"rows.png", "loss.png"}
    training_curves(history, tmp_path / "marked.png", loss_name="loss", mark="synthetic phantoms")
    plain, marked = (
        np.asarray(Image.open(path).convert("RGB"), dtype=int)
        for path in (tmp_path / "figures" / "loss.png", tmp_path / "marked.png")
    )
    strip = len(marked) - len(plain)
    assert strip > 20  # pixels, below the axes
    is_orange = marked[-strip:, :, 0] - marked[-strip:, :, 2] > 100
    assert is_orange.sum() > 200 and not (plain[-strip:, :, 0] - plain[-strip:, :, 2] > 100).any()
