"""One place opens a folder for every command: what is wrong is one sentence, and no code of it is run."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from page_fixtures import NAMES, PREPROCESSING, phantom, write_stage1, write_stage2
from PIL import Image
from safetensors.torch import load_file, save_file
from warm_python import warm_python

from medhiera.config.arguments import ModelArguments
from medhiera.errors import UserError
from medhiera.hub.normalization import choose_preprocessing, stage_preprocessing
from medhiera.inference.classifier import Classifier
from medhiera.loading import load_processor
from medhiera.space.reader import open_folder
from medhiera.training.model import check_source, start_model
from modeling_hiera_mae import HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

PROCESSOR = "preprocessor_config.json"
RUNS = "from pathlib import Path\nPath({made!r}).touch()\nclass Own:\n    pass\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "folder")


def change(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def train(folder):
    options = ModelArguments(model_name_or_path=str(folder))
    check_source(options, is_mae=False)
    labels = {
        "id2label": dict(enumerate(NAMES)),
        "label2id": {name: i for i, name in enumerate(NAMES)},
        "problem_type": MULTI_LABEL,
    }
    return start_model(HieraMAEForImageClassification, options, image_size=[64, 64], **labels)[0]


OPENERS = {"predict, evaluate, export": Classifier.from_pretrained, "page": open_folder, "train": train}


def nan(weights):
    weights["hiera.pooler.layernorm.weight"][:2] = float("nan")
    return weights


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"), "LFS"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (
            lambda f: save_file(nan(load_file(f / "model.safetensors")), f / "model.safetensors"),
            r"layernorm\.weight holds 2 values that are NaN or infinite",
        ),
        (lambda f: (f / "config.json").write_text(""), r"config\.json is empty"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a JSON list"),
        (lambda f: change(f / "config.json", image_size="224"), "image_size"),
        (lambda f: change(f / "config.json", depths=None), "depths"),
    ],
    ids=["pointer", "none", "nan", "empty config", "config a list", "image_size", "depths"],
)
def test_every_command_says_what_is_wrong(folder, opener, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        OPENERS[opener](folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_command_computes_in_single_precision(folder, whole, dtype, prefix):
    weights = load_file(whole / "model.safetensors")
    half = {prefix + name: weight.to(dtype) for name, weight in weights.items()}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    change(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    found = Classifier.from_pretrained(folder)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert open_folder(folder).classifier.fingerprint() == found.fingerprint()
    model = train(folder).train()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(torch.randn(1, 3, 64, 64)).logits.sum().backward()
    wide = write_wide(whole, folder.parent / "wide", half, prefix)
    image = Image.fromarray(phantom())
    assert torch.equal(found.probabilities([image]), Classifier.from_pretrained(wide).probabilities([image]))


def write_wide(whole, folder, half, prefix):
    shutil.copytree(whole, folder)
    wide = {name.removeprefix(prefix): weight.float() for name, weight in half.items()}
    save_file(wide, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_folder_without_labels_is_refused(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["id2label"]
    (folder / "config.json").write_text(json.dumps(content | {"num_labels": len(NAMES)}))
    with pytest.raises(UserError, match=r"names no labels \(config\.json has no id2label\)"):
        Classifier.from_pretrained(folder)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["X"] * len(NAMES), "gives 'X' to several outputs"),
        (["X", " X", *NAMES[2:]], "gives 'X' to several outputs"),
        (["", *NAMES[1:]], "gives output 0 an empty name"),
        (["  ", *NAMES[1:]], "gives output 0 an empty name"),
    ],
)
def test_labels_that_name_nothing_are_refused(folder, labels, said):
    change(folder / "config.json", id2label=dict(enumerate(labels)))
    for opener in (Classifier.from_pretrained, open_folder):
        with pytest.raises(UserError, match=f"config.json {said}"):
            opener(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ("[1]", "holds a JSON list"),
        ({"image_mean": [float("nan")] * 3}, r"says image_mean\.\d is nan"),
        ({"image_mean": "0.5"}, r"no usable preprocessor_config\.json"),
        ({"image_std": [0.0] * 3}, "says image_std 0.0; wanted above 0 and at most 1"),
        ({"image_std": [0.2, -0.2, 0.2]}, "says image_std -0.2; wanted above 0 and at most 1"),
        ({"image_std": 58.4}, "says image_std 58.4; wanted above 0"),
        ({"image_std": [1e-30] * 3}, r"makes pixels of \de\+28"),
        ({"image_mean": [1e30] * 3}, r"says image_mean 1e\+30; wanted from 0 to 1"),
        ({"image_mean": [128, 128, 128]}, "says image_mean 128; wanted from 0 to 1"),
        ({"image_mean": [0.5, -0.1, 0.5]}, "says image_mean -0.1; wanted from 0 to 1"),
        ({"rescale_factor": -1 / 255}, r"says rescale_factor -0\.0039\d*; wanted 0\.001 to 0\.01"),
        ({"rescale_factor": 1.0}, r"says rescale_factor 1\.0; wanted 0\.001 to 0\.01"),
        ({"do_rescale": False}, "says do_rescale False; wanted True"),
        ({"do_resize": False}, "says do_resize False; wanted True"),
        ({"image_mean": [0.5, 0.5]}, "no usable"),
        ({"size": {"shortest_edge": 10**9}}, "says size 1000000000; wanted 1 to 10000 pixels"),
        ({"size": {"shortest_edge": "72"}}, "no usable"),
        ({"crop_size": {"height": -1, "width": 64}}, "says crop_size -1"),
        (
            {"crop_size": {"height": 50, "width": 50}},
            r"gives \[50, 50\] pixels; the model wants multiples of",
        ),
        ({"image_processor_type": 3}, "no usable"),
        ({"image_processor_type": "NoSuchProcessor"}, "no usable"),
        ({"resample": "cubic"}, "no usable"),
    ],
)
def test_a_broken_processor_is_refused_in_words(folder, content, message):
    if isinstance(content, dict):
        change(folder / PROCESSOR, **content)
    else:
        (folder / PROCESSOR).write_text(content)
    with pytest.raises(UserError, match=message):
        Classifier.from_pretrained(folder)


def test_a_stage_whose_processor_is_anothers_cannot_be_continued(folder):
    change(folder / PROCESSOR, image_mean=[0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="wanted a square crop and equal channels"):
        stage_preprocessing(str(folder))
    change(folder / PROCESSOR, image_mean="x")
    with pytest.raises(UserError, match="no usable"):
        choose_preprocessing(str(folder), 64, 72, 0.5, 0.2)


def own_processor(folder, made):
    """A folder that ships code for its processor, as an unfriendly repository would."""
    (folder / "own.py").write_text(RUNS.format(made=str(made)))
    change(folder / PROCESSOR, image_processor_type="Own", auto_map={"AutoImageProcessor": "own.Own"})
    return folder


@pytest.mark.parametrize("write", [write_stage1, write_stage2])
def test_code_that_a_folder_ships_is_not_run(tmp_path, write):
    folder = own_processor(write(tmp_path / "stage"), tmp_path / "made")
    for opener in (load_processor, open_folder, lambda f: stage_preprocessing(str(f))):
        with pytest.raises(UserError, match=r"names an image processor of its own \('Own'\)"):
            opener(folder)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("answer", [None, "y\n"])
def test_nobody_is_asked_whether_to_run_it(folder, tmp_path, root, answer):
    own_processor(folder, tmp_path / "made")
    Image.fromarray(np.zeros((80, 80), np.uint8)).save(tmp_path / "a.png")
    command = [warm_python(), "predict.py", "--model", str(folder), "--output", str(tmp_path / "a.csv")]
    given = {"stdin": subprocess.DEVNULL} if answer is None else {"input": answer}
    done = subprocess.run(
        [*command, str(tmp_path / "a.png")], cwd=root, capture_output=True, text=True, timeout=120, **given
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "whose code would have to be run; it is not run" in said, said
    assert "[y/N]" not in said and "Traceback" not in said
    assert not (tmp_path / "made").exists() and not (tmp_path / "a.csv").exists()


def test_code_for_the_model_is_not_run_either(folder, tmp_path):
    """A published stage has an auto_map of ours; another's names another's files."""
    (folder / "own.py").write_text(RUNS.format(made=str(tmp_path / "made")))
    auto_map = {name: "own.Own" for name in ("AutoConfig", "AutoModelForImageClassification", "AutoModel")}
    change(folder / "config.json", auto_map=auto_map | {"AutoImageProcessor": "own.Own"})
    for name in ("image_processor_type", None):
        content = json.loads((folder / PROCESSOR).read_text())
        if name is None:
            del content["image_processor_type"]
            (folder / PROCESSOR).write_text(json.dumps(content))
        try:
            assert isinstance(Classifier.from_pretrained(folder).model, HieraMAEForImageClassification)
        except UserError as error:
            assert name is None and "code would have to be run" in str(error)
    assert not (tmp_path / "made").exists()


def test_finite_weights_that_compute_nan_are_refused(folder):
    """Predictions of NaN were written as they were."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = torch.full_like(weights["classifier.weight"], 3e38)
    weights["classifier.weight"][:, ::2] *= -1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    classifier = Classifier.from_pretrained(folder)
    with pytest.raises(UserError, match="the model computes NaN"):
        classifier.probabilities([Image.fromarray(phantom())])


def test_what_is_whole_opens(whole):
    assert Classifier.from_pretrained(whole).preprocessing == PREPROCESSING
    assert load_processor(whole).size["shortest_edge"] == 72
