"""The guard's two benchmarks run as they are typed, on phantoms."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_python import warm_python

from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chests")
    for patient in range(16):
        rng = np.random.default_rng(patient)
        pixels = draw_radiograph(draw_body(rng, is_female=False), (), 160, rng).pixels
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{patient:08d}_000.png")
    return folder


def run(root: Path, module: str, *words: str) -> str:
    command = [warm_python(), "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_copies_are_found_at_scale_and_nothing_else(root: Path, chests: Path) -> None:
    words = ["--held_out", "64", "--others", "80", "--copied", "0.5"]
    printed = run(root, "leakage_scale", str(chests), *words)
    assert "80 images among 64 held out" in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][1:]
    shares = [row[2] for row in rows if row[1] != "0"]
    assert shares.count("100.00%") >= 0.9 * len(shares) > 15
    assert "40 that are no copies: 0 false pairs" in printed


@pytest.mark.slow  # some twenty searches, each of half a second
def test_the_recall_table(root: Path, chests: Path) -> None:
    printed = run(root, "leakage_table", str(chests), "--others", str(chests))
    for change in ("mirrored", "inverted", "turned 90°", "letterbox 4:3", "crop of 20 %"):
        assert len(re.findall(rf"\| {change} \| >= 9\S+ \| 100.0 \(", printed)) == 2
    said = re.search(r"Other patients: 624 queries \(16 images, each also changed\):\n(\d+) at", printed)
    assert said is not None and int(said[1]) <= 3  # drawn after one template, they are more alike than films
    assert "00000003_000.png shows 00000003_000.png" in printed
