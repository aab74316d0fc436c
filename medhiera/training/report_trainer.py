"""The Trainer of models that write reports: it writes on validation, by what the best checkpoint is chosen.

Stands on trainer.py, of which all guards, the order and the average are.
"""

from typing import Any

import torch

from medhiera.data.report_dataset import model_inputs
from medhiera.fitting_batch import is_out_of_memory
from medhiera.training.out_of_memory import end_writing
from medhiera.training.trainer import MedHieraTrainer


class ReportTrainer(MedHieraTrainer):
    """MedHieraTrainer whose batches are studies, and whose predictions are the tokens of written reports."""

    def _model_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        return model_inputs(self.preprocessing, batch, self.model.config.encoder.num_channels)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """The loss of the references, and where asked for the tokens that the model writes by itself.

        Raises:
            UserError: the batch does not fit.
        """
        kept = {name: inputs[name] for name in ("pixel_values", "has_view")}
        loss, _, _ = super().prediction_step(model, inputs, True, ignore_keys)
        if prediction_loss_only:
            return loss, None, None
        writer: Any = self.accelerator.unwrap_model(model, keep_torch_compile=False)

        def write(part: dict[str, Any]) -> torch.Tensor:
            prepared = self._prepare_inputs(part)
            with torch.inference_mode():
                tokens: torch.Tensor = writer.write(prepared["pixel_values"], prepared["has_view"])
            return tokens

        written = None
        try:
            written = write(kept)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if written is None:  # outside the handler, so that the failed batch's tensors are gone
            end_writing(write, kept)
        length = writer.generation_config.max_new_tokens + 1  # the same in every batch and on every rank
        padding = writer.generation_config.pad_token_id
        tokens = written.new_full((len(written), length), padding)
        tokens[:, : written.shape[1]] = written[:, :length]
        # transformers computes metrics only where there are labels; compute_metrics has the references.
        return loss, tokens.clone(), tokens[:, 0].clone()
