"""How long a run took, over the processes that it was trained by."""

from types import SimpleNamespace

import pytest
import torch
from transformers.trainer_utils import TrainOutput

from medhiera.hub.training_record import TrainingRecord
from medhiera.layout import LOG_FILE

LOG = "step,epoch,seconds,loss\n480,3.2,309.9,0.26\n500,3.4,323.0,0.26\n500,3.4,325.6,\n"


def record(folder, seconds, rate, steps=500):
    args = SimpleNamespace(
        output_dir=str(folder), train_batch_size=16, gradient_accumulation_steps=2, world_size=1,
        device=torch.device("cpu"), load_best_model_at_end=False,
    )  # fmt: skip
    state = SimpleNamespace(global_step=steps, epoch=3.4, best_metric=0.96)
    trainer = SimpleNamespace(args=args, state=state, model=torch.nn.Linear(2, 1))
    metrics = {"train_runtime": seconds, "train_samples_per_second": rate}
    return TrainingRecord.of(trainer, TrainOutput(steps, 0.3, metrics))


def test_a_resume_that_trains_no_step_keeps_the_training_time(tmp_path):
    """As `--score_test true` on a finished run does."""
    (tmp_path / LOG_FILE).write_text(LOG)
    found = record(tmp_path, 0.0099, 0.0)
    assert found.seconds == 323.0
    assert found.images_per_second == pytest.approx(500 * 32 / 323.0, abs=1e-3)


def test_a_resumed_run_has_the_time_of_both_processes_and_the_pace_of_the_last(tmp_path):
    (tmp_path / LOG_FILE).write_text(LOG)
    found = record(tmp_path, 60.5, 48.1)
    assert (found.seconds, found.images_per_second) == (323.0, 48.1)


LATER = LOG + "500,3.4,340.2,\n"  # stage 1 validates when it has trained


@pytest.mark.parametrize("log", [None, "step,epoch,seconds,loss\n", LOG, LATER])
def test_a_run_of_one_process_has_the_trainers_numbers(log, tmp_path):
    if log is not None:
        (tmp_path / LOG_FILE).write_text(log)
    found = record(tmp_path, 325.8489, 49.103)
    assert (found.seconds, found.images_per_second) == (325.8489, 49.103)
