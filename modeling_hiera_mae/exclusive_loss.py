"""The loss of labels that exclude each other, and whether a classifier's labels do.

The classifier's forward asks here which of its two losses applies; binary cross-entropy of labels that may
occur together stands beside the classifier.
"""

import torch
from torch.nn import functional
from transformers import PretrainedConfig

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
"""transformers' problem types; the first has integer labels and a softmax in its pipeline."""

_NOT_ANNOTATED = -100  # transformers' and torch's own


def problem_type_of(config: PretrainedConfig, labels: torch.Tensor) -> str:
    """The problem type by which labels are measured: the configuration's; where it has none, by stock's rule.

    Args:
        config: of a classifier.
        labels: its labels, of any shape; only their type counts.

    Returns:
        SINGLE_LABEL or MULTI_LABEL.

    Raises:
        ValueError: neither: stock would measure one label by regression.
    Source: transformers' ForSequenceClassificationLoss.
    """
    if config.problem_type is not None:
        return str(config.problem_type)
    if config.num_labels == 1:
        raise ValueError(
            "problem_type is None and the model has one label: transformers takes that for regression, which "
            f"this classifier has no loss for. Set model.config.problem_type to {MULTI_LABEL!r} where the "
            "label is present or absent."
        )
    return SINGLE_LABEL if labels.dtype in (torch.int64, torch.int32) else MULTI_LABEL


def applies_softmax(config: PretrainedConfig) -> bool:
    """Whether a classifier's probabilities are a softmax of its logits and no sigmoid of each.

    As transformers' pipeline decides it: several labels exclude each other unless the configuration says that
    they do not.
    """
    return bool(config.problem_type != MULTI_LABEL and config.num_labels > 1)


def masked_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy over annotated images; shapes do not depend on how many there are.

    Args:
        logits: (batch, num_labels).
        labels: (batch,), the index of each image's label as in transformers, -100 where it is not annotated;
            or (batch, num_labels), floating point: shares that sum to 1 (a 1 and zeros, or what Mixup makes
            of them), NaN where it is not annotated.
        num_items_in_batch: divide by this instead of by the annotated images here.

    Returns:
        A scalar, at least float32; 0 where nothing is annotated.

    Raises:
        ValueError: labels are of another shape or type.
    """
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
    if labels.shape == logits.shape and labels.is_floating_point():
        is_annotated = ~labels.isnan().any(dim=1)
        shares = torch.where(is_annotated[:, None], labels, 0).to(scores.dtype)
        total = -(shares * scores).sum()
    elif labels.shape == logits.shape[:1] and labels.dtype in (torch.int64, torch.int32, torch.int16):
        labels = labels.long()
        is_annotated = labels != _NOT_ANNOTATED
        total = functional.nll_loss(scores, labels, ignore_index=_NOT_ANNOTATED, reduction="sum")
    else:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; wanted the index of each image's "
            f"label, int64 of shape {tuple(logits.shape[:1])}, or shares that sum to 1, floating point of "
            f"shape {tuple(logits.shape)}. Where an image may have several labels, call labels.float() and "
            f"set problem_type to {MULTI_LABEL}."
        )
    if num_items_in_batch is None:
        return total / is_annotated.sum().clamp(min=1)
    return total / num_items_in_batch
