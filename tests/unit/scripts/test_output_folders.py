"""No command writes over what is not its own: the data, files of the user's, a finished stage."""

import json

import pandas as pd
import pytest

import evaluate_cls
from medhiera import scoring
from medhiera.errors import UserError
from medhiera.run import parse_run_config
from medhiera.stages import CLASSIFICATION


def start(output, data, *words):
    arguments = ["cls_smoke.yaml", "--data_dir", str(data), "--output_dir", str(output), "--use_cpu", "true"]
    return parse_run_config(CLASSIFICATION, [*arguments, *words])


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "normal").mkdir(parents=True)
    (folder / "README.md").write_text("mine")
    return folder


def test_data_may_lie_in_the_folder_of_a_run(data):
    """As in a folder that holds all of a project; raw alone has a name of a run's, as in the demo."""
    data = data.rename(data.with_name("raw"))
    assert start(data.parent, data).training.output_dir == str(data.parent)
    (data.parent / "raw" / "model.safetensors").write_text("mine")
    with pytest.raises(UserError, match="holds raw/model.safetensors, which no run of ours wrote"):
        start(data.parent, data)


@pytest.mark.parametrize("resume", [[], ["--resume_from_checkpoint", "true"]], ids=["new", "resumed"])
def test_a_run_does_not_overwrite_files_of_the_users(data, tmp_path, resume):
    output = tmp_path / "project"
    for folder in ("figures", "examples", "checkpoint-3", "notes"):
        (output / folder).mkdir(parents=True)
    for name in ("README.md", "config.json", "figures/loss.png", "checkpoint-3/optimizer.pt", "notes/a.txt"):
        (output / name).write_text("mine")
    message = "holds config.json, README.md, figures, checkpoint-3, which no run of ours wrote"
    with pytest.raises(UserError, match=message):
        start(output, data, *resume)
    assert (output / "checkpoint-3" / "optimizer.pt").is_file()


def test_a_folder_with_other_files_takes_a_run(data, tmp_path):
    """A job's output and its lock are there before the run begins."""
    output = tmp_path / "run"
    output.mkdir()
    for name in ("stdout.log", "lock", "notes.md"):
        (output / name).touch()
    start(output, data)


@pytest.mark.parametrize("begun", ["run.json", "training_log.csv", "checkpoint-2/complete.json"])
def test_a_run_that_was_killed_begins_again(data, tmp_path, begun):
    output = tmp_path / "run"
    for name in ("config.json", "figures/loss.png", begun):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("{}")
    start(output, data, *(["--resume_from_checkpoint", "true"] if "checkpoint" in begun else []))


def test_a_run_resumed_elsewhere_does_not_overwrite_a_finished_stage(data, tmp_path):
    finished, other = tmp_path / "finished", tmp_path / "other" / "checkpoint-2"
    for folder in (finished, finished / "checkpoint-2", other):
        folder.mkdir(parents=True)
    for checkpoint in (finished / "checkpoint-2", other):
        for name in ("trainer_state.json", "complete.json"):
            (checkpoint / name).write_text("{}")
    for name in ("README.md", "metrics.json", "run.json"):
        (finished / name).write_text(json.dumps({}))
    with pytest.raises(UserError, match="already holds a finished stage"):
        start(finished, data, "--resume_from_checkpoint", str(other))
    start(finished, data, "--resume_from_checkpoint", str(finished / "checkpoint-2"))
    start(tmp_path / "new", data, "--resume_from_checkpoint", str(other))


def begin_scoring(output, data):
    words = ["--model", "none", "--data_dir", str(data), "--output_dir", str(output), "--device", "cpu"]
    return scoring.begin(evaluate_cls.read_options(words))


def test_an_evaluation_does_not_write_into_the_data_nor_over_files_of_the_users(data, tmp_path):
    for output in (data, data / "out"):
        with pytest.raises(UserError, match="--output_dir .* lies among its images"):
            begin_scoring(output, data)
    output = tmp_path / "mine"
    (output / "figures").mkdir(parents=True)
    begin_scoring(output, data)
    for name in ("figures/a.png", "predictions.parquet", "reports.csv", "metrics.json"):
        (output / name).write_text('{"accuracy": 1}')
    with pytest.raises(
        UserError, match="holds metrics.json, predictions.parquet, reports.csv, figures, which"
    ):
        begin_scoring(output, data)


def test_an_evaluation_is_repeated_in_its_own_folder(data, tmp_path):
    for name in ("finished", "killed", "texts", "torn"):
        (tmp_path / name / "figures").mkdir(parents=True)
        (tmp_path / name / "figures" / "roc.png").write_text("ours")
    (tmp_path / "finished" / "metrics.json").write_text('{"fingerprint": "a", "evaluation": {}}')
    for name in ("killed", "torn"):
        pd.DataFrame({"image_id": ["a"]}).to_parquet(tmp_path / name / "predictions.parquet")
    (tmp_path / "torn" / "metrics.json").write_text('{"finger')
    (tmp_path / "texts" / "reports.csv").write_text("study,reference,written,nearest\n")
    for name in ("finished", "killed", "texts", "torn"):
        begin_scoring(tmp_path / name, data)
