"""What Ctrl-C leaves of a run is said: the command that goes on, or that there is nothing to go on from."""

import pytest

from medhiera import run_folder
from medhiera.training.checkpoints import mark_complete


@pytest.mark.parametrize("is_held", [False, True])
def test_a_run_without_a_whole_checkpoint_starts_again(is_held, tmp_path, monkeypatch):
    (tmp_path / "checkpoint-2").mkdir()
    monkeypatch.setattr(run_folder, "_held", [tmp_path] if is_held else [])
    assert "resume" not in run_folder.how_to_go_on()


def test_a_run_with_one_resumes(tmp_path, monkeypatch):
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        mark_complete(tmp_path / f"checkpoint-{step}")
    monkeypatch.setattr(run_folder, "_held", [tmp_path])
    said = run_folder.how_to_go_on()
    assert said == "checkpoint-10 is kept: repeat the command with --resume_from_checkpoint true"
