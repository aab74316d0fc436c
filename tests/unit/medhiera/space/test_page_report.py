"""The page for a folder that writes reports: its text beside the picture, and the Space that holds it."""

import subprocess
import time

import numpy as np
import pytest
from page_fixtures import phantom
from report_rows import write_report_folder
from warm_python import warm_python

from medhiera.layout import WRITER_FILES
from medhiera.space import page
from medhiera.space.bundle import NEEDED, bundle
from medhiera.space.reader import WritingReader, open_folder

GRAY = phantom()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    write_report_folder(folder, "Heart <b>large</b>.")
    return folder


def test_the_report_stands_beside_the_picture_as_text(folder):
    reader = open_folder(folder)
    assert isinstance(reader, WritingReader)
    view = page.report_view(reader, GRAY, ["A remark."], time.perf_counter())
    assert "Heart &lt;b&gt;large&lt;/b&gt;." in view and "<b>" not in view
    assert "every sentence may be wrong" in view and "A remark." in view and "data:image/" in view


PAGE = """
import sys, time
import numpy as np
from pathlib import Path
from medhiera.space import app
reader = app.open_folder(Path(sys.argv[1]))
assert app.build_page(reader) is not None
gray = np.load(sys.argv[2])
_, seen, result, controls, _, view, shown = app.answer(reader, app.Picture(gray), time.perf_counter())
assert seen is gray and "Heart &lt;b&gt;" in result and view == "" and controls["visible"] is False
assert len(app.latency(reader, 1, side=128)) == 1
"""


@pytest.mark.slow
def test_the_page_and_its_answer(folder, root, tmp_path):
    """In a process of its own: gradio leaves its loops and sockets to the end."""
    np.save(tmp_path / "gray.npy", GRAY)
    (tmp_path / "page.py").write_text(PAGE)
    done = subprocess.run(
        [warm_python(), "-W", "ignore", tmp_path / "page.py", folder, tmp_path / "gray.npy"],
        cwd=root, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_space_has_what_the_writer_needs(folder, tmp_path):
    assert all((folder / name).is_file() for name in NEEDED)
    bundle(folder, tmp_path / "space")
    assert {path.name for path in (tmp_path / "space" / "model").iterdir()} >= set(WRITER_FILES)
    assert isinstance(open_folder(tmp_path / "space" / "model"), WritingReader)
