"""The published sizes at their own width and 224 pixels: slow, and the last word on exactness."""

import pytest
import torch
from parity_models import assert_same, assert_same_gradients
from transformers import HieraConfig, HieraForPreTraining

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining
from modeling_hiera_mae.convert import convert


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "base_plus"])
def test_one_training_step(size, meta_hiera, tmp_path):
    from hiera import hiera_mae

    torch.manual_seed(0)
    meta = getattr(hiera_mae, f"mae_hiera_{size}_224")()
    torch.save({"model_state": meta.state_dict()}, tmp_path / "weights.pth")
    conversion = convert(str(tmp_path / "weights.pth"))
    ours = conversion.model.double().train()
    assert isinstance(ours, HieraMAEForPreTraining)
    fields = HieraMAEConfig.from_size(size, num_query_pool=2).to_dict()
    stock = HieraForPreTraining(HieraConfig(**fields)).double().train()
    stock.load_state_dict(ours.state_dict(), strict=True)

    images, noise = torch.randn(1, 3, 224, 224, dtype=torch.float64), torch.rand(1, 49)
    got, wanted = ours(images, noise=noise), stock(images, noise=noise)
    meta_loss = meta.double().train()(images, mask=got.ids_restore < 19)[0]
    assert_same(got.loss, wanted.loss, 1e-8, "loss, stock's")
    assert_same(got.loss, meta_loss, 1e-8, "loss, Meta's")
    for loss in (got.loss, wanted.loss, meta_loss):
        loss.backward()
    assert_same_gradients(ours, stock, None, 1e-8)
    assert_same_gradients(ours, meta, conversion.mapped, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [(512, 640), (1280, 1280)])
def test_a_224_checkpoint_runs_at_radiograph_sizes(pixels):
    """Any multiple of 32: here with one channel, half precision and both ways of stretching positions."""
    for interpolation in ("bicubic", "windowed"):
        config = HieraMAEConfig.from_size(
            "tiny", num_channels=1, position_interpolation=interpolation, decoder_depth=1
        )
        torch.manual_seed(0)
        model = HieraMAEForPreTraining(config).bfloat16().train()
        loss = model(torch.randn(1, 1, *pixels).bfloat16(), mask_ratio=0.9).loss
        assert loss.isfinite()
        loss.backward()
