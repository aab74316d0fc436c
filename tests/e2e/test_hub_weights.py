"""A repository of the Hub with broken weights is refused in words, as a folder is; a wrapped one is read."""

import json
import shutil

import torch
from loopback_hub import LoopbackHub, Repository
from safetensors.torch import load_file, save
from stage_folders import REPOSITORY, run

OPEN_ALL = """
import json, sys
from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier
for name in sys.argv[1:]:
    try:
        said = Classifier.from_pretrained(name).fingerprint()
    except UserError as error:
        said = str(error)
    print("SAID", json.dumps([name, said]))
"""


def test_repositories_are_judged_as_folders_are(pristine, tmp_path):
    files = {path.name: path.read_bytes() for path in pristine[2].iterdir() if path.is_file()}
    weights = load_file(pristine[2] / "model.safetensors")
    nan = weights | {"classifier.bias": torch.full_like(weights["classifier.bias"], float("nan"))}
    half = {f"module.{name}": weight.half() for name, weight in weights.items()}
    own = json.loads(files["preprocessor_config.json"]) | {
        "image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"},
    }  # fmt: skip
    code = b"from pathlib import Path\nPath('made').touch()\nclass Own: pass\n"
    shards = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    bare = {name: content for name, content in files.items() if name != "model.safetensors"}
    changes = {
        "whole": files,
        "wrapped": files | {"model.safetensors": save(half)},
        "pointer": files
        | {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "nan": files | {"model.safetensors": save(nan)},
        "bare": bare,
        "shards": bare | {"model.safetensors.index.json": json.dumps(shards).encode()},
        "code": files | {"preprocessor_config.json": json.dumps(own).encode(), "own.py": code},
        "config": files | {"config.json": b"[]"},
    }
    with LoopbackHub() as hub:
        for name, content in changes.items():
            hub.repositories[f"tester/{name}"] = Repository(files=content, commits=["first"])
        printed = run(hub, tmp_path / "home", "-c", OPEN_ALL, *(f"tester/{name}" for name in changes))
    lines = [line.removeprefix("SAID ") for line in printed.splitlines() if line.startswith("SAID ")]
    said = dict(json.loads(line) for line in lines)
    assert len(said["tester/whole"]) == 12 and len(said["tester/wrapped"]) == 12
    assert "is a Git LFS pointer" in said["tester/pointer"]
    assert "classifier.bias holds 3 values that are NaN or infinite" in said["tester/nan"]
    assert "tester/bare holds no weights: none of model.safetensors" in said["tester/bare"]
    assert "lacks 1 of the 1 files that model.safetensors.index.json names" in said["tester/shards"]
    assert "whose code would have to be run; it is not run" in said["tester/code"]
    assert "config.json holds a JSON list" in said["tester/config"]
    assert not (REPOSITORY / "made").exists()
    shutil.rmtree(tmp_path / "home")
