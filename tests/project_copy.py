"""A copy of the project that a test may change and build: its packages, and a short demo of few phantoms."""

import re
import shutil
from pathlib import Path

PACKAGES = ("modeling_hiera_mae", "dataset_scripts", "medhiera")
INSIDE_MEDHIERA = ("model_cards", "configs")


def copy_project(root: Path, folder: Path) -> Path:
    """What a wheel is built from, in `folder`, which is returned; setuptools leaves folders beside it."""
    ignored = shutil.ignore_patterns("__pycache__", "examples")
    for room in (*PACKAGES, *INSIDE_MEDHIERA):
        shutil.copytree(root / room, folder / room, ignore=ignored)
    for path in (root / "pyproject.toml", root / "README.md", root / "LICENSE", *root.glob("*.py")):
        shutil.copy2(path, folder / path.name)
    return folder


def write_short_recipes(recipes: Path, folder: Path, part: int = 20) -> Path:
    """In `folder`, which is returned, the demo's recipes of `recipes` with one in `part` of its steps."""
    for name, steps in (("mae_smoke.yaml", 400), ("cls_smoke.yaml", 300)):
        text = (recipes / name).read_text()
        assert f"max_steps: {steps}" in text
        text = text.replace(f"max_steps: {steps}", f"max_steps: {steps // part}")
        (folder / name).write_text(re.sub(r"(eval|save)_steps: \d+", rf"\1_steps: {steps // part}", text))
    return folder


def draw_fewer_phantoms(project: Path, part: int = 5) -> None:
    """Change a copy's demo: a cohort of one in `part` of its patients."""
    path, usual = project / "dataset_scripts" / "phantom" / "cohort.py", "patients: int = 600,"
    text = path.read_text()
    assert text.count(usual) == 1
    path.write_text(text.replace(usual, f"patients: int = {600 // part},"))
