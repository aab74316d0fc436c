"""The wheel holds every room, the card templates and the recipes; the demo notices a change in each."""

import shutil
import subprocess
import sys
import zipfile

import pytest

import demo

ROOMS = ("modeling_hiera_mae", "dataset_scripts", "medhiera", "model_cards", "configs")


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A copy to build in: setuptools leaves folders beside the sources."""
    copy = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__", "examples")
    for room in ROOMS:
        shutil.copytree(root / room, copy / room, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "train_mae.py", "train_cls.py"):
        shutil.copy2(root / name, copy / name)
    return copy


def test_the_wheel_is_complete(project, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q",
         "-w", str(tmp_path), str(project)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    suffixes = {".py", ".j2", ".json", ".yaml", ".safetensors"}
    wanted = {
        path.relative_to(project).as_posix()
        for room in ROOMS
        for path in (project / room).rglob("*")
        if path.suffix in suffixes
    }
    assert wanted <= inside, sorted(wanted - inside)


@pytest.mark.parametrize(
    "file",
    ["medhiera/training/trainer.py", "dataset_scripts/build/builder.py", "model_cards/evaluation.md.j2",
     "modeling_hiera_mae/layers.py", "train_cls.py", "configs/mae_smoke.yaml"],
)  # fmt: skip
def test_a_demo_that_is_reused_notices_a_change(project, monkeypatch, file):
    monkeypatch.setattr(demo, "HERE", project)
    before = demo.code_state("mae_smoke.yaml")
    assert demo.code_state("mae_smoke.yaml") == before
    text = (project / file).read_text()
    (project / file).write_text(text + "\n")
    assert demo.code_state("mae_smoke.yaml") != before
    (project / file).write_text(text)
