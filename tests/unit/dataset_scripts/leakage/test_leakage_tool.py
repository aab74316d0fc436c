"""`python -m dataset_scripts.leakage A B`: what stands where, in folders, Parquet and datasets."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from raw_folders import gray, write_shard

from dataset_scripts import ImageFolder
from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.leakage.__main__ import main

Pairs = set[tuple[str, str]]


def save(path: Path, seed: int, *, mirrored: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = gray(seed, 96)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((80, 75))
    picture.save(path)


@pytest.fixture
def a(tmp_path: Path) -> Path:
    """Two copies of what `b` holds, three pictures of its own, a damaged file and a text."""
    folder = tmp_path / "a"
    save(folder / "copy.png", 1)
    save(folder / "deep" / "mirrored, and smaller.jpg", 2, mirrored=True)
    for seed in (21, 22, 23):
        save(folder / f"own{seed}.png", seed)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def b(tmp_path: Path) -> Path:
    folder = tmp_path / "b"
    for seed in range(1, 9):
        save(folder / "images" / f"{seed}.png", seed)
    return folder


def read_pairs(out: Path) -> list[dict[str, str]]:
    with (out / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pairs_of(out: Path) -> Pairs:
    return {(row["a"], row["b"]) for row in read_pairs(out)}


def compare(a: Path | str, b: Path | str, out: Path) -> int:
    return main([str(a), str(b), "--output_dir", str(out), "--num_proc", "1"])


def test_the_command_names_the_copies_and_the_files_it_could_not_read(
    root: Path, a: Path, b: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dataset_scripts.leakage", str(a), str(b), "--output_dir", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["a"]: row for row in read_pairs(out)}
    assert (out / "pairs.csv").read_text().splitlines()[0] == "a,b,score,change"
    assert {name: row["b"] for name, row in rows.items()} == {
        "copy.png": "images/1.png",
        "deep/mirrored, and smaller.jpg": "images/2.png",
    }
    assert rows["copy.png"]["change"] == ""
    assert rows["deep/mirrored, and smaller.jpg"]["change"] == "mirrored"
    assert all(0.6 <= float(row["score"]) <= 1 for row in rows.values())
    assert 0.7 < float(rows["copy.png"]["score"]) < 0.95  # what the verdict says of an identical file
    verdict = json.loads((out / "verdict.json").read_text())
    assert done.stdout.strip() == verdict["verdict"]
    assert "even an identical file has about 0.75 to 0.9, and from 0.60 on" in verdict["verdict"]
    assert f"2 of the 6 images of {a} stand in {b} (8 images)" in verdict["verdict"]
    assert list(verdict["unreadable_a"]) == ["broken.png"] and "broken.png (" in verdict["verdict"]
    assert (verdict["standing"], verdict["pairs"], verdict["no_pictures_a"]) == (2, 2, 1)
    assert f"Files of {a} that are no pictures, so not compared: 1." in verdict["verdict"]
    assert "Comparing" in done.stderr  # progress
    with Image.open(out / "pairs.png") as sheet:
        assert sheet.size == (2 * 264, 160)
    assert not (out / ".leakage").exists()


def test_a_folder_with_itself_finds_its_near_duplicates_alone(b: Path, tmp_path: Path) -> None:
    save(b / "again.png", 3, mirrored=True)
    save(b / "once more.png", 3)
    out = tmp_path / "out"
    assert compare(b, b, out) == 0
    found = {frozenset(pair) for pair in pairs_of(out)}
    names = ("again.png", "images/3.png", "once more.png")
    assert found == {frozenset((one, other)) for one in names for other in names if one != other}
    assert len(read_pairs(out)) == 3  # each once
    verdict = json.loads((out / "verdict.json").read_text())
    assert (verdict["standing"], verdict["groups"]) == (3, 1)


def test_one_file_below_both_folders_is_no_copy_of_itself(a: Path, tmp_path: Path) -> None:
    save(a / "again.png", 1)
    assert compare(a / "deep", a, tmp_path / "one") == 0
    assert pairs_of(tmp_path / "one") == set()
    assert compare(a, f"{a}/", tmp_path / "two") == 0
    assert {frozenset(pair) for pair in pairs_of(tmp_path / "two")} == {frozenset(("again.png", "copy.png"))}


def test_names_that_are_no_text_are_written_as_they_are(
    b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a" / "x.png", 1)
    (tmp_path / "a" / "x.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9, 1.png"))
    (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"broken")
    assert compare(tmp_path / "a", b, tmp_path / "out") == 0
    assert b'\n"caf\xe9, 1.png",images/1.png,0.' in (tmp_path / "out" / "pairs.csv").read_bytes()
    assert "\\xff.png (not_an_image" in capsys.readouterr().out


def test_nothing_in_common(b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a" / "own.png", 40)
    out = tmp_path / "out"
    out.mkdir()
    (out / "pairs.png").write_bytes(b"of an earlier run")
    assert compare(tmp_path / "a", b, out) == 0
    assert "No image of" in capsys.readouterr().out
    assert read_pairs(out) == []
    assert not (out / "pairs.png").exists()


@pytest.mark.parametrize("compression", ["fast", "raw"])
def test_a_built_dataset_is_compared_by_its_image_ids(
    a: Path, b: Path, tmp_path: Path, compression: str
) -> None:
    lines = ["image,split,Mass", *(f"{seed}.png,{'test' if seed < 3 else 'train'},1" for seed in range(1, 9))]
    (b / "labels.csv").write_text("\n".join(lines) + "\n")
    builder = ImageFolder(data_dir=b, build_dir=tmp_path / "cache", compression=compression)
    export_parquet(builder, tmp_path / "built")
    assert compare(a, tmp_path / "built", tmp_path / "out") == 0
    assert pairs_of(tmp_path / "out") == {
        ("copy.png", "image folder/1.png"),
        ("deep/mirrored, and smaller.jpg", "image folder/2.png"),
    }
    assert compare(tmp_path / "built", tmp_path / "built", tmp_path / "same") == 0
    assert pairs_of(tmp_path / "same") == set()


def test_what_load_dataset_opens_is_compared(
    a: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    shards = tmp_path / "shards"
    write_shard(shards / "train-0000.tar", [1, 7])
    assert compare(shards, a, tmp_path / "out") == 0
    assert pairs_of(tmp_path / "out") == {("train/0", "copy.png")}


def test_a_repeated_run_reads_and_compares_nothing_again(a: Path, b: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "pairs.csv" / "in the way").mkdir(parents=True)
    assert compare(a, b, out) == 1  # everything is found, and cannot be written
    (out / "pairs.csv" / "in the way").rmdir()
    (out / "pairs.csv").rmdir()
    for path in b.rglob("*.png"):  # still there to see, and no picture to read
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert compare(a, b, out) == 0
    assert len(read_pairs(out)) == 2
    assert compare(a, b, out) == 0  # the work is done and forgotten, so this run reads
    assert read_pairs(out) == []


def test_half_a_line_of_a_killed_run_is_found_again(a: Path, b: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "pairs.csv" / "in the way").mkdir(parents=True)
    assert compare(a, b, out) == 1
    log = out / ".leakage" / "matches.jsonl"
    log.write_text(log.read_text()[:30])
    (out / "pairs.csv" / "in the way").rmdir()
    (out / "pairs.csv").rmdir()
    assert compare(a, b, out) == 0
    assert len(read_pairs(out)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{tmp}/absent", "absent: there is no such file or folder; the nearest that exists is"),
        ("{tmp}/a/notes.txt", "notes.txt is a file. Wanted a folder of images"),
        ("{tmp}/empty", "empty is empty. Wanted a folder of images"),
        ("{tmp}/words", "words holds no picture and no Parquet, and cannot be opened as a dataset"),
        ("{tmp}/damaged.parquet", "damaged.parquet cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_compared_is_said(
    a: Path, tmp_path: Path, wrong: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "read me.md").write_text("nothing")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    assert compare(wrong.format(tmp=tmp_path), a, tmp_path / "out") == 1
    assert message in caplog.text


def test_output_inside_the_images_is_refused(a: Path, b: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert compare(a, b, b / "out") == 1
    assert "lies inside" in caplog.text
    assert not (b / "out").exists()
    assert compare(a, b, a / "notes.txt" / "out") == 1
    assert "notes.txt is a file" in caplog.text
