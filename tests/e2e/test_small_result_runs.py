"""benchmarks.small_result as a user types it: two contestants in a few steps, killed, continued, reported."""

import csv
import json
import os
import re
import shutil
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


def check_published(runs):
    """The primary contestant's first seed, scored on test in a copy; its sweep's record is of validation."""
    [swept], published = runs.glob("cocktail-100pct-lr*/seed0"), runs / "stage2" / "seed0"
    before, after = (json.loads((each / "metrics.json").read_text()) for each in (swept, published))
    assert not before["data"]["tested_on"] and after["data"]["tested_on"]["image folder"] > 0
    assert (after["training"]["steps"], after["evaluation"]["bootstrap_resamples"]) == (4, 2000)
    # The log's time: that of the first process without what went before its first step.
    assert 0.2 * before["training"]["seconds"] < after["training"]["seconds"] <= before["training"]["seconds"]
    assert after["training"]["images_per_second"] > 0
    assert "JSRT's chest radiographs" in (published / "README.md").read_text()


def check_hours(runs, words):
    """Runs that are made again, and our own work: Python itself, as a warm one's children are not its own."""
    for name in ("mae-features", "scores/probe-features", "stage2"):
        shutil.rmtree(runs / name)
    (runs / "hours.csv").unlink(missing_ok=True)
    log = run(sys.executable, words, "--only", "features", "cocktail")
    with (runs / "hours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} >= {"mae-features", "small_result", "stage2"}
    seconds = sum(int(row["cpu_seconds"]) for row in rows if row["run"] == "stage2")
    said = re.findall(r"stage2, seed 0\n.* (\d+) CPU seconds", log)
    assert len(said) == 1 and abs(seconds - int(said[0])) <= 2, (rows, log)
    check_published(runs)


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

    log = run(warm_python(), words, "--only", "features", "resnet18", "cocktail")
    assert "done: pre-training, ImageNet teacher's features, cocktail" in log
    record = json.loads((stage / "metrics.json").read_text())
    assert record["evaluation"]["target"] == "features" and record["training"]["steps"] == 4
    report = (runs / "report.md").read_text()
    assert "**Unfinished.** Still to run:" in report and "pixels, Kermany alone" in report
    for label in ("Hiera, MAE of features on the cocktail", "ResNet-18, random weights"):
        assert f"| 100 % | {label} |" in report
    assert "| 50 % | ResNet-18, random weights |" in report and "| the ImageNet teacher |" in report
    assert "Hiera, MAE of features on the cocktail − ResNet-18, random weights" in report
    check_published(runs)
    check_hours(runs, words)

    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/seed*/metrics.json")}
    again = run(warm_python(), words, "--only", "features", "resnet18", "cocktail")
    assert again.count("done before: ") == 7 and "CPU seconds" not in again
    assert before == {path: path.stat().st_mtime_ns for path in runs.glob("*/seed*/metrics.json")}
    planned = run(warm_python(), words, "--plan")
    assert "done: ResNet-18, random weights, 100 % of the labels" in planned
    assert "to do: pre-training, pixels, cocktail with its leak" in planned
    capped = run(warm_python(), words, "--cap_hours", "0")
    assert "CPU hours are used: nothing more is begun" in capped
