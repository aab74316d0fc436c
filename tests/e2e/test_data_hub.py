"""The built Parquet on a Hub on loopback: pushed by the real client, loaded where the project is not seen."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub

from dataset_scripts import write_phantom_cohort

ROOT = Path(__file__).parents[2]
DATASET = "tester/cocktail"
BUILD_AND_PUSH = """
import sys
from dataset_scripts.__main__ import main
raw, out, name = sys.argv[1:]
status = main(["--data_dir", raw, "--output_dir", out, "--stored_size", "64", "--num_proc", "1",
               "--push_to_hub", name])
sys.exit(status)
"""
LOAD = """
import sys
from datasets import load_dataset
whole = load_dataset(sys.argv[1])
streamed = load_dataset(sys.argv[1], streaming=True)
for split in sorted(whole):
    row = next(iter(streamed[split]))
    print(split, len(whole[split]), sum(1 for _ in streamed[split]), row["image"].mode)
one = load_dataset(sys.argv[1], "brats_2020", split="train", streaming=True)
print(*{row["source"] for row in one}, sep=";")
print(len(whole["train"].features["findings"].feature.names), "dataset_scripts" in sys.modules)
"""
OPEN = """
import sys
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import are_drawn, open_cocktail
from medhiera.data.stored_images import as_picture
for place, built in zip(sys.argv[1::2], sys.argv[2::2]):
    opened = open_cocktail(DataArguments(place, build_dir=built))
    rows = opened.split("train")
    print(len(rows), len(opened.names), are_drawn(rows), opened.leakage().is_checked)
    print(round(opened.mean, 4), as_picture(rows[0]["image"]).size[0])
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


@pytest.fixture(scope="module")
def pushed(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_phantom_cohort(folder / "raw", patients=24, image_size=64)
    run(
        hub, BUILD_AND_PUSH, str(folder / "raw"), str(folder / "out"), DATASET, cwd=ROOT, home=folder / "home"
    )
    return folder


def run(hub: LoopbackHub, code: str, *words: str, cwd: Path, home: Path) -> list[str]:
    """Run Python that sees the project only if `cwd` is its root."""
    environment = os.environ | hub.environment(str(home)) | {"PYTHONPATH": ""}
    command = [sys.executable, "-W", "ignore", "-c", code, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_is_private_and_whole(hub: LoopbackHub, pushed: Path) -> None:
    repository = hub.repositories[f"datasets:{DATASET}"]
    assert repository.private
    here = {str(p.relative_to(pushed / "out")) for p in (pushed / "out").rglob("*") if p.is_file()}
    assert repository.files.keys() - {".gitattributes"} == here - {".build.lock"}


def test_anyone_loads_it_by_its_id(hub: LoopbackHub, pushed: Path, tmp_path: Path) -> None:
    lines = run(hub, LOAD, DATASET, cwd=tmp_path, home=tmp_path / "home")
    assert [line.split()[0] for line in lines[:3]] == ["test", "train", "validation"]
    for line in lines[:3]:
        _, whole, streamed, mode = line.split()
        assert whole == streamed
        assert mode == "L"
    assert lines[3:] == ["BraTS 2020", "15 False"]


def test_a_stage_opens_it_by_its_id(hub: LoopbackHub, pushed: Path, tmp_path: Path) -> None:
    words = (DATASET, str(tmp_path / "built"), str(pushed / "out"), str(tmp_path / "local"))
    lines = run(hub, OPEN, *words, cwd=ROOT, home=tmp_path)
    from_hub, from_folder = lines[:2], lines[2:]
    assert from_hub == from_folder
    assert from_hub[0].split()[1:] == ["15", "True", "True"]
    assert from_hub[1].split()[1] == "64"
