"""Publish stages with the real client to a Hub on loopback; load them where this repository is not seen."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, hf_hub_download
from loopback_hub import Fault, LoopbackHub
from PIL import Image
from stage_folders import CODE, LABELS, REPOSITORY, run
from stage_records import classification_record
from transformers import AutoImageProcessor
from warm_python import start_warm

from medhiera.data.training_images import read_training_images
from medhiera.errors import UserError
from medhiera.hub.contents import content_of
from medhiera.hub.model_card import card_of
from medhiera.hub.publish import check_can_push, publish_stage
from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining

# huggingface_hub 2.4 uploads with an argument that its HTTP library has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

# Runs where the repository is not seen: no flag must give stock Hiera, trust_remote_code ours.
LOAD_BACK = """
import importlib.util, json, sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers import AutoBackbone, AutoModelForImageClassification, AutoModelForPreTraining

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
    if flag:
        features = {"out_features": ["stage2", "stage4"], "trust_remote_code": True}
        backbone = AutoBackbone.from_pretrained(mae, **features)
        answer["backbone class"] = classes(backbone)
        answer["backbone maps"] = [list(each.shape[1:]) for each in backbone(**pixels).feature_maps]
    with torch.no_grad():
        answer[ours + " mae loss"] = model(**pixels, noise=noise).loss.item()
    answer[ours + " mae class"] = classes(model)
# As the card's snippet has it: weights and code of the tag.
pinned = {"trust_remote_code": True, "revision": sys.argv[2]}
model = AutoModelForImageClassification.from_pretrained(classifier, **pinned)
with torch.no_grad():
    logits = model(**pixels).logits[0].sigmoid().tolist()
answer["pinned"] = dict(zip(model.config.id2label.values(), logits))
answer["pinned backbone class"] = classes(AutoBackbone.from_pretrained(classifier, **pinned))
answer["stock backbone class"] = classes(AutoBackbone.from_pretrained(classifier))
print("ANSWER" + json.dumps(answer))
"""


def test_published_stages_load_where_this_repository_is_not_seen(pristine, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with LoopbackHub() as hub:
        for stage, name in ((2, "tiny-chestxray14"), (1, "tester/tiny-cocktail-mae")):
            said = run(hub, tmp_path / "one", "-m", "medhiera.hub.publish", str(pristine[stage]), name)
            assert said.splitlines()[-1] == f"{hub.address}/tester/{name.split('/')[-1]}"
            assert "HTTP Request" not in said
        published = hub.repositories["tester/tiny-chestxray14"]
        assert set(published.files) == CODE | {
            "LICENSE",
            "LICENSE-CODE",
            "README.md",
            "config.json",
            "metrics.json",
            "model.safetensors",
            "preprocessor_config.json",
            "figures/loss.png",
            "figures/roc.png",
        }
        assert len(published.commits) == len(published.tags) == 1
        assert published.files["model.safetensors"] == (pristine[2] / "model.safetensors").read_bytes()
        local = json.loads((pristine[2] / "config.json").read_text())
        assert "auto_map" not in local
        assert json.loads(published.files["config.json"]).keys() - local.keys() == {"auto_map"}

        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8))
        image.save(tmp_path / "image.png")
        script = ("-I", "-W", "ignore", "-c", LOAD_BACK, str(tmp_path / "image.png"), *published.tags)
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
    for route in ("pipeline", "stock", "ours", "pinned"):
        assert answer[route] == pytest.approx(wanted, abs=1e-4), route
    for route in ("stock", "ours"):
        assert answer[f"{route} mae loss"] == pytest.approx(loss, abs=1e-4)
    assert answer["stock class"][1:] == ["HieraForImageClassification", "HieraConfig"]
    assert answer["stock mae class"][1:] == ["HieraForPreTraining", "HieraConfig"]
    assert answer["ours class"][0].startswith("transformers_modules.")
    assert answer["ours class"][1:] == ["HieraMAEForImageClassification", "HieraMAEConfig"]
    assert answer["ours mae class"][1:] == ["HieraMAEForPreTraining", "HieraMAEConfig"]
    for name in ("backbone class", "pinned backbone class"):
        assert answer[name][0].startswith("transformers_modules.")
        assert answer[name][1:] == ["HieraMAEBackbone", "HieraMAEBackboneConfig"]
    assert answer["stock backbone class"][1] == "HieraBackbone"  # what the card warns of
    assert answer["backbone maps"] == [[16, 8, 8], [64, 2, 2]]


def test_the_card_pins_a_tag_of_exactly_what_was_published(hub, stage_folder, tmp_path):
    """The tag is named before the commit exists; later weights get another, the old ones keep theirs."""
    card = stage_folder / "README.md"
    card.write_text(card.read_text() + 'from_pretrained("THIS_FOLDER", revision="THIS_REVISION")\n')
    pinned = []
    for number in range(3):  # the last is the second again
        if number == 1:
            classification_record(commit="another").write(stage_folder)
        publish_stage(stage_folder, "tester/model")
        repository = hub.repositories["tester/model"]
        pinned.append(repository.files["README.md"].decode().split('revision="')[1].split('"')[0])
    first, second, third = pinned
    assert first != second == third and set(repository.tags) == {first, second}
    assert f'from_pretrained("tester/model", revision="{second}")' in repository.files["README.md"].decode()
    for revision, commit in ((first, "0123abc"), (second, "another")):
        file = hf_hub_download("tester/model", "metrics.json", revision=revision, cache_dir=tmp_path)
        assert json.loads(Path(file).read_text())["commit"] == commit


def test_a_downloaded_stage_published_elsewhere_names_its_own_repository(hub, stage_folder):
    """What its owner wrote of the first repository stays."""
    card = stage_folder / "README.md"
    card.write_text(card_of(stage_folder))
    publish_stage(stage_folder, "tester/first")
    first = hub.repositories["tester/first"].files["README.md"].decode()
    assert first.count('"tester/first"') > 4
    mine = "\nMade from tester/first.\n"
    card.write_text(first + mine)  # as a download has it
    classification_record(commit="another").write(stage_folder)
    publish_stage(stage_folder, "tester/second")
    second = hub.repositories["tester/second"]
    text = second.files["README.md"].decode()
    assert text.endswith(mine) and text.count("tester/first") == 1
    assert text.count("tester/second") == first.count("tester/first")
    assert set(re.findall("medhiera-[0-9a-f]+", text)) == set(second.tags)


def test_a_gated_stage_asks_before_it_gives(hub, stage_folder):
    publish_stage(stage_folder, "tester/open")
    assert hub.repositories["tester/open"].settings == {}
    assert b"extra_gated" not in hub.repositories["tester/open"].files["README.md"]
    publish_stage(stage_folder, "tester/model", gated="manual")
    repository = hub.repositories["tester/model"]
    assert repository.settings == {"gated": "manual"}
    sent = hub.sent()
    assert sent.index("PUT /api/models/tester/model/settings") < sent.index(
        "POST /api/models/tester/model/commit/main"
    )
    data = ModelCard(repository.files["README.md"].decode()).data.to_dict()
    assert data["license"] == "apache-2.0" and "any patient's care" in data["extra_gated_prompt"]
    assert data["extra_gated_fields"]["I will not use it in any patient's care"] == "checkbox"
    assert "extra_gated" not in (stage_folder / "README.md").read_text()


def test_a_gated_repository_keeps_its_terms_where_it_is_published_again_without_the_flag(hub, stage_folder):
    publish_stage(stage_folder, "tester/model", gated="auto")
    repository = hub.repositories["tester/model"]
    first = ModelCard(repository.files["README.md"].decode()).data.to_dict()
    assert "extra_gated_prompt" in first
    classification_record(commit="another").write(stage_folder)
    publish_stage(stage_folder, "tester/model")
    assert len(repository.commits) == 2 and repository.settings == {"gated": "auto"}
    assert ModelCard(repository.files["README.md"].decode()).data.to_dict() == first


def test_a_script_publishes_its_stage_and_another_machine_goes_on_from_it(workshop, tmp_path):
    """--push_to_hub is ours, not the Trainer's; the next stage's lineage is read from the Hub."""
    built = str(workshop.folder / "built")
    data = ("--data_dir", str(workshop.raw), "--build_dir", built, "--use_cpu", "true")
    with LoopbackHub() as hub:
        run(hub, tmp_path / "one", "train_mae.py", str(workshop.configs["train_mae.py"]), *data,
            "--output_dir", str(tmp_path / "mine"), "--max_steps", "2", "--push_to_hub", "true",
            "--hub_model_id", "tester/pushed-mae", "--hub_private_repo", "true")  # fmt: skip
        pushed = hub.repositories["tester/pushed-mae"]
        assert pushed.private and len(pushed.commits) == 1
        wanted = {"model.safetensors", "README.md", "metrics.json", "training_images.parquet"}
        assert wanted <= pushed.files.keys()
        assert not any("checkpoint-" in name or "training_args" in name for name in pushed.files)
        assert list(hub.repositories) == ["tester/pushed-mae"]
        run(hub, tmp_path / "two", "train_cls.py", str(workshop.configs["train_cls.py"]), *data,
            "--output_dir", str(tmp_path / "theirs"), "--max_steps", "2", "--eval_steps", "2",
            "--save_steps", "2", "--model_name_or_path", "tester/pushed-mae")  # fmt: skip
    first, second = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("mine", "theirs")
    )
    lineage = second["lineage"]
    assert lineage["started_from"].startswith("stage 1 (from random weights; synthetic phantoms")
    assert (lineage["base_model"], lineage["license"]) == ("tester/pushed-mae", "apache-2.0")
    assert lineage["leakage_before"] == [first["data"]["leakage"] | {"stage": 1}]
    assert second["preprocessing"]["mean"] == first["preprocessing"]["mean"]
    seen, seen_by_both = (read_training_images(tmp_path / name) for name in ("mine", "theirs"))
    assert set(seen["image_id"]) <= set(seen_by_both["image_id"])
    trained = seen[seen["split"] == "train"]
    assert trained.groupby("source").size().to_dict() == {
        f"phantom {source}": count for source, count in first["data"]["trained_on"].items()
    }


def test_predict_opens_a_model_of_the_hub_without_a_line_a_request(pristine, tmp_path):
    image = tmp_path / "image.png"
    Image.effect_noise((80, 90), 40).save(image)
    with LoopbackHub() as hub:
        run(hub, tmp_path / "one", "-m", "medhiera.hub.publish", str(pristine[2]), "tester/model")
        said = run(hub, tmp_path / "two", "predict.py", "--model", "tester/model",
                   "--output", str(tmp_path / "out.csv"), str(image))  # fmt: skip
    assert "1 images → " in said and "HTTP Request" not in said
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_an_upload_that_is_killed_leaves_nothing_half_and_resumes(pristine, tmp_path):
    command = ("-m", "medhiera.hub.publish", str(pristine[2]), "tester/model")
    with LoopbackHub() as hub:
        environment = os.environ | hub.environment(str(tmp_path))
        process, pid = start_warm(
            command, env=environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        begun = itertools.count(1)

        def kill_at_the_third_file() -> None:
            if next(begun) < 3:
                return
            deadline = time.monotonic() + 60
            while len(hub.lfs) < 2 and time.monotonic() < deadline:  # the first two come at the same time
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            process.wait()
            raise ConnectionError("the client was killed")

        hub.before_put = kill_at_the_third_file
        assert process.wait(timeout=180) == -signal.SIGKILL
        assert hub.repositories["tester/model"].files == {}
        arrived = set(hub.lfs)
        assert len(arrived) >= 2
        hub.before_put = lambda: None
        hub.requests.clear()
        run(hub, tmp_path, *command)
        assert len(hub.repositories["tester/model"].files) == 9 + len(CODE)
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
    with pytest.raises(UserError, match="500 Internal Server Error") as caught:
        publish_stage(pristine[2], "model", private=True)
    command = f"python -m medhiera.hub.publish {pristine[2]} tester/model --stage 2 --private"
    assert command in str(caught.value)
    assert sorted(path.name for path in pristine[2].rglob("*")) == before
    assert hub.repositories["tester/model"].private


def test_publishing_again_replaces_the_files_and_drops_stale_ones(hub, stage_folder):
    publish_stage(stage_folder, "tester/model")
    repository = hub.repositories["tester/model"]
    repository.files |= {"removed_module.py": b"", "notes.md": b"by hand"}
    publish_stage(stage_folder, "tester/model", stage=2)
    (stage_folder / "figures" / "roc.png").rename(stage_folder / "figures" / "roc_curves.png")
    classification_record(commit="another").write(stage_folder)
    publish_stage(stage_folder, "tester/model")
    assert json.loads(repository.files["metrics.json"])["commit"] == "another"
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
        with pytest.raises(UserError, match=f"already holds {what}"):
            publish_stage(pristine[2], name)
        with pytest.raises(UserError, match=f"already holds {what}"):
            check_can_push(name, stage=2)
        assert hub.sent() == []
        assert hub.repositories[name].files == before


def test_stages_are_grouped_in_a_collection(hub, pristine, tmp_path):
    """Made once, by title; found again; an item is in it once."""
    for stage in (1, 2):
        folder = shutil.copytree(pristine[stage], tmp_path / f"stage{stage}")
        for _ in range(2):
            publish_stage(folder, f"tester/stage{stage}", collection="Chest models")
    (collection,) = hub.collections.values()
    assert collection["title"] == "Chest models" and collection["owner"]["name"] == "tester"
    assert [item["id"] for item in collection["items"]] == ["tester/stage1", "tester/stage2"]
    assert collection["items"][1]["note"]["text"].startswith("Stage 2")
    publish_stage(folder, "tester/another", collection=collection["slug"])
    assert len(hub.collections) == 1 and len(collection["items"]) == 3
    assert json.loads((folder / "published.json").read_text()) == {
        "repo_id": "tester/another",
        "weights": content_of(folder / "model.safetensors"),
    }
    assert "published.json" not in hub.repositories["tester/another"].files


def test_a_collection_that_fails_leaves_the_published_stage_and_the_command(hub, stage_folder):
    hub.faults.append(Fault("POST /api/collections$", status=500, times=99))
    with pytest.raises(UserError, match="--collection 'Chest models'"):
        publish_stage(stage_folder, "tester/model", collection="Chest models")
    assert "model.safetensors" in hub.repositories["tester/model"].files
    hub.faults.clear()
    publish_stage(stage_folder, "tester/model", collection="Chest models")
    assert len(hub.collections) == 1


def test_examples_go_along_and_snippets_name_the_repository(hub, stage_folder):
    (stage_folder / "examples").mkdir()
    Image.new("L", (4, 4)).save(stage_folder / "examples" / "Phantom.png")
    card = stage_folder / "README.md"
    card.write_text(card.read_text() + 'pipeline(model="THIS_FOLDER")\n')
    publish_stage(stage_folder, "model")
    files = hub.repositories["tester/model"].files
    assert "examples/Phantom.png" in files
    assert b'pipeline(model="tester/model")' in files["README.md"]
    assert "THIS_FOLDER" in card.read_text()
    (stage_folder / "examples" / "Phantom.png").unlink()
    publish_stage(stage_folder, "model")
    assert "examples/Phantom.png" not in hub.repositories["tester/model"].files
