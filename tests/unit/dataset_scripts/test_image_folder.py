"""Your own folder: its labels, its splits, and its place in the cocktail."""

import math
from pathlib import Path

import pytest
from raw_folders import ChestFolder, gray

from dataset_scripts import FINDINGS, Cocktail, ImageFolder, label_names
from dataset_scripts.build.build_log import read_report
from dataset_scripts.errors import DataLayoutError, LabelFileError


def write(root: Path, text: str, images: int = 40) -> Path:
    (root / "images").mkdir(parents=True)
    for index in range(images):
        gray(800 + index).save(root / "images" / f"{index}.png")
    (root / "labels.csv").write_text(text)
    return root


def build(root: Path, tmp_path: Path) -> ImageFolder:
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    return builder


def test_labels_are_ones_own(tmp_path: Path) -> None:
    header = "image,patient,split,fracture,metal,age_years,sex"
    rows = ["0.png,a,train,1,,61,F", "1.png,b,test,0,1,,", "2.png,c,train,,0,x,M"]
    text = "\n".join([header, *rows]) + "\n"
    built = build(write(tmp_path / "own", text, 3), tmp_path).as_dataset()
    assert label_names(built["train"].features) == ["fracture", "metal"]
    first, second = built["train"]
    assert first["labels"][0] == 1.0 and math.isnan(first["labels"][1])
    assert math.isnan(second["labels"][0]) and second["labels"][1] == 0.0
    assert (first["findings"], first["age_years"], first["sex"]) == ([0], 61.0, "F")
    assert math.isnan(second["age_years"])
    assert built["test"][0]["findings"] == [1]


def test_a_csv_as_excel_saves_it(tmp_path: Path) -> None:
    root = write(tmp_path / "own", "", 2)
    (root / "labels.csv").write_bytes(
        b"\xef\xbb\xbfimage,split,fracture\r\n0.png,train,1\r\n1.png,train,\r\n"
    )
    built = build(root, tmp_path).as_dataset()["train"]
    assert label_names(built.features) == ["fracture"]
    assert built["labels"][0] == [1.0] and math.isnan(built["labels"][1][0])


def test_without_splits_patients_are_shared_out(tmp_path: Path) -> None:
    rows = [f"{index}.png,{index // 2},{index // 2 % 2}" for index in range(40)]
    built = build(
        write(tmp_path / "own", "image,patient,fracture\n" + "\n".join(rows)), tmp_path
    ).as_dataset()
    patients = [set(rows["patient_id"]) for rows in built.values()]
    assert set(built) == {"train", "validation", "test"}
    assert len(set.union(*patients)) == sum(map(len, patients)) == 20
    assert all(any(row["findings"] for row in built[split]) for split in built)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,patient\n0.png,1\n", "at least one label column"),
        ("file,fracture\n0.png,1\n", "wanted a column 'image'"),
        ("image,fracture\n0.png,yes\n", "line 2: column 'fracture' holds 'yes'"),
        ("image,split,fracture\n0.png,dev,1\n", r"split holds \['dev'\]"),
        ("image,split,fracture\n0.png,train,1\n1.png,,1\n", r"split holds \[''\]"),
        ("image,patient,split,fracture\n0.png,a,train,1\n1.png,a,test,1\n", "more than one split"),
    ],
)
def test_a_csv_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelFileError, match=message):
        build(write(tmp_path / "own", text), tmp_path)


def test_files_and_rows_that_do_not_meet(tmp_path: Path) -> None:
    text = "image,fracture\n" + "".join(f"{index}.png,1\n" for index in [*range(1, 40), 39, 99])
    report = read_report(build(write(tmp_path / "own", text), tmp_path).cache_dir)
    assert {(problem["kind"], problem["name"]) for problem in report["problems"]} == {
        ("absent", "99.png"),
        ("duplicate_row", "39.png"),
        ("not_listed", "images/0.png"),
    }


def test_no_csv_or_no_images(tmp_path: Path) -> None:
    root = write(tmp_path / "own", "image,fracture\n0.png,1\n", 0)
    with pytest.raises(DataLayoutError, match="no image found"):
        build(root, tmp_path)
    (root / "labels.csv").rename(root / "a.csv")
    (root / "b.csv").touch()
    with pytest.raises(DataLayoutError, match=r"found \['a.csv', 'b.csv'\]"):
        build(root, tmp_path)


def test_it_joins_the_cocktail_with_the_labels_they_share(chest: ChestFolder, tmp_path: Path) -> None:
    raw = chest.finish().parent
    write(raw / "own_images", "image,split,Hernia,fracture\n0.png,train,1,1\n1.png,train,,0\n", 2)
    builder = Cocktail(data_dir=raw, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    rows = [row for row in builder.as_dataset()["train"] if row["source"] == "image folder"]
    assert [row["findings"] for row in rows] == [[FINDINGS.index("Hernia")], []]
    assert all(math.isnan(row["labels"][0]) for row in rows)
    assert read_report(builder.cache_dir)["problem_counts"] == {"image folder": {"unknown_finding": 1}}
