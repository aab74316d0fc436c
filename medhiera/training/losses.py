"""Stage 2's training losses beside plain binary cross-entropy; evaluation always reports the plain one.

The model's own loss is the paper's. These reach the Trainer as its `compute_loss_func`, with the same
division by the annotated labels of the whole optimizer step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from transformers import PretrainedConfig

from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.errors import UserError
from modeling_hiera_mae.exclusive_loss import SINGLE_LABEL, masked_cross_entropy
from modeling_hiera_mae.modeling_hiera import masked_binary_cross_entropy


@dataclass(frozen=True)
class TrainingLoss:
    """Label smoothing and the asymmetric loss, over annotated labels alone.

    Args:
        label_smoothing: moves labels towards one half by this share.
        is_asymmetric: focus on hard positives and drop easy negatives.
        is_exclusive: each image has exactly one label: cross-entropy, smoothed towards equal shares.

    Source: Ridnik et al. 2021, arXiv:2009.14119, in timm's implementation with its γ- 4, γ+ 1, margin 0.05.
    """

    label_smoothing: float = 0.0
    is_asymmetric: bool = False
    is_exclusive: bool = False

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
        if self.is_exclusive:
            smoothing = self.label_smoothing if logits.requires_grad else 0.0
            smooth = labels * (1 - smoothing) + smoothing / labels.shape[1]
            return masked_cross_entropy(logits, smooth, num_items_in_batch)
        if not logits.requires_grad:  # evaluation: the same measure for every recipe
            return masked_binary_cross_entropy(logits, labels, num_items_in_batch)
        smooth = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing  # NaN stays NaN
        if not self.is_asymmetric:
            return masked_binary_cross_entropy(logits, smooth, num_items_in_batch)
        is_annotated = ~labels.isnan()
        each = AsymmetricLossMultiLabel(reduction="none")(logits, torch.where(is_annotated, smooth, 0))
        total = torch.where(is_annotated, each, 0).sum()
        return total / (is_annotated.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def countable_labels(batch: Mapping[str, Tensor], config: PretrainedConfig) -> Mapping[str, Tensor]:
    """A batch's labels as transformers counts them, every one that is not -100; ours are NaN where unknown.

    Args:
        batch: perhaps with `labels`, (batch, findings).
        config: the model's; of single-label classification an image counts once.
    """
    if "labels" not in batch:
        return batch
    width = 1 if config.problem_type == SINGLE_LABEL else None
    return {"labels": batch["labels"][:, :width].nan_to_num(nan=-100.0)}


def choose_loss(options: ClassificationArguments, is_exclusive: bool = False) -> TrainingLoss | None:
    """The recipe's loss, or None where the model's own is it.

    Args:
        options: of the recipe.
        is_exclusive: each image of the data has exactly one label.

    Raises:
        UserError: the recipe asks for what is of several labels alone.
    """
    if is_exclusive:
        fault = "loss: asymmetric" if options.loss == "asymmetric" else "legacy_head"
        if options.loss == "asymmetric" or options.legacy_head:
            raise UserError(
                f"{fault} is for images that may have several labels; of this data each image has exactly "
                "one, so leave it out"
            )
        return TrainingLoss(options.label_smoothing, is_exclusive=True) if options.label_smoothing else None
    if options.loss == "bce" and not options.label_smoothing:
        return None
    return TrainingLoss(options.label_smoothing, options.loss == "asymmetric")
