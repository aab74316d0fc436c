"""Encoders beside ours: features are those of transformers' own model and image processor."""

import json

import numpy as np
import pytest
import timm
import torch
from page_fixtures import phantom, write_dicom, write_stage1, write_stage2
from PIL import Image
from teachers import write, write_resnet, write_timm, write_vit
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BertConfig,
    BertModel,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    ViTMAEConfig,
    ViTMAEModel,
)

from medhiera import Classifier, Encoder
from medhiera.errors import UserError

PICTURES = [Image.fromarray(phantom(side)) for side in (160, 72)]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def write_rad_dino(folder):
    """RAD-DINO's architecture and kind of processor: a DINOv2, gray normalization, a center crop."""
    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=42, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_vit_without_pooler(folder):
    write_vit(folder)
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("build", "pooling", "grid"),
    [
        (write_rad_dino, "pooler", (3, 3)),
        (write_vit, "pooler", (4, 4)),
        (write_vit_without_pooler, "class token", (4, 4)),
        (write_resnet, "pooler", (8, 8)),
    ],
)
def test_features_are_transformers_own(build, pooling, grid, tmp_path):
    folder = build(tmp_path / "model")
    encoder = Encoder.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder)(
        [picture.convert("RGB") for picture in PICTURES], return_tensors="pt"
    )
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(**pixels)
    expected = output.pooler_output.flatten(1) if pooling == "pooler" else output.last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.features(PICTURES), expected, atol=1e-4, rtol=0)
    assert encoder.pooling == pooling
    tokens = encoder.embed_tokens([encoder.preprocessing.pixels(picture) for picture in PICTURES])
    last = output.last_hidden_state
    rows, columns = grid
    last = last.flatten(2).transpose(1, 2) if last.dim() == 4 else last[:, -rows * columns :]
    torch.testing.assert_close(tokens, last.unflatten(1, grid), atol=1e-4, rtol=0)


def test_a_timm_folder_is_embedded_as_timm_evaluates_it(tmp_path):
    folder = write_timm(tmp_path / "model", "test_vit", 160)
    encoder = Encoder.from_pretrained(folder)
    model = timm.create_model("test_vit", num_classes=0)
    model.load_state_dict(encoder.model.timm_model.state_dict())
    written = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    cfg = timm.data.resolve_data_config(written | {"crop_pct": 0.875, "interpolation": "bicubic"})
    transform = timm.data.create_transform(**cfg)
    picture = PICTURES[0].convert("RGB")
    with torch.no_grad():
        expected = model.eval()(transform(picture)[None])
    found = encoder.features([picture])
    cosine = torch.nn.functional.cosine_similarity(found, expected).item()
    assert found.shape == expected.shape and cosine > 0.99, cosine  # Pillow's resize beside torchvision's


def test_a_hieras_grid_is_what_its_vector_is_the_mean_of(tmp_path):
    encoder = Encoder.from_pretrained(write_stage1(tmp_path / "stage1"))
    pixels = [encoder.preprocessing.pixels(picture) for picture in PICTURES]
    tokens = encoder.embed_tokens(pixels)
    mean = tokens.mean(dim=(1, 2))
    pooled = torch.nn.functional.layer_norm(mean, mean.shape[1:], eps=encoder.model.config.layer_norm_eps)
    pooled = (
        pooled + encoder.model.pooler.layernorm.bias.detach()
    )  # 0.02 in a new one, as transformers draws it
    torch.testing.assert_close(encoder.embed(pixels), pooled, atol=1e-5, rtol=0)
    # A bright lower right corner moves the lower right token most.
    dark, lit = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    lit[48:, 48:] = 255
    both = encoder.embed_tokens(
        [encoder.preprocessing.pixels(Image.fromarray(each).resize((72, 72))) for each in (dark, lit)]
    )
    moved = (both[1] - both[0]).square().sum(-1)
    assert divmod(int(moved.argmax()), moved.shape[1]) == (moved.shape[0] - 1, moved.shape[1] - 1)


def test_files_pictures_and_batches_give_the_same(tmp_path):
    folder = write_stage2(tmp_path / "stage2")
    write_dicom(tmp_path / "a.dcm", phantom())
    PICTURES[1].save(tmp_path / "b.png")
    files = [tmp_path / "a.dcm", str(tmp_path / "b.png")]
    for opened, ask in (
        (Encoder.from_pretrained(folder, "cpu"), lambda one, *given: one.features(*given)),
        (Classifier.from_pretrained(folder, "cpu"), lambda one, *given: torch.tensor(
            [list(row.values()) for row in one.predict(*given)])),
    ):  # fmt: skip
        torch.testing.assert_close(ask(opened, files), ask(opened, PICTURES, 1), atol=1e-5, rtol=0)
    assert list(Classifier.from_pretrained(folder).predict(files)[0]) == ["Edema", "Mass", "No Finding",
                                                                         "Pleural_Thickening"]  # fmt: skip
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"c\.png cannot be read: not_an_image"):
        Encoder.from_pretrained(folder).features([tmp_path / "c.png"])
    assert Encoder.from_pretrained(folder).features([]).shape == (0, 64)
    with pytest.raises(UserError, match="--device gpu: wanted auto"):
        Encoder.from_pretrained(folder, "gpu")


def test_models_that_embed_no_image_are_refused(tmp_path):
    write(ViTMAEModel(ViTMAEConfig(**SMALL, image_size=32, patch_size=8)), tmp_path / "masks", 32)
    write(BertModel(BertConfig(**SMALL, vocab_size=10)), tmp_path / "words", 32)
    write_vit(tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    for name, wanted in (
        ("masks", "gives other features each time, as one that draws masks does"),
        ("words", "cannot be asked for the features of an image"),
        ("bare", r"has no preprocessor_config\.json"),
    ):
        with pytest.raises(UserError, match=wanted):
            Encoder.from_pretrained(tmp_path / name)
