"""What declares a checkpoint complete says so of what is on the disk."""

import pytest

from medhiera.training import checkpoints
from medhiera.training.checkpoints import is_complete, mark_complete


@pytest.fixture
def checkpoint(tmp_path):
    for name in ("model.safetensors", "trainer_state.json", "inner/optimizer.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_its_files_are_on_the_disk_before_the_mark(checkpoint, monkeypatch):
    """A power cut keeps what was flushed; of the rest a file may have its size and not its content."""
    flushed, sync_file = [], checkpoints.sync_file

    def note(file):
        assert not (checkpoint / "complete.json").exists()
        flushed.append(file.name)
        sync_file(file)

    monkeypatch.setattr(checkpoints, "sync_file", note)
    mark_complete(checkpoint)
    assert sorted(flushed) == ["model.safetensors", "optimizer.pt", "trainer_state.json"]
    assert is_complete(checkpoint)


def test_a_mark_that_a_killed_process_began_is_not_part_of_it(checkpoint):
    (checkpoint / ".complete.json.part").write_text("{")
    mark_complete(checkpoint)
    assert is_complete(checkpoint)


def test_a_file_cut_short_makes_it_incomplete(checkpoint):
    mark_complete(checkpoint)
    (checkpoint / "model.safetensors").write_text("mod")
    assert not is_complete(checkpoint)
