"""Copies in a user's own folder: none is validated and tested on, and classes that contradict are named."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from raw_folders import gray, read_leakage_report

from dataset_scripts import Cocktail, ImageFolder
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.errors import UserError
from dataset_scripts.leakage.image_sets import open_images
from dataset_scripts.leakage.label_conflicts import describe_conflict

Report = dict[str, Any]


def save(path: Path, seed: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    gray(seed, side).save(path)


def build(folder: Path, place: Path, **options: Any) -> tuple[datasets.DatasetDict, Report]:
    builder = ImageFolder(data_dir=folder, build_dir=place, **options)
    builder.download_and_prepare()
    return builder.as_dataset(), read_leakage_report(builder.cache_dir)


@pytest.fixture
def thrice(tmp_path: Path) -> Path:
    """Two classes of twenty pictures, each three times under names that say no patient; no split."""
    for seed in range(40):
        for copy, side in zip("xyz", (96, 88, 80), strict=True):
            save(tmp_path / "own" / ("sick" if seed % 2 else "healthy") / f"{copy}{seed}q.png", seed, side)
    return tmp_path / "own"


def pictures(rows: datasets.Dataset) -> set[str]:
    """Which picture each row shows: the digits of its file's name."""
    return {"".join(filter(str.isdigit, Path(name).name)) for name in rows["image_id"]}


def test_no_picture_is_validated_on_and_tested_on_where_we_draw_the_split(
    thrice: Path, tmp_path: Path
) -> None:
    rows, report = build(thrice, tmp_path / "built")
    assert report["held_out_duplicates"] and report["dropped_validation_images"] > 0
    shown = {name: pictures(part) for name, part in rows.items()}
    assert not shown["test"] & shown["validation"] and not shown["test"] & shown["train"]
    assert not shown["validation"] & shown["train"]


def test_nor_where_we_draw_validation_alone(thrice: Path, tmp_path: Path) -> None:
    thrice.rename(tmp_path / "train")
    (tmp_path / "own").mkdir()
    (tmp_path / "train").rename(tmp_path / "own" / "train")
    for seed in range(60):
        split = "test" if seed < 40 else "train"
        save(tmp_path / "own" / split / ("sick" if seed % 2 else "healthy") / f"w{seed}q.png", seed, 92)
    rows, report = build(tmp_path / "own", tmp_path / "built")
    assert len(rows["test"]) == 40 and report["dropped_validation_images"] > 0
    assert rows["validation"] and not pictures(rows["test"]) & pictures(rows["validation"])


def test_they_stay_where_leakage_is_allowed(thrice: Path, tmp_path: Path) -> None:
    rows, report = build(thrice, tmp_path / "built", allow_leakage=True)
    assert report["held_out_duplicates"] and report["dropped_validation_images"] == 0
    assert sum(map(len, rows.values())) == 120


def test_classes_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for seed in range(8):
        save(own / "train" / "NORMAL" / f"a{seed}.png", seed, 96)
        save(own / "train" / "PNEUMONIA" / f"b{seed}.png", 20 + seed, 96)
        save(own / "test" / "NORMAL" / f"c{seed}.png", 40 + seed, 96)
        save(own / "test" / "PNEUMONIA" / f"d{seed}.png", 60 + seed, 96)
    save(own / "train" / "PNEUMONIA" / "copy of a test image.png", 41, 88)
    save(own / "train" / "PNEUMONIA" / "copy of a training image.png", 2, 88)
    save(own / "train" / "PNEUMONIA" / "copy of one alike.png", 22, 88)
    _, report = build(own, tmp_path / "built", keep_duplicates="once")
    said = {Path(row["image_id"]).name: (row["says"], row["other_says"]) for row in report["label_conflicts"]}
    against = ("PNEUMONIA", "NORMAL")
    assert said == {"copy of a test image.png": against, "copy of a training image.png": against}


def test_columns_that_contradict_each_other_are_named_by_their_names(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for seed in range(4):
        save(own / "images" / f"a{seed}.png", seed + 1, 96)
    save(own / "images" / "copy.png", 1, 88)
    (own / "labels.csv").write_text(
        "image,split,wet,dry,old\na0.png,test,1,0,\na1.png,train,0,1,1\na2.png,train,1,1,0\n"
        "a3.png,validation,1,1,0\ncopy.png,train,1,1,1\n"
    )
    _, report = build(own, tmp_path / "built")
    (row,) = report["label_conflicts"]
    assert (row["image_id"], row["says"], row["other_says"]) == ("image folder/copy.png", "dry", "no dry")


def test_fifteen_labels_of_ones_own_are_not_those_of_chestxray14() -> None:
    names = tuple(f"sign {number}" for number in range(15))

    def record(present: int) -> ImageRecord:
        labels = tuple(float(number == present) for number in range(15))
        return ImageRecord(f"{present}", "own", "patient", "path", labels)

    said = describe_conflict(record(0), record(14), {"own": names})
    assert said == ("sign 0, no sign 14", "no sign 0, sign 14")
    assert describe_conflict(record(0), record(0), {"own": names}) is None


@pytest.mark.parametrize("column", ["image", "scan"])
def test_pictures_beside_parquet_of_images_are_refused(tmp_path: Path, column: str) -> None:
    folder = tmp_path / "cloned"
    save(folder / "logo.png", 1, 64)
    rows = datasets.Dataset.from_dict({column: [gray(2, 64)]}, datasets.Features({column: datasets.Image()}))
    (folder / "data").mkdir()
    rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"1 pictures \(logo.png\) and 1 Parquet files with images"):
        open_images(str(folder))
    if column == "image":
        assert len(open_images(str(folder / "data")).names) == 1


def test_pictures_beside_a_table_of_features_are_read(tmp_path: Path) -> None:
    save(tmp_path / "own" / "a.png", 1, 64)
    datasets.Dataset.from_dict({"features": [[0.0, 1.0]]}).to_parquet(tmp_path / "own" / "features.parquet")
    assert open_images(str(tmp_path / "own")).names == ("a.png",)


def test_covidx_negative_against_the_radiography_databases_covid(tmp_path: Path) -> None:
    covidx, radiography = tmp_path / "raw" / "COVIDx_CXR", tmp_path / "raw" / "COVID-19_Radiography_Dataset"
    for split, name, seed in (("test", "a", 1), ("test", "b", 2), ("test", "c", 3), ("train", "d", 4)):
        save(covidx / split / f"{name}.png", seed, 96)
    (covidx / "test.txt").write_text("1 a.png negative x\n2 b.png positive x\n3 c.png positive x\n")
    (covidx / "train.txt").write_text("4 d.png positive x\n")
    for class_name, seed in (("COVID", 1), ("COVID", 2), ("Normal", 3)):
        save(radiography / class_name / "images" / f"{seed}.png", seed, 88)
    builder = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "built")
    builder.download_and_prepare()
    conflicts = read_leakage_report(builder.cache_dir)["label_conflicts"]
    assert [(row["image_id"][-5:], row["says"], row["other_says"]) for row in conflicts] == [
        ("1.png", "COVID-19", "no COVID-19"),
        ("3.png", "Normal", "COVID-19 positive"),
    ]
