"""The weights that are kept are those of the step that the record names as best."""

import json
import shutil

import pytest
from safetensors.torch import load_file
from tiny_training import make_trainer, tiny_classifier, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.errors import UserError
from medhiera.training.checkpoints import mark_complete


def scored_trainer(folder, scores, optimization=None, **arguments):
    """Each evaluation finds the next of the scores, whatever the model predicts."""
    following = iter(scores)
    return make_trainer(
        folder, optimization or OptimizationArguments(schedule="trainer"), model=tiny_classifier(),
        compute_metrics=lambda predicted: {"score": next(following)},
        **{"lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 1,
           "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True,
           "metric_for_best_model": "score", "greater_is_better": True}
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
    with pytest.raises(UserError, match="best step so far is 1, and no complete checkpoint-1"):
        resumed.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    last = scored_trainer(run_folder, [0], load_best_model_at_end=False)
    last.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
    assert is_of(last, run_folder / "checkpoint-4")


STOPS = OptimizationArguments(schedule="trainer", early_stopping_patience=2)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run whose patience of two ended it at step 3 of 8, the first the best."""
    trainer = scored_trainer(tmp_path, [4, 3, 2], STOPS, max_steps=8)
    trainer.train()
    assert trainer.state.global_step == 3
    return tmp_path


def test_a_run_that_early_stopping_ended_does_not_train_on_when_it_resumes(stopped, caplog):
    """Killed while it scored, and repeated: the next step would have been better."""
    resumed = scored_trainer(stopped, [9, 9], STOPS, max_steps=8)
    with caplog.at_level("INFO", logger="medhiera"):
        resumed.train(resume_from_checkpoint=str(stopped / "checkpoint-3"))
    assert (resumed.state.global_step, resumed.state.best_global_step) == (3, 1)
    assert is_of(resumed, stopped / "checkpoint-1")
    assert "early stopping had ended this run at step 3" in caplog.text


def test_a_run_that_early_stopping_ended_trains_on_with_more_patience(stopped):
    """It counts by this command's patience, not by its checkpoint's."""
    patient = OptimizationArguments(schedule="trainer", early_stopping_patience=4)
    resumed = scored_trainer(stopped, [1, 0], patient, max_steps=8)
    resumed.train(resume_from_checkpoint=str(stopped / "checkpoint-3"))
    assert (resumed.state.global_step, resumed.state.best_global_step) == (5, 1)


def test_a_step_without_a_checkpoint_is_never_the_best(tmp_path):
    trainer = scored_trainer(tmp_path, [9, 1, 8, 3, 7, 2], save_steps=2, max_steps=6)
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (4, 3)
    assert is_of(trainer, tmp_path / "checkpoint-4") and not is_of(trainer, tmp_path / "checkpoint-6")


def call_best(checkpoint, **best):
    """Let a checkpoint's state name another best step, as an earlier version wrote it."""
    path = checkpoint / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | best))
    mark_complete(checkpoint)


@pytest.mark.parametrize("noted", [None, "checkpoint-2"])
def test_a_best_step_that_was_never_saved_gives_way_to_the_best_that_was(noted, tmp_path, caplog):
    """Those versions kept the folder of the best step before it, or none."""
    scored_trainer(tmp_path, [9, 4, 8, 3], save_steps=2).train()
    noted = noted and str(tmp_path / noted)
    call_best(tmp_path / "checkpoint-4", best_global_step=1, best_metric=9.0, best_model_checkpoint=noted)
    resumed = scored_trainer(tmp_path, [8, 2], save_steps=2, max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert (resumed.state.best_global_step, resumed.state.best_metric) == (2, 4)
    assert is_of(resumed, tmp_path / "checkpoint-2") and not is_of(resumed, tmp_path / "checkpoint-6")
    assert "names step 1 as the best so far, which was never saved" in caplog.text
    assert "The best of those that were saved is step 2" in caplog.text


def test_a_later_step_may_be_better_than_the_best_that_was_saved(tmp_path):
    """It need not reach the score of the step that was never saved."""
    scored_trainer(tmp_path, [9, 4, 8, 3], save_steps=2).train()
    call_best(tmp_path / "checkpoint-4", best_global_step=1, best_metric=9.0, best_model_checkpoint=None)
    resumed = scored_trainer(tmp_path, [8, 5], save_steps=2, max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert (resumed.state.best_global_step, resumed.state.best_metric) == (6, 5)
    assert is_of(resumed, tmp_path / "checkpoint-6")


def test_a_best_step_is_forgotten_where_no_saved_one_has_a_score(tmp_path, caplog):
    """As in a checkpoint that SIGTERM asked for between two evaluations, before the first of the others."""
    scored_trainer(tmp_path, [9, 9], save_steps=2, max_steps=2).train()
    first = tmp_path / "checkpoint-2"
    evaluated = [{"step": 1, "epoch": 0.5, "eval_loss": 1.0, "eval_score": 9.0}]
    call_best(first, best_global_step=1, best_metric=9.0, best_model_checkpoint=None, log_history=evaluated)
    resumed = scored_trainer(tmp_path, [8, 5], save_steps=2)
    resumed.train(resume_from_checkpoint=str(first))
    assert (resumed.state.best_global_step, resumed.state.best_metric) == (4, 5)
    assert "None that was saved has a score" in caplog.text
