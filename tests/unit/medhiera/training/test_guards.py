"""What ends a run, and what it says; real signals and full disks are in tests/e2e/test_ended_runs.py."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tiny_training import PREPROCESSING, make_rows, make_trainer
from transformers import TrainerCallback

from medhiera.config.arguments import OptimizationArguments
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.errors import UserError
from medhiera.fitting_batch import is_out_of_memory, largest_fitting
from medhiera.training import checkpoints, preemption
from medhiera.training.checkpoints import find_checkpoint, is_complete, last_checkpoint
from medhiera.training.out_of_memory import out_of_memory_message
from medhiera.training.preemption import PREEMPTED

SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}


class Poisoned(RadiographDataset):
    """One image's labels are infinite; a NaN label only says "not annotated"."""

    def __getitems__(self, keys):
        batch = super().__getitems__(keys)
        for image_id, labels in zip(batch["image_ids"], batch["labels"], strict=True):
            if image_id == "image 5":
                labels.fill_(np.inf)
        return batch


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_images(tmp_path):
    table = Poisoned(make_rows(), PREPROCESSING, with_labels=True)
    trainer = make_trainer(tmp_path, table=table, per_device_train_batch_size=4, **SAVING)
    with pytest.raises(UserError, match=r"loss of step \d is not a finite number.*nonfinite_batch.json"):
        trainer.train()
    record = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert "image 5" in record["image_ids"] and len(record["image_ids"]) == 4
    assert record["step"] <= 4
    assert not (tmp_path / f"checkpoint-{record['step']}").exists()  # nothing is saved after it
    make_trainer(tmp_path)
    assert not (tmp_path / "nonfinite_batch.json").exists(), "the next run names its own images"


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    trainer = make_trainer(tmp_path, **SAVING)

    class Overflow(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                model.classifier.bias.data[0] = float("inf")

    trainer.add_callback(Overflow())
    with pytest.raises(UserError, match="after step 3 weights of the model are not finite"):
        trainer.train()
    assert find_checkpoint(tmp_path, True) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("limit", [63, 8, 1, 0])
def test_the_largest_half_that_fits_is_found_by_trying(limit):
    tried = []

    def attempt(count):
        tried.append(count)
        if count > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    assert largest_fitting(attempt, 64) == {63: 32, 8: 8, 1: 1, 0: 0}[limit]
    assert tried == sorted(tried) and tried[-1] <= 32 and tried[-2:-1] <= [limit]


def test_another_error_while_trying_is_not_hidden():
    def attempt(count):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        largest_fitting(attempt, 64)


def limit_memory(model, images):
    """Make the model's forward pass run out of memory with more images than these."""
    forward = model.forward

    def short_of_memory(pixel_values, **inputs):
        if len(pixel_values) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(pixel_values, **inputs)

    model.forward = short_of_memory


def test_out_of_memory_names_what_fits_and_keeps_the_global_batch(tmp_path):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2)
    limit_memory(trainer.model, images=2)
    with pytest.raises(
        UserError, match="a batch of 8 images does not fit; 2 of the same images do"
    ) as caught:
        trainer.train()
    assert "per_device_train_batch_size: 2 and gradient_accumulation_steps: 8" in str(caught.value)
    assert "each of the same weight" in str(caught.value)
    assert "neither does one image" in out_of_memory_message(8, 0, trainer.args)


@pytest.mark.parametrize(
    ("batch", "accumulation", "fitting", "advice"),
    [(100, 1, 12, (10, 10)), (8, 3, 7, (6, 4)), (7, 1, 3, (1, 7)), (6, 2, 1, (1, 12))],
)
def test_what_is_advised_against_no_memory_keeps_the_images_a_step(
    batch, accumulation, fitting, advice, tmp_path
):
    """12 of 100 images fit: with 9 batches of 12 a step would have 108, and no run resumes so."""
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    said = out_of_memory_message(batch, fitting, make_trainer(tmp_path, **arguments).args)
    words = f"per_device_train_batch_size: {advice[0]} and gradient_accumulation_steps: {advice[1]};"
    assert words in said and advice[0] * advice[1] == batch * accumulation
    said = out_of_memory_message(
        batch, fitting, make_trainer(tmp_path, dataloader_drop_last=True, **arguments).args
    )
    assert "is another run: start it anew" in said and "same images as before" not in said


def test_out_of_memory_with_mixup_does_not_promise_the_same_result(tmp_path):
    trainer = make_trainer(tmp_path, collator=RadiographCollator(with_ids=True, mixup_alpha=0.8))
    limit_memory(trainer.model, images=2)
    with pytest.raises(UserError, match="per_device_train_batch_size: 2 and .*start it anew") as caught:
        trainer.train()
    assert "result is the same" not in str(caught.value)
    limit_memory(trainer.model, images=1)  # fewer than the recipe may have with Mixup
    with pytest.raises(UserError, match="no smaller one that Mixup can mix does"):
        trainer.train()


def test_out_of_memory_in_evaluation_names_its_own_batch(tmp_path):
    trainer = make_trainer(tmp_path, per_device_eval_batch_size=16)
    limit_memory(trainer.model, images=8)
    with pytest.raises(UserError, match="in evaluation: a batch of 16 .* per_device_eval_batch_size: 8"):
        trainer.evaluate()


@pytest.mark.parametrize("halts", [False, True])
def test_an_exploding_loss_is_said_in_words_and_halts_by_choice(halts, tmp_path, caplog):
    trainer = make_trainer(
        tmp_path, OptimizationArguments(schedule="trainer", halt_on_explosion=halts), learning_rate=1.0,
        eval_on_start=True, eval_strategy="steps", eval_steps=2, max_steps=8, warmup_steps=2,
    )  # fmt: skip
    if halts:
        with pytest.raises(UserError, match="exploding loss.*likely cause is the learning rate"):
            trainer.train()
        assert trainer.state.global_step == 4  # not at 2, which is still warm-up
    else:
        trainer.train()
        assert "exploding loss" in caplog.text and trainer.state.global_step == 8


def test_a_loss_that_falls_is_left_alone(tmp_path, caplog):
    trainer = make_trainer(
        tmp_path, learning_rate=1e-3, eval_on_start=True, eval_strategy="steps", eval_steps=2, max_steps=4
    )
    trainer.train()
    assert "exploding" not in caplog.text


class Terminate(TrainerCallback):
    """Really sends this process a signal in the middle of a step."""

    def __init__(self, step, number=signal.SIGTERM, times=1):
        self.step, self.number, self.times = step, number, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("step", "epoch_steps"), [(3, 4), (4, 4)], ids=["mid epoch", "epoch's end"])
def test_sigterm_writes_a_checkpoint_and_ends_with_143(step, epoch_steps, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    arguments = {
        "per_device_train_batch_size": 4, "max_steps": 8, "save_strategy": "epoch", "eval_strategy": "epoch",
        "save_total_limit": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
    }  # fmt: skip
    try:
        trainer = make_trainer(tmp_path, **arguments)
        trainer.add_callback(Terminate(step))
        with pytest.raises(SystemExit) as ended:
            trainer.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == PREEMPTED == 143
    assert is_complete(tmp_path / f"checkpoint-{step}")
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluated) == (step == epoch_steps)  # the epoch's evaluation is not lost


@pytest.mark.parametrize(
    ("times", "passed_on", "written"),
    [(1, 1.0, True), (2, 1.0, True), (2, -1.0, False)],
    ids=["once", "passed on by a launcher", "twice"],
)
def test_ctrl_c_is_behind_a_checkpoint_and_a_second_one_is_not(
    times, passed_on, written, tmp_path, monkeypatch
):
    """As KeyboardInterrupt: who trains in a notebook sees what Python raises there."""
    monkeypatch.setattr(preemption, "PASSED_ON", passed_on)
    trainer = make_trainer(tmp_path)
    trainer.add_callback(Terminate(3, signal.SIGINT, times))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert is_complete(tmp_path / "checkpoint-3") == written
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_caller_who_handles_ctrl_c_keeps_that(tmp_path):
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        trainer = make_trainer(tmp_path)
        trainer.add_callback(Terminate(2, signal.SIGINT))
        trainer.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [1] and trainer.state.global_step == 4


def test_a_run_that_is_not_ended_gives_the_signals_back(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    make_trainer(tmp_path).train()
    assert [signal.getsignal(number) for number in numbers] == before


def test_what_a_killed_write_left_does_not_count(tmp_path, caplog):
    steady = OptimizationArguments(schedule="trainer")
    saving = SAVING | {"save_total_limit": 2, "lr_scheduler_type": "constant"}  # others cannot be made longer
    make_trainer(tmp_path, steady, **saving | {"max_steps": 4}).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    optimizer = tmp_path / "checkpoint-4" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    args = make_trainer(tmp_path, **SAVING).args
    args.resume_from_checkpoint = "true"
    found = last_checkpoint(args)
    assert found == str(tmp_path / "checkpoint-3")
    assert "checkpoint-4 is incomplete" in caplog.text
    resumed = make_trainer(tmp_path, steady, **saving)
    resumed.train(resume_from_checkpoint=found)
    left = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert left == ["checkpoint-5", "checkpoint-6"]
    assert all(is_complete(tmp_path / name) for name in left)


def test_a_damaged_checkpoint_by_name_is_refused(tmp_path):
    make_trainer(tmp_path, **SAVING | {"max_steps": 1}).train()
    (tmp_path / "checkpoint-1" / "optimizer.pt").unlink()
    with pytest.raises(UserError, match="is incomplete"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-1"))
    with pytest.raises(UserError, match="nothing to resume: checkpoint-1 in .* is incomplete"):
        find_checkpoint(tmp_path, True)
    assert find_checkpoint(tmp_path, None) is None  # nothing there that a new run could spoil


@pytest.mark.parametrize("where", ["torch.save", "medhiera.training.ema.save_file", "safetensors"])
def test_a_write_that_fails_leaves_the_checkpoint_before_it(where, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, OptimizationArguments(ema_decay=0.5), **SAVING | {"save_total_limit": 1})

    class FillDisk(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                if where == "safetensors":
                    monkeypatch.setattr(trainer.model, "save_pretrained", fail)
                else:
                    monkeypatch.setattr(where, fail)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    trainer.add_callback(FillDisk())
    with pytest.raises(
        UserError, match="checkpoint-3 could not be written.*checkpoint-2 before it is complete"
    ):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert is_complete(tmp_path / "checkpoint-2")


def test_the_first_checkpoint_that_fails_says_there_is_none(tmp_path):
    shutil.rmtree(tmp_path)
    message = checkpoints.failed_write_message(
        tmp_path / "checkpoint-1", OSError(28, "No space left on device")
    )
    assert "there is none before it" in message and "No space left" in message


@pytest.mark.parametrize(
    ("error", "is_write"),
    [
        (OSError(28, "No space left on device"), True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, is_write, tmp_path):
    """The words of Python, safetensors and torch on a tmpfs of 200 kB."""
    assert checkpoints.is_failed_write(error) == is_write
    assert "inline_container" not in checkpoints.failed_write_message(tmp_path / "checkpoint-1", error)


def test_memory_is_told_from_other_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(UserError("out of memory: 8 fit"))
