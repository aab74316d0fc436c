"""How a run's training went, as its record says it.

Below record.py.
"""

from dataclasses import dataclass

from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from medhiera.evaluation.checkpoint_selection import Selection


@dataclass
class TrainingRecord:
    """How training went."""

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    parameters: int
    best_step: int | None
    best_validation: float | None
    selection: Selection | None = None

    @classmethod
    def of(
        cls, trainer: Trainer, result: TrainOutput, selection: Selection | None = None
    ) -> "TrainingRecord":
        """From the Trainer, when it has trained."""
        state = trainer.state
        return cls(
            steps=state.global_step,
            epochs=float(state.epoch or 0.0),
            seconds=result.metrics["train_runtime"],
            images_per_second=result.metrics["train_samples_per_second"],
            parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
            best_step=state.best_global_step if trainer.args.load_best_model_at_end else None,
            best_validation=state.best_metric,
            selection=selection,
        )
