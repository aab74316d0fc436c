"""Which rows the Trainer's workers read, and how long the workers live."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_classifier, weights
from transformers import TrainerCallback

from medhiera.data.dataset import KeyedSampler, RadiographDataset
from medhiera.training.preemption import PreemptionCallback

TWO_EPOCHS = {
    "max_steps": -1,
    "num_train_epochs": 2,
    "eval_strategy": "epoch",
    "per_device_eval_batch_size": 8,
}
WORKERS = {"dataloader_num_workers": 2}
KEPT = WORKERS | {"dataloader_persistent_workers": True}
SAVING = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3}  # four steps an epoch


class LoggedRows(RadiographDataset):
    """Says in a file which process reads which row in which epoch."""

    def __init__(self, path, **options):
        super().__init__(make_rows(32), PREPROCESSING, with_labels=True, **options)
        self.path = path

    def __getitems__(self, keys):
        lines = [f"{os.getpid()} {epoch} {row}\n" for epoch, row in keys]
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, "".join(lines).encode())
        os.close(file)
        return super().__getitems__(keys)

    def read(self):
        """(process, epoch, row) of all that was read."""
        return [tuple(map(int, line.split())) for line in self.path.read_text().splitlines()]


def train(folder, name, resume=None, **options):
    """A run's trainer, and what its dataset says was read."""
    table = LoggedRows(folder / f"{name}.rows")
    trainer = make_trainer(folder / "run", table=table, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, table.read()


def workers_now():
    return {process.pid for process in multiprocessing.active_children() if process.is_alive()}


class Living(TrainerCallback):
    """The processes that live after each validation."""

    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, **kwargs):
        self.seen.append(workers_now())


def test_workers_live_as_long_as_training_and_read_what_is_read_without_them(tmp_path):
    before, living = workers_now(), Living()
    alone, expected = train(tmp_path, "alone", **TWO_EPOCHS)
    kept, read = train(tmp_path, "kept", callbacks=[living], **TWO_EPOCHS | KEPT)
    assert workers_now() == before
    assert sorted(entry[1:] for entry in read) == sorted(entry[1:] for entry in expected)
    processes = [{process for process, epoch, _ in read if epoch == which} for which in (0, 1)]
    assert processes[0] == processes[1] and len(processes[0]) == 2
    first, second = (seen - before for seen in living.seen)
    assert first == second and len(first) == 4  # two read for training, two for validation
    same = weights(alone.model)
    assert all(torch.equal(same[name], tensor) for name, tensor in weights(kept.model).items())
    losses = [[entry["eval_loss"] for entry in each.state.log_history if "eval_loss" in entry]
              for each in (alone, kept)]  # fmt: skip
    assert losses[0] == losses[1]


def test_workers_that_are_not_kept_are_others_in_each_epoch(tmp_path):
    read = train(tmp_path, "renewed", **TWO_EPOCHS | WORKERS)[1]
    processes = [{process for process, epoch, _ in read if epoch == which} for which in (0, 1)]
    assert not processes[0] & processes[1]


@pytest.mark.parametrize("options", [{}, KEPT], ids=["no workers", "kept workers"])
def test_a_run_that_resumes_within_an_epoch_reads_on_and_nothing_again(options, tmp_path):
    """After step 3 of 4 an epoch's last batch is left; then comes the whole of the next.

    The model draws too (drop path), from the generator that starting workers must leave alone.
    """
    before, living = workers_now(), Living()
    whole, _ = train(tmp_path, "whole", model=tiny_classifier(drop_path_rate=0.5), **SAVING | options)
    checkpoint = str(tmp_path / "run" / "checkpoint-3")
    watched = {"callbacks": [living], "eval_strategy": "steps", "eval_steps": 6}
    model = tiny_classifier(drop_path_rate=0.5)
    resumed, read = train(tmp_path, "resumed", checkpoint, model=model, **SAVING | options | watched)
    order = KeyedSampler(32, resumed.args.seed)
    expected = []
    for epoch, done in ((0, 24), (1, 0)):
        order.set_epoch(epoch)
        expected += list(order)[done:]
    rows = [(epoch, row) for _, epoch, row in read]
    assert sorted(rows) == sorted(expected)
    if not options:
        assert rows == expected
    # The workers of the epoch that was resumed are gone; those of the next and of validation read.
    assert len(living.seen[0] - before) == (4 if options else 0)
    same = weights(whole.model)
    assert all(torch.equal(same[name], tensor) for name, tensor in weights(resumed.model).items())
    assert workers_now() == before


def test_another_split_is_read_where_the_validation_images_workers_are_kept(tmp_path):
    """transformers keeps one loader for all splits; stage 1 also validates with other masks."""
    other = RadiographDataset(make_rows(5), PREPROCESSING, with_labels=True)
    lengths = []

    class Other(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            lengths.append(len(trainer.predict(other).predictions))
            lengths.append(trainer.evaluate(other, metric_key_prefix="other")["other_samples"])
            lengths.append(trainer.evaluate(trainer.train_dataset)["eval_samples"])

    before = workers_now()
    trainer = make_trainer(
        tmp_path, max_steps=2, eval_on_start=True, compute_metrics=lambda scored: {"samples": len(scored[0])},
        table=RadiographDataset(make_rows(24), PREPROCESSING, with_labels=True), **KEPT,
    )  # fmt: skip
    trainer.add_callback(Other())
    trainer.train()
    assert lengths == [5, 5, 24] * 2
    assert trainer.evaluate()["eval_samples"] == 16
    assert workers_now() == before


FAILING = """
import sys
from tiny_training import make_trainer
from transformers import TrainerCallback

class Fault(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise RuntimeError("a fault")

trainer = make_trainer(sys.argv[1], callbacks=[Fault()], dataloader_num_workers=2,
                       dataloader_persistent_workers=sys.argv[2] == "kept")
trainer.train()
"""


@pytest.mark.parametrize("how", ["kept", "renewed"])
def test_a_process_whose_run_fails_ends(how, tmp_path):
    """Python ends its children by SIGTERM and waits for them; workers that left it to the run would stay."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[4])])
    failing = subprocess.run(
        [sys.executable, "-c", FAILING, tmp_path, how], timeout=200, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert failing.returncode == 1 and "RuntimeError: a fault" in failing.stderr


def test_sigterm_is_what_it_was_when_a_run_has_failed(tmp_path):
    class Fault(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("a fault")

    before = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(tmp_path, callbacks=[PreemptionCallback(), Fault()])
    with pytest.raises(RuntimeError, match="a fault"):
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(143), RuntimeError("a fault")])
def test_no_worker_outlives_a_run_that_ends_early(error, tmp_path):
    before = workers_now()

    class Fault(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            assert len(workers_now() - before) == 4
            raise error

    trainer = make_trainer(tmp_path, callbacks=[Fault()], eval_on_start=True, **KEPT)
    with pytest.raises(type(error) if isinstance(error, Exception | SystemExit) else error):
        trainer.train()
    assert workers_now() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_kept_workers_leave_signals_to_the_run(number, tmp_path):
    """A scheduler signals every process of a job; the run goes on to its checkpoint."""
    seen = []

    class Terminate(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, number)
            seen.append(len(workers_now()))

    before = len(workers_now())
    make_trainer(tmp_path, callbacks=[Terminate()], eval_on_start=True, max_steps=4, **KEPT).train()
    assert seen == [before + 4] * 4
