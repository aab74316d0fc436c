"""Files that appear whole or not at all."""

import pytest

from dataset_scripts.build.atomic_files import whole_file


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("before")
    with whole_file(file) as part:
        part.write_text("after")
        assert file.read_text() == "before" and part.name == ".table.csv.part"
    assert file.read_text() == "after" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_error_leaves_the_file_of_before_and_nothing_else(error, tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("before")
    with pytest.raises(type(error)), whole_file(file) as part:
        part.write_text("hal")
        raise error
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_several_processes_write_to_places_of_their_own(tmp_path):
    file = tmp_path / "settings.json"
    with whole_file(file, by_several=True) as one:
        one.write_text("one")
        with whole_file(file, by_several=True) as other:
            other.write_text("other")
        assert file.read_text() == "other"
    assert file.read_text() == "one" and list(tmp_path.iterdir()) == [file]
