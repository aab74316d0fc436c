"""A film that a set holds more often than one comparison lists matches: every pair is named all the same."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from raw_folders import gray, jpeg

from dataset_scripts.leakage.__main__ import main

FLIP = Image.Transpose.FLIP_LEFT_RIGHT


def copies(seed: int, count: int) -> list[Image.Image]:
    """Differently resized and compressed, every third of them mirrored."""
    sizes = [(80 + 4 * number, 120 - 3 * number) for number in range(count)]
    plain = [jpeg(gray(seed, 96).resize(size), 60) for size in sizes]
    return [image.transpose(FLIP) if number % 3 == 0 else image for number, image in enumerate(plain)]


@pytest.fixture
def films(tmp_path: Path) -> tuple[Path, Path]:
    """Two films and a stranger; twelve copies of each film and two strangers."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    for seed in (1, 2, 50):
        gray(seed, 96).save(a / f"{seed}.png")
    for seed in (1, 2):
        for number, image in enumerate(copies(seed, 12)):
            image.save(b / f"{seed}-{number}.png")
    for seed in (60, 61):
        gray(seed, 96).save(b / f"{seed}.png")
    return a, b


def compare(a: Path, b: Path, out: Path) -> list[dict[str, str]]:
    assert main([str(a), str(b), "--output_dir", str(out), "--num_proc", "1"]) == 0
    with (out / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_of_many_copies_is_named_whichever_set_holds_them(
    films: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = films
    rows = compare(a, b, tmp_path / "out")
    found = {(row["a"], row["b"]): row["change"] for row in rows}
    wanted = {(f"{seed}.png", f"{seed}-{number}.png"): number for seed in (1, 2) for number in range(12)}
    assert set(found) == set(wanted) and len(rows) == 24
    for pair, number in wanted.items():
        assert found[pair] == ("mirrored" if number % 3 == 0 else ""), pair
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert (verdict["standing"], verdict["pairs"]) == (2, 24)
    turned = compare(b, a, tmp_path / "turned")
    assert {(row["b"], row["a"]) for row in turned} == set(wanted)


def test_a_killed_run_keeps_both_rounds(
    films: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = films
    whole = compare(a, b, tmp_path / "whole")
    out = tmp_path / "out"
    (out / "pairs.csv" / "in the way").mkdir(parents=True)
    assert main([str(a), str(b), "--output_dir", str(out)]) == 1
    log = out / ".leakage" / "matches-4.jsonl"
    log.write_text(log.read_text()[:30])  # killed in the second round
    (out / "pairs.csv" / "in the way").rmdir()
    (out / "pairs.csv").rmdir()
    assert compare(a, b, out) == whole


def test_copies_within_one_set_form_one_group_a_film(films: tuple[Path, Path], tmp_path: Path) -> None:
    _, b = films
    compare(b, b, tmp_path / "out")
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert (verdict["standing"], verdict["groups"], verdict["pairs"]) == (24, 2, 2 * 66)
