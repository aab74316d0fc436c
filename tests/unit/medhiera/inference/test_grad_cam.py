"""Reconstructions: visible patches are what they were. Heat maps: they point at what was learned."""

import pytest
import torch

from medhiera.data.preprocessing import Preprocessing
from medhiera.inference.grad_cam import heat_maps
from medhiera.inference.reconstruction import _patchify, _unpatchify, reconstruct
from medhiera.training.figures import reconstruction_rows, training_curves
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining


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


def preprocessing_input(pixels):
    """[0, 1] → normalized."""
    return (pixels - 0.5) / 0.25


def test_the_pictures_are_written(tmp_path):
    pixels = torch.rand(2, 1, 64, 96).expand(-1, 3, -1, -1)
    preprocessing = Preprocessing(64, 73, mean=0.5, std=0.25)
    result = reconstruct(tiny_model(), preprocessing_input(pixels), preprocessing, torch.rand(2, 6), 0.6)
    reconstruction_rows(result, ["a", "b"], tmp_path / "figures" / "rows.png")
    history = [
        {"step": 0, "eval_loss": 1.2},
        {"step": 1, "loss": 1.0, "learning_rate": 1e-4},
        {"step": 2, "loss": 0.9, "learning_rate": 2e-4},
        {"step": 2, "eval_loss": 1.0},
    ]
    training_curves(history, tmp_path / "figures" / "loss.png", loss_name="loss")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"rows.png", "loss.png"}


def tiny_classifier(labels=2):
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[128, 96], embed_dim=8, depths=[1, 1, 1, 1], num_labels=labels
    )
    return HieraMAEForImageClassification(config)


def test_heat_maps_are_grad_cam_of_the_rerolled_tokens():
    model = tiny_classifier()
    pixels = torch.randn(2, 3, 128, 96)
    output = model.eval()(pixels, output_hidden_states=True)
    spatial = output.reshaped_hidden_states[-1].detach().requires_grad_()  # transformers' own layout
    pooled = model.hiera.pooler.layernorm(spatial.mean(dim=(1, 2)))
    logit = model.classifier(pooled)[:, 1]
    torch.testing.assert_close(logit, output.logits[:, 1], atol=1e-4, rtol=0)
    (gradient,) = torch.autograd.grad(logit.sum(), spatial)
    apart = spatial - spatial.mean(dim=(1, 2), keepdim=True)
    cam = (gradient.mean(dim=(1, 2), keepdim=True) * apart).sum(dim=-1).relu().detach()
    fine = torch.nn.functional.interpolate(cam[:, None], (128, 96), mode="bilinear")[:, 0]
    expected = fine / fine.amax(dim=(1, 2), keepdim=True).clamp(min=1e-20)
    model.train()
    found = heat_maps(model, pixels, 1, stage=-1)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert found.shape == (2, 128, 96) and not found.requires_grad
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_heat_maps_point_at_what_was_learned():
    """A bright square anywhere is the finding; the map's peak lies where it was drawn."""
    model = tiny_classifier(labels=1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        pixels = 0.1 * torch.randn(count, 3, 128, 96, generator=generator)
        rows = torch.randint(4, (count,), generator=generator)
        columns = torch.randint(3, (count,), generator=generator)
        for image, row, column in zip(pixels, rows.tolist(), columns.tolist(), strict=True):
            image[:, 32 * row + 8 : 32 * row + 24, 32 * column + 8 : 32 * column + 24] += 2
        return pixels, rows, columns

    for _ in range(25):
        pixels = torch.cat([draw(8)[0], 0.1 * torch.randn(8, 3, 128, 96, generator=generator)])
        labels = torch.arange(16)[:, None].lt(8).float()
        optimizer.zero_grad()
        model(pixels, labels=labels).loss.backward()
        optimizer.step()
    pixels, rows, columns = draw(16)
    maps = heat_maps(model, pixels, 0)
    assert maps.min() >= 0 and maps.amax(dim=(1, 2)).eq(1).all()
    peaks = maps.flatten(1).argmax(dim=1)
    is_hit = ((peaks // 96) // 32 == rows) & ((peaks % 96) // 32 == columns)
    assert is_hit.float().mean() > 0.8, "chance is one in twelve"


def test_heat_maps_refuse_what_is_not_there_and_are_zero_where_nothing_speaks():
    model = tiny_classifier()
    pixels = torch.randn(1, 3, 128, 96)
    with pytest.raises(ValueError, match="outputs 0 to 1"):
        heat_maps(model, pixels, 2)
    with pytest.raises(ValueError, match="stages 0 to 3"):
        heat_maps(model, pixels, 0, stage=4)
    torch.nn.init.zeros_(model.classifier.weight)
    assert heat_maps(model, pixels, 0).eq(0).all()
