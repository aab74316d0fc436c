"""Data built with `contours`: a region for each chest, none for MRI, the user's own first."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from dataset_scripts import Cocktail, write_phantom_cohort
from dataset_scripts.__main__ import main
from dataset_scripts.build.contour_network import load_network
from dataset_scripts.covid_radiography import SOURCE as RADIOGRAPHY
from dataset_scripts.covidx_cxr import SOURCE as COVIDX
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import CHEST_REGION, REGION_SIDE

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Radiographs and MRI: of further sources of radiographs a build would only compare the images."""
    root = tmp_path_factory.mktemp("cohort")
    write_phantom_cohort(root, patients=8, image_size=64, seed=3)
    for source in (RADIOGRAPHY, COVIDX):
        shutil.rmtree(root / source.folder)
    return root


@pytest.fixture(scope="module")
def masks(cohort, tmp_path_factory):
    """A lung mask for every second ChestX-ray14 phantom: two bars whose hull is one block."""
    folder = tmp_path_factory.mktemp("masks")
    drawn = np.zeros((128, 128), np.uint8)
    drawn[32:96, 16:40] = drawn[32:96, 88:112] = 255
    pictures = sorted((cohort / "ChestXray-NIHCC" / "images").iterdir())[::2]
    for picture in pictures:
        Image.fromarray(drawn).save(folder / picture.name)
    return folder


def cells(packed):
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(REGION_SIDE, REGION_SIDE).astype(bool)


def regions(data, split="train"):
    return dict(zip(data[split]["image_id"], data[split][CHEST_REGION], strict=True))


def build(cohort, folder, contours, **options):
    builder = Cocktail(data_dir=cohort, build_dir=folder, contours=str(contours), stored_size=64, **options)
    builder.download_and_prepare()
    return builder, builder.as_dataset()


def test_own_masks_come_first_and_mri_has_none(cohort, masks, tmp_path):
    builder, data = build(cohort, tmp_path, masks)
    wanted = np.zeros((64, 64), bool)
    wanted[16:48, 8:56] = True
    found = {name: packed for split in data for name, packed in regions(data, split).items()}
    named = {f"ChestX-ray14/{path.name}" for path in masks.iterdir()}
    assert len(named & found.keys()) > 3
    for name, packed in found.items():
        if name.startswith("BraTS"):
            assert packed is None
        elif name in named:
            assert (cells(packed) ^ wanted).mean() < 0.03, name
        else:
            assert 0.1 < cells(packed).mean() < 0.9
    assert any(name.startswith("BraTS") for name in found)
    report = json.loads((Path(builder.cache_dir) / "build_report.json").read_text())
    assert "contour_refused" not in str(report["problem_counts"])


def test_contours_without_lungs_are_counted_as_the_rectangle(cohort, masks, tmp_path):
    own = shutil.copytree(masks, tmp_path / "own")
    empty, low, *_ = sorted(own.iterdir())
    Image.new("L", (128, 128)).save(empty)
    Image.open(low).point(lambda value: value // 255).save(low)  # 0 and 1
    builder, _ = build(cohort, tmp_path / "build", own)
    report = json.loads((Path(builder.cache_dir) / "build_report.json").read_text())
    found = [problem for problem in report["problems"] if problem["kind"] == "no_chest_found"]
    assert [problem["name"] for problem in found if "contour" in problem["detail"]] == [
        f"images/{empty.name}"
    ]


def test_an_export_holds_the_same_regions_with_any_number_of_processes(cohort, masks, tmp_path):
    _, data = build(cohort, tmp_path / "cache", masks)
    words = ["--data_dir", str(cohort), "--stored_size", "64", "--contours", str(masks)]
    assert main([*words, "--output_dir", str(tmp_path / "out"), "--num_proc", "2"]) == 0
    exported = load_dataset(str(tmp_path / "out"), "all", cache_dir=str(tmp_path / "hf"))
    assert regions(exported) == regions(data)


def test_finding_chests_leaves_randomness_and_threads_alone(cohort, tmp_path):
    """A run that builds its data starts from the same weights as one that finds it built."""
    load_network.cache_clear()
    before = torch.random.get_rng_state(), torch.get_num_threads()
    build(cohort, tmp_path, "learned")
    assert torch.equal(torch.random.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]


def test_forked_workers_find_the_same_chests(cohort, tmp_path):
    torch.randn(512, 512) @ torch.randn(512, 512)  # this process has threads that a fork would lose
    builder = Cocktail(data_dir=cohort, build_dir=tmp_path / "two", contours="learned", stored_size=64)
    builder.download_and_prepare(num_proc=2)
    _, data = build(cohort, tmp_path / "one", "learned")
    assert regions(builder.as_dataset()) == regions(data)


def test_a_build_knows_its_contours_by_their_files(cohort, masks, tmp_path, monkeypatch):
    masks = shutil.copytree(masks, tmp_path / "own masks")
    first, _ = build(cohort, tmp_path / "build", masks)
    monkeypatch.chdir(masks.parent)
    again, _ = build(cohort, tmp_path / "build", masks.name)
    assert not first.is_reused and again.is_reused
    one = next(masks.iterdir())
    mirrored = Image.open(one).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirrored.save(one)
    assert not build(cohort, tmp_path / "build", masks)[0].is_reused
    without, data = build(cohort, tmp_path / "build", "")
    assert not without.is_reused and CHEST_REGION not in data["train"].column_names


def test_contours_that_are_not_there_or_name_nothing_are_refused(cohort, tmp_path):
    with pytest.raises(DataLayoutError, match="contours is .*nowhere, which is not there; wanted `learned`"):
        Cocktail(data_dir=cohort, build_dir=tmp_path, contours=str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("L", (64, 64)).save(empty / "another.png")
    with pytest.raises(LabelFileError, match="names none of the"):
        build(cohort, tmp_path / "build", empty)


def test_other_builds_do_not_load_torch():
    """Each worker of a build is a process, and importing torch takes seconds."""
    code = "import sys, dataset_scripts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
