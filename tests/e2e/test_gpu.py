"""The three stages on a GPU as a user runs them, a few steps each, and what they say beside the CPU.

`make test-gpu` runs them. The same on the CPU is among the slow tests: what is asserted here stays true.
"""

import csv
import json
import math
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from page_fixtures import phantom
from warm_python import warm_python

from medhiera.device import choose_device
from medhiera.space.reader import open_folder

AGREEMENT = 2e-4
"""Of a probability: three decimals. TF32 in the patch embedding alone gave 4e-4 (docs/decisions.md)."""

RECIPE = (
    "--dataloader_num_workers", "2", "--dataloader_pin_memory", "true",
    "--random_crop_scale", "0.5", "--horizontal_flip", "true", "--ema_decay", "0.5",
)  # fmt: skip


def said_device(text: str, device: str, weights: Path) -> bool:
    """The line that a user sees; on a GPU also that more than the weights has lain in its memory."""
    if device == "cpu":
        return "device: cpu (" in text and "peak memory" not in text
    [peak] = re.findall(r"peak memory on cuda:0: ([0-9.]+) MB", text)
    return "device: cuda:0 (" in text and float(peak) * 1e6 > weights.stat().st_size


@pytest.fixture(
    scope="module",
    params=[pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)],
)
def device(request):
    return request.param


def train(workshop, script, device, *words):
    output = workshop.folder / device / Path(script).stem
    done = workshop.run(script, output, *RECIPE, *words, "--use_cpu", str(device == "cpu").lower())
    assert done.returncode == 0, done.stdout
    (output / "printed.txt").write_text(done.stdout)
    return output


@pytest.fixture(scope="module")
def mae(workshop, device):
    return train(workshop, "train_mae.py", device)


@pytest.fixture(scope="module")
def classifier(workshop, device, mae):
    return train(
        workshop, "train_cls.py", device, "--model_name_or_path", str(mae), "--rand_augment", "true",
        "--mixup_alpha", "0.8",
    )  # fmt: skip


def run(workshop, *command):
    done = subprocess.run(
        [warm_python(), *map(str, command)], cwd=workshop.root, text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_both_stages_train_there_with_workers_and_pinned_batches(device, mae, classifier):
    for folder in (mae, classifier):
        assert said_device((folder / "printed.txt").read_text(), device, folder / "model.safetensors")
        with (folder / "training_log.csv").open() as file:
            rows = list(csv.DictReader(file))
        losses = [float(row[name]) for row in rows for name in ("loss", "eval_loss") if row[name]]
        assert [int(row["step"]) for row in rows if row["loss"]] == [1, 2, 3, 4, 5, 6]
        assert len(losses) >= 6 + 2 and all(map(math.isfinite, losses))
        written = json.loads((folder / "metrics.json").read_text())
    assert math.isfinite(json.loads((mae / "metrics.json").read_text())["evaluation"]["masked_loss"])
    assert (mae / "figures" / "reconstructions.png").is_file()
    assert written["evaluation"]["pointing_game"]["pairs"] > 0  # heat maps
    assert (classifier / "figures" / "heat_maps.png").is_file()


def test_evaluate_cls_says_the_same_there_as_in_training_and_on_the_cpu(
    workshop, device, classifier, tmp_path
):
    tables = {}
    for where in {device: 0, "cpu": 0}:
        said = run(
            workshop, "evaluate_cls.py", "--model", classifier, "--data_dir", workshop.raw, "--build_dir",
            workshop.folder / "built", "--output_dir", tmp_path / where, "--bootstrap_resamples", "20",
            "--device", where,
        )  # fmt: skip
        assert said_device(said, where, classifier / "model.safetensors")
        tables[where] = pd.read_parquet(tmp_path / where / "predictions.parquet")
    there, here = tables[device], tables["cpu"]
    assert list(there["image_id"]) == list(here["image_id"])
    names = [name for name in here.columns if f"{name} (label)" in here.columns]
    assert np.abs(there[names].to_numpy() - here[names].to_numpy()).max() < AGREEMENT
    trained = json.loads((classifier / "metrics.json").read_text())["evaluation"]
    again = json.loads((tmp_path / device / "metrics.json").read_text())["evaluation"]
    assert again["mean_auroc"] == pytest.approx(trained["mean_auroc"], abs=1e-3)


def test_predict_says_the_same_there_as_on_the_cpu_and_resumes(workshop, device, classifier, tmp_path):
    """What one device began, the other goes on with: the CSV names the model, which is the same."""
    images = workshop.raw / "COVIDx_CXR" / "train"
    command = ("predict.py", "--model", classifier, "--batch_size", "4")
    said = run(workshop, *command, "--output", tmp_path / "there.csv", "--device", device, images)
    assert said_device(said, device, classifier / "model.safetensors")
    first = sorted(images.iterdir())[:5]
    run(workshop, *command, "--output", tmp_path / "both.csv", "--device", device, *first)
    said = run(workshop, *command, "--output", tmp_path / "both.csv", "--device", "cpu", images)
    assert "already holds 5 images: resuming" in said and "device: cpu" in said
    there, both = (pd.read_csv(tmp_path / f"{name}.csv").set_index("path") for name in ("there", "both"))
    assert len(there) == len(list(images.iterdir())) > 5 and set(there["model"]) == set(both["model"])
    pd.testing.assert_frame_equal(
        there.drop(columns=["model", "content"]),
        both.drop(columns=["model", "content"]),
        atol=AGREEMENT,
        rtol=0,
        check_like=True,
    )


def test_the_page_shows_the_same_there_as_on_the_cpu(workshop, device, mae, classifier):
    gray = phantom()
    there, here = (open_folder(classifier, where) for where in (choose_device(device), torch.device("cpu")))
    assert there.classifier.model.device.type == device
    found, wanted = (
        {each.name: each.probability for each in reader.findings(gray)} for reader in (there, here)
    )
    assert found == pytest.approx(wanted, abs=AGREEMENT)
    name = here.classifier.names[0]
    assert np.abs(there.heat(gray, name) - here.heat(gray, name)).max() < 0.02  # of a map's largest value
    there, here = (open_folder(mae, where) for where in (choose_device(device), torch.device("cpu")))
    filled, wanted = (reader.fill_in(gray, 0.6, 0).filled for reader in (there, here))
    assert there.model.device.type == device and (filled - wanted).abs().max() < 1e-3


def test_the_page_runs_there(workshop, device, classifier):
    pytest.importorskip("gradio", reason="a bare GPU machine has no gradio")
    said = run(workshop, "medhiera/space/app.py", classifier, "--time", "1", "--device", device)
    assert f"device: {'cuda:0' if device == 'cuda' else 'cpu'} (" in said and "ms an image" in said
