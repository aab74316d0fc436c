"""Which evaluation of a run is its best so far, and early stopping, which counts those since.

Both are read from the log that each checkpoint holds, so a resumed run goes on with them.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


def evaluations(training: TrainingArguments, state: TrainerState) -> dict[int, float]:
    """`metric_for_best_model` of all evaluations so far, by step; not of the one before training.

    Args:
        training: of the run, with a `metric_for_best_model`.
        state: with the run's log.
    """
    name = f"eval_{str(training.metric_for_best_model).removeprefix('eval_')}"
    logged = [entry for entry in state.log_history if name in entry and entry["step"] > 0]
    return {int(entry["step"]): float(entry[name]) for entry in logged}


def best_step(scores: Mapping[int, float], greater_is_better: bool | None) -> int | None:
    """The step of the best score, of equal ones the first; None where there is none, or all are NaN.

    Args:
        scores: by step, in their order.
        greater_is_better: whether the largest is the best, else the smallest.
    """
    numbers = {step: score for step, score in scores.items() if not math.isnan(score)}
    choose = max if greater_is_better else min
    return choose(numbers, key=numbers.__getitem__, default=None)


class PatienceCallback(EarlyStoppingCallback):
    """transformers' early stopping, which counts the evaluations since the best of all.

    transformers asks `state.best_metric`, which is of the steps with a checkpoint alone.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run goes on with the count of its checkpoint."""
        super().on_train_begin(args, state, control, **kwargs)
        self._count(args, state)
        if self.is_spent:
            logger.info("early stopping had ended this run at step %d", state.global_step)

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: float
    ) -> None:
        """Count again: the evaluation at hand is already in the log."""
        self._count(args, state)

    @property
    def is_spent(self) -> bool:
        """Whether it ends the run, or had ended the one that was resumed."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def _count(self, args: TrainingArguments, state: TrainerState) -> None:
        scores = evaluations(args, state)
        best = best_step(scores, args.greater_is_better) or 0
        self.early_stopping_patience_counter = sum(step > best for step in scores)
