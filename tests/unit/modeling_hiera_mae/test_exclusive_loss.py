"""Single-label classification: integer labels and cross-entropy, as transformers' own Hiera has them."""

import pytest
import torch
from model_configs import tiny_classifier
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import HieraForImageClassification, pipeline
from transformers.models.vit.image_processing_vit import ViTImageProcessor

from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import masked_cross_entropy

NAN = float("nan")


@pytest.fixture
def folder(tmp_path):
    model = tiny_classifier(num_labels=3, problem_type="single_label_classification")
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    return tmp_path


def test_loss_and_gradients_are_those_of_stock(folder):
    ours = HieraMAEForImageClassification.from_pretrained(folder).eval()
    stock = HieraForImageClassification.from_pretrained(folder).eval()
    assert ours.config.problem_type == "single_label_classification"
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 2, 2, 1])
    losses = [model(images, labels=labels).loss for model in (ours, stock)]
    assert torch.allclose(*losses, atol=1e-6)
    for loss in losses:
        loss.backward()
    assert torch.allclose(ours.classifier.weight.grad, stock.classifier.weight.grad, atol=1e-6)


def test_the_stock_pipeline_applies_a_softmax(folder):
    scores = pipeline("image-classification", model=str(folder), top_k=3)(Image.new("RGB", (64, 64), "gray"))
    assert sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-5)


def test_indices_and_shares_are_one_thing():
    logits, labels = torch.randn(3, 4), torch.tensor([1, 3, 0])
    shares = torch.nn.functional.one_hot(labels, 4).float()
    assert torch.allclose(masked_cross_entropy(logits, labels), cross_entropy(logits, labels))
    assert torch.allclose(masked_cross_entropy(logits, shares), cross_entropy(logits, labels))
    mixed = 0.3 * shares + 0.7 * shares.roll(1, 0)
    assert torch.allclose(masked_cross_entropy(logits, mixed), cross_entropy(logits, mixed))


@pytest.mark.parametrize("labels", [torch.tensor([2, -100]), torch.tensor([[0.0, 0, 1], [NAN, NAN, NAN]])])
def test_images_that_are_not_annotated_do_not_count(labels):
    logits = torch.randn(2, 3, requires_grad=True)
    loss = masked_cross_entropy(logits, labels)
    assert torch.allclose(loss, cross_entropy(logits[:1], torch.tensor([2])))
    loss.backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[0] != 0).all()


def test_parts_of_a_step_add_up_to_the_whole_and_half_precision_gives_single():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, -100, 2])
    parts = [masked_cross_entropy(*part, 3) for part in zip(logits.split(1), labels.split(1), strict=True)]
    assert torch.allclose(sum(parts), masked_cross_entropy(logits, labels))
    assert masked_cross_entropy(logits.bfloat16(), labels).dtype == torch.float32
    assert masked_cross_entropy(logits, torch.full((4,), -100)).item() == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(2, 3, dtype=torch.long), r"torch.int64 of shape \(2, 3\); wanted the index"),
        (torch.ones(2), r"torch.float32 of shape \(2,\); wanted the index"),
        (torch.ones(2, 4), r"of shape \(2, 4\)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        masked_cross_entropy(torch.randn(2, 3), labels)


def test_regression_is_refused_in_words():
    with pytest.raises(ValueError, match="'regression', which this classifier has no loss for"):
        tiny_classifier(num_labels=1, problem_type="regression")
