"""Training on labels that exclude each other: what counts, the losses, the bias of a new head."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PretrainedConfig

from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.errors import UserError
from medhiera.training.losses import TrainingLoss, choose_loss, countable_labels
from medhiera.training.model import set_prior_bias
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL, SINGLE_LABEL, masked_cross_entropy

NAN = float("nan")
LABELS = torch.tensor([[1.0, 0, 0], [NAN, NAN, NAN], [0, 0, 1.0], [0, 1.0, 0]])


def count(problem_type: str) -> int:
    batch = countable_labels({"labels": LABELS}, PretrainedConfig(problem_type=problem_type))
    return int(batch["labels"].ne(-100).sum())


def test_an_image_counts_once_whatever_its_number_of_labels():
    assert count(SINGLE_LABEL) == 3
    assert count(MULTI_LABEL) == 9
    assert countable_labels({"noise": LABELS}, PretrainedConfig(problem_type=None)) == {"noise": LABELS}


@pytest.mark.parametrize("loss", [masked_cross_entropy, TrainingLoss(0.2, is_exclusive=True)])
def test_accumulated_batches_of_one_are_the_whole_batch(loss):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def of(rows: slice, items: int | None) -> torch.Tensor:
        given = logits[rows] if loss is masked_cross_entropy else {"logits": logits[rows]}
        return loss(given, LABELS[rows], items)

    parts = sum(of(slice(row, row + 1), count(SINGLE_LABEL)) for row in range(4))
    assert torch.allclose(parts, of(slice(None), None))


def test_smoothing_is_towards_equal_shares_and_of_training_alone():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    known = torch.tensor([0, 2, 3])
    wanted = cross_entropy(logits[known], LABELS[known].argmax(1), label_smoothing=0.2)
    loss = TrainingLoss(0.2, is_exclusive=True)
    assert torch.allclose(loss({"logits": logits}, LABELS), wanted)
    plain = masked_cross_entropy(logits.detach(), LABELS)
    assert torch.allclose(loss({"logits": logits.detach()}, LABELS), plain)


def test_what_is_of_several_labels_alone_is_refused():
    assert choose_loss(ClassificationArguments(), is_exclusive=True) is None
    assert choose_loss(ClassificationArguments(label_smoothing=0.1), True) == TrainingLoss(0.1, False, True)
    with pytest.raises(UserError, match="loss: asymmetric is for images that may have several labels"):
        choose_loss(ClassificationArguments(loss="asymmetric"), is_exclusive=True)
    with pytest.raises(UserError, match="legacy_head is for images"):
        choose_loss(ClassificationArguments(legacy_head=True), is_exclusive=True)


def test_a_new_head_starts_at_the_shares_of_the_classes():
    head = torch.nn.Linear(4, 3)
    labels = torch.eye(3)[torch.tensor([0] * 60 + [1] * 30 + [2] * 10)]
    set_prior_bias(head, labels, is_exclusive=True)
    torch.testing.assert_close(head.bias.softmax(0), torch.tensor([0.6, 0.3, 0.1]), atol=0.01, rtol=0)
