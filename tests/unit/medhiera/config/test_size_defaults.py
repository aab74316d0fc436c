"""`size_defaults`: Hiera's author's values by size, and the layer decay that a depth bears."""

import json

import pytest

from medhiera.config.parser import parse_config
from medhiera.config.size_defaults import author_values, fill_in
from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.errors import UserError
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining


def parsed(tmp_path, *words):
    own = ["--data_dir", "d", "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    return parse_config(ClassificationArguments, [*own, "--optimizer", "adamw", *words])


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ("tiny", (0.65, 0.1, 5e-4)), ("small", (0.65, 0.1, 5e-4)), ("base", (0.7, 0.1, 5e-4)),
        ("base_plus", (0.7, 0.1, 2.5e-4)), ("large", (0.85, 0.1, 2.5e-4)), ("huge", (0.85, 0.3, 2.5e-4)),
    ],
)  # fmt: skip
def test_each_published_size_has_its_authors_values(size, values):
    found = author_values(HieraMAEConfig.from_size(size))
    assert tuple(found.values()) == values and list(found) == [
        "layer_decay", "drop_path_rate", "base_learning_rate"
    ]  # fmt: skip
    assert found["layer_decay"] ** sum(HieraMAEConfig.from_size(size).depths) > 1e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage1")
    tiny = {"embed_dim": 8, "depths": [2, 3, 16, 3], "image_size": [64, 64]}
    config = HieraMAEConfig(**tiny, decoder_hidden_size=16, decoder_depth=1, decoder_num_heads=2)
    HieraMAEForPreTraining(config).save_pretrained(folder)
    return str(folder)


def test_what_nobody_gave_comes_from_the_checkpoints_depth(checkpoint, tmp_path):
    words = ["--size_defaults", "true", "--model_name_or_path", checkpoint, "--drop_path_rate", "0.2"]
    config = parsed(tmp_path, *words, "--per_device_train_batch_size", "64")
    fill_in(config)
    assert config.optimization.layer_decay == 0.7 and config.optimization.drop_path_rate == 0.2
    assert config.training.learning_rate == pytest.approx(5e-4 * 64 / 256)
    assert config.as_json()["layer_decay"] == 0.7 and config.as_json()["learning_rate"] == pytest.approx(
        1.25e-4
    )


def test_a_learning_rate_that_is_given_stays(checkpoint, tmp_path):
    words = ["--size_defaults", "true", "--model_name_or_path", checkpoint, "--learning_rate", "3e-4"]
    config = parsed(tmp_path, *words)
    fill_in(config)
    assert config.training.learning_rate == 3e-4 and config.optimization.base_learning_rate == 0


def test_random_weights_learn_alike_in_all_layers(tmp_path):
    config = parsed(tmp_path, "--size_defaults", "true", "--model_size", "large")
    fill_in(config)
    assert config.optimization.layer_decay == 1 and config.optimization.drop_path_rate == 0.1


@pytest.mark.parametrize(
    "overrides",
    [
        {"depths": [2, 3, 16], "num_heads": [1, 2, 4], "masked_unit_size": [4, 4], "num_query_pool": 2,
         "masked_unit_attention": [True, True, False]},
        {"depths": [2, 3, 16, 3], "patch_size": [15, 15], "patch_stride": [8, 8], "patch_padding": [7, 7]},
        {"embed_dim": 20, "num_heads": [1, 1, 1, 1]},
    ],
    ids=["three stages", "larger units", "other heads"],
)  # fmt: skip
def test_a_geometry_of_other_fields_than_depths(overrides, tmp_path):
    words = ["--size_defaults", "true", "--model_overrides", json.dumps(overrides), "--image_size", "256"]
    config = parsed(tmp_path, *words, "--per_device_train_batch_size", "256")
    fill_in(config)
    assert config.training.learning_rate == pytest.approx(5e-4)


def test_a_layer_decay_under_which_the_first_block_stands_still_is_refused(checkpoint, tmp_path):
    with pytest.raises(
        UserError,
        match=r"layer_decay is 0.55, which leaves the first of this model's 24 blocks "
        r"5.9e-07 of the head's learning rate; wanted at least 0.0001 of it, a layer_decay of 0.68",
    ):
        fill_in(parsed(tmp_path, "--layer_decay", "0.55", "--model_name_or_path", checkpoint))
    fill_in(parsed(tmp_path, "--layer_decay", "0.55"))  # 12 blocks bear it


@pytest.mark.parametrize("rate", [["--size_defaults", "true"], ["--base_learning_rate", "5e-4"]])
def test_a_lowest_rate_above_the_rate_of_the_batch_is_refused(rate, checkpoint, tmp_path):
    words = ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-5}']
    words += ["--model_name_or_path", checkpoint, *rate, "--per_device_train_batch_size"]
    fill_in(parsed(tmp_path, *words, "8"))
    with pytest.raises(
        UserError, match=r"min_lr 1e-05, and the learning rate of this batch is 7.8125e-06.*min_lr_rate"
    ):
        fill_in(parsed(tmp_path, *words, "4"))


@pytest.mark.parametrize("words", [["--size_defaults", "true"], ["--drop_path_rate", "0.2"]])
def test_a_frozen_encoder_drops_no_path(words, checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    config = parsed(tmp_path, *words, "--model_name_or_path", checkpoint, "--encoder_rate", "0")
    fill_in(config)
    assert config.optimization.drop_path_rate == 0 and "the encoder is frozen" in caplog.text


def test_size_defaults_are_for_adamw(tmp_path):
    with pytest.raises(UserError, match="size_defaults needs `optimizer: adamw`, not what optim says"):
        parse_config(
            ClassificationArguments,
            ["--data_dir", "d", "--output_dir", str(tmp_path), "--size_defaults", "true"],
        )
