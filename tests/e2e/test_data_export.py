"""The command line as a user types it: killed, run again, loaded with no code of ours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm_python import start_warm

from dataset_scripts import write_phantom_cohort

ROOT = Path(__file__).parents[2]
LOAD = """
import sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train", streaming=True)
names = rows.features["findings"].feature.names
print(sum(1 for row in rows), len(names), next(iter(rows))["image"].mode, "dataset_scripts" in sys.modules)
"""
RANK = """
import sys
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
out, rank = sys.argv[1], int(sys.argv[2])
rows = load_dataset(out, split="train", streaming=True).shuffle(seed=0, buffer_size=16)
mine = split_dataset_by_node(rows.select_columns("image_id"), rank=rank, world_size=2)
mine.set_epoch(1)
for workers in (0, 2):
    batches = DataLoader(mine, batch_size=4, num_workers=workers)
    print(*(name for batch in batches for name in batch["image_id"]), sep="\\t")
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom_cohort(root, patients=60, image_size=96)
    return root


def start(cohort: Path, out: Path, *more: str) -> tuple[subprocess.Popen[str], int]:
    """The command, and the number of its process and of the group that its workers are in."""
    words = ["-m", "dataset_scripts", "--data_dir", str(cohort), "--output_dir", str(out)]
    return start_warm(
        [*words, "--stored_size", "64", "--num_proc", "2", *more],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def logs(out: Path) -> set[str]:
    return {path.name for path in (out / ".build").glob("worker-log-*-of-*.json")}


@pytest.mark.slow
def test_a_killed_build_redoes_at_most_what_was_in_flight(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process, group = start(cohort, out)
    deadline = time.monotonic() + 600
    while len(logs(out)) < 4 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    process.communicate()
    done = {path: path.stat().st_mtime_ns for path in out.glob("data/*/*.parquet")}
    kept = len(logs(out))
    assert kept >= 4
    again, _ = start(cohort, out)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert "Resuming" in output
    assert "ChestX-ray14: test " in output and "training images show a held-out one" in output
    unchanged = sum(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    assert unchanged >= kept
    assert json.loads((out / "build.json").read_text())["complete"]
    assert not list(out.glob("data/*/.*"))
    report = json.loads((out / "build_report.json").read_text())
    trained = sum(splits.get("train", 0) for splits in report["images"].values())
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(out)],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""},
    )
    assert loaded.stdout.split() == [str(trained), "15", "L", "False"], loaded.stderr
    third, _ = start(cohort, out)
    output, _ = third.communicate(timeout=120)
    assert "Reusing the complete build" in output


def test_a_wrong_folder_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    process, _ = start(tmp_path / "raw", tmp_path / "out")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "none of the sources" in output
    assert "Traceback" not in output


@pytest.mark.slow  # loaders of datasets in three processes more, which our own training does not use
def test_two_ranks_in_processes_of_their_own_see_every_image_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_phantom_cohort(tmp_path / "raw", patients=16, image_size=96)
    build, _ = start(tmp_path / "raw", out)
    output, _ = build.communicate(timeout=240)
    assert build.returncode == 0, output
    report = json.loads((out / "build_report.json").read_text())
    trained = sum(splits.get("train", 0) for splits in report["images"].values())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(out), rank],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for rank in ("0", "1")
    ]
    printed = [process.communicate(timeout=240)[0].splitlines() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert [len(lines) for lines in printed] == [2, 2]  # without workers, then with two
    for lines in zip(*printed, strict=True):
        seen = [line.split("\t") for line in lines]
        assert all(line for line in lines)
        assert len(seen[0]) + len(seen[1]) == len({*seen[0], *seen[1]}) == trained
