"""A teacher's data and licence count: by its card, by its record where it is a stage of ours, or as said."""

import pytest
from datasets import Dataset
from stage_records import imagenet_record, pretraining_record
from teachers import write_card

from medhiera.data.cocktail import LeakageCounts
from medhiera.data.training_images import check_unseen, list_images, write_training_images
from medhiera.errors import UserError
from medhiera.hub.lineage import lineage_of, refuse_leaky_teacher, teacher_record, with_teacher
from medhiera.hub.model_card import render_card
from medhiera.hub.record import Lineage, read_record
from medhiera.hub.teachers import TeacherRecord, has_seen_test, license_with


def described(folder, **said):
    return teacher_record(str(folder), "vit", "0123456789ab", **said)


@pytest.mark.parametrize(
    ("name", "datasets", "said", "is_refused"),
    [
        ("rad-dino", None, None, True),
        ("my_RADDINO_copy", ["CheXpert"], ["CheXpert"], True),
        ("vit", ["alkzar90/NIH-Chest-X-ray-dataset"], None, True),
        ("vit", ["ChestX-ray14"], None, True),
        ("vit", ["ChestX-ray14"], ["ChestX-ray14 train", "CheXpert"], False),
        ("vit", ["imagenet-1k"], None, False),
        ("vit", "imagenet-1k", None, False),
        ("vit", None, ["NIH"], True),
        ("vit", None, None, False),
    ],
)
def test_who_has_seen_the_test_images(name, datasets, said, is_refused, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    if datasets is not None:
        write_card(folder, license="mit", datasets=datasets)
    teacher = described(folder, datasets=said)
    assert teacher.name == name and teacher.saw_test is is_refused
    refuse_leaky_teacher(teacher, allow_leakage=True)
    if is_refused:
        with pytest.raises(UserError, match="has seen ChestX-ray14's test images"):
            refuse_leaky_teacher(teacher, allow_leakage=False)
    else:
        refuse_leaky_teacher(teacher, allow_leakage=False)


@pytest.mark.parametrize(
    "name",
    [
        "ChestX-ray14 (train and test)",
        "ChestX-ray14 and CheXpert train",
        "NIH ChestX-ray14 train/val/test",
        "ChestX-ray14 train_val",
        "ChestX-ray14, all 112,120 images (pretraining)",
        "ChestX-ray14 pretraining",
        "all-of-ChestX-ray14 train",
        "CXR8",
        "ChestX-ray",
        "ChestXray-NIHCC",
        "NIH_CXR",
        "RSNA Pneumonia",
        "RSNA Pneumonia train",
        "COVIDx CXR-3",
        "COVIDx CXR-3 train",
        "COVID-19 Radiography",
        "features of rad-dino",
    ],
)
def test_data_that_hold_test_images(name):
    assert has_seen_test("org/model", ["CheXpert", name])


@pytest.mark.parametrize(
    "name",
    [
        "ChestX-ray14 train",
        "NIH ChestX-ray14 (training set)",
        "ChestX-ray14, official training list",
        "alkzar90/NIH-Chest-X-ray-dataset train",
        "CheXpert",
        "MIMIC-CXR",
        "PadChest",
        "VinDr-CXR",
        "hf-vision/chest-xray-pneumonia",
    ],
)
def test_data_without_test_images(name):
    assert not has_seen_test("org/model", [name])


def test_what_a_user_says_of_a_stage_that_teaches_counts(tmp_path):
    pretraining_record().write(tmp_path)
    assert not described(tmp_path, datasets=["CheXpert"]).saw_test
    assert described(tmp_path, datasets=["RSNA Pneumonia"]).saw_test


def test_a_card_says_what_nobody_knows_of_a_teacher(tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    record = pretraining_record(lineage=with_teacher(Lineage.random(), described(folder)))
    assert "trained on what is not known, held-out images may be among it" in render_card(record, [])


def test_nothing_known_is_not_nothing_seen(tmp_path):
    folder = tmp_path / "vit"
    folder.mkdir()
    assert described(folder).datasets is None and described(folder).license is None
    said = described(folder, license="mit", datasets=["imagenet-1k"])
    assert said.license == "mit" and said.datasets == ["imagenet-1k"]


def test_a_stage_of_ours_is_described_by_its_record(tmp_path):
    lineage = with_teacher(
        Lineage.random(), TeacherRecord("inner", "vit", "0", "cc-by-nc-4.0", ["CheXpert"], False)
    )
    pretraining_record(lineage=lineage).write(tmp_path)
    teacher = described(tmp_path)
    assert teacher.datasets == ["ChestX-ray14", "CheXpert"] and not teacher.saw_test
    assert teacher.license == "cc-by-nc-4.0"
    leaky = LeakageCounts(is_checked=True, held_out=305, compared=436, dropped=0, allowed=25)
    pretraining_record(leakage=leaky).write(tmp_path)
    assert described(tmp_path).saw_test
    pretraining_record(leakage=LeakageCounts(seen_before={"test": 3})).write(tmp_path)
    assert described(tmp_path).saw_test
    imagenet_record().write(tmp_path)
    assert described(tmp_path).license == "cc-by-nc-4.0"


def test_the_images_of_a_stage_that_teaches_may_not_be_held_out(tmp_path):
    rows = Dataset.from_dict({"image_id": ["a", "b"], "source": ["s", "s"]})
    write_training_images(tmp_path, list_images(rows, "train"))
    with pytest.raises(UserError, match="was trained on 1 of the 1 validation images, such as 'a'"):
        check_unseen(str(tmp_path), validation=rows.select([0]))


@pytest.mark.parametrize(
    ("of_weights", "of_teacher", "together"),
    [
        ("apache-2.0", "mit", "apache-2.0"),
        ("apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "apache-2.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "msrla", None),
        ("apache-2.0", None, None),
        (None, "mit", None),
    ],
)
def test_the_licence_of_both(of_weights, of_teacher, together):
    assert license_with(of_weights, of_teacher) == together


def test_the_next_stage_and_its_card_know_the_teacher(tmp_path):
    teacher = TeacherRecord("org/rad-dino", "dinov2", "0123456789ab", None, None, True)
    pretraining_record(lineage=with_teacher(Lineage.random(), teacher)).write(tmp_path)
    record = read_record(tmp_path)
    assert record.lineage.teachers == [teacher] and record.lineage.license is None
    assert lineage_of(str(tmp_path), []).teachers == [teacher]
    card = render_card(record, [])
    assert "`org/rad-dino` (dinov2" in card and "**Leakage through the teacher**" in card
    assert "not known" in card and "license: unknown" in card
