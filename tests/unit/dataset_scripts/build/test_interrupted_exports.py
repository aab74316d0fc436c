"""An export that stopped before its end: what is done stays, and what is damaged is written again."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exports import cocktail, content, truncate
from PIL import Image
from raw_folders import ChestFolder, gray

from dataset_scripts.build.parquet_export import export_parquet

STOPPED_BY_THE_DISK = """
import resource, sys
from pathlib import Path
from dataset_scripts import Cocktail
from dataset_scripts.build.parquet_export import export_parquet
raw, out, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
builder = Cocktail(data_dir=raw, build_dir=raw.parent / "cache")
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
export_parquet(builder, out)
"""


class Interrupted:
    """An export that stopped before its end, as one shard is larger than a file may be."""

    def __init__(self, raw: Path, whole: Path, stopped: Path, out: Path) -> None:
        self.raw, self.out, self.expected = raw, out, content(whole)
        shutil.copytree(stopped, out)
        self.done = {path: path.stat().st_mtime_ns for path in out.glob("data/*/*.parquet")}
        assert 4 <= len(self.done) < len(list(whole.glob("data/*/*")))

    def finish(self) -> int:
        """Run again; return how many of the shards that were done stayed."""
        assert export_parquet(cocktail(self.raw), self.out)
        assert content(self.out) == self.expected
        return sum(path.stat().st_mtime_ns == stamp for path, stamp in self.done.items())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The raw data, an undisturbed build, and one that the disk has stopped."""
    pytest.importorskip("resource")
    root = tmp_path_factory.mktemp("stopped")
    chest = ChestFolder(root / "raw" / "ChestXray-NIHCC")
    for patient in range(1, 9):
        chest.add("train_val", f"{patient:08d}_000.png", "Mass", patient)
    chest.add("test", "00000040_000.png", "Edema", 40)
    chest.finish()
    (chest.root / "images" / "00000003_000.png").write_bytes(b"")
    covidx = root / "raw" / "COVIDx_CXR" / "train"
    covidx.mkdir(parents=True)
    (covidx.parent / "test.txt").touch()
    (covidx.parent / "train.txt").write_text("7 large.png positive cohen\n8 other.png positive cohen\n")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    Image.fromarray(noise).save(covidx / "large.png")
    gray(601, 96).save(covidx / "other.png")
    whole, out = root / "whole", root / "out"
    export_parquet(cocktail(root / "raw"), whole)
    largest = max(path.stat().st_size for path in whole.glob("data/*/*"))
    command = [sys.executable, "-W", "ignore", "-c", STOPPED_BY_THE_DISK]
    command += [str(root / "raw"), str(out), str(largest - 1)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert re.search(r"Errno 28\b.*disk is full.*same command again", done.stderr), done.stderr
    return root / "raw", whole, out


@pytest.fixture
def interrupted(stopped: tuple[Path, Path, Path], tmp_path: Path) -> Interrupted:
    return Interrupted(*stopped, tmp_path / "out")


def test_what_is_done_stays(interrupted: Interrupted) -> None:
    assert interrupted.finish() == len(interrupted.done)


@pytest.mark.parametrize("left", [None, "", '{"bad_files": 0, "prob', "[]", "{}", '{"bad_files": "none"}'])
def test_a_damaged_log_means_that_its_shard_is_not_done(interrupted: Interrupted, left: str | None) -> None:
    log = sorted((interrupted.out / ".build").glob("worker-log-data-*"))[0]
    log.unlink()
    if left is not None:
        log.write_text(left)
    assert interrupted.finish() == len(interrupted.done) - 1


def test_a_damaged_shard_of_an_interrupted_build_is_written_again(interrupted: Interrupted) -> None:
    one, other, *_ = sorted(interrupted.done)
    one.unlink()
    truncate(other)
    assert interrupted.finish() == len(interrupted.done) - 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plan.jsonl", "worker-log-listing.json", "leakage_report.json"])
@pytest.mark.parametrize("damage", [Path.unlink, truncate, lambda path: path.write_text("{}\n")])
def test_a_damaged_plan_is_made_again(
    interrupted: Interrupted, name: str, damage: Callable[[Path], None]
) -> None:
    damage(interrupted.out / ".build" / name)
    assert interrupted.finish() == 0  # each shard's log belongs to the plan that was there
