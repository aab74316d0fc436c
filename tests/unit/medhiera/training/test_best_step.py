"""Early stopping counts the evaluations since the best of all, whichever steps have a checkpoint."""

import math

import pytest
from tiny_training import make_trainer, tiny_classifier

from medhiera.config.arguments import OptimizationArguments
from medhiera.training.best_step import best_step

SCORES = {
    "falling from the first": ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0], 3),
    "best between two checkpoints": ([1, 2, 3, 4, 9, 8, 8.5, 8, 8, 8, 8, 8], 7),
    "equal to the best": ([1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10], 4),
    "rising": ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 12),
    "NaN": ([math.nan, 1, math.nan, 2, math.nan, math.nan, 3, 4, 5, 6, 7, 8], 6),
}
"""Scores of steps 1 to 12, and the step at which a patience of two ends the run."""


def patient_trainer(folder, scores, **arguments):
    """With a patience of two; each evaluation finds the next of the scores."""
    following = iter(scores)
    return make_trainer(
        folder, OptimizationArguments(schedule="trainer", early_stopping_patience=2), model=tiny_classifier(),
        compute_metrics=lambda predicted: {"score": next(following)},
        **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "max_steps": 12,
           "load_best_model_at_end": True, "metric_for_best_model": "score", "greater_is_better": True}
        | arguments,
    )  # fmt: skip


@pytest.mark.parametrize("save_steps", [1, 4, 10])
@pytest.mark.parametrize("case", SCORES)
def test_patience_counts_from_the_best_of_all_evaluations(case, save_steps, tmp_path):
    scores, end = SCORES[case]
    trainer = patient_trainer(tmp_path, scores, save_steps=save_steps)
    trainer.train()
    assert trainer.state.global_step == end


def test_patience_counts_from_the_smallest_where_that_is_the_best(tmp_path):
    scores, end = SCORES["best between two checkpoints"]
    lower = patient_trainer(tmp_path, [-score for score in scores], save_steps=4, greater_is_better=False)
    lower.train()
    assert lower.state.global_step == end


@pytest.mark.parametrize(
    ("scores", "save_steps", "resumed_at", "end"),
    [
        ([1, 2, 9, 8, 7, 9, 9, 9], 2, 4, 5),  # the best has no checkpoint, and one of two is spent
        ([1, 2, 9, 8, 7, 9, 9, 9], 1, 4, 5),
        ([1, 9, 8, 9.5, 9, 9, 9, 9], 2, 4, 6),  # none is spent
        ([1, 9, 8, 9.5, 9, 9, 9, 9], 1, 3, 6),
        ([1, 2, 9, 8, 9.5, 9, 9, 9], 2, 4, 7),  # the count begins anew after the checkpoint
    ],
)
def test_a_resumed_run_has_spent_as_much_patience(scores, save_steps, resumed_at, end, tmp_path):
    whole = patient_trainer(tmp_path, scores, save_steps=save_steps)
    whole.train()
    resumed = patient_trainer(tmp_path, scores[resumed_at:], save_steps=save_steps)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{resumed_at}"))
    assert whole.state.global_step == resumed.state.global_step == end
    assert whole.state.best_global_step == resumed.state.best_global_step


def test_the_best_step_is_the_first_of_equal_ones_and_never_nan():
    scores = {1: math.nan, 2: 0.5, 3: 0.7, 4: 0.7, 5: math.nan}
    assert (best_step(scores, True), best_step(scores, False)) == (3, 2)
    assert best_step({}, True) is None and best_step({1: math.nan}, True) is None
