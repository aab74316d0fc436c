"""CheXpert's source, on drawn pictures in its layout: splits, views, people, labels, and what is odd."""

import math

import pytest
from raw_folders import gray, said

from dataset_scripts import FINDINGS, Chexpert
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import scan_folder
from dataset_scripts.chexpert import SOURCE, list_images
from dataset_scripts.errors import DataLayoutError, LabelFileError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Pleural Effusion,Support Devices"
PEOPLE = "Female,68,Frontal,AP"
ROWS = {
    "train.csv": [
        f"CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,{PEOPLE},1.0,,,,1.0",
        "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,1.0,-1.0,0.0,",
        "CheXpert-v1.0-small/train/patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,1.0,-1.0,0.0,",
        "CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,,,,,,",
    ],
    "valid.csv": [
        f"CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,{PEOPLE},0.0,1.0,0.0,1.0,0.0"
    ],
}


@pytest.fixture
def folder(tmp_path):
    """The small release, unpacked into a folder of its own as its archive does."""
    return write(tmp_path / "raw" / SOURCE.folder, ROWS)


def write(root, tables, release="CheXpert-v1.0-small"):
    for table, rows in tables.items():
        for row in rows:
            picture = root / release / row.split(",")[0].split("/", 1)[1]
            picture.parent.mkdir(parents=True, exist_ok=True)
            gray(40, 48).save(picture)
        (root / release / table).write_text("\n".join([HEADER, *rows]) + "\n")
    return root


def listed(root):
    return list_images(scan_folder(root), SourceConfig())


def test_splits_views_people_and_labels(folder):
    listing = listed(folder)
    assert said(listing) == {} and {split: len(part) for split, part in listing.splits.items()} == {
        "train": 4, "validation": 1,
    }  # fmt: skip
    first, second, lateral, third = listing.splits["train"]
    assert (first.image_id, first.patient_id) == (
        "CheXpert/train/patient00001/study1/view1_frontal", "CheXpert/patient00001"
    )  # fmt: skip
    assert [record.view for record in (first, second, lateral, third)] == ["AP", "PA", "LATERAL", "FRONTAL"]
    assert (first.age_years, first.sex, third.sex) == (
        68,
        "F",
        "",
    ) and lateral.patient_id == second.patient_id
    labels = dict(zip(FINDINGS, second.labels, strict=True))
    known = {name: value for name, value in labels.items() if not math.isnan(value)}
    # Edema is uncertain; No Finding is empty beside a condition, where the software would have written 1.
    assert known == {"Cardiomegaly": 1.0, "Effusion": 0.0, "No Finding": 0.0}
    assert first.labels[FINDINGS.index("No Finding")] == 1  # a device is no condition
    assert all(math.isnan(value) for value in third.labels)


def test_it_is_built_and_held_out_as_any_source(folder, tmp_path):
    builder = Chexpert(build_dir=tmp_path / "built", data_dir=folder)
    builder.download_and_prepare()
    rows = builder.as_dataset()
    assert {split: len(part) for split, part in rows.items()} == {"train": 4, "validation": 1}
    assert rows["validation"][0]["source"] == "CheXpert"


def test_the_large_release_in_the_folder_itself(tmp_path):
    root = write(tmp_path / SOURCE.folder, ROWS, ".")
    test = "CheXpert-v1.0/test/patient64741/study1/view1_frontal.jpg"
    (root / "test/patient64741/study1").mkdir(parents=True)
    gray(40, 48).save(root / "test/patient64741/study1/view1_frontal.jpg")
    (root / "test.csv").write_text(f"Path\n{test}\n")
    (root / "test_labels.csv").write_text("Path,Cardiomegaly\ntest/patient64741/study1/view1_frontal.jpg,1\n")
    listing = listed(root)
    assert len(listing.splits["train"]) == 4 and said(listing) == {}
    [record] = listing.splits["test"]
    assert record.labels[FINDINGS.index("Cardiomegaly")] == 1 and record.view == "FRONTAL"


def test_what_is_missing_or_odd_is_counted_and_named(folder):
    release = folder / "CheXpert-v1.0-small"
    (release / "train/patient00001/study1/view1_frontal.jpg").unlink()
    gray(40, 48).save(release / "stray.jpg")
    gray(40, 48).save(release / "valid/patient64541/study1/view2_frontal.jpg")
    with (release / "valid.csv").open("a") as file:
        file.write(f"CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,{PEOPLE},,,,,\n")
        file.write(f"elsewhere.jpg,{PEOPLE},,,,,\n")
        file.write(f"x/valid/patient64542/study9/view1_frontal.jpg,{PEOPLE},maybe,,,,\n")
    listing = listed(folder)
    assert said(listing) == {"absent": 2, "not_listed": 2, "duplicate_row": 1, "bad_line": 1}
    assert len(listing.splits["train"]) == 3 and len(listing.splits["validation"]) == 1


def test_a_patient_in_two_splits_stops_the_build(folder):
    with (folder / "CheXpert-v1.0-small" / "valid.csv").open("a") as file:
        file.write(f"x/valid/patient00002/study9/view1_frontal.jpg,{PEOPLE},,,,,\n")
    with pytest.raises(LabelFileError, match="line 3: patient00002 stands in train and in validation"):
        listed(folder)


def test_a_folder_without_its_table_or_pictures_is_refused(folder, tmp_path):
    (folder / "CheXpert-v1.0-small" / "train.csv").unlink()
    with pytest.raises(DataLayoutError, match=r"train\.csv is missing. Wanted it beside train/patient00001"):
        listed(folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "train.csv").write_text(HEADER + "\n")
    with pytest.raises(DataLayoutError, match="no image found among 1 files"):
        listed(tmp_path / "empty")
