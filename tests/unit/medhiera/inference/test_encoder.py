"""An encoder's features are those of stock transformers, of whichever stage it was taken."""

import pytest
import torch
from page_fixtures import phantom, write_stage2
from PIL import Image
from transformers import HieraModel

from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier
from medhiera.inference.encoder import Encoder
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining, HieraMAEModel

PICTURES = [Image.fromarray(phantom(side)) for side in (160, 72, 300)]
GEOMETRY = {
    "image_size": [64, 64], "embed_dim": 8, "num_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip


@pytest.fixture
def stage2(tmp_path):
    return write_stage2(tmp_path / "stage2")


def test_a_classifiers_head_on_its_encoders_features_is_the_classifier(stage2):
    classifier, features = (
        Classifier.from_pretrained(stage2),
        Encoder.from_pretrained(stage2).features(PICTURES),
    )
    pixels = classifier.pixel_values([classifier.preprocessing.pixels(each) for each in PICTURES])
    with torch.inference_mode():
        expected = classifier.model(pixels).logits
        found = classifier.model.classifier(features)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert features.shape == (3, classifier.model.config.hidden_size) and features.dtype == torch.float32


def test_one_picture_or_file_is_a_list_of_one(stage2, tmp_path):
    encoder, classifier = Encoder.from_pretrained(stage2), Classifier.from_pretrained(stage2)
    file = tmp_path / "a.png"
    PICTURES[0].convert("L").save(file)
    [scores] = classifier.predict([file])
    for one in (file, str(file), PICTURES[0].convert("L")):
        assert torch.equal(encoder.features(one), encoder.features([file]))
        assert classifier.predict(one) == [scores]


def test_a_stage_1_embeds_as_stock_transformers_do(stage2, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "mae"
    HieraMAEForPreTraining(HieraMAEConfig.from_size("tiny", **GEOMETRY)).save_pretrained(folder)
    Classifier.from_pretrained(stage2).preprocessing.to_processor().save_pretrained(folder)
    encoder = Encoder.from_pretrained(folder)
    stock = HieraModel.from_pretrained(folder).eval()
    pixels = Classifier.from_pretrained(stage2).preprocessing.pixel_values(PICTURES)
    with torch.inference_mode():
        expected = stock(pixels).pooler_output
    torch.testing.assert_close(encoder.features(PICTURES), expected, atol=1e-5, rtol=0)
    assert (
        encoder.fingerprint()
        == Encoder.from_pretrained(folder).fingerprint()
        != Encoder.from_pretrained(stage2).fingerprint()
    )


def test_one_gray_channel_and_larger_tokens_are_embedded_too(stage2, tmp_path):
    """As in high definition."""
    torch.manual_seed(0)
    folder = tmp_path / "mae"
    config = HieraMAEConfig.from_size("tiny", num_channels=1, num_query_pool=3, **GEOMETRY)
    HieraMAEForPreTraining(config).save_pretrained(folder)
    preprocessing = Classifier.from_pretrained(stage2).preprocessing
    preprocessing.to_processor().save_pretrained(folder)
    features = Encoder.from_pretrained(folder).features(PICTURES)
    assert features.shape == (3, 64) and features.std(dim=0).min() > 0
    model = HieraMAEModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(preprocessing.pixel_values(PICTURES, channels=1)).pooler_output
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)


def test_features_that_are_nan_are_refused(stage2):
    encoder = Encoder.from_pretrained(stage2)
    torch.nn.init.constant_(encoder.model.pooler.layernorm.bias, float("nan"))
    with pytest.raises(UserError, match="the model computes NaN.* another model's; train it again"):
        encoder.features(PICTURES)


def test_a_folder_that_holds_no_hiera_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        Encoder.from_pretrained(tmp_path)
