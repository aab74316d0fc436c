"""A configuration without problem_type: opened, trained and saved as stock transformers does it."""

import json

import pytest
import torch
from model_configs import TINY, tiny_classifier
from PIL import Image
from torch import nn
from transformers import HieraConfig, HieraForImageClassification, pipeline
from transformers.models.vit.image_processing_vit import ViTImageProcessor

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.convert import main as convert

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
CLASSES = torch.tensor([0, 2, 2, 1])
LABELS = {SINGLE: CLASSES, MULTI: nn.functional.one_hot(CLASSES, 3).float()}


def stock_folder(folder, **fields):
    """What stock transformers writes, with logits far from each other."""
    torch.manual_seed(0)
    model = HieraForImageClassification(HieraConfig(**{**TINY, "num_labels": 3, **fields}))
    nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def written_type(folder):
    return json.loads((folder / "config.json").read_text()).get("problem_type")


def scores(folder):
    """What stock's pipeline says of a picture."""
    if not (folder / "preprocessor_config.json").exists():
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    found = pipeline("image-classification", model=str(folder))(Image.new("RGB", (64, 64), "gray"))
    return {entry["label"]: entry["score"] for entry in found}


@pytest.mark.parametrize("fields", [{}, {"num_labels": 1}, {"problem_type": SINGLE}, {"problem_type": MULTI}])
def test_loading_and_saving_keeps_the_probabilities(fields, tmp_path):
    stock = stock_folder(tmp_path / "stock", **fields)
    HieraMAEForImageClassification.from_pretrained(stock).save_pretrained(tmp_path / "saved")
    convert([str(stock), str(tmp_path / "converted")])
    for name in ("saved", "converted"):
        assert written_type(tmp_path / name) == written_type(stock) == fields.get("problem_type")
        assert scores(tmp_path / name) == pytest.approx(scores(stock), abs=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_train_as_in_stock_and_say_what_they_are(kind, tmp_path):
    stock_folder(tmp_path)
    images, losses = torch.randn(4, 3, 64, 64), []
    ours, stock = (
        model.from_pretrained(tmp_path).train()
        for model in (HieraMAEForImageClassification, HieraForImageClassification)
    )
    for model in (ours, stock):
        losses.append(model(images, labels=LABELS[kind]).loss)
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        ours.classifier.weight.grad, stock.classifier.weight.grad, atol=1e-5, rtol=1e-4
    )
    assert ours.config.problem_type == stock.config.problem_type == kind
    for name, model in (("ours", ours), ("theirs", stock)):
        model.save_pretrained(tmp_path / name)
    assert written_type(tmp_path / "ours") == kind
    assert scores(tmp_path / "ours") == pytest.approx(scores(tmp_path / "theirs"), abs=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_an_evaluation_says_nothing(kind):
    """Stock writes here: a softmax checkpoint that was evaluated on 0s and 1s would be saved as sigmoids."""
    model, images = tiny_classifier(), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        evaluated = model(images, labels=LABELS[kind]).loss
    assert model.config.problem_type is None
    torch.testing.assert_close(model(images, labels=LABELS[kind]).loss, evaluated)
    assert model.config.problem_type == kind


def test_a_loss_of_its_own_kind_stays():
    model, images = tiny_classifier(), torch.randn(4, 3, 64, 64)
    model(images, labels=LABELS[SINGLE])
    shares = model(images, labels=LABELS[MULTI]).loss  # of the same images: cross-entropy still
    torch.testing.assert_close(shares, model(images, labels=LABELS[SINGLE]).loss)


def test_refused_labels_say_nothing():
    model = tiny_classifier()
    with pytest.raises(ValueError, match=r"torch.int64 of shape \(4, 3\).*call labels.float\(\) and set"):
        model(torch.zeros(4, 3, 64, 64), labels=LABELS[MULTI].long())
    assert model.config.problem_type is None


@pytest.mark.parametrize("labels", [torch.ones(2, 1), torch.zeros(2, dtype=torch.long)])
def test_one_label_is_never_taken_for_regression_without_a_word(labels):
    model, images = tiny_classifier(num_labels=1), torch.zeros(2, 3, 64, 64)
    with pytest.raises(
        ValueError, match="one label: transformers takes that for regression.*problem_type to"
    ):
        model(images, labels=labels)
    model.config.problem_type = MULTI
    assert model(images, labels=torch.ones(2, 1)).loss > 0
