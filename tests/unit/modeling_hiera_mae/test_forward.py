"""What goes into the models and what comes out, in every mode a user may choose."""

import weakref
from inspect import signature

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_configs import tiny_classifier, tiny_config, tiny_mae
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import HieraBackbone, HieraForImageClassification, HieraForPreTraining, HieraModel

from modeling_hiera_mae import (
    HieraMAEBackbone,
    HieraMAEForImageClassification,
    HieraMAEForPreTraining,
    HieraMAEModel,
    noise_from_scores,
)
from modeling_hiera_mae.attention import resolve_attention
from modeling_hiera_mae.layers import HieraMAELayer

MAE, CLASSIFIER = tiny_mae(), tiny_classifier()
GRAY = tiny_mae(num_channels=1, position_interpolation="windowed")


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.floats(0.02, 0.98),
    st.sampled_from([MAE, GRAY]),
)
def test_any_image_of_whole_units_trains(batch, rows, columns, ratio, model):
    channels = model.config.num_channels
    images = torch.randn(batch, channels, 32 * rows, 32 * columns)
    kept = int(rows * columns * (1 - ratio))
    if not 0 < kept < rows * columns:
        with pytest.raises(ValueError, match="at least one kept and one masked"):
            model(images, mask_ratio=ratio)
        return
    output = model(images, mask_ratio=ratio)
    assert output.loss.isfinite()
    assert output.logits.shape == (batch, rows * columns * 4, 256 * channels)
    assert output.bool_masked_pos.sum(1).tolist() == [4 * kept] * batch
    assert model.config.mask_ratio == 0.5


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2), st.integers(1, 130), st.integers(1, 130), st.integers(1, 4))
def test_the_classifier_takes_whole_units_and_refuses_the_rest(batch, height, width, channels):
    images = torch.randn(batch, channels, height, width)
    if channels == 3 and height % 32 == 0 and width % 32 == 0:
        assert CLASSIFIER(images).logits.shape == (batch, 3)
    else:
        with pytest.raises(ValueError, match="wanted"):
            CLASSIFIER(images)


@pytest.mark.parametrize("interpolation", ["bicubic", "windowed"])
@pytest.mark.parametrize("size", [(96, 64), (64, 160)])
def test_other_sizes_train_both_heads(interpolation, size):
    images = torch.randn(2, 3, *size)
    mae = tiny_mae(position_interpolation=interpolation).train()
    classifier = tiny_classifier(position_interpolation=interpolation).train()
    mae(images).loss.backward()
    classifier(images, labels=torch.ones(2, 3)).loss.backward()
    for model in (mae, classifier):
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_visible_pixels_alone_reach_the_encoder():
    noise = torch.tensor([[0.1, 0.9, 0.2, 0.8]])  # left column kept
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 32:] += 5
    encoder = HieraMAEModel(tiny_config(), is_mae=True).eval()
    first, second = (encoder(pixels, noise=noise).last_hidden_state for pixels in (images, changed))
    assert torch.equal(first, second)


def test_the_loss_sees_masked_tokens_alone():
    model = tiny_mae(normalize_pixel_loss=False)
    noise = torch.tensor([[0.1, 0.9, 0.2, 0.8]])
    images = torch.randn(1, 3, 64, 64)
    output = model(images, noise=noise)
    right = images[..., 32:]  # (1, 3, 64, 32) → tokens of 16 pixels, channel by channel
    tokens = right.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(1, 8, -1)
    predicted = output.logits.reshape(1, 4, 4, -1)[:, :, 2:].reshape(1, 8, -1)
    assert torch.allclose(output.loss, (predicted - tokens).square().mean(), atol=1e-6)


def test_training_gives_logits_only_when_asked():
    model = tiny_mae()
    images, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 4)
    whole = model(images, noise=noise)
    model.train()
    assert model(images, noise=noise).logits is None
    asked = model(images, noise=noise, output_logits=True)
    assert torch.allclose(asked.logits, whole.logits, atol=1e-5)
    assert torch.allclose(asked.loss, model(images, noise=noise).loss, atol=1e-6)


def test_scores_choose_what_is_seen():
    scores = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    output = MAE(torch.randn(1, 3, 64, 64), noise=noise_from_scores(scores))
    assert (output.ids_restore < 2).tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values": torch.zeros(3, 64, 64)}, r"shape \(3, 64, 64\); wanted \(batch"),
        ({"pixel_values": torch.zeros(1, 1, 64, 64)}, "1 channels; wanted 3"),
        ({"pixel_values": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)}, "torch.uint8; wanted normalized"),
        ({"pixel_values": torch.zeros(1, 3, 70, 64)}, "70×64 pixels.*64×64 or 96×64"),
        ({"noise": torch.rand(1, 5)}, r"noise has shape \(1, 5\); wanted \(1, 4\)"),
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MAE(**{"pixel_values": torch.zeros(1, 3, 64, 64), **arguments})


def test_an_encoder_that_does_not_mask_refuses_noise():
    with pytest.raises(ValueError, match="is_mae=True"):
        HieraMAEModel(tiny_config())(torch.zeros(1, 3, 64, 64), noise=torch.rand(1, 4))


def forwards():
    """Each model's forward, taking images."""
    return {
        "mae": lambda images, **options: tiny_mae()(images, **options).logits,
        "encoder": lambda images, **options: HieraMAEModel(tiny_config())(images, **options).pooler_output,
        "classifier": lambda images, **options: tiny_classifier()(images, **options).logits,
    }


@pytest.mark.parametrize("model", ["mae", "encoder", "classifier"])
def test_positions_are_interpolated_unless_that_is_forbidden(model):
    forward = forwards()[model]
    trained, other = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 32, 64)
    for answer in (True, False, None):
        assert forward(trained, interpolate_pos_encoding=answer).isfinite().all()
    for answer in (True, None):
        assert forward(other, interpolate_pos_encoding=answer).isfinite().all()
    with pytest.raises(ValueError, match="32×64 pixels, and interpolate_pos_encoding is False; wanted 64×64"):
        forward(other, interpolate_pos_encoding=False)


def test_attention_implementations_agree_and_only_one_gives_weights():
    images, noise = torch.randn(1, 3, 64, 64), torch.rand(1, 4)
    model = tiny_mae()
    chosen = model(images, noise=noise)
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert torch.allclose(model(images, noise=noise).loss, chosen.loss, atol=1e-6)
    assert len(model(images, noise=noise, output_attentions=True).attentions) == 4
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        model(images, noise=noise, output_attentions=True)


@pytest.mark.parametrize(
    ("implementation", "device", "dtype", "needs_gradient", "with_amx", "keys", "path"),
    [
        (None, "cpu", torch.float32, True, True, 64, "eager"),
        (None, "cpu", torch.float32, True, True, 196, "sdpa"),
        (None, "cpu", torch.float32, False, False, 64, "sdpa"),
        (None, "cpu", torch.bfloat16, True, False, 196, "eager"),
        (None, "cpu", torch.bfloat16, False, False, 196, "eager"),
        (None, "cpu", torch.bfloat16, True, False, 1024, "sdpa"),
        (None, "cpu", torch.bfloat16, False, False, 1024, "eager"),
        (None, "cpu", torch.bfloat16, False, False, 6400, "sdpa"),
        (None, "cpu", torch.bfloat16, False, True, 64, "sdpa"),
        (None, "cuda", torch.float32, True, False, 64, "sdpa"),
        (None, "cuda", torch.bfloat16, False, False, 1024, "sdpa"),
        ("sdpa", "cpu", torch.bfloat16, True, False, 64, "sdpa"),
        ("eager", "cuda", torch.float32, False, True, 1600, "eager"),
    ],
)
def test_the_attention_path(implementation, device, dtype, needs_gradient, with_amx, keys, path):
    where = torch.device(device)
    assert resolve_attention(implementation, where, dtype, needs_gradient, keys, 96, with_amx) == path


class FusedAttentions(TorchDispatchMode):
    """Counts fused attention kernels and remembers how many dimensions they were given."""

    def __init__(self):
        super().__init__()
        self.dimensions = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func) and "backward" not in str(func):
            self.dimensions.append(args[0].dim())
        return func(*args, **(kwargs or {}))


def test_inference_on_a_cpu_is_fused_and_training_is_not():
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), FusedAttentions() as inference:
        MAE(images)
    assert inference.dimensions == [4] * 8  # 6 encoder blocks, 2 decoder blocks, all 4-D
    with FusedAttentions() as training:
        tiny_mae().train()(images)
    assert training.dimensions == []


def test_nothing_depends_on_how_many_are_kept_where():
    """No operator whose output's shape depends on data: what CUDA graphs cannot hold."""

    class Forbidden(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert not any(
                name in str(func) for name in ("nonzero", "masked_select", "_local_scalar", "unique")
            )
            return func(*args, **(kwargs or {}))

    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([[1.0, 0.0, float("nan")]] * 2)
    mae, classifier = tiny_mae().train(), tiny_classifier().train()
    with Forbidden():
        mae(images).loss.backward()
        MAE(images)
        classifier(images, labels=labels).loss.backward()


def test_gradient_checkpointing_changes_nothing_but_memory():
    images, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 4)
    gradients = []
    for checkpointing in (False, True):
        model = tiny_mae().train()
        if checkpointing:
            # transformers 5.23 renames it and warns of the old name.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)()
            assert any(m.gradient_checkpointing for m in model.modules() if isinstance(m, HieraMAELayer))
        model(images, noise=noise).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.allclose(plain, checkpointed, atol=1e-6)


@pytest.mark.parametrize("mode", ["pure", "autocast"])
@pytest.mark.parametrize("build", [tiny_mae, tiny_classifier])
def test_bfloat16_trains_near_single_precision(build, mode):
    torch.manual_seed(3)
    images = torch.randn(2, 3, 64, 64)
    extra = {"noise": torch.rand(2, 4)} if build is tiny_mae else {"labels": torch.ones(2, 3)}
    full = build().train()(images, **extra).loss
    model = build().train()
    if mode == "pure":
        model.bfloat16()
        images = images.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        loss = model(images, **extra).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, full, rtol=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_hidden_states_are_kept_only_when_asked():
    first_stage, still_there = [], []

    def remember(module, inputs, output):
        first_stage.append(weakref.ref(output[0]))

    def look(module, inputs, output):
        still_there.append(first_stage[-1]() is not None)

    images = torch.randn(1, 3, 64, 64)
    stages = CLASSIFIER.hiera.encoder.stages
    handles = [stages[0].register_forward_hook(remember), stages[3].register_forward_hook(look)]
    with torch.no_grad():
        plain = CLASSIFIER(images)
        asked = CLASSIFIER(images, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    assert still_there == [False, True]
    assert plain.hidden_states is None
    assert len(asked.hidden_states) == len(asked.reshaped_hidden_states) == 5
    assert [tuple(state.shape) for state in asked.reshaped_hidden_states] == [
        (1, 16, 16, 8),
        (1, 16, 16, 8),
        (1, 8, 8, 16),
        (1, 4, 4, 32),
        (1, 2, 2, 64),
    ]


def test_drop_path_leaves_whole_branches_out_and_only_in_training():
    images, noise = torch.randn(4, 3, 64, 64), torch.rand(4, 4)
    model = tiny_mae(drop_path_rate=0.5)
    assert [
        layer.drop_path for stage in model.hiera.encoder.stages for layer in stage.layers
    ] == pytest.approx([0.1 * block for block in range(6)])
    assert torch.equal(model(images, noise=noise).loss, tiny_mae()(images, noise=noise).loss)
    model.train()
    losses = {model(images, noise=noise).loss.item() for _ in range(5)}
    assert len(losses) > 1


def test_outputs_can_be_tuples():
    loss, logits, is_kept, ids_restore = MAE(torch.randn(1, 3, 64, 64), return_dict=False)
    assert loss.dim() == 0
    assert logits.shape[:2] == is_kept.shape
    assert ids_restore.shape == (1, 4)


def test_the_models_name_what_the_trainer_and_fsdp_read():
    assert HieraMAEForPreTraining.main_input_name == "pixel_values"
    assert "HieraMAELayer" in MAE._no_split_modules
    assert not CLASSIFIER.accepts_loss_kwargs  # test_stock_trainer.py


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (HieraMAEModel, HieraModel),
        (HieraMAEForImageClassification, HieraForImageClassification),
        (HieraMAEForPreTraining, HieraForPreTraining),
        (HieraMAEBackbone, HieraBackbone),
    ],
)
def test_arguments_by_position_are_stocks(ours, stock):
    def by_position(model):
        parameters = signature(model.forward).parameters.values()
        return [each.name for each in parameters if each.kind == each.POSITIONAL_OR_KEYWORD]

    # Stock's last, return_dict, is taken by name alone.
    assert [*by_position(ours), "return_dict"] == by_position(stock)


@pytest.mark.parametrize("build", [tiny_classifier, tiny_mae])
def test_a_configuration_may_ask_for_tuples(build):
    images, noise = torch.randn(2, 3, 64, 64), {"noise": torch.rand(2, 4)} if build is tiny_mae else {}
    wanted = build()(images, **noise).logits
    model = build(return_dict=False)
    outputs = model(images, **noise)
    assert isinstance(outputs, tuple)
    assert torch.equal(model(images, return_dict=True, **noise).logits, wanted)
    assert any(torch.equal(output, wanted) for output in outputs)
