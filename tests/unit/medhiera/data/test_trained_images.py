"""A model is not scored on what it was trained on."""

import pytest
from datasets import Dataset

from medhiera.data.trained_images import check_unseen, digests, read_trained_images, write_trained_images
from medhiera.errors import UserError


def make_rows(*numbers):
    return Dataset.from_dict({"image_id": [f"image folder/Jürgen {number}.png" for number in numbers]})


def test_images_are_known_again_and_not_named_in_the_list(tmp_path):
    write_trained_images(tmp_path, set(digests(make_rows(1, 2, 3))))
    assert len(read_trained_images(tmp_path)) == 3
    assert "rgen" not in (tmp_path / "trained_images.txt").read_text()
    check_unseen(tmp_path, test=make_rows(4, 5))
    with pytest.raises(UserError, match="was trained on 2 of the 3 test images, such as '.*Jürgen 2.png'"):
        check_unseen(tmp_path, validation=make_rows(6), test=make_rows(7, 2, 3).select([0, 1, 2]))


def test_a_checkpoint_of_the_run_is_no_way_around(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoint-8"
    checkpoint.mkdir(parents=True)
    write_trained_images(tmp_path / "run", set(digests(make_rows(1))))
    with pytest.raises(UserError, match="checkpoint-8 was trained on 1 of the 1 test images"):
        check_unseen(checkpoint, test=make_rows(1))


def test_a_model_without_a_list_is_taken_as_it_is(tmp_path):
    for source in (None, tmp_path, "some-name/on-the-hub"):
        assert read_trained_images(source) == set()
        check_unseen(source, test=make_rows(1))
