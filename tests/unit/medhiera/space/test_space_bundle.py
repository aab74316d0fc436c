"""A Hub Space: what is bundled, what it says of itself, and a GPU that is lent for each call."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from page_fixtures import write_stage2

from medhiera.errors import UserError
from medhiera.hub.record import Lineage
from medhiera.space.bundle import BundleError, bundle

SPACES = """
import multiprocessing, sys
assert "torch" not in sys.modules, "ZeroGPU wants its package to be imported before PyTorch"
fork = multiprocessing.get_context("fork")
calls = []
def serve(function, pipe):
    while True:
        pipe.send(function(*pipe.recv()))
def GPU(duration):
    def lend(function):
        kept = []
        def call(*arguments):
            calls.append(getattr(function, "func", function).__name__)
            if not kept:
                here, there = fork.Pipe()
                fork.Process(target=serve, args=(function, there), daemon=True).start()
                there.close()
                kept.append(here)
            kept[0].send(arguments)
            return kept[0].recv()
        return call
    return lend
"""
"""As the Hub's own package (0.51): a process for each function, forked at its first call and kept for later
ones, and arguments and results that are pickled."""
USE_THE_PAGE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from medhiera.space import app
import gradio, spaces
blocks = app.build_page(app.open_folder(Path(sys.argv[1])))
part = {block.elem_id: block for block in blocks.blocks.values() if getattr(block, "elem_id", None)}
assert "Choose a picture" in part["result"].value
def act(name, *values):
    [does] = [each.fn for each in blocks.fns.values() if each.targets[0][0] == part[name]._id and each.fn]
    return does(*values)
def drop(name):
    sent = app.UPLOADS / name
    app.draw_example(["Mass"], 0, 128).save(sent)
    blocks.upload_file_set.add(str(sent))
    answered = act("upload", str(sent))
    assert not sent.exists()
    return answered
chosen = act("examples", gradio.SelectData(part["examples"], {"index": 1, "value": None}))
for _, gray, result, _, finding, view, shown in (chosen, drop("first.png"), drop("second.png")):
    assert 'data-finding="Mass"' in result and "From file to probabilities" in result, result
    assert f'data-finding="{finding}"' in view
    assert 'data-finding="Edema"' in act("finding", gray, shown, "Edema")
assert "This is no uploaded file" in act("upload", str(app.UPLOADS / "other.png"))[2]
print("CALLS", *spaces.calls)
"""


def test_a_space_with_zero_gpu_lends_one_to_each_call(root, stage2, tmp_path):
    (tmp_path / "spaces.py").write_text(SPACES)
    words = ["-W", "ignore", "-c", USE_THE_PAGE, str(stage2), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root, text=True, capture_output=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "SPACES_ZERO_GPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "CALLS" + " answer" * 3 + " heat_view" * 3


def test_a_space_is_bundled(stage2, tmp_path):
    (stage2 / "optimizer.pt").write_bytes(b"not for the Hub")
    bundle(stage2, tmp_path / "space")
    names = {path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*")}
    assert {
        "README.md",
        "requirements.txt",
        "medhiera/space/app.py",
        "model/config.json",
        "medhiera/inference/classifier.py",
    } <= names
    assert not any("optimizer.pt" in name or "__pycache__" in name for name in names)
    with pytest.raises(BundleError, match="not empty"):
        bundle(stage2, tmp_path / "space")
    with pytest.raises(BundleError, match="no finished stage"):
        bundle(tmp_path, tmp_path / "other")


@pytest.mark.parametrize(
    ("licence", "said"), [("cc-by-nc-4.0", "cc-by-nc-4.0"), (None, "unknown"), ("Ours", "other")]
)
def test_a_space_has_the_licence_and_the_card_of_its_model(tmp_path, licence, said):
    import yaml

    folder = write_stage2(tmp_path / "stage2", lineage=replace(Lineage.random(), license=licence))
    (folder / "README.md").write_text('pipeline(model="THIS_FOLDER")')
    bundle(folder, tmp_path / "unpublished")
    head = yaml.safe_load((tmp_path / "unpublished" / "README.md").read_text().split("---")[1])
    assert "models" not in head
    (folder / "published.json").write_text('{"repo_id": "me/hiera"}')
    bundle(folder, tmp_path / "space")
    head = yaml.safe_load((tmp_path / "space" / "README.md").read_text().split("---")[1])
    assert head["license"] == said and head["models"] == ["me/hiera"]
    other = ("ours", "LICENSE") if said == "other" else (None, None)
    assert (head.get("license_name"), head.get("license_link")) == other
    text = (tmp_path / "space" / "LICENSE").read_text()
    assert text.startswith("The weights in this repository: ")
    assert (tmp_path / "space" / "model" / "README.md").read_text() == 'pipeline(model="model")'


def test_a_space_gives_no_private_path_away(tmp_path):
    folder = write_stage2(tmp_path / "stage2", recipe={"note": str(tmp_path / "patients")})
    with pytest.raises(UserError, match=r"metrics\.json .* belongs to this machine"):
        bundle(folder, tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_the_space_says_what_the_hub_asks(root):
    import yaml

    head = yaml.safe_load((root / "medhiera" / "space" / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "gradio"
    assert head["app_file"] == "medhiera/space/app.py"
    assert len(head["short_description"]) <= 60
    assert head["suggested_hardware"] == "cpu-basic" and "radiology" in head["tags"]
    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text().split() if "==" in line)
    assert head["sdk_version"] == pins["gradio"]
