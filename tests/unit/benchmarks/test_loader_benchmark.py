"""The loader's benchmark runs and prints a row for each recipe and storage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_modern_recipes_are_timed_raw_and_as_png_beside_torchvision(tmp_path):
    options = ["--work_dir", str(tmp_path / "w"), "--images", "0", "--memory"]
    options += ["--recipe_images", "128", "--batches", "2", "--recipe_rounds", "1"]
    options += ["--json", str(tmp_path / "out.json")]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.data_throughput", *options],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    rows = [line.split(" | ") for line in process.stdout.splitlines() if "_modern" in line]
    assert len(rows) == 6 and {row[1] for row in rows} == {
        "ours, raw", "ours, none", "torchvision ImageFolder, PNG"
    }  # fmt: skip
    for row in rows:
        assert [cell == "–" for cell in row[2:6]] == [False] * 3 + ["torchvision" in row[1]]
    assert "FFCV" in process.stdout
    figures = json.loads((tmp_path / "out.json").read_text())
    assert len(figures["cls_modern, ours, raw"]["both cores"]) == 1 and len(figures) == 6
    built = load_dataset(str(tmp_path / "w" / "256-raw"), cache_dir=str(tmp_path / "hf"))
    assert {name: len(rows) for name, rows in built.items()} == {"train": 128, "validation": 64}
