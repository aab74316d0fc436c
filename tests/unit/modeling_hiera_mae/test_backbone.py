"""The backbone: maps in the image's order, transformers' rules for choosing them, and detectors on it."""

import json
import logging

import pytest
import torch
from model_configs import TINY, tiny_classifier, tiny_config, tiny_mae
from torch import nn
from transformers import (
    AutoBackbone,
    DetrConfig,
    DetrForObjectDetection,
    HieraBackbone,
    HieraConfig,
    HieraModel,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from modeling_hiera_mae import HieraMAEBackbone, HieraMAEBackboneConfig, HieraMAEForImageClassification

ALL = ["stem", "stage1", "stage2", "stage3", "stage4"]
DETR = {
    "use_timm_backbone": False, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip


def backbone_config(**fields):
    return HieraMAEBackboneConfig(**{**TINY, **fields})


def randomized(model):
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_maps_are_those_of_the_encoder_and_stocks_are_not():
    """Stock's HieraModel unrolls tokens before its stages; stock's HieraBackbone does not."""
    stock = randomized(HieraBackbone(HieraConfig(**TINY, out_features=ALL)))
    ours = HieraMAEBackbone(backbone_config(out_features=ALL)).eval()
    ours.load_state_dict(stock.state_dict())  # strict: the same names and shapes
    encoder = HieraModel(HieraConfig(**TINY), add_pooling_layer=False).eval()
    encoder.load_state_dict({k: v for k, v in stock.state_dict().items() if "norms" not in k})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        states = encoder(images, output_hidden_states=True).reshaped_hidden_states
        right = [
            stock.hidden_states_norms[name](state).permute(0, 3, 1, 2)
            for name, state in zip(ALL, states, strict=True)
        ]
        found, wrong = ours(images).feature_maps, stock(images).feature_maps
    for ours_map, right_map, stock_map in zip(found, right, wrong, strict=True):
        torch.testing.assert_close(ours_map, right_map, rtol=1e-4, atol=1e-5)
        assert (stock_map - right_map).norm() > 0.1 * right_map.norm()


def test_what_changes_in_the_image_changes_there_in_the_first_map():
    """Mask units attend within themselves there: one unit's pixels reach its tokens and their neighbours'."""
    model = randomized(
        HieraMAEBackbone(backbone_config(image_size=[96, 96], out_features=["stem", "stage1"]))
    )
    image = torch.randn(1, 3, 96, 96)
    changed = image.clone()
    changed[:, :, 38:58, 6:26] += 1  # inside the unit of row 1, column 0
    with torch.no_grad():
        for before, after in zip(model(image).feature_maps, model(changed).feature_maps, strict=True):
            where = (before - after).abs().amax(1)[0] > 1e-4
            rows, columns = where.any(1).nonzero().flatten(), where.any(0).nonzero().flatten()
            assert 8 <= rows.min() and rows.max() < 16 and columns.max() < 8
            assert where.any()


def test_strides_channels_and_other_sizes():
    model = HieraMAEBackbone(backbone_config(out_features=ALL)).eval()
    assert model.channels == [8, 8, 16, 32, 64]
    maps = model(torch.randn(1, 3, 96, 128)).feature_maps
    assert [tuple(each.shape[2:]) for each in maps] == [(24, 32), (24, 32), (12, 16), (6, 8), (3, 4)]
    with pytest.raises(ValueError, match="100×64 pixels.*96×64 or 128×64"):
        model(torch.zeros(1, 3, 100, 64))
    with pytest.raises(ValueError, match="interpolate_pos_encoding is False"):
        model(torch.zeros(1, 3, 96, 64), interpolate_pos_encoding=False)


def test_features_are_chosen_by_name_or_index():
    assert HieraMAEBackbone(backbone_config()).out_features == ["stage4"]
    model = HieraMAEBackbone(backbone_config(out_indices=[1, 3])).eval()
    assert model.out_features == ["stage1", "stage3"] and model.out_indices == [1, 3]
    outputs = model(torch.randn(1, 3, 64, 64), output_hidden_states=True)
    assert [each.shape[1] for each in outputs.feature_maps] == model.channels == [8, 32]
    assert len(outputs.hidden_states) == 5 and outputs.attentions is None
    model.set_attn_implementation("eager")
    assert len(model(torch.randn(1, 3, 64, 64), output_attentions=True).attentions) == 4
    with pytest.raises(ValueError, match="out_features must be a subset"):
        backbone_config(out_features=["stage9"])


@pytest.mark.parametrize("make", [tiny_mae, tiny_classifier])
def test_a_stages_folder_becomes_a_backbone(make, tmp_path):
    trained = randomized(make())
    trained.save_pretrained(tmp_path / "stage")
    model, info = HieraMAEBackbone.from_pretrained(
        tmp_path / "stage", out_features=ALL[1:], output_loading_info=True
    )
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"hidden_states_norms"}
    assert model.config.num_query_pool == 3
    for name, weight in trained.hiera.encoder.state_dict().items():
        assert torch.equal(weight, model.encoder.state_dict()[name])
    # Saved, it is a backbone, and the encoder goes on to other tasks.
    model.save_pretrained(tmp_path / "backbone")
    assert (
        json.loads((tmp_path / "backbone" / "config.json").read_text())["model_type"] == "hiera_mae_backbone"
    )
    again = HieraMAEBackbone.from_pretrained(tmp_path / "backbone")
    images = torch.randn(1, 3, 64, 64)
    for one, other in zip(model(images).feature_maps, again(images).feature_maps, strict=True):
        assert torch.equal(one, other)
    classifier = HieraMAEForImageClassification.from_pretrained(tmp_path / "backbone", num_labels=2)
    assert classifier(images).logits.shape == (1, 2) and classifier.config.model_type == "hiera"


def test_stocks_backbone_folder_opens_with_its_norms(tmp_path):
    stock = randomized(HieraBackbone(HieraConfig(**TINY, out_features=["stage2"])))
    stock.save_pretrained(tmp_path)
    ours = HieraMAEBackbone.from_pretrained(tmp_path)
    assert torch.equal(ours.hidden_states_norms["stage2"].bias, stock.hidden_states_norms["stage2"].bias)


@pytest.mark.parametrize("kind", ["detr", "upernet"])
def test_stock_detectors_and_segmenters_take_it_train_and_come_back(kind, tmp_path):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 96)
    if kind == "detr":
        model = DetrForObjectDetection(DetrConfig(backbone_config=backbone_config(), num_labels=2, **DETR))
        labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}] * 2
    else:
        config = UperNetConfig(
            backbone_config=backbone_config(out_features=ALL[1:]), hidden_size=16, num_labels=3,
            auxiliary_in_channels=32, auxiliary_channels=8,
        )  # fmt: skip
        model, labels = UperNetForSemanticSegmentation(config), torch.randint(0, 3, (2, 64, 96))
    model.train()(images, labels=labels).loss.backward()
    [backbone] = [each for each in model.modules() if isinstance(each, HieraMAEBackbone)]
    assert backbone.embeddings.position_embeddings.grad.abs().max() > 0

    logits = model.eval()(images).logits
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert any(isinstance(each, HieraMAEBackbone) for each in again.modules())
    torch.testing.assert_close(again(images).logits, logits)


def test_a_detector_starts_from_a_stages_weights(tmp_path):
    randomized(tiny_mae()).save_pretrained(tmp_path)
    trained = HieraMAEBackbone.from_pretrained(tmp_path, out_features=ALL[1:])
    config = UperNetConfig(backbone_config=trained.config, hidden_size=16, use_auxiliary_head=False)
    model = UperNetForSemanticSegmentation(config)
    model.backbone.load_state_dict(trained.state_dict())
    maps = model.eval().backbone(torch.ones(1, 3, 64, 64)).feature_maps
    for one, other in zip(maps, trained(torch.ones(1, 3, 64, 64)).feature_maps, strict=True):
        assert torch.equal(one, other)


def test_a_configuration_that_a_detector_would_save_as_stocks_is_warned_of(caplog):
    """transformers makes a detector's backbone from the saved model type alone."""
    logger = logging.getLogger("modeling_hiera_mae.modeling_backbone")
    logger.addHandler(caplog.handler)
    try:
        backbone = AutoBackbone.from_config(tiny_config(out_features=["stage2"]))
    finally:
        logger.removeHandler(caplog.handler)
    assert type(backbone) is HieraMAEBackbone and backbone.out_features == ["stage2"]
    assert "give a detector a HieraMAEBackboneConfig" in caplog.text
