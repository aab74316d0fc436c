"""The masked autoencoder with a head for a teacher's features: its losses, its gradients, what is saved."""

import pytest
import torch
from model_configs import tiny_mae
from torch.nn import functional
from transformers import AutoModelForPreTraining

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.feature_prediction import features_of_units
from modeling_hiera_mae.masking import mask_from_noise

SIZE = 6


def batch(model):
    generator = torch.Generator().manual_seed(1)
    rows, columns = model.decoder.grid
    return {
        "pixel_values": torch.randn(2, 3, 64, 64, generator=generator),
        "noise": torch.rand(2, 4, generator=generator),
        "target_features": torch.randn(2, rows, columns, SIZE, generator=generator),
    }


@pytest.mark.parametrize("loss", ["smooth_l1", "cosine"])
def test_the_loss_is_that_of_hidden_tokens_alone(loss):
    model = tiny_mae().train()
    model.predict_features(SIZE, loss)
    inputs = batch(model)
    seen = {}
    model.decoder.register_forward_hook(lambda module, arguments, output: seen.update(decoded=output))
    found = model(**inputs).loss
    masked = mask_from_noise(inputs["noise"], 4 - seen["decoded"].shape[1]).masked
    grid, stride, levels = model.decoder.grid, model.config.query_stride, model.decoder.levels
    targets = features_of_units(inputs["target_features"], grid, stride, levels, masked)
    predicted = model.feature_head.prediction(seen["decoded"])
    if loss == "cosine":
        expected = 1 - functional.cosine_similarity(predicted, targets, dim=-1).mean()
    else:
        apart = (predicted - targets).abs()
        expected = torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean()
    assert torch.allclose(found, expected, atol=1e-6)
    kept = inputs["target_features"].clone()
    is_hidden = torch.zeros(2, 4, dtype=torch.bool).scatter(1, masked, True)
    is_hidden = is_hidden.unflatten(1, (2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    kept[~is_hidden] = 1e6  # of visible units: no one looks at them
    assert torch.equal(model(**inputs | {"target_features": kept}).loss, found)


@pytest.mark.parametrize("with_pixels", [False, True])
@pytest.mark.parametrize("is_training", [True, False])
def test_one_graph_and_a_gradient_for_all_that_is_trained(with_pixels, is_training):
    """DDP waits for the gradient of each parameter that wants one."""
    model = tiny_mae().train(is_training)
    model.predict_features(SIZE, weight=2.0, with_pixels=with_pixels)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if is_training else "eager")
    inputs = batch(model)
    with torch.set_grad_enabled(is_training):
        output = compiled(**inputs, output_logits=False)
    assert torch.allclose(output.loss, model(**inputs, output_logits=False).loss, atol=1e-5)
    if with_pixels:
        assert torch.allclose(output.loss, output.pixel_loss + 2 * output.feature_loss)
    else:
        assert output.pixel_loss is None and torch.equal(output.loss, output.feature_loss)
    if is_training:
        output.loss.backward()
        wanting = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert {name for name, weight in model.named_parameters() if weight.grad is not None} == wanting
        pixels = {name for name, _ in model.named_parameters() if "decoder_pred" in name}
        assert pixels.isdisjoint(wanting) is not with_pixels


def test_without_targets_it_is_the_masked_autoencoder_it_was():
    model = tiny_mae().eval()
    inputs = batch(model)
    inputs.pop("target_features")
    before = model(**inputs)
    model.predict_features(SIZE)
    after = model(**inputs)
    assert torch.equal(before.loss, after.loss) and torch.equal(before.logits, after.logits)
    assert before.keys() == after.keys()
    model.drop_feature_head()
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any("feature_head" in name for name in model.state_dict())


def test_a_map_of_another_size_is_refused():
    model = tiny_mae()
    model.predict_features(SIZE)
    with pytest.raises(ValueError, match=r"\(3, 3\) tokens"):
        model(**batch(model) | {"target_features": torch.zeros(2, 3, 3, SIZE)})


def test_a_checkpoint_with_the_head_starts_any_stage(tmp_path):
    """What the Trainer writes on the way still has it; stock transformers warns and leaves it out too."""
    model = tiny_mae()
    model.predict_features(SIZE)
    model.save_pretrained(tmp_path)
    again = HieraMAEForPreTraining.from_pretrained(tmp_path)
    HieraMAEForImageClassification.from_pretrained(tmp_path, num_labels=3)
    AutoModelForPreTraining.from_pretrained(tmp_path)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in again.state_dict().items())
