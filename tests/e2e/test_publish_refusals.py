"""What is not published, and the messages: damaged folders, private text, tokens that cannot write."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from loopback_hub import LoopbackHub
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file
from stage_folders import REPOSITORY, start
from stage_records import imagenet_record, pretraining_record

from medhiera.errors import UserError
from medhiera.hub.publish import check_can_push, publish_stage

# huggingface_hub 2.4 uploads with an argument that its HTTP library has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


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


def link_out(folder: Path, name: str) -> None:
    outside = folder.parent / "private" / Path(name).name
    outside.parent.mkdir(exist_ok=True)
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)


def link_figures(folder: Path) -> None:
    shutil.move(folder / "figures", folder.parent / "others")
    (folder / "figures").symlink_to(folder.parent / "others")


def nan_in_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, path)


DAMAGE: dict[str, tuple[Any, str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors absent"),
    "no card": (lambda f: (f / "README.md").unlink(), r"README\.md absent"),
    "no pictures": (lambda f: [p.unlink() for p in (f / "figures").glob("*.png")], r"holds no \.png"),
    "cut weights": (lambda f: truncate(f / "model.safetensors"), "damaged"),
    "cut metrics": (
        lambda f: (f / "metrics.json").write_text('{"stage": 2'),
        r"metrics\.json is not valid JSON",
    ),
    "no stage": (
        lambda f: (f / "metrics.json").write_text("{}"),
        "not the record of a stage; wanted stage",
    ),
    "other model": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}'),
        r"describes vit \['ViTModel'\]",
    ),
    "stage of another": (lambda f: pretraining_record().write(f), "stage 1 is a Hiera model ForPreTraining"),
    "metrics name a path": (
        lambda f: add_metric(f, recipe={"folder": "/mnt/hospital/images"}),
        r"metrics\.json .*'/mnt/hospital/images'",
    ),
    "metrics name a Windows path": (
        lambda f: add_metric(f, recipe={"files": ["D:\\hospital\\images"]}),
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
    "NaN weights": (nan_in_weights, r"is damaged: .*classifier\.bias holds 1 values that are NaN"),
    "weights are a link": (
        lambda f: link_out(f, "model.safetensors"),
        r"model\.safetensors is a link out of",
    ),
    "card is a link": (lambda f: link_out(f, "README.md"), r"README\.md is a link out of"),
    "picture is a link": (lambda f: link_out(f, "figures/roc.png"), r"figures/roc\.png is a link out of"),
    "pictures are a link": (link_figures, r"figures/\w+\.png is a link out of"),
    "picture names a path": (note_in_picture, r"figures/roc\.png .*"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_fit_is_refused_before_anything_is_sent(hub, stage_folder, damage):
    harm, message = DAMAGE[damage]
    harm(stage_folder)
    with pytest.raises(UserError, match=message):
        publish_stage(stage_folder, "tester/model")
    assert hub.requests == []


def test_the_users_name_is_refused_unless_it_is_the_repositorys(hub, stage_folder, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/data/people/margarete"))
    add_metric(stage_folder, recipe={"trained_by": "margarete"})
    with pytest.raises(UserError, match=r"metrics\.json .*'margarete'"):
        publish_stage(stage_folder, "tester/model")
    hub.access = {"role": "write"}
    with pytest.raises(UserError, match="cannot write to margarete/model"):
        publish_stage(stage_folder, "margarete/model")
    assert hub.sent() == []


def test_stage_0_needs_no_pictures(hub, pristine, tmp_path):
    folder = shutil.copytree(pristine[1], tmp_path / "imagenet", ignore=shutil.ignore_patterns("figures"))
    imagenet_record().write(folder)
    publish_stage(folder, "tester/tiny-imagenet-mae", stage=0)
    assert "model.safetensors" in hub.repositories["tester/tiny-imagenet-mae"].files
    with pytest.raises(UserError, match="already holds stage 0"):
        publish_stage(pristine[1], "tester/tiny-imagenet-mae")


def test_a_folder_of_another_stage_than_asked_for_is_refused(hub, pristine, tmp_path):
    with pytest.raises(UserError, match="holds stage 2, but stage 1 was asked for"):
        publish_stage(pristine[2], "tester/model", stage=1)
    with pytest.raises(UserError, match="there is no such folder"):
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
        with pytest.raises(UserError, match=message):
            check_can_push(repo_id)
        with pytest.raises(UserError, match=message):
            publish_stage(pristine[2], repo_id)
    assert hub.sent() == []
    assert hub.repositories == {}


def test_without_a_good_token_or_the_network_the_reason_is_said(hub, pristine, monkeypatch):
    with pytest.raises(UserError, match="does not take the token"):
        check_can_push("tester/model", token="hf_wrong")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="does not take the token"):
        check_can_push("tester/model")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="no Hub token"):
        publish_stage(pristine[2], "tester/model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        check_can_push("tester/model")
    assert hub.sent() == []


def test_command_line_says_what_is_wrong_in_one_line(tmp_path):
    with LoopbackHub() as hub:
        process = start(hub, tmp_path, "-m", "medhiera.hub.publish", str(tmp_path), "tester/model")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is not a finished stage: config.json" in errors
    assert "Traceback" not in errors
