"""Our models as folders that timm opens: strictly, with timm's own forward giving our numbers, and back."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from model_configs import tiny_classifier, tiny_config, tiny_mae
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, BitImageProcessor

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEModel
from modeling_hiera_mae.convert import convert, main

GEOMETRY = {"num_heads": [1, 2, 4, 8]}
PROCESSOR = {
    "size": {"shortest_edge": 80},
    "crop_size": {"height": 64, "width": 64},
    "image_mean": [0.5, 0.51, 0.52],
    "image_std": [0.21, 0.22, 0.23],
}


def randomized(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def to_timm(model, tmp_path, *options):
    """The folder written by the command, and timm's model opened from it."""
    model.save_pretrained(tmp_path / "ours")
    main([str(tmp_path / "ours"), str(tmp_path / "timm"), "--to", "timm", *options])
    # timm loads strictly, and says which weights are absent or left over.
    return timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image_size": [64, 96], "num_channels": 1, "mlp_ratio": 3.0},
        {"num_query_pool": 2},
        {"masked_unit_attention": [True, False, False, False], "num_heads": [2, 2, 2, 2]},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_timms_forward_gives_our_logits(fields, dtype, tmp_path):
    ours = randomized(tiny_classifier(**{**GEOMETRY, **fields}))
    theirs = to_timm(ours, tmp_path).to(dtype)
    ours = ours.to(dtype)
    images = torch.randn(2, ours.config.num_channels, *ours.config.image_size, dtype=dtype)
    with torch.no_grad():
        wanted, found = ours(images).logits, theirs(images)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 * scale)
    assert scale > 0.1


def test_an_mae_becomes_timms_encoder(tmp_path, capsys):
    ours = randomized(tiny_mae(**GEOMETRY))
    theirs = to_timm(ours, tmp_path).double()
    assert theirs.num_classes == 0 and theirs.q_pool == 3
    assert torch.equal(theirs.head.norm.weight.float(), ours.encoder_norm.weight)  # as timm's own have it
    said = capsys.readouterr().out
    assert "decoder                      left out: timm has the MAE's encoder alone" in said
    encoder = HieraMAEModel.from_pretrained(tmp_path / "ours", num_query_pool=3).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        wanted = encoder(images, output_hidden_states=True).reshaped_hidden_states[1:]
        found = theirs.forward_intermediates(images, intermediates_only=True, output_fmt="NHWC")
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("with_norm", [True, False])
def test_an_encoders_final_norm(with_norm, tmp_path, capsys):
    ours = randomized(HieraMAEModel(tiny_config(**GEOMETRY), add_pooling_layer=with_norm))
    if with_norm:
        theirs = to_timm(ours, tmp_path).double()
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        torch.testing.assert_close(theirs(images), ours.double()(images).pooler_output, rtol=0, atol=1e-6)
        return
    # An encoder alone comes from timm: that way and back nothing but the norm is new.
    first = timm.create_model("hiera_tiny_224", img_size=(64, 64), embed_dim=8, num_classes=0)
    torch.save(first.state_dict(), tmp_path / "timm.pth")
    main([str(tmp_path / "timm.pth"), str(tmp_path / "back"), "--to", "timm", "--num-heads", "1"])
    again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, first.state_dict()[name]), name
    assert "timm's head.norm is new, with weight 1 and bias 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "fields",
    [
        {"num_query_pool": 2},
        {"image_size": [32, 128], "num_channels": 1},
        {"image_size": [64, 96]},
        {"masked_unit_attention": [True, False, False, False]},
        {"num_heads": [2, 2, 2, 2]},
        {"patch_size": [5, 5], "patch_padding": [2, 2]},
        {"depths": [1, 2, 1], "num_heads": [1, 2, 4], "masked_unit_size": [4, 4], "num_query_pool": 2,
         "masked_unit_attention": [True, True, False]},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_there_and_back_the_logits_are_the_same(fields, tmp_path):
    """Weights alone show neither of these: the folder's config.json does."""
    ours = randomized(tiny_classifier(**{**GEOMETRY, **fields}))
    theirs = to_timm(ours, tmp_path)
    main([str(tmp_path / "timm"), str(tmp_path / "back")])
    again = HieraMAEForImageClassification.from_pretrained(tmp_path / "back").eval()
    assert again.config.image_size == ours.config.image_size
    images = torch.randn(2, ours.config.num_channels, *ours.config.image_size)
    with torch.no_grad():
        wanted, timms, found = ours(images).logits, theirs(images), again(images).logits
    torch.testing.assert_close(timms, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("init_values", 1e-5, "init_values 1e-05; this model has None alone"),
        ("use_expand_proj", False, "use_expand_proj False; this model has True alone"),
        ("global_pool", "max", "global_pool 'max'; this model has 'avg' alone"),
        ("mask_unit_attn", [False, True, False, False], "the first block of a stage attends as the stage"),
        ("head_mul", "two", "head_mul 'two'; wanted a number"),
    ],
)
def test_arguments_of_timm_that_are_not_had_here_are_refused(argument, value, message, tmp_path):
    to_timm(randomized(tiny_classifier(**GEOMETRY)), tmp_path)
    content = json.loads((tmp_path / "timm" / "config.json").read_text())
    content["model_args"][argument] = value
    (tmp_path / "timm" / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / "timm"))


def test_without_a_config_what_weights_do_not_show_is_refused(tmp_path):
    for fields, message in (
        ({"image_size": [64, 96]}, "pos_embed has 384 positions, which is no square"),
        ({"patch_size": [5, 5], "patch_padding": [2, 2]}, r"a kernel of \(5, 5\).*how it is padded"),
    ):
        folder = tmp_path / next(iter(fields))
        to_timm(randomized(tiny_classifier(**{**GEOMETRY, **fields})), folder)
        (folder / "timm" / "config.json").unlink()
        with pytest.raises(ValueError, match=message):
            convert(str(folder / "timm"), num_heads=1)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification"])
def test_there_and_back_nothing_changes(problem_type, tmp_path):
    ours = randomized(tiny_classifier(**GEOMETRY, problem_type=problem_type))
    to_timm(ours, tmp_path)
    again = convert(str(tmp_path / "timm")).model
    assert isinstance(again, HieraMAEForImageClassification)
    assert again.config.problem_type == problem_type
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_labels_and_preparation_go_along(tmp_path):
    """timm's own transform gives our processor's pixels."""
    labels = {0: "Mass", 1: "Nodule", 2: "Hernia"}
    fields = {"id2label": labels, "problem_type": "multi_label_classification"}
    ours = randomized(tiny_classifier(**GEOMETRY, **fields))
    processor = BitImageProcessor(**PROCESSOR, do_center_crop=True, resample=3)
    processor.save_pretrained(tmp_path / "ours")
    theirs = to_timm(ours, tmp_path, "--license", "apache-2.0")
    assert theirs.pretrained_cfg["label_names"] == list(labels.values())
    data = timm.data.resolve_model_data_config(theirs)
    assert data["mean"] == pytest.approx(PROCESSOR["image_mean"]) and data["crop_pct"] == pytest.approx(0.8)
    gray = torch.linspace(0, 255, 160 * 100).reshape(160, 100).byte().numpy()
    image = Image.fromarray(gray).convert("RGB")
    found = timm.data.create_transform(**data, is_training=False)(image)
    wanted = processor(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03)  # a gray level of 255: they round elsewhere
    card = (tmp_path / "timm" / "README.md").read_text()
    assert "license: apache-2.0" in card and "library_name: timm" in card and "local-dir:" in card
    assert "the sigmoid of a logit" in card


@pytest.mark.parametrize(
    "preparation",
    [
        {**PROCESSOR, "do_center_crop": True, "resample": 2},
        {**PROCESSOR, "do_center_crop": True, "size": {"shortest_edge": 186}},  # 64 / (64 / 186) is below 186
        {**PROCESSOR, "do_center_crop": False, "size": {"height": 64, "width": 64}},
    ],
)
def test_there_and_back_labels_and_preparation_are_the_same(preparation, tmp_path):
    names = {0: "Mass", 1: "Nodule", 2: "Hernia"}
    ours = tiny_classifier(**GEOMETRY, id2label=names)
    processor = BitImageProcessor(**preparation)
    processor.save_pretrained(tmp_path / "ours")
    to_timm(ours, tmp_path)
    main([str(tmp_path / "timm"), str(tmp_path / "back")])
    config = HieraMAEForImageClassification.from_pretrained(tmp_path / "back").config
    assert (config.id2label, config.label2id) == (names, {name: number for number, name in names.items()})
    again = AutoImageProcessor.from_pretrained(tmp_path / "back")
    gray = torch.linspace(0, 255, 160 * 100).reshape(160, 100).byte().numpy()
    image = Image.fromarray(gray).convert("RGB")
    found, wanted = (each(image, return_tensors="pt").pixel_values for each in (again, processor))
    torch.testing.assert_close(found, wanted)


def test_no_preparation_is_made_up(tmp_path):
    to_timm(tiny_classifier(**GEOMETRY), tmp_path)  # no processor: the folder says neither mean nor crop
    main([str(tmp_path / "timm"), str(tmp_path / "back")])
    assert not (tmp_path / "back" / "preprocessor_config.json").exists()


def run_card(folder, image):
    """What the code on a folder's card gives for an image."""
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names = {"image": image}
    with torch.no_grad():
        exec(code.replace("local-dir:FOLDER", f"local-dir:{folder}"), names)
    return names["logits"]


@pytest.mark.parametrize("fields", [{"num_channels": 1}, {}, {"position_interpolation": "windowed"}])
@pytest.mark.parametrize("crop", [64, 96])
def test_the_cards_code_gives_our_logits(fields, crop, tmp_path, capsys):
    """Of one channel too, and where the processor crops to another size than config.json's."""
    ours = randomized(tiny_classifier(**GEOMETRY, **fields))
    processor = BitImageProcessor(
        size={"shortest_edge": crop}, crop_size={"height": crop, "width": crop}, do_center_crop=True,
        resample=3, image_mean=[0.5] * 3, image_std=[0.25] * 3,
    )  # fmt: skip
    processor.save_pretrained(tmp_path / "ours")
    to_timm(ours, tmp_path)
    gray = np.random.default_rng(0).integers(0, 256, (crop, crop), dtype=np.uint8)
    image = Image.fromarray(gray).convert("RGB")
    pixels = processor(image, return_tensors="pt").pixel_values[:, : ours.config.num_channels]
    with torch.no_grad():
        wanted = ours(pixels).logits
    found = run_card(tmp_path / "timm", image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    is_said = (
        "Position embeddings are stretched from 64 × 64 to the 96 × 96 pixels" in capsys.readouterr().out
    )
    assert is_said == (crop == 96)


def test_a_processor_of_three_unlike_channels_is_refused_of_one(tmp_path, capsys):
    BitImageProcessor(**PROCESSOR, do_center_crop=True).save_pretrained(tmp_path / "ours")
    with pytest.raises(SystemExit):
        to_timm(randomized(tiny_classifier(**GEOMETRY, num_channels=1)), tmp_path)
    assert "and the model has one channel" in capsys.readouterr().err


def test_a_stages_record_goes_along(tmp_path):
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "metrics.json").write_text(json.dumps({"stage": 2, "lineage": []}))
    (ours / "training_images.parquet").write_bytes(b"a")
    to_timm(randomized(tiny_classifier(**GEOMETRY)), tmp_path)
    assert (tmp_path / "timm" / "metrics.json").read_bytes() == (ours / "metrics.json").read_bytes()
    assert (tmp_path / "timm" / "training_images.parquet").is_file()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'; timm's has 'gelu'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05"),
        ({"num_heads": [1, 1, 2, 2]}, "num_heads .*multiplies them by one number"),
        ({"embed_dim_multiplier": 1.5, "num_heads": [1, 1, 1, 1], "embed_dim": 9}, "rounds other widths"),
        (
            {"masked_unit_attention": [True, False, True, False]},
            "first block of a stage attends as the stage",
        ),
    ],
)
def test_what_timm_cannot_hold_is_refused(fields, message, tmp_path, capsys):
    tiny_classifier(**{**GEOMETRY, **fields}).save_pretrained(tmp_path / "ours")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "ours"), str(tmp_path / "timm"), "--to", "timm"])
    said = capsys.readouterr().err
    assert "timm's Hiera cannot hold this model" in said
    assert re.search(message, said)
    assert not (tmp_path / "timm").exists()
