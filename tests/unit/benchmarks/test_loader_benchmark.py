"""The loader's benchmark runs and prints a row for each recipe and storage."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_modern_recipes_are_timed_raw_and_as_png_beside_torchvision(tmp_path):
    options = ["--work_dir", str(tmp_path / "w"), "--images", "0", "--memory"]
    options += ["--recipe_images", "128", "--batches", "2"]
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
