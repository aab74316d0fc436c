"""The benchmark of the data runs as it is typed, on few phantoms."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_row_has_a_speed(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.data_throughput", "--work_dir", str(tmp_path / "work")]
    command += ["--images", "32", "--batches", "2", "--memory", "40"]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if re.match(r"\|.*\d \|$", line)]
    assert len(rows) == 2 * 2 + 3 * 7 + 2 + 1
    assert all(float(row[-1]) > 0 for row in rows)
    (memory,) = [row for row in rows if row[0].strip() == "40"]
    assert 50 < float(memory[1]) < 4000
