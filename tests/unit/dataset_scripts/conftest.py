"""Fixtures of the data tests: a fresh raw folder for each test."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_folders import CHEST, ChestFolder, gray


@pytest.fixture
def chest(tmp_path: Path) -> ChestFolder:
    """Forty patients with one image, two of the test list among them."""
    folder = ChestFolder(tmp_path / "raw" / CHEST)
    findings = ["No Finding", "Mass", "Effusion|Mass", "Hernia"]
    for patient in range(1, 39):
        folder.add("train_val", f"{patient:08d}_000.png", findings[patient % 4], patient)
    for patient in (39, 40):
        folder.add("test", f"{patient:08d}_000.png", "Edema", patient)
    return folder


@pytest.fixture
def covidx(tmp_path: Path) -> Callable[[str, str, int], Path]:
    """Adds a line and an image to a COVIDx folder: (split, line without class and source, seed)."""
    root = tmp_path / "raw" / "COVIDx_CXR"

    def add(split: str, head: str, seed: int) -> Path:
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / "test.txt").touch()
        with (root / f"{split}.txt").open("a") as file:
            file.write(f"{head} positive cohen\n")
        path = root / split / head.split(None, 1)[1]
        gray(seed, 96).save(path)
        return path

    return add


@pytest.fixture
def real_dicom() -> Path:
    """Real radiographs as DICOM, beside the real images."""
    images = os.environ.get("MEDHIERA_REALDATA", Path(__file__).parents[4] / "shared" / "mini_cocktail")
    folder = Path(images).parent / "dicom"
    if not folder.is_dir():
        pytest.skip("no real DICOM files: ../shared/dicom is absent")
    return folder
