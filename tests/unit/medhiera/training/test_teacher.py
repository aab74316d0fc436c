"""A teacher gives each of the decoder's tokens the features of its own place, whatever its architecture."""

import numpy as np
import pytest
import torch
from page_fixtures import write_stage1, write_stage2
from safetensors.torch import load_file, save_file
from teachers import write, write_resnet, write_timm, write_vit
from tiny_training import tiny_mae
from transformers import (
    BertConfig,
    BertModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    HieraConfig,
    HieraModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTMAEConfig,
    ViTMAEModel,
)

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.loading import load_processor
from medhiera.training.teacher import Teacher, resample
from modeling_hiera_mae import HieraMAEModel
from modeling_hiera_mae.feature_prediction import features_of_units
from modeling_hiera_mae.masking import mask_from_noise

STUDENT = Preprocessing(image_size=64, resize_size=64, mean=0.5, std=0.25)


def write_dinov2(folder):
    torch.manual_seed(3)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        num_register_tokens=4,
    )  # fmt: skip
    return write(Dinov2WithRegistersModel(config), folder, 32)


def write_swin(folder):
    torch.manual_seed(3)
    config = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
    )
    return write(SwinModel(config), folder, 64)


def write_hiera(folder):
    torch.manual_seed(3)
    config = HieraConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], image_size=[64, 64], num_query_pool=2
    )
    return write(HieraModel(config), folder, 64)


def write_timm_vit(folder):
    return write_timm(folder, "test_vit", 160)


def tokens_without_attention(folder):
    """Make every token depend on its own patch alone: what attention adds is zero."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name, tensor in weights.items():
        if "att" in name and ("output" in name or "proj" in name):
            weights[name] = torch.zeros_like(tensor)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def picture(row, column, tokens, side=64):
    """A black picture with one bright token."""
    image = torch.zeros(1, 3, side, side)
    step = side // tokens
    image[..., row * step : (row + 1) * step, column * step : (column + 1) * step] = 1
    return (image - STUDENT.mean) / STUDENT.std


@pytest.mark.parametrize(
    "build",
    [write_vit, write_dinov2, write_resnet, write_swin, write_hiera, write_timm, write_timm_vit],
)
def test_the_features_that_change_most_are_those_of_the_changed_place(build, tmp_path):
    """Four by four decoder tokens; what lies nowhere else than under one of them moves that one most."""
    folder = build(tmp_path / "teacher")
    teacher = Teacher(str(tokens_without_attention(folder)))
    grid = (4, 4)
    before = teacher.features(torch.full((1, 3, 64, 64), -2.0), STUDENT, grid)
    for place in ((0, 0), (0, 3), (2, 1), (3, 2)):
        after = teacher.features(picture(*place, 4), STUDENT, grid)
        moved = (after - before).square().sum(-1)[0]
        assert moved.shape == grid
        assert divmod(int(moved.argmax()), 4) == place


def test_a_target_at_a_hidden_unit_is_the_teachers_token_there():
    """A map that numbers the places: each hidden unit gets the numbers of its own four."""
    model = tiny_mae()
    rows, columns = model.decoder.grid
    assert (rows, columns) == (4, 4)
    places = torch.arange(16.0).reshape(1, 4, 4, 1)
    mask = mask_from_noise(torch.tensor([[0.9, 0.1, 0.2, 0.3]]), 2)  # units 1 and 2 stay visible
    assert mask.masked.tolist() == [[3, 0]] or mask.masked.tolist() == [[0, 3]]
    found = features_of_units(
        places, model.decoder.grid, model.config.query_stride, model.decoder.levels, mask.masked
    )
    # A unit is two by two tokens; unit 0 is the upper left, unit 3 the lower right.
    of_unit = {0: {0.0, 1.0, 4.0, 5.0}, 3: {10.0, 11.0, 14.0, 15.0}}
    for unit, tokens in zip(mask.masked[0].tolist(), found[0, :, :, 0].tolist(), strict=True):
        assert set(tokens) == of_unit[unit]


def test_the_order_of_targets_is_that_of_predictions():
    """Predictions of the pixels' head, put back into space, are those at the places of the targets."""
    model = tiny_mae().eval()
    seen = {}
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.update(decoded=output))
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64), noise=torch.tensor([[0.9, 0.1, 0.2, 0.8]]))
    spatial = output.logits.unflatten(1, (4, 4))
    masked = mask_from_noise(torch.tensor([[0.9, 0.1, 0.2, 0.8]]), 1).masked
    places = features_of_units(spatial, (4, 4), model.config.query_stride, model.decoder.levels, masked)
    with torch.no_grad():
        own = model.decoder.predict_pixels(seen["decoded"])[:, -masked.shape[1] :]
    assert torch.equal(places, own)


@pytest.mark.parametrize("build", [write_stage1, write_stage2])
def test_a_stage_of_ours_teaches_too(build, tmp_path):
    """Its tokens are those of the fast classes, at their own places."""
    folder = build(tmp_path / "stage")
    teacher = Teacher(str(folder))
    student = Preprocessing.from_processor(load_processor(folder))
    inputs = torch.randn(2, 1, 64, 64).expand(-1, 3, -1, -1)
    own = HieraMAEModel.from_pretrained(folder).eval()
    with torch.no_grad():
        last = own(inputs, output_hidden_states=True).reshaped_hidden_states[-1]
    expected = torch.nn.functional.layer_norm(last, (teacher.size,))
    assert torch.allclose(teacher.features(inputs, student, teacher.grid), expected, atol=1e-3)


def test_features_are_normalized_by_token_whatever_the_teachers_scale(tmp_path):
    teacher = Teacher(str(write_vit(tmp_path / "vit")))
    features = teacher.features(torch.randn(2, 3, 64, 64), STUDENT, (4, 4))
    assert features.dtype == torch.float32 and features.shape == (2, 4, 4, 16)
    assert torch.allclose(features.mean(-1), torch.zeros(2, 4, 4), atol=1e-5)
    assert torch.allclose(features.std(-1, unbiased=False), torch.ones(2, 4, 4), atol=1e-2)


def test_the_teacher_is_frozen_and_sees_its_own_normalization(tmp_path):
    """Equal to transformers' own processor and model on the same gray picture at the teacher's own size."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = write_vit(tmp_path / "vit")
    gray = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    teacher = Teacher(str(folder))
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    student = Preprocessing(image_size=32, resize_size=32, mean=0.41, std=0.2)
    inputs = student.normalize(torch.from_numpy(gray)[None, None])
    processed = AutoImageProcessor.from_pretrained(folder)(
        Image.fromarray(gray).convert("RGB"), return_tensors="pt"
    )
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(folder).eval()(**processed).last_hidden_state[:, 1:]
    expected = torch.nn.functional.layer_norm(tokens, (16,)).unflatten(1, (4, 4))
    assert torch.allclose(teacher.features(inputs, student, (4, 4)), expected, atol=1e-4)


def test_a_map_shrinks_by_means_and_grows_by_lines():
    tokens = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resample(tokens, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resample(tokens, (4, 4)) is tokens
    grown = resample(tokens, (8, 8))
    assert grown.shape == (1, 1, 8, 8) and grown.min() == 0 and grown.max() == 15


def test_the_fingerprint_is_of_weights_and_input(tmp_path):
    one, other = (Teacher(str(write_vit(tmp_path / str(size), size))).fingerprint for size in (32, 64))
    assert one == Teacher(str(tmp_path / "32")).fingerprint != other


def test_unusable_teachers_are_refused_in_words(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    masks = ViTMAEModel(ViTMAEConfig(**small, image_size=32, patch_size=8))
    write(masks, tmp_path / "masks", 32)
    write(BertModel(BertConfig(**small, vocab_size=10)), tmp_path / "words", 32)
    write(ResNetModel(ResNetConfig(hidden_sizes=[8], depths=[1], embedding_size=8)), tmp_path / "cut", 32)
    cut = tmp_path / "cut" / "model.safetensors"
    weights = load_file(cut)
    weights.pop(next(name for name in weights if name.endswith("convolution.weight")))
    save_file(weights, cut, metadata={"format": "pt"})
    write_vit(tmp_path / "pickled")
    tensors = load_file(tmp_path / "pickled" / "model.safetensors")
    torch.save(tensors, tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    for name, wanted in {
        "masks": "no grid", "words": "wanted a vision model", "cut": "lacks 1 weights",
        "pickled": "with safetensors", "missing": "there is no such folder",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=wanted):
            Teacher(str(tmp_path / name))
