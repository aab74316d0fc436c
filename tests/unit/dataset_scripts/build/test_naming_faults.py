"""Names that fit no file beside files that fit no name are said to look like a fault of naming."""

import logging
from pathlib import Path

import pytest
from raw_folders import gray

from dataset_scripts.__main__ import main
from dataset_scripts.build.build_log import note_lines


def own_folder(folder: Path, names: list[str], files: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(files):
        gray(number).save(folder / "images" / name)
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["image,Effusion", *rows]) + "\n")
    return folder


def build(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level(logging.INFO)
    main([f"--data_dir={folder}", f"--output_dir={folder.parent / 'out'}", "--num_proc=1"])
    return caplog.text


def test_names_that_all_miss_their_files_are_shown_beside_them(tmp_path, caplog):
    said = build(own_folder(tmp_path / "own", ["p1.png", "p2.png"], ["1.png", "2.png"]), caplog)
    assert "2 names have no file and as many files have no name" in said
    assert "'p1.png' is named, and 'images/1.png' is in the folder" in said


def test_some_names_that_miss_their_files_are_shown_after_the_build(tmp_path, caplog):
    there = [f"{number}.png" for number in range(40)]
    said = build(own_folder(tmp_path / "own", [*there[:-1], "x39.png"], there), caplog)
    assert "labels: 1 finding: Effusion" in said
    [line] = [line for line in note_lines(tmp_path / "out") if "fault of naming" in line]
    assert line in said and "'x39.png' is named, and 'images/39.png'" in line


def test_a_name_and_a_file_that_are_not_alike_are_no_fault_of_naming(tmp_path, caplog):
    there = [f"{number}.png" for number in range(40)]
    folder = own_folder(tmp_path / "own", [*there, "00000001_000.png"], [*there, "notes_scan.png"])
    assert "fault of naming" not in build(folder, caplog)


def test_files_without_a_row_are_no_fault_of_naming(tmp_path, caplog):
    there = [f"{number}.png" for number in range(40)]
    assert "fault of naming" not in build(own_folder(tmp_path / "own", there[:-3], there), caplog)
