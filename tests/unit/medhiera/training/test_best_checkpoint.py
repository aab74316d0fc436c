"""The weights that are kept are those of the step that the record names as best."""

import shutil

import pytest
from safetensors.torch import load_file
from tiny_training import make_trainer, tiny_classifier, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.errors import CheckpointError


def scored_trainer(folder, scores, optimization=None, **arguments):
    """Each evaluation finds the next of the scores, whatever the model predicts."""
    following = iter(scores)
    return make_trainer(
        folder, optimization or OptimizationArguments(schedule="trainer"), model=tiny_classifier(),
        compute_metrics=lambda predicted: {"score": next(following)},
        **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
           "load_best_model_at_end": True, "metric_for_best_model": "score", "greater_is_better": True}
        | arguments,
    )  # fmt: skip


def is_of(trainer, checkpoint):
    expected = load_file(checkpoint / "model.safetensors")
    return all(bool((value == expected[name]).all()) for name, value in weights(trainer.model).items())


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """Of a run of four steps, the first the best, whose output_dir was relative; then we are elsewhere."""
    monkeypatch.chdir(tmp_path)
    trainer = scored_trainer("runs/s", [4, 3, 2, 1])
    trainer.train()
    assert is_of(trainer, tmp_path / "runs" / "s" / "checkpoint-1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "runs" / "s"


@pytest.mark.parametrize("max_steps", [4, 5])
def test_a_run_that_resumes_from_elsewhere_keeps_its_best_step(max_steps, run_folder):
    """The state says runs/s/checkpoint-1; transformers finds no such folder from here."""
    resumed = scored_trainer(run_folder, [0], max_steps=max_steps)
    resumed.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    assert resumed.state.best_global_step == 1
    assert is_of(resumed, run_folder / "checkpoint-1") and not is_of(resumed, run_folder / "checkpoint-4")


def test_a_run_does_not_resume_without_its_best_step(run_folder):
    shutil.rmtree(run_folder / "checkpoint-1")
    resumed = scored_trainer(run_folder, [0])
    with pytest.raises(CheckpointError, match="best step so far is 1, and no complete checkpoint-1"):
        resumed.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    last = scored_trainer(run_folder, [0], load_best_model_at_end=False)
    last.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    assert is_of(last, run_folder / "checkpoint-4")


STOPS = OptimizationArguments(schedule="trainer", early_stopping_patience=2)
RESTORED = {"restore_callback_states_from_checkpoint": True, "max_steps": 8}


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run whose patience of two ended it at step 3 of 8, the first the best."""
    trainer = scored_trainer(tmp_path, [4, 3, 2], STOPS, **RESTORED)
    trainer.train()
    assert trainer.state.global_step == 3
    return tmp_path


def test_a_run_that_early_stopping_ended_does_not_train_on_when_it_resumes(stopped, caplog):
    """Killed while it scored, and repeated: the next step would have been better."""
    resumed = scored_trainer(stopped, [9, 9], STOPS, **RESTORED)
    with caplog.at_level("INFO", logger="medhiera"):
        resumed.train(resume_from_checkpoint=str(stopped / "checkpoint-3"))
    assert (resumed.state.global_step, resumed.state.best_global_step) == (3, 1)
    assert is_of(resumed, stopped / "checkpoint-1")
    assert "early stopping had ended this run at step 3" in caplog.text


def test_a_run_that_early_stopping_ended_trains_on_with_more_patience(stopped):
    """transformers restores the checkpoint's patience too, and would end it one evaluation later."""
    patient = OptimizationArguments(schedule="trainer", early_stopping_patience=4)
    resumed = scored_trainer(stopped, [1, 0], patient, **RESTORED)
    resumed.train(resume_from_checkpoint=str(stopped / "checkpoint-3"))
    assert (resumed.state.global_step, resumed.state.best_global_step) == (5, 1)


def test_a_step_without_a_checkpoint_is_never_the_best(tmp_path):
    trainer = scored_trainer(tmp_path, [9, 1, 8, 3, 7, 2], save_steps=2, max_steps=6)
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (4, 3)
    assert is_of(trainer, tmp_path / "checkpoint-4") and not is_of(trainer, tmp_path / "checkpoint-6")
