"""Both scripts as a user runs them: what a stage's folder holds, what is logged, and who can load it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from warm_python import warm_python

from medhiera.inference.classifier import Classifier
from modeling_hiera_mae import HieraMAEForPreTraining

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "metrics.json"}

STOCK = """
import importlib.util, json, sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers import AutoModelForPreTraining, pipeline
for package in ("modeling_hiera_mae", "dataset_scripts", "medhiera"):
    assert importlib.util.find_spec(package) is None, package
folder, mae_folder, image = sys.argv[1:]
classify = pipeline("image-classification", model=folder, top_k=None)
model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
inputs = AutoImageProcessor.from_pretrained(folder)(Image.open(image).convert("RGB"), return_tensors="pt")
mae, mae_info = AutoModelForPreTraining.from_pretrained(mae_folder, output_loading_info=True)
with torch.no_grad():
    direct = model.eval()(**inputs).logits.sigmoid()[0].tolist()
    noise = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    loss = mae.eval()(inputs["pixel_values"], noise=noise).loss.item()
print(json.dumps({
    "piped": {entry["label"]: entry["score"] for entry in classify(image, top_k=15)},
    "direct": direct, "loss": loss,
    "five": [entry["label"] for entry in classify(image)],
    "keys": [len(i[kind]) for i in (info, mae_info) for kind in ("missing_keys", "unexpected_keys")],
    "modules": [type(m).__module__ for m in (model, mae)],
}))
"""


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_stage_folder_is_complete(stage, request):
    folder = request.getfixturevalue(stage)
    assert FILES <= {path.name for path in folder.iterdir()}
    expected = {
        "stage1": {"loss", "reconstructions"},
        "stage2": {"loss", "roc", "auroc", "heat_maps"},  # too few images for the others
    }[stage]
    assert {path.stem for path in (folder / "figures").glob("*.png")} == expected
    for path in (folder / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    with (folder / "training_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["loss"]] == [1, 2, 3, 4, 5, 6]
    assert "You are adding a" not in (folder / "printed.txt").read_text()  # transformers, of callbacks


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_no_path_of_the_user_leaves_the_machine(stage, request, workshop):
    folder = request.getfixturevalue(stage)
    texts = [*folder.glob("*.json"), *folder.glob("*.md")]
    assert len(texts) >= 4
    for path in texts:
        text = path.read_text()
        assert str(workshop.folder) not in text and str(workshop.root) not in text, path.name
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert str(workshop.root) not in str(weights.metadata())


def test_random_weights_are_said_to_be(stage1):
    assert "all weights are RANDOM" in (stage1 / "printed.txt").read_text()


def test_stage_2_says_which_weights_are_new(stage2):
    printed = (stage2 / "printed.txt").read_text()
    assert (
        "new, not in the checkpoint: classifier.bias, classifier.weight, hiera.pooler.layernorm.bias"
        in printed
    )


def test_stage_2_keeps_the_encoder_normalization_and_geometry(stage1, stage2):
    first, second = (json.loads((s / "preprocessor_config.json").read_text()) for s in (stage1, stage2))
    assert first == second
    assert len(first["image_mean"]) == 3
    configs = [json.loads((s / "config.json").read_text()) for s in (stage1, stage2)]
    assert [config["num_query_pool"] for config in configs] == [2, 3]
    assert configs[0]["depths"] == configs[1]["depths"] == [1, 1, 1, 1]


def test_stage_2_trains_on_chestxray14_alone_and_stage_1_on_all(stage1, stage2):
    first, second = (json.loads((s / "metrics.json").read_text()) for s in (stage1, stage2))
    assert set(second["data"]["trained_on"]) == {"ChestX-ray14"}
    assert set(first["data"]["trained_on"]) == {
        "ChestX-ray14", "COVID-19 Radiography", "COVIDx CXR-3", "BraTS 2020",
    }  # fmt: skip
    assert second["lineage"]["started_from"].startswith("stage 1 (from random weights; synthetic phantoms in")
    assert second["training"]["best_step"] in (3, 6)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_card_is_honest_and_its_metadata_valid(stage, request):
    folder = request.getfixturevalue(stage)
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"
    assert "This is no trained model" in card.text
    assert "Not for clinical use" in card.text
    for figure in (folder / "figures").glob("*.png"):
        assert f"(figures/{figure.name})" in card.text
    metrics = json.loads((folder / "metrics.json").read_text())
    if stage == "stage2":
        assert card.data.pipeline_tag == "image-classification"
        assert card.data.eval_results is None  # a smoke run on phantoms is no result for the Hub
        assert f"**{metrics['evaluation']['mean_auroc']:.3f}**" in card.text
        for entry in card.data.widget:
            probabilities = metrics["examples"][Path(entry["src"]).stem]
            best = max(probabilities, key=lambda name: probabilities[name])
            assert entry["output"][0] == {"label": best, "score": round(probabilities[best], 4)}
        assert len(card.data.widget) == 3
        assert metrics["training"]["hardware"].endswith(" cores")
        for name in metrics["evaluation"]["findings"]:
            assert f"\n| {name.replace('_', ' ')}" in card.text


def test_stock_transformers_gives_our_numbers_in_a_process_that_cannot_see_us(
    stage1, stage2, workshop, tmp_path
):
    image = next((workshop.raw / "COVIDx_CXR" / "test").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(stage2), str(stage1), str(image)],
        cwd=tmp_path, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stock = json.loads(done.stdout.splitlines()[-1])
    classifier = Classifier.from_pretrained(stage2)
    with Image.open(image) as picture:
        ours = classifier.probabilities([picture])[0].tolist()
        pixels = classifier.preprocessing.normalize(classifier.preprocessing.pixels(picture).unsqueeze(0))
    assert all(abs(a - b) < 1e-4 for a, b in zip(ours, stock["direct"], strict=True))
    named = dict(zip(classifier.names, ours, strict=True))
    assert stock["piped"].keys() == named.keys()
    assert all(abs(stock["piped"][name] - named[name]) < 1e-4 for name in named)
    # top_k=None at construction: every label in earlier transformers, the five highest in 5.23
    assert stock["five"] == list(stock["piped"])[: len(stock["five"])]
    mae = HieraMAEForPreTraining.from_pretrained(stage1)
    with torch.no_grad():
        noise = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
        assert mae(pixels, noise=noise).loss.item() == pytest.approx(stock["loss"], abs=1e-4)
    assert stock["keys"] == [0, 0, 0, 0]
    assert all(module.startswith("transformers.") for module in stock["modules"])


def test_a_stage_without_a_head_is_no_classifier(stage1, workshop, tmp_path):
    done = subprocess.run(
        [warm_python(), "predict.py", "--model", str(stage1), "--output", str(tmp_path / "out.csv"),
         str(workshop.raw / "COVIDx_CXR" / "test")],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "has no trained classifier" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.csv").exists()
