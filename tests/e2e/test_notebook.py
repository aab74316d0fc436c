"""notebooks/quickstart.ipynb as a reader runs it, on phantoms and models with random weights."""

import os
import shutil

import pytest

from dataset_scripts import write_phantom_cohort

NOTEBOOK = "notebooks/quickstart.ipynb"


@pytest.fixture
def notebook(root):
    nbformat = pytest.importorskip("nbformat", reason="make setup brings it")
    return nbformat.read(root / NOTEBOOK, as_version=4)


def test_the_notebook_is_committed_without_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id


@pytest.mark.slow
def test_the_notebook_runs(notebook, root, pristine, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="make setup brings it")
    demo = tmp_path / "demo" / "phantom"
    write_phantom_cohort(demo / "raw", patients=40, image_size=64)
    for stage, folder in pristine.items():
        shutil.copytree(folder, demo / f"stage{stage}")
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # the clone's packages; nothing is installed
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    text = {name: "".join(o.get("text", "") for o in outputs) for name, outputs in printed.items()}
    assert "Hernia" in text["predict"] and "torch.Size([8, 64])" in text["embed"]
    assert "mean AUROC 0." in text["score"]
    for name in ("heat", "score"):
        assert any("image/png" in output.get("data", {}) for output in printed[name])
