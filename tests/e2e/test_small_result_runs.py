"""benchmarks.small_result as a user types it: two contestants in a few steps, killed, continued, reported."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_data_files import write_shared
from teachers import write_timm
from warm_python import warm_python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    shared, teacher = write_shared(folder / "shared"), write_timm(folder / "teacher")
    return folder / "runs", [
        "-W", "ignore", "-m", "benchmarks.small_result", "--shared", str(shared),
        "--output_dir", str(folder / "runs"), "--teacher", str(teacher), "--smoke",
    ]  # fmt: skip


def run(python, command, *words):
    done = subprocess.run(
        [python, *command, *words], cwd=ROOT, text=True, capture_output=True, timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def has_begun(runs):
    """Whether the first script has printed something."""
    return any(file.stat().st_size for file in runs.glob("*/seed0/stdout.log"))


def test_what_was_ended_continues_and_the_tables_say_what_is_missing(command):
    runs, words = command
    first = subprocess.Popen(
        [warm_python(), *words, "--only", "features", "resnet18"], cwd=ROOT, stderr=subprocess.PIPE
    )
    stage = runs / "mae-features" / "seed0"
    ends = time.monotonic() + 300
    while not has_begun(runs) and first.poll() is None and time.monotonic() < ends:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 128 + signal.SIGTERM, said.decode()[-4000:]

    log = run(sys.executable, words, "--only", "features", "resnet18")  # it counts its children's seconds
    assert "done: pre-training, ImageNet teacher's features, cocktail" in log
    record = json.loads((stage / "metrics.json").read_text())
    assert record["evaluation"]["target"] == "features" and record["training"]["steps"] == 4
    report = (runs / "report.md").read_text()
    assert "**Unfinished.** Still to run:" in report and "pixels, Kermany alone" in report
    for label in ("Hiera, MAE of features on the cocktail", "ResNet-18, random weights"):
        assert f"| 100 % | {label} |" in report
    assert "| 50 % | ResNet-18, random weights |" in report and "| the ImageNet teacher |" in report
    assert "Hiera, MAE of features on the cocktail − ResNet-18, random weights" in report
    with (runs / "hours.csv").open(newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} >= {"mae-features"}

    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/seed*/metrics.json")}
    again = run(warm_python(), words, "--only", "features", "resnet18")
    assert again.count("done before: ") == 4 and "CPU seconds" not in again
    assert before == {path: path.stat().st_mtime_ns for path in runs.glob("*/seed*/metrics.json")}
    planned = run(warm_python(), words, "--plan")
    assert "done: ResNet-18, random weights, 100 % of the labels" in planned
    assert "to do: pre-training, pixels, cocktail with its leak" in planned
    capped = run(warm_python(), words, "--cap_hours", "0")
    assert "CPU hours are used: nothing more is begun" in capped
