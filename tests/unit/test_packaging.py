"""The wheel holds each file in its place and no generic name; the demo notices a change in each."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from project_copy import INSIDE_MEDHIERA, PACKAGES, copy_project

import dataset_scripts
import modeling_hiera_mae
from medhiera import __version__, demo_stages, shipped_files

SUFFIXES = {".py", ".j2", ".json", ".yaml", ".safetensors", ".css", ".typed", ".txt"}


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    return copy_project(root, tmp_path_factory.mktemp("project"))


def test_the_wheel_is_complete_and_has_no_generic_name(project, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q",
         "-w", str(tmp_path), str(project)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        [points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert archive.read(points).decode().split() == [
            "[console_scripts]",
            "medhiera",
            "=",
            "medhiera.__main__:main",
        ]
    wanted = {f"medhiera/scripts/{path.name}" for path in project.glob("*.py")}
    for room, prefix in [(name, "") for name in PACKAGES] + [(name, "medhiera/") for name in INSIDE_MEDHIERA]:
        files = [path for path in (project / room).rglob("*") if path.suffix in SUFFIXES]
        wanted |= {prefix + path.relative_to(project).as_posix() for path in files}
    wanted |= {"medhiera/space/README.md", "medhiera/space/requirements.txt"}
    wanted |= {f"medhiera/model_cards/licences/{name}.txt" for name in ("apache-2.0", "cc-by-nc-4.0")}
    assert inside == wanted, f"{sorted(inside ^ wanted)}: a new folder is a line in pyproject.toml, packages"


@pytest.mark.parametrize("package", [dataset_scripts, modeling_hiera_mae])
def test_a_name_that_is_imported_late_is_there(package):
    assert sorted(package.__all__) == sorted(package._HOMES)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_the_citation_names_this_version(root):
    assert f"\nversion: {__version__}\n" in (root / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    "file",
    ["medhiera/training/trainer.py", "dataset_scripts/build/builder.py", "model_cards/evaluation.md.j2",
     "modeling_hiera_mae/layers.py", "train_cls.py", "configs/mae_smoke.yaml"],
)  # fmt: skip
def test_a_demo_that_is_reused_notices_a_change(project, monkeypatch, file):
    monkeypatch.setattr(shipped_files, "PACKAGE", project / "medhiera")
    for name, folder in (("SCRIPTS", "."), ("RECIPES", "configs"), ("TEMPLATES", "model_cards")):
        monkeypatch.setattr(shipped_files, name, project / folder)
    before = demo_stages.code_state("mae_smoke.yaml")
    assert demo_stages.code_state("mae_smoke.yaml") == before
    text = (project / file).read_text()
    (project / file).write_text(text + "\n")
    assert demo_stages.code_state("mae_smoke.yaml") != before
    (project / file).write_text(text)


def test_what_pip_install_leaves_is_ignored_and_made_clean(root, tmp_path):
    for name in ("Makefile", ".gitignore"):
        shutil.copy(root / name, tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    left = [tmp_path / "build", tmp_path / "medhiera.egg-info"]
    for folder in left:
        folder.mkdir()
        (folder / "PKG-INFO").touch()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, text=True, capture_output=True)
    assert set(status.stdout.split()) == {"??", "Makefile", ".gitignore"}
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not [folder for folder in left if folder.exists()]
