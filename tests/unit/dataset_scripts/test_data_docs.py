"""The Python of docs/data.md builds what the page says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
