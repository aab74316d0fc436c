import json

import pytest
from model_configs import TINY, tiny_config, tiny_mae
from transformers import AutoConfig, HieraConfig

from modeling_hiera_mae import (
    HieraMAEBackbone,
    HieraMAEConfig,
    HieraMAEForImageClassification,
    HieraMAEForPreTraining,
    HieraMAEModel,
)

# Parameters of the classifier with 1000 labels, in millions, as Meta counts them.
PUBLISHED_MILLIONS = {
    "tiny": 27.9,
    "small": 35.0,
    "base": 51.5,
    "base_plus": 69.9,
    "large": 213.7,
    "huge": 672.8,
}


@pytest.mark.parametrize("size", PUBLISHED_MILLIONS)
def test_every_size_has_its_published_number_of_parameters(size):
    import torch

    with torch.device("meta"):
        model = HieraMAEForImageClassification(HieraMAEConfig.from_size(size, num_labels=1000))
    assert model.num_parameters() / 1e6 == pytest.approx(PUBLISHED_MILLIONS[size], abs=0.06)
    assert model.config.size_name == size


def test_query_pooling_follows_the_task_and_leaves_the_config_alone():
    config = tiny_config()
    assert HieraMAEForPreTraining(config).config.num_query_pool == 2
    assert HieraMAEForImageClassification(config).config.num_query_pool == 3
    assert config.num_query_pool is None
    assert HieraMAEForPreTraining(tiny_config(num_query_pool=3)).config.num_query_pool == 3


def test_saved_config_opens_in_stock_transformers(tmp_path):
    tiny_mae().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["architectures"] == ["HieraForPreTraining"]
    stock = AutoConfig.from_pretrained(tmp_path)
    assert type(stock) is HieraConfig
    assert stock.num_query_pool == 2


def test_unsettled_pooling_is_not_written(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).num_query_pool == 3  # stock's own default


def test_a_stock_config_without_decoder_gets_one():
    config = HieraMAEConfig(decoder_hidden_size=None, decoder_depth=None, decoder_num_heads=None)
    assert (config.decoder_hidden_size, config.decoder_depth, config.decoder_num_heads) == (512, 8, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": [60, 64]}, "image_size is 60×64.*32×64 or 64×64"),
        ({"image_size": [64]}, "height, width"),
        ({"depths": [1, 2]}, "one entry per stage"),
        ({"num_query_pool": 4}, "num_query_pool is 4; wanted 0 to 3"),
        ({"masked_unit_size": [4, 8]}, r"masked_unit_size\[0\] is 4"),
        ({"position_interpolation": "nearest"}, "position_interpolation is 'nearest'"),
    ],
)
def test_a_geometry_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        HieraMAEConfig(**{**TINY, **fields})


def test_unknown_sizes_and_fields_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Unknown Hiera size 'tny'; wanted one of tiny"):
        HieraMAEConfig.from_size("tny")
    with pytest.raises(ValueError, match="'drop_path_rat' for HieraMAEConfig; did you mean 'drop_path_rate'"):
        HieraMAEConfig.from_size("tiny", drop_path_rat=0.1)


@pytest.mark.parametrize(
    "model_class",
    [HieraMAEModel, HieraMAEForImageClassification, HieraMAEForPreTraining, HieraMAEBackbone],
)
def test_models_are_built_of_stocks_configuration_too(model_class):
    fields = {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": [64, 64], "hidden_act": "relu"}
    stock = HieraConfig(**fields, num_labels=5)
    before = stock.to_dict()
    model = model_class(stock)
    assert isinstance(model.config, HieraMAEConfig)
    assert {name: getattr(model.config, name) for name in fields} == fields and model.config.num_labels == 5
    assert stock.to_dict() == before
