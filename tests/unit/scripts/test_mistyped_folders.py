"""A mistyped folder is refused at once by each command, with the nearest one, and never asked of the Hub."""

from pathlib import Path

import pytest

import embed
import evaluate_cls
import predict
import probe
import train_cls
from dataset_scripts.__main__ import main as build
from medhiera.errors import UserError
from medhiera.hub.publish import publish_stage
from medhiera.inference.onnx_export import export_onnx
from medhiera.space.reader import open_folder

DATA = ["--data_dir", "images/chest_xry"]
MODEL = ["--model", "runs/stge2"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    for name in ("images/chest_xray", "runs/stage2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images" / "chest.png").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (predict.main, [*MODEL, "--output", "out.csv", "images"]),
        (evaluate_cls.main, [*MODEL, "--data_dir", "images/chest_xray", "--output_dir", "out"]),
        (embed.main, [*MODEL, "--output", "out.parquet", "images"]),
        (probe.main, [*MODEL, "--data_dir", "images/chest_xray", "--output_dir", "out"]),
        (
            train_cls.main,
            ["--data_dir", "images", "--output_dir", "out", "--model_name_or_path", "runs/stge2"],
        ),
        (lambda words: export_onnx(words[0], Path(words[1])), ["runs/stge2", "out.onnx"]),
    ],
)
def test_a_mistyped_model_is_refused_with_the_nearest_folder(command, words):
    with pytest.raises(UserError, match=r"runs/stge2: there is no such folder; did you mean runs/stage2\?$"):
        command(words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (evaluate_cls.main, ["--model", "runs/stage2", *DATA, "--output_dir", "out"]),
        (embed.main, ["--model", "runs/stage2", *DATA, "--output", "out.parquet"]),
        (probe.main, ["--model", "runs/stage2", *DATA, "--output_dir", "out"]),
        (train_cls.main, [*DATA, "--output_dir", "out"]),
    ],
)
def test_mistyped_data_are_refused_with_the_nearest_folder(command, words):
    wanted = r"--data_dir images/chest_xry: there is no such folder; did you mean images/chest_xray\?$"
    with pytest.raises(UserError, match=wanted):
        command(words)


def test_a_build_of_a_mistyped_folder_is_refused(caplog):
    assert build([*DATA, "--output_dir", "out"]) == 1
    assert "there is no such folder; did you mean images/chest_xray?" in caplog.text


def test_the_page_and_publishing_name_the_nearest_folder(place):
    with pytest.raises(UserError, match="did you mean runs/stage2"):
        publish_stage("runs/stge2", "me/model", token="none")
    with pytest.raises(UserError, match=f"did you mean {place}/runs/stage2.*make demo"):
        open_folder(place / "runs" / "stge2")


def test_a_file_is_no_data(place):
    (place / "images" / "all.zip").touch()
    with pytest.raises(UserError, match=r"--data_dir images/all\.zip: is a file; wanted a folder"):
        train_cls.main(["--data_dir", "images/all.zip", "--output_dir", "out"])
