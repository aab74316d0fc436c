"""Prediction and evaluation that do not fit into memory end in a message that names the batch which fits."""

import argparse
import csv
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from page_fixtures import NAMES, phantom, write_stage2
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

import evaluate_cls
import predict
from dataset_scripts.findings import make_features
from medhiera.device import CPU
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.inference.classifier import Classifier
from modeling_hiera_mae import HieraMAEForImageClassification


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))


@pytest.fixture
def room_for():
    """From now on a forward pass with more images than these asks the CPU for a petabyte, and is refused."""
    handles = []

    def limit(images):
        def ask(module, inputs):
            if isinstance(module, HieraMAEForImageClassification) and len(inputs[0]) > images:
                torch.empty(2**50, dtype=torch.uint8)

        handles.append(register_module_forward_pre_hook(ask))

    yield limit
    for handle in handles:
        handle.remove()


def make_rows(count):
    box = {"finding": 0, "x": 60, "y": 40, "width": 40, "height": 20}
    rows = [
        {"image": Image.fromarray(phantom()), "image_id": f"{number}", "source": "s", "patient_id": "p",
         "labels": [0.0] * len(NAMES), "findings": [], "age_years": 1.0, "sex": "F", "view": "PA",
         "nih_image": "", "rsna_image": "", "is_phantom": False, "boxes": [box]}
        for number in range(count)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=make_features(NAMES))


def test_predict_names_the_batch_that_fits_and_goes_on_with_it(stage2, tmp_path, room_for):
    for number in range(11):
        Image.fromarray(phantom()).save(tmp_path / f"{number:02}.png")
    words = ["--model", str(stage2), "--output", str(tmp_path / "out.csv"), "--device", "cpu", str(tmp_path)]
    room_for(5)
    with pytest.raises(UserError, match="a batch of 8 images does not fit; 4 do .*--batch_size 4") as caught:
        predict.main([*words, "--batch_size", "8"])
    assert "\n" not in str(caught.value)
    predict.main([*words, "--batch_size", "4"])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == [f"{n:02}.png" for n in range(11)]


def test_where_not_one_image_fits_predict_says_what_may_be_done(stage2, tmp_path, room_for):
    Image.fromarray(phantom()).save(tmp_path / "a.png")
    room_for(0)
    with pytest.raises(UserError, match="a batch of 1 images .*neither does one image.*--device cpu"):
        predict.main(["--model", str(stage2), "--output", str(tmp_path / "out.csv"), str(tmp_path / "a.png")])


def test_another_error_keeps_its_trace(stage2):
    model = predict.open_models([str(stage2)], CPU)
    with pytest.raises(RuntimeError, match="size of the tensor"):
        predict.score_batch(model, [[torch.zeros(5, 64, 64, dtype=torch.uint8)]])


def test_evaluation_names_the_batch_that_fits(stage2, room_for):
    rows = make_rows(8)
    classifier = Classifier.from_pretrained(stage2)
    options = argparse.Namespace(batch_size=8, tta=True, legacy_head=False)
    room_for(3)
    with pytest.raises(UserError, match="a batch of 8 images does not fit; 2 do .*--batch_size 2"):
        evaluate_cls.predict(options, classifier, NAMES, rows)
    options.batch_size = 2
    assert len(evaluate_cls.predict(options, classifier, NAMES, rows)) == 8


def test_heat_maps_name_the_batch_that_fits_them(stage2, room_for):
    """They put several variants of an image through the model at once, so fewer images fit."""
    rows, classifier = make_rows(8), Classifier.from_pretrained(stage2)
    report, _ = evaluate_cls.localize(classifier, rows, Bootstrap(0), 8)
    assert report.pairs == 8
    room_for(7)
    with pytest.raises(UserError, match="a batch of 8 images does not fit; [124] do .*--batch_size [124]"):
        evaluate_cls.localize(classifier, rows, Bootstrap(0), 8)
