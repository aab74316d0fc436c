"""The Python of docs/data.md does what the page says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from raw_folders import ChestFolder

from dataset_scripts import FINDINGS

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_the_example_builds_the_cocktail(
    chest: ChestFolder,
    covidx: Callable[[str, str, int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chest.finish()
    covidx("train", "1 picture.png", 700)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace('"data/raw"', repr(str(chest.root.parent))), names)
    assert set(names["splits"]) == {"train", "validation", "test"}
    assert names["label_names"](names["splits"]["train"].features) == list(FINDINGS)
    assert Path(names["builder"].cache_dir).resolve().is_relative_to(tmp_path / "data" / "build")


def test_raw_pixels_are_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    stored = {"pixels": pixels.tobytes(), "height": 2, "width": 3}
    folder = tmp_path / "data" / "cocktail"
    folder.mkdir(parents=True)
    datasets.Dataset.from_dict({"image": [stored]}).to_parquet(folder / "train-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    [code] = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "frombuffer" in block
    ]
    names: dict[str, Any] = {}
    exec(code, names)
    assert np.array_equal(names["pixels"], pixels)
