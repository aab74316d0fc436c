"""notebooks/quickstart.ipynb as a reader runs it: its first cell in a clone and elsewhere, then all of it."""

import os
import re
import subprocess
import sys

import pytest
from project_copy import copy_project, draw_fewer_phantoms, write_short_recipes

NOTEBOOK = "notebooks/quickstart.ipynb"


@pytest.fixture
def notebook(root):
    nbformat = pytest.importorskip("nbformat", reason="make setup brings it")
    return nbformat.read(root / NOTEBOOK, as_version=4)


@pytest.fixture
def first_cell(notebook):
    """Runs the first cell, then more code, as a process in a folder; what it printed is in the result."""
    [source] = [cell.source for cell in notebook.cells if cell.id == "install"]

    def run(folder, more="", source=source, **variables):
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        words = [sys.executable, "-c", f"{source}\n{more}"]
        return subprocess.run(words, cwd=folder, env=kept | variables, text=True, capture_output=True)

    run.source = source
    return run


def test_the_notebook_is_committed_without_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id


def test_in_a_clone_its_own_packages_are_taken(first_cell, root, tmp_path):
    """Before an installed copy, and by the commands that the notebook starts too."""
    (tmp_path / "medhiera").mkdir()
    (tmp_path / "medhiera" / "__init__.py").write_text("")
    where = "import medhiera; print(medhiera.__file__)"
    outside = f"cwd={str(tmp_path / 'medhiera')!r}, check=True"
    started = f"subprocess.run([sys.executable, '-c', {where!r}], {outside})"
    places = {"PYTHONPATH": str(tmp_path), "MEDHIERA_SOURCE": str(tmp_path / "gone.whl")}  # pip would fail
    done = first_cell(root / "notebooks", f"{where}\n{started}", **places)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(root / "medhiera" / "__init__.py")] * 2


def test_elsewhere_it_asks_for_an_address(first_cell, tmp_path):
    done = first_cell(tmp_path, "print('went on')")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: no medhiera here: SOURCE, in this")


@pytest.mark.parametrize("place", ["cell", "variable"])
def test_elsewhere_pip_gets_the_address(first_cell, tmp_path, place):
    (tmp_path / "pip.py").write_text("import sys; print(sys.argv[1:]); sys.exit(3)")
    line = 'SOURCE = os.environ.get("MEDHIERA_SOURCE", "")'
    written = first_cell.source.replace(line, 'SOURCE = "a.whl"')
    assert written != first_cell.source
    given = {"MEDHIERA_SOURCE": "a.whl"} if place == "variable" else {"source": written}
    done = first_cell(tmp_path, "print('went on')", **given)
    assert done.stdout == "['install', '--quiet', 'a.whl']\n" and done.returncode == 1, done.stderr


@pytest.mark.slow
def test_the_notebook_runs_outside_a_clone(notebook, root, tmp_path, monkeypatch):
    """Each cell: pip installs a wheel, and the demo trains: a hundredth of its steps, 1 in 5 patients."""
    nbclient = pytest.importorskip("nbclient", reason="make setup brings it")
    project = copy_project(root, tmp_path / "project")
    write_short_recipes(root / "configs", project / "configs", part=100)
    draw_fewer_phantoms(project)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path), str(project)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip_here = {"PIP_TARGET": site, "PIP_NO_DEPS": 1, "PIP_NO_INDEX": 1}
    others = {"PYTHONPATH": site, "PYTHONWARNINGS": "ignore", "MEDHIERA_SOURCE": wheel}
    for name, value in (pip_here | others).items():
        monkeypatch.setenv(name, str(value))
    client = nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(empty)}}
    )
    client.execute()
    printed = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    text = {name: "".join(o.get("text", "") for o in outputs) for name, outputs in printed.items()}
    assert (site / "medhiera" / "__main__.py").is_file() and (empty / "demo" / "phantom" / "stage2").is_dir()
    assert len(re.findall(r"[A-Z][a-z]+ +0\.\d\d$", text["predict"], re.MULTILINE)) == 5
    assert "torch.Size([8, 256])" in text["embed"]
    assert "mean AUROC 0." in text["score"]
    for name in ("heat", "score"):
        assert any("image/png" in output.get("data", {}) for output in printed[name])
