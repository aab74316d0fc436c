"""Class folders: splits, classes and patients as they are; what cannot be meant is refused in words."""

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from datasets import load_dataset
from own_listings import listed
from raw_folders import gray

from dataset_scripts import FINDINGS, Cocktail, ImageFolder, label_names
from dataset_scripts.__main__ import main
from dataset_scripts.build.build_log import note_lines, read_report
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.origin import DatasetOrigin, write_origin
from dataset_scripts.build.records import SourceListing, scan_folder
from dataset_scripts.cocktail import SOURCES
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import is_exclusive
from dataset_scripts.image_folder import SOURCE, is_own_folder, missing_splits
from dataset_scripts.own.class_folders import ClassFolders, Place, find_classes, list_classes

SPLITS = ("train", "validation", "test")


def write(root: Path, paths: Iterable[str], first: int = 0) -> Path:
    """A picture at each path, no two alike."""
    for seed, path in enumerate(paths, start=first):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        gray(seed, 24).save(root / path)
    return root


def kinds(listing: SourceListing) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in listing.problems:
        found.setdefault(problem.kind, []).append(problem.name)
    return found


def paths(listing: SourceListing, split: str) -> set[str]:
    return {record.path for record in listing.splits.get(split, [])}


def classes(split: str, each: int, names: Iterable[str] = ("NORMAL", "SICK")) -> list[str]:
    return [f"{split}{name}/{name.lower()}{index}x.png" for name in names for index in range(each)]


def kermany(split: str, patients: range) -> list[str]:
    """Two films of each sick patient and one of each healthy one, named as Kermany's."""
    sick = [f"{split}/PNEUMONIA/person{n}_virus_{n * 10 + film}.png" for n in patients for film in (1, 2)]
    return sick + [f"{split}/NORMAL/IM-{n:04}-0001.png" for n in patients]


def test_split_and_class_folders_become_one_exclusive_label(tmp_path: Path) -> None:
    root = write(tmp_path / "xrays", classes("train/", 30) + classes("val/", 12) + classes("test/", 2))
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    built = builder.as_dataset()
    assert {split: len(rows) for split, rows in built.items()} == {"train": 60, "validation": 24, "test": 4}
    assert label_names(built["test"].features) == ["NORMAL", "SICK"]
    assert is_exclusive(built["test"].features)
    assert sorted(map(tuple, built["test"]["labels"])) == [(0, 1), (0, 1), (1, 0), (1, 0)]
    assert sorted(map(tuple, built["test"]["findings"])) == [(0,), (0,), (1,), (1,)]
    assert set(read_report(builder.cache_dir)["problem_counts"]["image folder"]) == {"no_patient"}


def test_class_folders_alone_are_shared_out_by_patient(tmp_path: Path) -> None:
    names = [f"{name}/p{n}_{film}.png" for name in ("A", "B", "C") for n in range(20) for film in range(2)]
    listing = listed(write(tmp_path / "own", names))
    assert all(listing.splits[split] for split in SPLITS)
    patients = [{record.patient_id for record in listing.splits[split]} for split in SPLITS]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 20  # p0 of A is p0 of B
    assert all({record.labels.index(1) for record in part} == {0, 1, 2} for part in listing.splits.values())


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    for name, files in {
        "flat": [f"{n}x.png" for n in range(30)],
        "one": [f"films/{n}x.png" for n in range(30)],
        "deep": [f"2019/{n % 3}/{n}x.png" for n in range(30)],
        "images": [f"images/{n}x.png" for n in range(30)],
    }.items():
        root = write(tmp_path / name, files)
        assert is_own_folder(root, SOURCES)
        listing = listed(root)
        records = [record for part in listing.splits.values() for record in part]
        assert len(records) == 30 and set(listing.splits) == set(SPLITS), name
        assert all(len(r.labels) == len(FINDINGS) and all(map(math.isnan, r.labels)) for r in records)
    (builder := ImageFolder(data_dir=root, build_dir=tmp_path / "cache")).download_and_prepare()
    assert not is_exclusive(builder.as_dataset()["train"].features)


def test_a_validation_folder_that_is_too_small_joins_train_and_is_cut_by_patient(tmp_path: Path) -> None:
    root = write(tmp_path / "chest", [
        *kermany("train", range(150)), *kermany("val", range(200, 203)), *kermany("test", range(300, 320)),
    ])  # fmt: skip
    listing = listed(root)
    assert paths(listing, "test") == set(kermany("test", range(300, 320)))
    assert len(listing.splits["validation"]) >= 30
    patients = [{record.patient_id for record in listing.splits[split]} for split in SPLITS]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 2 * (150 + 3 + 20)
    (cut,) = [problem for problem in listing.problems if problem.kind == "split_cut"]
    assert "its folder holds 9 images, too few to choose by (3 patients of one label)" in cut.detail
    assert set(kinds(listing)) == {"split_cut", "patient_by_name"}


def test_a_validation_folder_stays_where_a_cut_would_be_no_better(tmp_path: Path) -> None:
    files = [*kermany("train", range(20)), *kermany("valid", range(90, 94)), *kermany("test", range(50, 60))]
    listing = listed(write(tmp_path / "chest", files))
    assert paths(listing, "validation") == set(kermany("valid", range(90, 94)))


def test_what_is_absent_is_cut_from_train(tmp_path: Path) -> None:
    listing = listed(write(tmp_path / "own", classes("train/", 40)))
    assert all(listing.splits[split] for split in SPLITS)
    assert kinds(listing)["split_cut"] == ["test", "validation"]


def test_too_few_to_hold_any_out_is_said(tmp_path: Path) -> None:
    root = write(tmp_path / "own", [*classes("train/", 2), *classes("test/", 20)])
    (cut,) = [problem for problem in listed(root).problems if problem.kind == "split_cut"]
    assert "there is no validation folder: no image could be held out for validation, since" in cut.detail
    assert "too few to share out by label" in cut.detail and "are held out" not in cut.detail


def test_patients_of_test_are_not_trained_on(tmp_path: Path) -> None:
    files = [*kermany("train", range(60)), *kermany("val", range(58, 70)), *kermany("test", range(55, 60))]
    root = write(tmp_path / "chest", files)
    listing = listed(root)
    assert paths(listing, "test") == set(kermany("test", range(55, 60)))
    assert set(kinds(listing)["patient_in_test"]) == {
        *kermany("train", range(55, 60)), *kermany("val", range(58, 60)),
    }  # fmt: skip
    patients = [{record.patient_id for record in listing.splits[split]} for split in SPLITS]
    assert len(set.union(*patients)) == sum(map(len, patients))
    kept = listed(root, allow_leakage=True)
    assert "patient_in_test" not in kinds(kept) and kinds(kept)["straddling_patient"]
    assert sum(map(len, kept.splits.values())) == len(files)


def test_who_has_class_folders_is_told_of_a_table_and_not_of_a_column(tmp_path: Path) -> None:
    root = write(tmp_path / "own", [f"{kind}/{n}x.png" for kind in "ab" for n in range(12)])
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    said = "; ".join(note_lines(Path(builder.cache_dir)))
    assert "intervals are too narrow: write a table with image, patient and label" in said


def test_the_summary_says_how_patients_and_validation_were_found(tmp_path: Path) -> None:
    root = write(tmp_path / "chest", [*kermany("train", range(40)), *kermany("test", range(50, 55))])
    assert main([f"--data_dir={root}", f"--output_dir={tmp_path / 'out'}", "--num_proc=1"]) == 0
    said = "; ".join(note_lines(tmp_path / "out"))
    assert "patients are told by the names of the files (Kermany's" in said and "this is" not in said
    assert said.startswith("0 of 108 training images show a held-out one; no file left out; ")
    assert len(note_lines(tmp_path / "out")) == 4, "each note has its line"
    assert "noted:" not in said and "patient_by_name" not in said
    assert "there is no validation folder: " in said and "training patients are held out" in said


def test_one_file_in_two_classes_or_splits(tmp_path: Path) -> None:
    root = write(tmp_path / "own", classes("train/", 20) + classes("test/", 5), first=100)
    for seed, copies in enumerate([
        ("train/NORMAL/a.png", "train/SICK/a.png"),
        ("train/NORMAL/b.png", "test/SICK/b.png"),
        ("train/NORMAL/c.png", "test/NORMAL/C.png"),
    ]):  # fmt: skip
        for copy in copies:
            gray(seed, 24).save(root / copy)
    write(root, ["train/NORMAL/d.png", "train/SICK/d.png"], first=50)  # alike in name alone
    listing = listed(root)
    built = set().union(*(paths(listing, split) for split in SPLITS))
    assert {"test/SICK/b.png", "test/NORMAL/C.png", "train/NORMAL/d.png", "train/SICK/d.png"} <= built
    found = kinds(listing)
    conflicts = {"train/NORMAL/a.png", "train/SICK/a.png", "train/NORMAL/b.png"}
    assert set(found["conflicting_class"]) == conflicts
    assert found["same_file"] == ["train/NORMAL/c.png"]
    assert not built & {*found["conflicting_class"], *found["same_file"]}


def test_files_and_folders_without_a_picture_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "own", classes("train/", 20) + classes("test/", 5))
    (root / "train" / "COVID" / "more").mkdir(parents=True)
    (root / "train" / "NORMAL" / "notes.txt").write_text("read me")
    (root / "train" / "NORMAL" / "Thumbs.db").write_bytes(b"x")
    found = kinds(listed(root))
    assert found["empty_folder"] == ["train/COVID"]
    assert found["no_picture"] == ["train/NORMAL/notes.txt"]
    assert found["hidden_file"] == ["train/NORMAL/Thumbs.db"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are text")
def test_names_that_are_no_text_are_built(tmp_path: Path) -> None:
    root = write(tmp_path / "xrays", classes("", 30))
    os.rename(root / "SICK", os.fsencode(root) + b"/Pneumon\xeda")
    os.rename(root / "NORMAL" / "normal3x.png", os.fsencode(root) + b"/NORMAL/caf\xe9.png")
    assert main(["--data_dir", str(root), "--output_dir", str(tmp_path / "out"), "--stored_size", "24"]) == 0
    built = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))
    assert label_names(built["train"].features) == ["NORMAL", r"Pneumon\xeda"]
    rows = [row for split in built.values() for row in split]
    [row] = [row for row in rows if "caf" in row["image_id"]]
    assert row["image_id"] == r"image folder/NORMAL/caf\xe9.png"
    assert row["patient_id"] == r"image folder/image NORMAL/caf\xe9.png" and len(rows) == 60


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are text")
def test_a_table_may_name_pictures_in_a_folder_that_is_no_text(tmp_path: Path) -> None:
    root = write(tmp_path / "xrays", [f"below/{index}.png" for index in range(30)])
    os.rename(root / "below", os.fsencode(root) + b"/R\xf6ntgen")
    (root / "labels.csv").write_text("image,flu\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(30)))
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    ids = {row["image_id"] for split in builder.as_dataset().values() for row in split}
    assert r"image folder/R\xf6ntgen/3.png" in ids and len(ids) == 30


def test_each_file_is_looked_up_once(tmp_path: Path) -> None:
    """A folder of 112,120 pictures took minutes where all were listed again for each."""

    class Counted(dict[str, Place]):
        walks = 0

        def __iter__(self) -> Iterator[str]:
            Counted.walks += 1
            return super().__iter__()

    scan = scan_folder(write(tmp_path / "xrays", classes("", 20)))
    found = find_classes(scan)
    counted = ClassFolders(Counted(found.places), found.names)
    listing = SourceListing(SOURCE, scan.root)
    list_classes(scan, SourceConfig(), counted, found.names, listing)
    assert Counted.walks < 10


def test_a_file_that_is_no_picture_inside_is_unreadable(tmp_path: Path) -> None:
    root = write(tmp_path / "own", classes("train/", 20) + classes("test/", 5))
    (root / "test" / "SICK" / "broken.png").write_text("no picture")
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    assert read_report(builder.cache_dir)["problem_counts"]["image folder"]["not_an_image"] == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["A/1.png", "B/2.png", "montage.png"], r"1 pictures do not lie in a class folder.*montage\.png"),
        (["A/1.png", "B/sub/2.png"], r"do not lie in a class folder.*B/sub/2\.png"),
        (["train/A/1.png", "train/B/2.png", "test/3.png"], r"do not lie in a class folder.*test/3\.png"),
        (["train/A/1.png", "train/B/2.png", "extra/A/3.png"], r"lie beside the folders \['train'\].*extra"),
        (["train/A/1.png", "Training/A/2.png"], "name one split twice"),
        (["train/Normal/1.png", "train/B/2.png", "test/NORMAL/3.png"], "differ only in letter case"),
        (["Normal/1.png", "normal /2.png"], "differ only in letter case, spaces"),
        (["train/A/1.png", "train/B/2.png", "test/C/3.png"], "C.* have pictures in test, and none in train"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_meant(tmp_path: Path, files: list[str], message: str) -> None:
    root = write(tmp_path / "own", files)
    with pytest.raises(DataLayoutError, match=message):
        ImageFolder(data_dir=root, build_dir=tmp_path / "cache")


def test_what_is_missing_is_said_before_building(tmp_path: Path) -> None:
    few = write(tmp_path / "few", ["A/1x.png", "B/2x.png"])
    (fault,) = missing_splits(few, ["train", "validation", "test"])
    assert re.search("the 2 pictures of 2 patients in few are too few", fault)
    test_alone = write(tmp_path / "alone", classes("test/", 5))
    (fault,) = missing_splits(test_alone, ["train", "validation"])
    assert "no picture in train to learn from" in fault
    assert paths(listed(test_alone), "test") == set(classes("test/", 5))


def test_class_folders_join_the_cocktail_by_the_findings_they_name(tmp_path: Path) -> None:
    files = [f"{split}/{name}/{name[0]}{n}x.png" for split in ("train", "test") for n in range(12)
             for name in ("PNEUMONIA", "NORMAL")]  # fmt: skip
    write(tmp_path / "raw" / "own_images", files)
    assert not is_own_folder(tmp_path / "raw", SOURCES)
    assert is_own_folder(tmp_path / "raw" / "own_images", SOURCES)
    (listing,) = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "cache").list_records(None)
    pneumonia = FINDINGS.index("Pneumonia")
    for record in listing.splits["test"]:
        assert record.labels[pneumonia] == ("PNEUMONIA" in record.path)
        assert all(math.isnan(label) for n, label in enumerate(record.labels) if n != pneumonia)
    assert kinds(listing)["unknown_finding"] == ["NORMAL"]


def test_a_folder_of_sources_is_nobodys_own(tmp_path: Path) -> None:
    write(tmp_path / "raw", ["COVIDx_CXR/train/1.png"])
    assert not is_own_folder(tmp_path / "raw", SOURCES)
    assert not is_own_folder(tmp_path / "raw" / "COVIDx_CXR", SOURCES)
    (tmp_path / "empty").mkdir()
    assert not is_own_folder(tmp_path / "empty", SOURCES)
    (tmp_path / "raw" / "images").mkdir()
    assert not is_own_folder(tmp_path / "raw", SOURCES)


@pytest.mark.parametrize("place", ["up", "up/raw/COVIDx_CXR/train", "up/raw/COVIDx_CXR/train/A/B"])
def test_a_folder_above_or_in_a_source_is_refused(tmp_path: Path, place: str) -> None:
    write(tmp_path / "up", ["raw/COVIDx_CXR/train/A/B/1.png", "raw/COVIDx_CXR/train/2.png", "images/3.png"])
    raw = (tmp_path / "up" / "raw").resolve()
    with pytest.raises(
        DataLayoutError, match=f"test images would be .* Point data_dir at {re.escape(str(raw))} if"
    ):
        is_own_folder(tmp_path / place, SOURCES)
    write_origin(tmp_path / place, DatasetOrigin(folder="name"))  # as beside a copy of a dataset
    assert is_own_folder(tmp_path / place, SOURCES)
