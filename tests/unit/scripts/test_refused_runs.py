"""A refused run leaves no empty folder behind; a folder of the user's, or with something in it, stays."""

import subprocess
from pathlib import Path

import pytest
from warm_python import warm_python

import evaluate_cls
import evaluate_report
import probe
from medhiera.errors import UserError
from medhiera.output import make_folder, one_writer

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("script", [evaluate_cls, evaluate_report, probe])
def test_results_are_not_written_among_the_images(script, tmp_path):
    """A plot of one would be a picture of another class in the next."""
    (tmp_path / "NORMAL").mkdir()
    for output in (tmp_path, tmp_path / "scores"):
        words = ["--model", "m", "--data_dir", str(tmp_path), "--output_dir", str(output), "--device", "cpu"]
        with pytest.raises(UserError, match="or lies among its images"):
            script.main(words)


def test_a_refused_evaluation_leaves_no_folder(tmp_path):
    (tmp_path / "data").mkdir()

    def refused(output):
        words = ["--model", str(tmp_path / "no model"), "--data_dir", str(tmp_path / "data")]
        with pytest.raises(UserError):
            evaluate_cls.main([*words, "--output_dir", str(output)])

    refused(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    refused(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_with_something_in_it_stays(tmp_path):
    folder = tmp_path / "new"
    with one_writer(folder, "--output_dir", make_folder(folder, "--output_dir")):
        (folder / "a.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


@pytest.mark.slow
def test_a_refused_training_run_leaves_no_folder(tmp_path):
    (tmp_path / "data").mkdir()
    command = [
        "train_cls.py",
        "configs/cls_smoke.yaml",
        "--data_dir",
        str(tmp_path / "data"),
        "--use_cpu",
        "true",
    ]
    done = subprocess.run(
        [warm_python(), *command, "--output_dir", str(tmp_path / "out")],
        cwd=ROOT, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1 and "none of the sources" in done.stderr
    assert not (tmp_path / "out").exists()
