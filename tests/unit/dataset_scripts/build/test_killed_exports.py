"""A build that is killed, or finds the disk full, at any file operation is finished by the next run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from raw_folders import ChestFolder, gray, read_leakage_report

from dataset_scripts import Cocktail
from dataset_scripts.build.build_log import read_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked to be killed"),
]

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
STRIDE = 41  # of the operations, every 41st: all of them take some minutes

EXPORT = """
import sys
from pathlib import Path
from dataset_scripts import Cocktail
from dataset_scripts.build.parquet_export import export_parquet
if __name__ == "__main__":
    builder = Cocktail(data_dir=sys.argv[1], build_dir=sys.argv[2] + "-cache", stored_size=64)
    export_parquet(builder, Path(sys.argv[2]), num_proc=2)
"""
PREPARE = """
import sys
from dataset_scripts import Cocktail
if __name__ == "__main__":
    Cocktail(data_dir=sys.argv[1], build_dir=sys.argv[2], stored_size=64).download_and_prepare(num_proc=2)
"""


def environment(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(HERE.parent)])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "HF_HOME": str(folder / "hf")}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("faults")
    command = [sys.executable, str(HERE / "killed_exports.py"), str(folder), str(STRIDE)]
    done = subprocess.run(command, env=environment(folder), text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["fresh", "rebuild"])
@pytest.mark.parametrize("fault", ["kill", "full", "cut"])
def test_the_next_run_makes_what_an_undisturbed_build_makes(
    faults: list[dict[str, Any]], fault: str, kind: str
) -> None:
    some = [entry for entry in faults if entry["fault"] == fault and entry["kind"] == kind]
    assert len(some) >= 4
    assert [entry for entry in some if entry["again"] != "built" or entry["differs"]] == []
    assert [entry for entry in some if entry["redone"]] == []
    if fault != "cut":  # a limit under a shard's size leaves none
        assert any(entry["done"] for entry in some)
    if fault == "kill":
        assert {entry["ended"] for entry in some} == {"killed"}
    else:
        ended = [entry["ended"] for entry in some if entry["ended"] != "built"]  # removing .build may fail
        assert ended and all(text.startswith("OSError: [Errno 28] The disk is full (") for text in ended)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough images that two workers are busy for some seconds, of which one leaks."""
    chest = ChestFolder(tmp_path / "raw" / "ChestXray-NIHCC")
    for patient in range(1, 13):
        chest.add("train_val", f"{patient:08d}_000.png", "Mass", patient)
    chest.add("test", "00000040_000.png", "Edema", 40, seed=600)
    chest.finish()
    for path in (chest.root / "images").iterdir():
        gray(chest.seeds[path.name], 1600).save(path)
    covidx = tmp_path / "raw" / "COVIDx_CXR"
    (covidx / "train").mkdir(parents=True)
    (covidx / "test.txt").touch()
    (covidx / "train.txt").write_text("8 leak.png positive cohen\n7 other.png positive cohen\n")
    gray(600, 96).save(covidx / "train" / "leak.png")
    gray(601, 96).save(covidx / "train" / "other.png")
    return tmp_path / "raw"


def start(code: str, raw: Path, out: Path) -> subprocess.Popen[str]:
    script = out.parent / "script.py"  # a file: spawned workers import it
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script), str(raw), str(out)], env=environment(out.parent), cwd=out.parent,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_until_workers_write(process: subprocess.Popen[str], out: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not any(out.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)


def seconds_to_end(process: subprocess.Popen[str]) -> float:
    """Seconds until nobody holds the output any more: neither the process nor one that it started."""
    begun = time.monotonic()
    process.communicate(timeout=60)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_of_an_export_end_with_their_parent(many: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    process = start(EXPORT, many, out)
    wait_until_workers_write(process, out, ".build/run-*/*")
    os.kill(process.pid, number)  # the parent alone
    seconds = seconds_to_end(process)
    assert seconds < 20
    assert not json.loads((out / "build.json").read_text())["complete"]
    left = {path.suffix for path in (out / ".build").iterdir() if path.is_file()}
    assert left == {".json", ".jsonl", ".png"}  # nothing that could run code when it is read
    assert all(json.loads(line) for line in (out / ".build" / "plan.jsonl").read_text().splitlines())
    again = start(EXPORT, many, out)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert sum(read_report(out)["images"]["ChestX-ray14"].values()) == 13
    assert read_report(out)["problem_counts"] == {"COVIDx CXR-3": {"leak": 1}}
    assert len(read_leakage_report(out)["dropped"]) == 1


def test_a_killed_build_of_the_datasets_cache_begins_anew(many: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(PREPARE, many, cache)
    wait_until_workers_write(process, cache, "cocktail/**/*.arrow")
    os.kill(process.pid, signal.SIGKILL)
    seconds = seconds_to_end(process)  # the workers' and their queue's processes hold the lock until then
    assert seconds < 20
    (left,) = cache.rglob("*.incomplete")
    (left / "worker-log-of-an-earlier-version.json").write_text("{")
    builder = Cocktail(data_dir=many, build_dir=cache, stored_size=64)
    builder.download_and_prepare(num_proc=1)
    rows = builder.as_dataset()
    report = read_report(builder.cache_dir)
    assert report["problem_counts"] == {"COVIDx CXR-3": {"leak": 1}}
    counted: Counter[str] = Counter()
    for by_split in report["images"].values():
        counted.update(by_split)
    assert counted == {split: len(part) for split, part in rows.items()}
    kinds = {path.name.partition("-")[0] for path in Path(builder.cache_dir).iterdir()}
    assert kinds == {
        "build_report.json", "cocktail", "dataset_info.json", "leakage_pairs.png", "leakage_report.json",
        "pixel_statistics.json",
    }  # fmt: skip
