"""The Trainer of `target: features` and `both`: each batch gets a frozen teacher's features as its target.

Beside trainer.py, whose Trainer trains everything else. The teacher runs where the batch is prepared, outside
of the model: what compiles, averages, shards and saves the model knows nothing of it.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction

from medhiera.training.teacher import Teacher
from medhiera.training.trainer import MedHieraTrainer

PARTS = ("pixel_loss", "feature_loss")
"""What `target: both` adds up, each reported at every evaluation."""


class FeatureTrainer(MedHieraTrainer):
    """MedHieraTrainer for a masked autoencoder that predicts features; see `predict_features`.

    Args:
        teacher: on the device of training. A run that resumes must have the same.
        **kwargs: MedHieraTrainer's.
    """

    def __init__(self, *, teacher: Teacher, **kwargs: Any) -> None:
        super().__init__(compute_metrics=_mean_parts, **kwargs)
        self.teacher = teacher
        self._settings["teacher"] = teacher.fingerprint
        self._grid = self.model.decoder.grid
        self._parts: list[Tensor] = []

    def _model_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        prepared = super()._model_inputs(batch)
        pixels = prepared["pixel_values"]
        prepared["target_features"] = self.teacher.features(pixels, self.preprocessing, self._grid)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As transformers; keeps what the loss of an evaluated batch is the sum of."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if not model.training:
            self._parts = [outputs[name].detach().float() for name in PARTS if name in outputs]
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """The loss, and in place of predictions its parts, which transformers gathers as it does the loss.

        Returns:
            loss; (batch, parts) of equal rows; (batch,), which transformers asks for and nothing reads.
        """
        images = len(inputs["pixel_values"])
        loss, _, _ = super().prediction_step(model, inputs, True, ignore_keys)
        parts = torch.stack(self._parts).expand(images, -1).contiguous()
        return loss, parts, torch.zeros(images, device=parts.device)


def _mean_parts(predicted: EvalPrediction) -> dict[str, float]:
    """Means over the images of an evaluation, where there is more than one part."""
    means = predicted.predictions.mean(axis=0)
    return dict(zip(PARTS, means.tolist(), strict=True)) if len(means) > 1 else {}
