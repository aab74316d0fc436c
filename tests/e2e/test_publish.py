"""Publish stages with the real client to a Hub on loopback; load them where this repository is not seen."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from loopback_hub import Fault, LoopbackHub
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, BitImageProcessor

from medhiera.publish import MODEL_CODE, NOT_SHIPPED, PublishError, check_can_push, publish_stage
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining

# huggingface_hub 2.4 uploads with an argument that its HTTP library has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = ["Atelectasis", "Hernia", "No Finding"]
CODE = {path.name for path in MODEL_CODE.glob("*.py")} - set(NOT_SHIPPED)


def write_stage_folder(folder: Path, stage: int) -> Path:
    """A tiny model with random weights in a stage's folder, among the litter of a training run."""
    torch.manual_seed(0)
    geometry: dict[str, Any] = {
        "image_size": [64, 64],
        "embed_dim": 8,
        "num_heads": [1, 1, 2, 2],
        "depths": [1, 1, 1, 1],
        "decoder_hidden_size": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    }
    if stage == 2:
        labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
        model: Any = HieraMAEForImageClassification(HieraMAEConfig.from_size("tiny", **geometry, **labels))
        with torch.no_grad():  # probabilities that differ, so that a mix-up shows
            model.classifier.weight.normal_(std=0.5)
    else:
        model = HieraMAEForPreTraining(HieraMAEConfig.from_size("tiny", **geometry))
    model.save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 72},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    ).save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps({"stage": stage, "auroc": {"mean": 0.5}}))
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n# A tiny model\n"
    )
    (folder / "figures").mkdir()
    for name in ("roc.png", "loss.png"):
        Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(folder / "figures" / name)
    (folder / "training_args.bin").write_bytes(b"secret")
    (folder / "figures" / "notes.txt").write_text("mine")
    (folder / "checkpoint-10").mkdir()
    for name in ("optimizer.pt", "model.safetensors", "trainer_state.json"):
        (folder / "checkpoint-10" / name).write_bytes(b"state")
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("stages")
    return {stage: write_stage_folder(root / f"stage{stage}", stage) for stage in (1, 2)}


@pytest.fixture
def stage_folder(pristine, tmp_path) -> Path:
    """A stage-2 folder to damage."""
    folder = tmp_path / "mine" / "run"
    shutil.copytree(pristine[2], folder)
    return folder


@pytest.fixture
def hub(monkeypatch) -> Iterator[LoopbackHub]:
    """A fresh Hub that this process' client talks to."""
    with LoopbackHub() as hub:
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_loopback")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield hub


def start(hub: LoopbackHub, home: Path, *arguments: str, cwd: Path = REPOSITORY) -> "subprocess.Popen[str]":
    environment = os.environ | hub.environment(str(home))
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(hub: LoopbackHub, home: Path, *arguments: str, cwd: Path = REPOSITORY) -> str:
    process = start(hub, home, *arguments, cwd=cwd)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return output + errors


# Runs where the repository is not seen: no flag must give stock Hiera, trust_remote_code ours.
LOAD_BACK = """
import importlib.util, json, sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers import AutoModelForImageClassification, AutoModelForPreTraining

for name in ("modeling_hiera_mae", "medhiera", "dataset_scripts"):
    assert importlib.util.find_spec(name) is None, name + " can be seen from here"

def classes(model):
    return [type(model).__module__, type(model).__name__, type(model.config).__name__]

image = Image.open(sys.argv[1])
classifier, mae = "tester/tiny-chestxray14", "tester/tiny-cocktail-mae"
answer = {}
scores = pipeline("image-classification", model=classifier, top_k=None)(image)
answer["pipeline"] = {entry["label"]: entry["score"] for entry in scores}
pixels = AutoImageProcessor.from_pretrained(classifier)(image.convert("RGB"), return_tensors="pt")
noise = torch.linspace(0, 1, 4)[None]
for flag in (False, True):
    ours = "ours" if flag else "stock"
    model = AutoModelForImageClassification.from_pretrained(classifier, trust_remote_code=flag)
    with torch.no_grad():
        logits = model(**pixels).logits[0].sigmoid().tolist()
    answer[ours] = dict(zip(model.config.id2label.values(), logits))
    answer[ours + " class"] = classes(model)
    options = {"trust_remote_code": flag, "output_loading_info": True}
    model, info = AutoModelForPreTraining.from_pretrained(mae, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    model.eval()
    with torch.no_grad():
        answer[ours + " mae loss"] = model(**pixels, noise=noise).loss.item()
    answer[ours + " mae class"] = classes(model)
print("ANSWER" + json.dumps(answer))
"""


def test_published_stages_load_where_this_repository_is_not_seen(pristine, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with LoopbackHub() as hub:
        for stage, name in ((2, "tiny-chestxray14"), (1, "tester/tiny-cocktail-mae")):
            said = run(hub, tmp_path / "one", "-m", "medhiera.publish", str(pristine[stage]), name)
            assert said.splitlines()[-1] == f"{hub.address}/tester/{name.split('/')[-1]}"
            assert "HTTP Request" not in said
        published = hub.repositories["tester/tiny-chestxray14"]
        assert set(published.files) == CODE | {
            "README.md",
            "config.json",
            "metrics.json",
            "model.safetensors",
            "preprocessor_config.json",
            "figures/loss.png",
            "figures/roc.png",
        }
        assert len(published.commits) == 1
        assert published.files["model.safetensors"] == (pristine[2] / "model.safetensors").read_bytes()
        local = json.loads((pristine[2] / "config.json").read_text())
        assert "auto_map" not in local
        assert json.loads(published.files["config.json"]).keys() - local.keys() == {"auto_map"}

        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8))
        image.save(tmp_path / "image.png")
        script = ("-I", "-W", "ignore", "-c", LOAD_BACK, str(tmp_path / "image.png"))
        said = run(hub, tmp_path / "two", *script, cwd=tmp_path / "elsewhere")
    answer = json.loads(said.split("ANSWER")[1].splitlines()[0])

    pixels = AutoImageProcessor.from_pretrained(pristine[2])(image.convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        ours = (
            HieraMAEForImageClassification.from_pretrained(pristine[2])(**pixels).logits[0].sigmoid().tolist()
        )
        noise = torch.linspace(0, 1, 4)[None]
        loss = HieraMAEForPreTraining.from_pretrained(pristine[1]).eval()(**pixels, noise=noise).loss.item()
    wanted = dict(zip(LABELS, ours, strict=True))
    assert max(ours) - min(ours) > 0.05
    for route in ("pipeline", "stock", "ours"):
        assert answer[route] == pytest.approx(wanted, abs=1e-4), route
    for route in ("stock", "ours"):
        assert answer[f"{route} mae loss"] == pytest.approx(loss, abs=1e-4)
    assert answer["stock class"][1:] == ["HieraForImageClassification", "HieraConfig"]
    assert answer["stock mae class"][1:] == ["HieraForPreTraining", "HieraConfig"]
    assert answer["ours class"][0].startswith("transformers_modules.")
    assert answer["ours class"][1:] == ["HieraMAEForImageClassification", "HieraMAEConfig"]
    assert answer["ours mae class"][1:] == ["HieraMAEForPreTraining", "HieraMAEConfig"]


def test_an_upload_that_is_killed_leaves_nothing_half_and_resumes(pristine, tmp_path):
    command = ("-m", "medhiera.publish", str(pristine[2]), "tester/model")
    with LoopbackHub() as hub:
        process = start(hub, tmp_path, *command)

        begun = itertools.count(1)

        def kill_at_the_third_file() -> None:
            if next(begun) < 3:
                return
            deadline = time.monotonic() + 60
            while len(hub.lfs) < 2 and time.monotonic() < deadline:  # the first two come at the same time
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise ConnectionError("the client was killed")

        hub.before_put = kill_at_the_third_file
        process.communicate(timeout=180)
        assert process.returncode == -signal.SIGKILL
        assert hub.repositories["tester/model"].files == {}
        arrived = set(hub.lfs)
        assert len(arrived) >= 2
        hub.before_put = lambda: None
        hub.requests.clear()
        run(hub, tmp_path, *command)
        assert len(hub.repositories["tester/model"].files) == 7 + len(CODE)
        assert not {line.split("/")[-1] for line in hub.requests if line.startswith("PUT")} & arrived


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/preupload/", status=500, times=2),
        Fault("POST .*/batch", status=503),
        Fault("PUT /lfs/", status=500, times=2),
        Fault("PUT /lfs/"),
        Fault("POST .*/commit/", status=500, times=2),
        Fault("POST .*/commit/"),
        Fault("POST .*/commit/", after_work=True),
        Fault("POST /api/repos/create"),
    ],
    ids=lambda fault: f"{fault.pattern} {fault.status} {fault.times} {fault.after_work}",
)
def test_passing_failures_are_overcome(hub, pristine, fault):
    hub.faults.append(Fault(fault.pattern, fault.status, fault.times, fault.after_work))
    assert publish_stage(pristine[2], "tester/model") == f"{hub.address}/tester/model"
    assert hub.faults == []
    assert len(hub.repositories["tester/model"].commits) == 1
    assert "model.safetensors" in hub.repositories["tester/model"].files


def test_a_lasting_failure_leaves_the_folder_and_names_the_command(hub, pristine):
    before = sorted(path.name for path in pristine[2].rglob("*"))
    hub.faults.append(Fault("POST .*/commit/", status=500, times=99))
    with pytest.raises(PublishError, match="500 Internal Server Error") as caught:
        publish_stage(pristine[2], "model", private=True)
    command = f"python -m medhiera.publish {pristine[2]} tester/model --stage 2 --private"
    assert command in str(caught.value)
    assert sorted(path.name for path in pristine[2].rglob("*")) == before
    assert hub.repositories["tester/model"].private


def test_publishing_again_replaces_the_files_and_drops_stale_ones(hub, stage_folder):
    publish_stage(stage_folder, "tester/model")
    repository = hub.repositories["tester/model"]
    repository.files |= {"removed_module.py": b"", "notes.md": b"by hand"}
    publish_stage(stage_folder, "tester/model", stage=2)
    (stage_folder / "figures" / "roc.png").rename(stage_folder / "figures" / "roc_curves.png")
    (stage_folder / "metrics.json").write_text(json.dumps({"stage": 2, "auroc": {"mean": 0.6}}))
    publish_stage(stage_folder, "tester/model")
    assert json.loads(repository.files["metrics.json"])["auroc"]["mean"] == 0.6
    assert {name for name in repository.files if name.startswith("figures")} == {
        "figures/loss.png",
        "figures/roc_curves.png",
    }
    assert "removed_module.py" not in repository.files
    assert repository.files["notes.md"] == b"by hand"


def test_another_stage_or_something_else_is_not_overwritten(hub, pristine):
    publish_stage(pristine[1], "tester/mae")
    publish_stage(pristine[2], "tester/dataset-of-someone")
    hub.repositories["tester/dataset-of-someone"].files = {"train.parquet": b"PAR1"}
    for name, what in (("tester/mae", "stage 1"), ("tester/dataset-of-someone", "something")):
        before = dict(hub.repositories[name].files)
        hub.requests.clear()
        with pytest.raises(PublishError, match=f"already holds {what}"):
            publish_stage(pristine[2], name)
        with pytest.raises(PublishError, match=f"already holds {what}"):
            check_can_push(name, stage=2)
        assert hub.sent() == []
        assert hub.repositories[name].files == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def note_in_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path), path, metadata={"made_in": "/home/somebody/run"})


def note_in_picture(folder: Path) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Source", str(REPOSITORY / "run"))
    Image.new("L", (4, 4)).save(folder / "figures" / "roc.png", pnginfo=note)


def add_metric(folder: Path, **entries: object) -> None:
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


DAMAGE: dict[str, tuple[Any, str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors absent"),
    "no card": (lambda f: (f / "README.md").unlink(), r"README\.md absent"),
    "no pictures": (lambda f: [p.unlink() for p in (f / "figures").glob("*.png")], r"holds no \.png"),
    "cut weights": (lambda f: truncate(f / "model.safetensors"), "damaged"),
    "cut metrics": (
        lambda f: (f / "metrics.json").write_text('{"stage": 2'),
        r"metrics\.json is not valid JSON",
    ),
    "no stage": (lambda f: (f / "metrics.json").write_text("{}"), "says stage None; wanted 0, 1 or 2"),
    "other model": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}'),
        r"describes vit \['ViTModel'\]",
    ),
    "stage of another": (lambda f: add_metric(f, stage=1), "stage 1 is a Hiera model for PreTraining"),
    "metrics name a path": (
        lambda f: add_metric(f, data={"folder": "/mnt/hospital/images"}),
        r"metrics\.json .*'/mnt/hospital/images'",
    ),
    "metrics name a Windows path": (
        lambda f: add_metric(f, files=["D:\\hospital\\images"]),
        r"metrics\.json .*hospital",
    ),
    "card names a home": (
        lambda f: (f / "README.md").write_text("made in /home/somebody/run"),
        r"README\.md .*'/home/somebody'",
    ),
    "card names the clone": (
        lambda f: (f / "README.md").write_text(f"made in {REPOSITORY}"),
        rf"README\.md .*'{REPOSITORY}'",
    ),
    "weights name a path": (note_in_weights, r"model\.safetensors .*'/home/somebody'"),
    "picture names a path": (note_in_picture, r"figures/roc\.png .*"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_fit_is_refused_before_anything_is_sent(hub, stage_folder, damage):
    harm, message = DAMAGE[damage]
    harm(stage_folder)
    with pytest.raises(PublishError, match=message):
        publish_stage(stage_folder, "tester/model")
    assert hub.requests == []


def test_the_users_name_is_refused_unless_it_is_the_repositorys(hub, stage_folder, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/data/people/margarete"))
    add_metric(stage_folder, trained_by="margarete")
    with pytest.raises(PublishError, match=r"metrics\.json .*'margarete'"):
        publish_stage(stage_folder, "tester/model")
    hub.access = {"role": "write"}
    with pytest.raises(PublishError, match="cannot write to margarete/model"):
        publish_stage(stage_folder, "margarete/model")
    assert hub.sent() == []


def test_stage_0_needs_no_pictures(hub, pristine, tmp_path):
    folder = shutil.copytree(pristine[1], tmp_path / "imagenet", ignore=shutil.ignore_patterns("figures"))
    add_metric(folder, stage=0)
    publish_stage(folder, "tester/tiny-imagenet-mae", stage=0)
    assert "model.safetensors" in hub.repositories["tester/tiny-imagenet-mae"].files
    with pytest.raises(PublishError, match="already holds stage 0"):
        publish_stage(pristine[1], "tester/tiny-imagenet-mae")


def test_a_folder_of_another_stage_than_asked_for_is_refused(hub, pristine, tmp_path):
    with pytest.raises(PublishError, match="holds stage 2, but stage 1 was asked for"):
        publish_stage(pristine[2], "tester/model", stage=1)
    with pytest.raises(PublishError, match="is no folder"):
        publish_stage(tmp_path / "absent", "tester/model")
    assert hub.requests == []


def scoped(name: str, *permissions: str) -> dict[str, Any]:
    scope = {"entity": {"type": "user", "name": name}, "permissions": list(permissions)}
    return {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}


@pytest.mark.parametrize(
    ("access", "repo_id", "message"),
    [
        ({"role": "write"}, "tester/model", None),
        ({"role": "write"}, "model", None),
        (scoped("tester", "repo.content.read", "repo.write"), "tester/model", None),
        (scoped("tester/model", "repo.write"), "tester/model", None),
        ({"role": "read"}, "tester/model", "cannot write to tester/model"),
        ({"role": "write"}, "facebook/model", "cannot write to facebook/model"),
        (scoped("tester", "repo.content.read"), "tester/model", "cannot write"),
        (scoped("other", "repo.write"), "tester/model", "cannot write"),
        ({"role": "write"}, "tester/models/one", "no repository name"),
        ({"role": "write"}, "", "no repository name"),
    ],
)
def test_what_the_token_may_do_is_known_beforehand(hub, pristine, access, repo_id, message):
    hub.access = access
    if message is None:
        check_can_push(repo_id)
        check_can_push(repo_id, stage=1)
    else:
        with pytest.raises(PublishError, match=message):
            check_can_push(repo_id)
        with pytest.raises(PublishError, match=message):
            publish_stage(pristine[2], repo_id)
    assert hub.sent() == []
    assert hub.repositories == {}


def test_without_a_good_token_or_the_network_the_reason_is_said(hub, pristine, monkeypatch):
    with pytest.raises(PublishError, match="does not take the token"):
        check_can_push("tester/model", token="hf_wrong")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="does not take the token"):
        check_can_push("tester/model")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PublishError, match="no Hub token"):
        publish_stage(pristine[2], "tester/model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE"):
        check_can_push("tester/model")
    assert hub.sent() == []


def test_command_line_says_what_is_wrong_in_one_line(tmp_path):
    with LoopbackHub() as hub:
        process = start(hub, tmp_path, "-m", "medhiera.publish", str(tmp_path), "tester/model")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is not a finished stage: config.json" in errors
    assert "Traceback" not in errors
