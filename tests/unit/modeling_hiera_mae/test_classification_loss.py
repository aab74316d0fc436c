import pytest
import torch
from model_configs import tiny_classifier
from torch.nn.functional import binary_cross_entropy_with_logits

from modeling_hiera_mae.modeling_hiera import masked_binary_cross_entropy

NAN = float("nan")


def test_labels_that_are_not_annotated_do_not_count():
    logits = torch.randn(2, 3, requires_grad=True)
    labels = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 1.0]])
    loss = masked_binary_cross_entropy(logits, labels)
    annotated = ~labels.isnan()
    assert torch.allclose(loss, binary_cross_entropy_with_logits(logits[annotated], labels[annotated]))
    loss.backward()
    assert (logits.grad[~annotated] == 0).all()
    assert (logits.grad[annotated] != 0).all()


def test_nothing_annotated_is_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = masked_binary_cross_entropy(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_parts_of_a_step_add_up_to_the_whole():
    logits = torch.randn(4, 3)
    labels = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN], [1.0, 1.0, 0.0], [NAN, 0.0, 1.0]])
    items = (~labels.isnan()).sum()
    parts = [
        masked_binary_cross_entropy(a, b, items)
        for a, b in zip(logits.split(1), labels.split(1), strict=True)
    ]
    assert torch.allclose(sum(parts), masked_binary_cross_entropy(logits, labels))


def test_half_precision_logits_give_a_single_precision_loss():
    loss = masked_binary_cross_entropy(torch.randn(2, 3).bfloat16(), torch.ones(2, 3))
    assert loss.dtype == torch.float32


def test_logits_are_the_same_in_training_and_evaluation():
    model = tiny_classifier()
    images = torch.randn(2, 3, 64, 64)
    evaluation = model(images).logits
    assert torch.allclose(model.train()(images).logits, evaluation, atol=1e-5)
    assert model(images).loss is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(2, 3, dtype=torch.long), r"torch.int64; wanted floating point.*labels.float\(\)"),
        (torch.ones(2, 4), r"shape \(2, 4\); wanted \(2, 3\)"),
        (torch.ones(2), r"shape \(2,\); wanted \(2, 3\)"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    model = tiny_classifier(problem_type="multi_label_classification")
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(2, 3, 64, 64), labels=labels)
