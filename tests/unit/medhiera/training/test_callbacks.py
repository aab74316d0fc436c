"""What a long run says: lines, curves and pictures while it goes."""

import csv
import logging
import re
import shutil
import threading
import time

import pytest
from tiny_training import make_trainer
from transformers import TrainerCallback

from medhiera.formatting import duration
from medhiera.training import callbacks, figures
from medhiera.training.callbacks import CSVLoggerCallback, FigureCallback, ThroughputCallback


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (11_100, "3 h 05 min"),
     (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_each_logging_step_says_speed_and_time_left(tmp_path, caplog):
    caplog.set_level(logging.INFO, "medhiera")
    trainer = make_trainer(tmp_path, callbacks=[ThroughputCallback(8)], logging_steps=2)
    trainer.train()
    lines = [record.message for record in caplog.records if record.message.startswith("step ")]
    assert len(lines) == 2
    pattern = r"step 2 of 4, loss 0\.\d{4}, [\d.e+]+ images/s, \d+ s left"
    assert re.fullmatch(pattern, lines[0]), lines[0]
    assert lines[1].endswith(" 0 s left")


def test_pictures_are_refreshed_while_the_run_goes(tmp_path):
    drawn, seen = [], []

    class Look(CSVLoggerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                seen.append((state.global_step, (tmp_path / "figures" / "loss.png").exists()))

    def draw(path):
        drawn.append(path.relative_to(tmp_path).as_posix())

    callbacks = [FigureCallback(tmp_path, "loss", "", lambda: draw, every=3), Look(tmp_path / "log.csv")]
    trainer = make_trainer(tmp_path, callbacks=callbacks, eval_strategy="steps", eval_steps=2)
    trainer.train()
    assert seen == [(1, False), (2, False), (3, True), (4, True)]
    assert drawn == [
        "figures/reconstructions.png",
        "figures/steps/reconstructions-0000003.png",
        "figures/reconstructions.png",
    ]


@pytest.mark.parametrize(("seconds", "steps"), [(1000.0, [1, 4]), (0.0, [1, 2, 3, 4])])
def test_pictures_are_refreshed_where_time_has_passed_and_at_the_end(seconds, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "REDRAWN_AFTER", seconds)
    drawn = []

    def show():
        drawn.append(trainer.state.global_step)
        return lambda path: None

    callback = FigureCallback(tmp_path, "loss", "", show)
    trainer = make_trainer(tmp_path, callbacks=[callback], eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert drawn == steps
    trainer.evaluate()  # of the weights that are kept
    assert drawn == [*steps, 4]


@pytest.mark.parametrize("fault", [None, OSError("No space left on device")])
def test_training_goes_on_while_a_figure_is_drawn_and_ends_when_it_is(fault, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "REDRAWN_AFTER", 0.0)
    drawing, calls = figures.training_curves, []
    begun, goes_on = threading.Event(), threading.Event()

    def slow(history, path, **options):
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            begun.set()
            assert goes_on.wait(60), "training waits for the figure"
            if fault is not None:
                raise fault
        drawing(history, path, **options)

    class GoesOn(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                assert begun.wait(60) and not goes_on.is_set()
                goes_on.set()

    monkeypatch.setattr(figures, "training_curves", slow)
    figure = FigureCallback(tmp_path, "loss", "")
    trainer = make_trainer(tmp_path, callbacks=[figure, GoesOn()], eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert trainer.state.global_step == 4 and calls == ["figures"] * 4
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["loss.png"]
    said = "a figure could not be drawn: OSError: No space left on device"
    assert (said in caplog.text) == (fault is not None)


def test_a_figure_that_is_drawn_late_is_there_when_training_ends(tmp_path):

    def draw(path):
        time.sleep(0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    figure = FigureCallback(tmp_path, "loss", "", lambda: draw, every=3)
    make_trainer(tmp_path, callbacks=[figure], max_steps=3).train()
    assert (tmp_path / "figures" / "steps" / "reconstructions-0000003.png").exists()


def test_the_evaluation_after_training_is_logged_once_however_often_the_end_is_reached(tmp_path):
    def begin(resume=None):
        callbacks = [CSVLoggerCallback(tmp_path / "log.csv")]
        saving = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        trainer = make_trainer(tmp_path, callbacks=callbacks, **saving)
        trainer.train(resume_from_checkpoint=resume)
        trainer.evaluate()
        lines = (tmp_path / "log.csv").read_text().splitlines()
        return [(line.split(",")[0], line.split(",")[6] != "") for line in lines[1:]]

    whole = begin()
    assert whole[-3:] == [("4", False), ("4", True), ("4", True)]
    assert begin(str(tmp_path / "checkpoint-4")) == whole
    assert begin(str(tmp_path / "checkpoint-2")) == whole


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder with the log of a run of four steps that validates before the first, and its checkpoints."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_with_log(folder)
    return folder


def train_with_log(folder, checkpoint=None):
    """As train_mae.py does: a validation before the first step, unless resumed, and one after the last."""
    trainer = make_trainer(
        folder, callbacks=[CSVLoggerCallback(folder / "log.csv")], save_strategy="steps", save_steps=2,
        eval_strategy="steps", eval_steps=2, eval_on_start=checkpoint is None,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.evaluate()


def read_rows(path):
    """Every column but the clock's."""
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("step", [None, 2, 4])
@pytest.mark.parametrize("left", ["absent", "empty", "torn header", "rows", "torn row", "whole", "twice"])
def test_a_resumed_log_equals_an_uninterrupted_one(uninterrupted, tmp_path, step, left):
    whole = (uninterrupted / "log.csv").read_text()
    expected = read_rows(uninterrupted / "log.csv")
    assert [(row["step"], row["eval_loss"] != "") for row in expected] == [
        ("0", True), ("1", False), ("2", False), ("2", True),
        ("3", False), ("4", False), ("4", True), ("4", True),
    ]  # fmt: skip
    lines = whole.splitlines(keepends=True)
    kept = {
        "empty": "",
        "torn header": lines[0][:9],
        "rows": "".join(lines[:5]),
        "torn row": "".join(lines[:5]) + lines[5][: len(lines[5]) // 2],
        "whole": whole,
        "twice": whole + "".join(lines[1:3]),  # what an earlier version made of a run killed at its start
    }
    if left != "absent":
        (tmp_path / "log.csv").write_text(kept[left])
    train_with_log(tmp_path, None if step is None else str(uninterrupted / f"checkpoint-{step}"))
    assert read_rows(tmp_path / "log.csv") == expected
    with (tmp_path / "log.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"]]
    assert seconds == sorted(seconds)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_resumed_into_another_folder_counts_the_time_before(uninterrupted, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(uninterrupted, first)
    header, *rows = (line.split(",") for line in (first / "log.csv").read_text().splitlines())
    for row in rows:
        row[2] = f"{row[0]}00"  # step 2 after 200 s
    (first / "log.csv").write_text("\n".join(map(",".join, [header, *rows])))
    checkpoint = str(first / "checkpoint-2")
    log = CSVLoggerCallback(second / "log.csv", checkpoint=checkpoint)
    make_trainer(second, callbacks=[log]).train(resume_from_checkpoint=checkpoint)
    with (second / "log.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert seconds[:4] == [0, 100, 200, 200] and seconds[4:] and all(200 <= one < 300 for one in seconds[4:])
