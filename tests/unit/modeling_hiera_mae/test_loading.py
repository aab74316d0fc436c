"""What from_pretrained makes of every kind of folder, whole or damaged."""

import json
import re
import shutil

import pytest
import torch
from model_configs import TINY, tiny_classifier, tiny_config, tiny_mae
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    HieraBackbone,
    HieraConfig,
    HieraForImageClassification,
    HieraForPreTraining,
    HieraModel,
    ViTConfig,
    ViTModel,
)

from modeling_hiera_mae import (
    HieraMAEBackbone,
    HieraMAEConfig,
    HieraMAEForImageClassification,
    HieraMAEForPreTraining,
    HieraMAEModel,
)

NEW_IN_CLASSIFIER = {
    "hiera.pooler.layernorm.weight",
    "hiera.pooler.layernorm.bias",
    "classifier.weight",
    "classifier.bias",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    tiny_mae().save_pretrained(root / "mae")
    tiny_classifier(num_labels=4).save_pretrained(root / "classifier")
    HieraMAEModel(tiny_config()).save_pretrained(root / "encoder")
    return root


def test_an_mae_becomes_a_classifier_with_documented_new_weights(folders):
    model, info = HieraMAEForImageClassification.from_pretrained(
        folders / "mae", num_labels=3, output_loading_info=True
    )
    assert set(info["missing_keys"]) == NEW_IN_CLASSIFIER
    assert not info["unexpected_keys"]
    assert model.config.num_query_pool == 3
    assert model.config.problem_type is None
    mae = HieraMAEForPreTraining.from_pretrained(folders / "mae")
    for name, weight in model.hiera.encoder.state_dict().items():
        assert torch.equal(weight, mae.hiera.encoder.state_dict()[name])


def test_a_config_read_from_an_mae_still_makes_a_classifier(folders):
    config = HieraMAEConfig.from_pretrained(folders / "mae", num_labels=2)
    model = HieraMAEForImageClassification.from_pretrained(folders / "mae", config=config)
    assert (model.config.num_query_pool, model.config.num_labels) == (3, 2)
    assert config.num_query_pool == 2


def test_pooling_asked_for_wins(folders):
    model = HieraMAEForImageClassification.from_pretrained(folders / "mae", num_query_pool=2)
    assert model.config.num_query_pool == 2


def test_a_classifier_keeps_its_own_pooling(tmp_path):
    tiny_classifier(num_query_pool=2).save_pretrained(tmp_path)
    assert HieraMAEForImageClassification.from_pretrained(tmp_path).config.num_query_pool == 2


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_an_mae_begins_from_an_encoder(folders, kind):
    model, info = HieraMAEForPreTraining.from_pretrained(folders / kind, output_loading_info=True)
    assert model.config.num_query_pool == 2
    new = {name.split(".")[0] for name in info["missing_keys"]}
    assert new == {"decoder", "encoder_norm", "multiscale_fusion"}
    assert not info["unexpected_keys"]
    model.train()(torch.randn(1, 3, 64, 64)).loss.backward()


def test_a_stock_configuration_is_taken(folders):
    config = AutoConfig.from_pretrained(folders / "mae", attn_implementation="eager")
    model = HieraMAEForPreTraining.from_pretrained(folders / "mae", config=config)
    assert model.config._attn_implementation == "eager"
    assert isinstance(model.config, HieraMAEConfig)
    path = HieraMAEForPreTraining.from_pretrained(folders / "mae", config=str(folders / "mae"))
    assert path.config.num_query_pool == 2


def test_weights_can_come_without_a_folder(folders):
    weights = load_file(folders / "mae" / "model.safetensors")
    model = HieraMAEForPreTraining.from_pretrained(None, config=tiny_config(), state_dict=weights)
    assert torch.equal(model.decoder.mask_token, weights["decoder.mask_token"])


@pytest.mark.parametrize("interpolation", ["bicubic", "windowed"])
def test_positions_follow_the_size_on_load_as_in_forward(folders, interpolation):
    images, noise = torch.randn(1, 3, 96, 128), torch.rand(1, 12)
    options = {"position_interpolation": interpolation}
    small = HieraMAEForPreTraining.from_pretrained(folders / "mae", **options)
    large = HieraMAEForPreTraining.from_pretrained(folders / "mae", image_size=[96, 128], **options)
    assert large.config.image_size == [96, 128]
    assert large.hiera.embeddings.position_embeddings.shape == (1, 24 * 32, 8)
    assert large.decoder.decoder_position_embeddings.shape == (1, 6 * 8, 16)
    assert torch.allclose(small(images, noise=noise).logits, large(images, noise=noise).logits, atol=1e-5)


def test_a_stretched_model_can_be_saved_and_loaded(folders, tmp_path):
    model = HieraMAEForPreTraining.from_pretrained(folders / "mae", image_size=[96, 64])
    model.save_pretrained(tmp_path)
    again = HieraMAEForPreTraining.from_pretrained(tmp_path)
    images, noise = torch.randn(1, 3, 96, 64), torch.rand(1, 6)
    assert torch.equal(model(images, noise=noise).loss, again(images, noise=noise).loss)


def test_sizes_that_do_not_fit_are_refused_on_load(folders):
    with pytest.raises(ValueError, match="image_size is 100×64.*96×64 or 128×64"):
        HieraMAEForPreTraining.from_pretrained(folders / "mae", image_size=[100, 64])


def test_gray_weights_are_exact_for_the_encoder(folders):
    gray = torch.randn(2, 1, 64, 64)
    options = {"num_labels": 4}
    three = HieraMAEForImageClassification.from_pretrained(folders / "classifier", **options)
    one = HieraMAEForImageClassification.from_pretrained(folders / "classifier", num_channels=1, **options)
    assert one.config.num_channels == 1
    assert torch.allclose(one(gray).logits, three(gray.expand(-1, 3, -1, -1)).logits, atol=1e-6)


def test_the_gray_head_predicts_the_mean_of_three(folders, tmp_path):
    gray, noise = torch.randn(2, 1, 64, 64), torch.rand(2, 4)
    three = HieraMAEForPreTraining.from_pretrained(folders / "mae")
    one = HieraMAEForPreTraining.from_pretrained(folders / "mae", num_channels=1)
    wanted = three(gray.expand(-1, 3, -1, -1), noise=noise).logits.unflatten(2, (3, 256)).mean(2)
    assert torch.allclose(one(gray, noise=noise).logits, wanted, atol=1e-5)
    one.save_pretrained(tmp_path)
    assert HieraMAEForPreTraining.from_pretrained(tmp_path).config.num_channels == 1
    with pytest.raises(ValueError, match="its decoder predicts gray pixels: load it with num_channels=1"):
        HieraMAEForPreTraining.from_pretrained(tmp_path, num_channels=3)
    # The encoder alone is spread: what the one channel gave, three equal ones give.
    spread = HieraMAEModel.from_pretrained(tmp_path, num_channels=3)
    gray_again = HieraMAEModel.from_pretrained(tmp_path)
    assert spread.config.num_channels == 3 and gray_again.config.num_channels == 1
    rgb = spread(gray.expand(-1, 3, -1, -1)).last_hidden_state
    torch.testing.assert_close(rgb, gray_again(gray).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_another_number_of_labels_needs_consent(folders):
    with pytest.raises(ValueError, match="4 labels; wanted 2.*ignore_mismatched_sizes=True"):
        HieraMAEForImageClassification.from_pretrained(folders / "classifier", num_labels=2)
    model = HieraMAEForImageClassification.from_pretrained(
        folders / "classifier", num_labels=2, ignore_mismatched_sizes=True
    )
    assert model.classifier.out_features == 2


def test_another_architecture_is_refused(tmp_path):
    config = ViTConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)
    ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'vit'; wanted 'hiera'.*modeling_hiera_mae.convert"):
        HieraMAEForPreTraining.from_pretrained(tmp_path)


def test_a_folder_of_another_library_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "hiera_tiny_224"}')
    with pytest.raises(ValueError, match="type 'hiera_tiny_224'"):
        HieraMAEModel.from_pretrained(tmp_path)


def test_another_size_is_refused_field_by_field(folders):
    wanted = HieraMAEConfig.from_size("tiny")
    with pytest.raises(ValueError, match=r"embed_dim 8 \(wanted 96\).*decoder_depth 2 \(wanted 8\)"):
        HieraMAEForPreTraining.from_pretrained(folders / "mae", config=wanted)


def test_a_damaged_file_is_refused(folders, tmp_path):
    weights = load_file(folders / "mae" / "model.safetensors")
    tiny_mae().config.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((folders / "mae" / "config.json").read_text())
    whole = dict(weights)
    del weights["hiera.encoder.stages.2.layers.0.attn.qkv.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights.*stages.2.layers.0.attn.qkv.weight"):
        HieraMAEForPreTraining.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks 1 weights"):
        HieraMAEForImageClassification.from_pretrained(tmp_path)
    whole["encoder_norm.weight"] = torch.ones(3)
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder_norm.weight of shape \(3,\); wanted \(64,\)"):
        HieraMAEForPreTraining.from_pretrained(tmp_path)
    del whole["encoder_norm.weight"]
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights.*encoder_norm.weight"):
        HieraMAEForPreTraining.from_pretrained(tmp_path)


def copy_with(folder, place, weights=None, **fields):
    """A copy of a checkpoint with other fields in its config.json, or other weights."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | fields))
    if weights is not None:
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("depths", [[1, 2, 1, 1], [1, 2, 3, 1]])
@pytest.mark.parametrize("kind", ["mae", "classifier", "encoder"])
def test_other_depths_than_those_of_the_weights_are_named(folders, tmp_path, kind, depths):
    other = copy_with(folders / kind, tmp_path / "other", depths=depths)
    said = re.escape(f"its weights have depths [1, 2, 2, 1], and its config.json says {depths}")
    for model_class in (HieraMAEForPreTraining, HieraMAEForImageClassification, HieraMAEModel):
        with pytest.raises(ValueError, match=said):
            model_class.from_pretrained(other)


def test_a_shorter_decoder_than_that_of_the_weights_is_named(folders, tmp_path):
    other = copy_with(folders / "mae", tmp_path / "other", decoder_depth=1)
    with pytest.raises(ValueError, match=r"weights have decoder_depth \[2\], and its config.json says \[1\]"):
        HieraMAEForPreTraining.from_pretrained(other)
    # A classifier leaves the decoder behind, whatever it is.
    HieraMAEForImageClassification.from_pretrained(other)


@pytest.mark.parametrize("name", ["foo.bar", "hiera.encoder.stages.1.layers.0.extra.weight", "hiera.norm"])
@pytest.mark.parametrize("kind", ["mae", "classifier", "encoder"])
def test_weights_without_a_place_are_refused(folders, tmp_path, kind, name):
    more = load_file(folders / kind / "model.safetensors") | {name: torch.ones(2)}
    other = copy_with(folders / kind, tmp_path / "other", more)
    for model_class in (HieraMAEForPreTraining, HieraMAEForImageClassification, HieraMAEModel):
        with pytest.raises(ValueError, match=f"1 weights that have no place.*first {re.escape(name)}"):
            model_class.from_pretrained(other)


def test_a_counter_beside_the_weights_is_left_out(folders, tmp_path):
    more = load_file(folders / "mae" / "model.safetensors") | {"n_averaged": torch.tensor(7)}
    HieraMAEForPreTraining.from_pretrained(copy_with(folders / "mae", tmp_path / "averaged", more))


def test_transformers_backbone_and_encoder_leave_their_norms_behind(tmp_path):
    for kind in (HieraBackbone, HieraModel):
        kind(HieraConfig(**TINY)).save_pretrained(tmp_path / kind.__name__)
        model = HieraMAEForPreTraining.from_pretrained(tmp_path / kind.__name__)
        assert model.config.num_query_pool == 2


PRECISIONS = [
    {"dtype": "auto"},
    {"torch_dtype": "auto"},
    {"dtype": "bfloat16"},
    {"dtype": torch.bfloat16},
    {"config": "float16"},
    {"config": "float16", "dtype": "auto"},
    {"config": "float16", "dtype": torch.float32},
]


@pytest.mark.parametrize("stated", ["bfloat16", None])
@pytest.mark.parametrize("asked", PRECISIONS, ids=str)
@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (HieraMAEForImageClassification, HieraForImageClassification),
        (HieraMAEModel, HieraModel),
        (HieraMAEForPreTraining, HieraForPreTraining),
        (HieraMAEBackbone, HieraBackbone),
    ],
)
def test_a_precision_asked_for_is_what_stock_transformers_gives(tmp_path, ours, stock, asked, stated):
    """Auto is that of config.json, else of the weights; a configuration object's is as good as `dtype`."""
    tiny_classifier().bfloat16().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"dtype": stated}))

    def load(model_class, config_class):
        options = dict(asked)
        if "config" in options:
            options["config"] = config_class.from_pretrained(tmp_path, dtype=options["config"])
        model = model_class.from_pretrained(tmp_path, **options)
        return {parameter.dtype for parameter in model.parameters()}, model.config.dtype

    assert load(ours, HieraMAEConfig) == load(stock, HieraConfig)
