"""The merge, the cache key and the leakage guard, on tiny folders."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_folders import ChestFolder, gray, read_leakage_report

from dataset_scripts import Cocktail
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.pixel_statistics import read_statistics
from dataset_scripts.errors import DataLayoutError

AddCovidx = Callable[[str, str, int], Path]


def build(root: Path, num_proc: int = 1, **options: object) -> Cocktail:
    builder = Cocktail(data_dir=root, build_dir=root.parent / "cache", **options)
    builder.download_and_prepare(num_proc=num_proc)
    return builder


def test_sources_that_stand_there_are_merged(chest: ChestFolder, covidx: AddCovidx) -> None:
    chest.finish()
    covidx("train", "7 a file with spaces.png", 500)
    covidx("test", "8 b.png", 501)
    built = build(chest.root.parent).as_dataset()
    rows = [row for split in built.values() for row in split]
    ids = [row["image_id"] for row in rows]
    assert len(set(ids)) == len(ids) == 42
    assert "COVIDx CXR-3/train/a file with spaces.png" in built["train"]["image_id"]
    assert {row["source"] for row in rows} == {"ChestX-ray14", "COVIDx CXR-3"}


def test_an_image_of_the_test_list_does_not_enter_training(chest: ChestFolder, covidx: AddCovidx) -> None:
    chest.add("test", "00000041_000.png", "Mass", 41, seed=600)
    chest.finish()
    covidx("train", "7 harmless.png", 601)
    covidx("train", "8 leak.png", 600)
    builder = build(chest.root.parent)
    assert "COVIDx CXR-3/train/leak.png" not in builder.as_dataset()["train"]["image_id"]
    report = read_leakage_report(builder.cache_dir)
    (leak,) = report["dropped"]
    assert leak["image_id"] == "COVIDx CXR-3/train/leak.png"
    assert leak["held_out_image_id"] == "ChestX-ray14/00000041_000.png"
    assert leak["held_out_split"] == "test"
    assert leak["correlation"] > 0.8
    assert read_report(builder.cache_dir)["problem_counts"] == {"COVIDx CXR-3": {"leak": 1}}


def test_an_image_of_the_training_list_may_stay(chest: ChestFolder, covidx: AddCovidx) -> None:
    chest.finish()
    builder = ChestTwice(chest, covidx).build()
    assert read_leakage_report(builder.cache_dir)["dropped"] == []


class ChestTwice:
    """A COVIDx image that shows a ChestX-ray14 training image."""

    def __init__(self, chest: ChestFolder, covidx: AddCovidx) -> None:
        self.root = chest.root.parent
        train = build(self.root).as_dataset()["train"]
        name = train["image_id"][0].removeprefix("ChestX-ray14/")
        seed = [row.split(",")[0] for row in chest.rows].index(name) + 1
        covidx("train", "7 twin.png", seed)

    def build(self) -> Cocktail:
        return build(self.root)


@pytest.mark.parametrize("change", ["add", "remove", "touch"])
def test_a_changed_source_is_built_anew(chest: ChestFolder, change: str) -> None:
    root = chest.finish()
    before = build(root.parent)
    assert build(root.parent).cache_dir == before.cache_dir
    first = root / "images" / "00000001_000.png"
    if change == "add":
        gray(1).save(root / "images" / "new.png")
    elif change == "remove":
        first.unlink()
    else:
        os.utime(first, ns=(1, 1))
    assert build(root.parent).cache_dir != before.cache_dir


def test_workers_do_not_change_what_is_built(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "images" / "00000003_000.png").write_bytes(b"")
    one = build(root.parent)
    two = Cocktail(data_dir=root.parent, build_dir=root.parent.parent / "cache2")
    two.download_and_prepare(num_proc=2)
    assert read_report(one.cache_dir) == read_report(two.cache_dir)
    assert read_statistics(one.cache_dir) == read_statistics(two.cache_dir)
    a, b = one.as_dataset(), two.as_dataset()
    assert {split: rows["image_id"][:] for split, rows in a.items()} == {
        split: rows["image_id"][:] for split, rows in b.items()
    }


def test_statistics_count_the_training_split_alone(chest: ChestFolder) -> None:
    builder = build(chest.finish().parent)
    statistics = read_statistics(builder.cache_dir)
    assert statistics["images"] == len(builder.as_dataset()["train"]) == 34
    assert 0.2 < statistics["mean"] < 0.8


def test_streaming_reads_the_same_rows(chest: ChestFolder) -> None:
    builder = build(chest.finish().parent)
    streamed = Cocktail(data_dir=chest.root.parent, build_dir=chest.root.parent.parent / "cache")
    ids = [row["image_id"] for row in streamed.as_streaming_dataset(split="train")]
    assert ids == builder.as_dataset()["train"]["image_id"][:]


def test_image_size_shrinks_the_shorter_side(chest: ChestFolder) -> None:
    builder = build(chest.finish().parent, stored_size=24)
    assert {image.size for image in builder.as_dataset()["train"]["image"]} == {(24, 24)}


def test_none_of_the_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataLayoutError, match=r"none of the sources: it is empty\. .*ChestXray-NIHCC"):
        Cocktail(data_dir=tmp_path / "empty", build_dir=tmp_path / "cache")
    with pytest.raises(DataLayoutError, match=r"none of the sources: found \['empty'\].*ChestXray-NIHCC"):
        Cocktail(data_dir=tmp_path, build_dir=tmp_path / "cache")


def test_no_data_dir() -> None:
    with pytest.raises(DataLayoutError, match="needs data_dir"):
        Cocktail()


def test_no_report_names_a_path_of_the_users(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "images" / "00000003_000.png").write_bytes(b"no image")
    (root / "images" / "00000004_000.png").unlink()
    builder = build(root.parent)
    reports = list(Path(builder.cache_dir).glob("*.json"))
    assert {"build_report.json", "leakage_report.json"} <= {path.name for path in reports}
    for path in reports:
        assert str(root.parent.parent) not in path.read_text()
