"""A model is not scored on what it was trained on, and its list says what it has seen."""

import logging

import huggingface_hub
import pandas as pd
import pytest
from datasets import Dataset
from pyarrow import parquet
from stage_records import classification_record, imagenet_record

from medhiera.data.training_images import (
    check_unseen,
    list_images,
    read_training_images,
    unite,
    write_training_images,
)
from medhiera.errors import UserError
from medhiera.scoring import check_models_unseen

CHEST = "ChestX-ray14"


def make_rows(*numbers, source=CHEST, **columns):
    names = [f"{source}/{number}.png" for number in numbers]
    given = {name: [value] * len(names) for name, value in columns.items()}
    return Dataset.from_dict({"image_id": names, "source": [source] * len(names), **given})


def write(folder, *numbers, split="train", **facts):
    folder.mkdir(exist_ok=True)
    write_training_images(folder, unite([list_images(make_rows(*numbers, **facts), split)]))


def test_images_are_known_again(tmp_path):
    write(tmp_path, 1, 2, 3)
    check_unseen(tmp_path, test=make_rows(4, 5))
    with pytest.raises(UserError, match=f"was trained on 2 of the 3 test images, such as '{CHEST}/2.png':"):
        check_unseen(tmp_path, validation=make_rows(6), test=make_rows(7, 2, 3))
    chosen = make_rows(9, 2, 3, 1).select([0, 3, 2])
    with pytest.raises(UserError, match=f"2 of the 3 test images, such as '{CHEST}/1.png'"):
        check_unseen(tmp_path, test=chosen)


def test_an_image_of_a_dataset_is_known_by_its_content(tmp_path):
    own, digests = "image folder/train", [f"{number:016x}" for number in range(3)]
    rows = [Dataset.from_dict({"image_id": names, "source": ["image folder"] * len(names)}) for names in (
        [f"{own}/{row:07d}-{digests[row]}.png" for row in (0, 1)],
        [f"image folder/test/0000007-{digests[1]}.png", f"{own}/0000000-{digests[2]}"],
        [f"{own}/0000001-{digests[2]}.png", f"{own}/0000001.png"],
    )]  # fmt: skip
    write_training_images(tmp_path, list_images(rows[0], "train"))
    with pytest.raises(
        UserError, match=f"1 of the 2 test images, such as 'image folder/test/0000007-{digests[1]}"
    ):
        check_unseen(tmp_path, test=rows[1])
    check_unseen(tmp_path, test=rows[2])


def test_own_images_of_the_same_names_may_be_others(tmp_path):
    write(tmp_path, 1, source="image folder")
    with pytest.raises(
        UserError, match="where these are others of the same names, put them into a folder of"
    ):
        check_unseen(tmp_path, test=make_rows(1, source="image folder"))
    check_unseen(tmp_path, test=make_rows("B/1", source="image folder"))
    write(tmp_path / "public", 1)
    with pytest.raises(UserError, match="the stage before$"):
        check_unseen(tmp_path / "public", test=make_rows(1))


def test_a_checkpoint_of_the_run_is_no_way_around(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoint-8"
    checkpoint.mkdir(parents=True)
    write(tmp_path / "run", 1)
    with pytest.raises(UserError, match="checkpoint-8 was trained on 1 of the 1 test images"):
        check_unseen(checkpoint, test=make_rows(1))


def test_the_split_that_a_model_was_trained_with_is_no_way_around(tmp_path):
    write(tmp_path, 1)
    record, rows = classification_record(), make_rows(1)
    for asked, known in ((None, record), (record.data.split_scheme, record), ("r2gen", None)):
        with pytest.raises(UserError, match="was trained on 1 of the 1 test images"):
            check_models_unseen(asked, [str(tmp_path)], [known], test=rows)
    check_models_unseen("r2gen", [str(tmp_path)], [record], test=rows)  # open_built warns


def test_what_a_checkpoint_was_chosen_on_is_listed_and_may_be_tested_on(tmp_path):
    """As the paper's own thirds of the test list are: validation of one stage, test of the next."""
    write(tmp_path, 1, 2, split="validation")
    assert set(read_training_images(tmp_path)["split"]) == {"validation"}
    check_unseen(tmp_path, test=make_rows(1, 2))


def test_stages_are_united_and_an_image_stands_once():
    first = list_images(make_rows(1, 2, nih_image="00000001_000.png"), "train")
    second = list_images(make_rows(2, 3), "validation")
    own = list_images(make_rows(1, source="image folder"), "train")
    together = unite([second, first, own])
    public = together[together["source"] == CHEST]
    assert public["image_id"].tolist() == [f"{CHEST}/{number}.png" for number in (1, 2, 3)]
    assert public["split"].tolist() == ["train", "train", "validation"]
    assert public["nih_image"].tolist()[:2] == ["00000001_000.png"] * 2
    assert len(together) == 4 and unite([together, together]).equals(together)


def test_anyone_reads_the_file(tmp_path):
    write(tmp_path, 2, 1, nih_image="00000001_000.png", rsna_image="", study_id=None)
    table = pd.read_parquet(tmp_path / "training_images.parquet")
    assert list(table) == ["source", "image_id", "split", "nih_image", "rsna_image", "study_id"]
    assert table["image_id"].tolist() == [f"{CHEST}/1.png", f"{CHEST}/2.png"]
    assert table["rsna_image"].isna().all() and table["study_id"].isna().all()
    assert [path.name for path in tmp_path.iterdir()] == ["training_images.parquet"]


def test_a_model_without_a_list_is_taken_as_it_is(tmp_path, caplog):
    for source in (None, tmp_path, "no such folder/and/no id"):
        assert read_training_images(source).empty
        check_unseen(source, test=make_rows(1))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_unseen("some-name/on-the-hub", test=make_rows(1))
        assert "whether some-name/on-the-hub has seen the images" in caplog.text  # tests are offline
        (tmp_path / "trained_images.txt").write_text("0123456789abcdef\n")
        check_unseen(tmp_path, test=make_rows(1))
        assert "was trained by an earlier version" in caplog.text


def test_an_evaluation_says_that_nothing_is_checked_where_the_list_is_gone(tmp_path, caplog):
    for record, is_said in ((None, False), (imagenet_record(), False), (classification_record(), True)):
        caplog.clear()
        check_models_unseen(None, [str(tmp_path)], [record], test=make_rows(1))
        assert ("no training_images.parquet says which images" in caplog.text) == is_said


def test_a_list_that_the_hub_does_not_give_is_named(monkeypatch, caplog):
    def refuse(*given):
        raise OSError("403 Client Error.\nAccess to it is restricted.")

    monkeypatch.setattr("medhiera.data.training_images.hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert read_training_images("some-name/gated").empty
    assert "is not checked: its training_images.parquet cannot be fetched (403 Client Error." in caplog.text


def test_a_damaged_or_foreign_list_is_refused(tmp_path):
    write(tmp_path, 1, 2, 3)
    file = tmp_path / "training_images.parquet"
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-40], whole[:30] + b"\0" * 60 + whole[90:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="training_images.parquet of .* cannot be read"):
            check_unseen(tmp_path, test=make_rows(9))
    parquet.write_table(parquet.read_table(_columns(tmp_path)), file)
    with pytest.raises(UserError, match=r"cannot be read \(No match for"):
        check_unseen(tmp_path, test=make_rows(9))


def _columns(folder):
    """A table of another program's columns."""
    pd.DataFrame({"name": ["a"], "split": ["train"]}).to_parquet(folder / "other.parquet")
    return folder / "other.parquet"
