"""Stage 2's training losses beside plain binary cross-entropy; evaluation always reports the plain one.

The model's own loss is the paper's. These reach the Trainer as its `compute_loss_func`, with the same
division by the annotated labels of the whole optimizer step.
"""

from dataclasses import dataclass
from typing import Any

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor

from medhiera.config.stage_arguments import ClassificationArguments
from modeling_hiera_mae.modeling_hiera import masked_binary_cross_entropy


@dataclass(frozen=True)
class TrainingLoss:
    """Label smoothing and the asymmetric loss, over annotated labels alone.

    Args:
        label_smoothing: moves labels towards one half by this share.
        is_asymmetric: focus on hard positives and drop easy negatives.

    Source: Ridnik et al. 2021, arXiv:2009.14119, in timm's implementation with its γ- 4, γ+ 1, margin 0.05.
    """

    label_smoothing: float = 0.0
    is_asymmetric: bool = False

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The loss of one batch, as the Trainer asks for it.

        Args:
            outputs: the model's, with `logits` (batch, findings).
            labels: (batch, findings); 1, 0, between them after Mixup, or NaN.
            num_items_in_batch: annotated labels of the whole optimizer step, to divide by.
        """
        logits = outputs["logits"]
        if not logits.requires_grad:  # evaluation: the same measure for every recipe
            return masked_binary_cross_entropy(logits, labels, num_items_in_batch)
        smooth = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing  # NaN stays NaN
        if not self.is_asymmetric:
            return masked_binary_cross_entropy(logits, smooth, num_items_in_batch)
        is_annotated = ~labels.isnan()
        each = AsymmetricLossMultiLabel(reduction="none")(logits, torch.where(is_annotated, smooth, 0))
        total = torch.where(is_annotated, each, 0).sum()
        return total / (is_annotated.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def choose_loss(options: ClassificationArguments) -> TrainingLoss | None:
    """The recipe's loss, or None where the model's own is it."""
    if options.loss == "bce" and not options.label_smoothing:
        return None
    return TrainingLoss(options.label_smoothing, options.loss == "asymmetric")
