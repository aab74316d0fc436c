"""A finished folder that is trained on, or changed by hand, does not pass for what its card says."""

import shutil

import pytest

import train_mae
from medhiera.errors import UserError
from medhiera.hub.publish import _check_folder
from medhiera.layout import is_finished


class Ended(Exception):
    """In place of a kill."""


@pytest.mark.parametrize(("checkpoint", "is_left"), [("checkpoint-3", True), ("checkpoint-6", False)])
def test_a_run_that_goes_on_takes_the_card_down(checkpoint, is_left, workshop, stage1, tmp_path, monkeypatch):
    """Ended before its new weights, it left the old scores beside new figures, to be published so."""
    folder = tmp_path / "stage1"
    shutil.copytree(stage1, folder)

    def end(*given):
        raise Ended

    monkeypatch.setattr("train_mae.finish", end)
    words = ["--data_dir", str(workshop.raw), "--build_dir", str(workshop.folder / "built")]
    words += ["--output_dir", str(folder), "--resume_from_checkpoint", str(folder / checkpoint)]
    words += ["--use_cpu", "true"]
    with pytest.raises(Ended):
        train_mae.main([str(workshop.configs["train_mae.py"]), *words])
    assert is_finished(folder) != is_left
    assert (folder / "metrics.json").read_bytes() == (stage1 / "metrics.json").read_bytes()
    if is_left:
        with pytest.raises(UserError, match=r"is not a finished stage: README\.md absent"):
            _check_folder(folder, None)


def test_a_stage_with_a_checkpoint_s_weights_is_not_published(stage1, tmp_path):
    """Nor is what a run wrote refused."""
    folder = tmp_path / "stage1"
    shutil.copytree(stage1, folder)
    _check_folder(folder, 1)
    shutil.copy(folder / "checkpoint-3" / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors changed after the stage was finished"):
        _check_folder(folder, 1)
