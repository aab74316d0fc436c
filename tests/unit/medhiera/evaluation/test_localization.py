"""Boxes follow the image into the crop; hits are counted against chance."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from dataset_scripts.findings import make_features
from medhiera.data.preprocessing import CenterCrop, Preprocessing
from medhiera.evaluation import localization
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.localization import _by_finding, evaluate_localization
from medhiera.evaluation.results import LocalizationReport
from medhiera.inference.classifier import Classifier
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification

NAMES = ["Mass", "Nodule"]


@pytest.fixture
def classifier():
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_labels=2
    )
    model = HieraMAEForImageClassification(config).eval()
    return Classifier(model, Preprocessing(64, 80, 0.5, 0.25), ["Nodule", "Mass"])  # another order


def row(number, *boxes):
    names = ("finding", "x", "y", "width", "height")
    return {
        "image": Image.new("L", (200, 160), 30 * number), "image_id": f"{number}", "source": "s",
        "patient_id": f"p{number // 2}", "labels": [0.0, 0.0], "findings": [], "age_years": 1.0, "sex": "F",
        "view": "PA", "boxes": [dict(zip(names, box, strict=True)) for box in boxes],
    }  # fmt: skip


def test_a_box_moves_with_resize_and_crop():
    # 200 × 160 → 100 × 80 → the middle 64 × 64: 18 off the left, 8 off the top.
    box = {"finding": 1, "x": 60, "y": 40, "width": 40, "height": 20}
    outside = {"finding": 0, "x": 0, "y": 0, "width": 30, "height": 10}
    cut = {"finding": 0, "x": 0, "y": 100, "width": 56, "height": 60}
    found = _by_finding([box, outside, cut], (200, 160), CenterCrop(80, 64))
    assert found == {1: [(12, 12, 32, 22)], 0: [(0, 42, 10, 64)]}


def test_a_box_lies_where_the_model_sees_it():
    """203 pixels become 101.5: the resize rounds down, and so does the box."""
    box = {"finding": 0, "x": 60, "y": 40, "width": 40, "height": 20}
    assert _by_finding([box], (203, 160), CenterCrop(80, 64)) == {0: [(12, 12, 32, 22)]}


def test_hits_chance_and_centre(classifier, monkeypatch):
    rows = datasets.Dataset.from_list(
        [
            row(0, (0, 60, 40, 40, 20)),  # 20 × 10 of 64 × 64; the peak lies in it
            row(1, (1, 36, 16, 128, 128)),  # everything: hit, chance 1
            row(2),
            row(3, (0, 100, 100, 20, 20), (0, 40, 20, 10, 10)),  # a miss
        ],
        features=make_features(NAMES),
    )
    calls = []

    def peak_at_fifteen(model, pixels, finding):
        calls.append((finding, len(pixels)))
        heat = torch.zeros(len(pixels), 64, 64)
        heat[:, 15, 15] = 1
        return heat

    monkeypatch.setattr(localization, "heat_maps", peak_at_fifteen)
    report, examples = evaluate_localization(classifier, rows, Bootstrap(50), batch_size=10)
    assert calls == [(1, 2), (0, 1)]  # Mass is the model's second output
    assert [example.is_hit for example in examples] == [True, False, True]
    assert report.hit_rate == pytest.approx(2 / 3) and report.pairs == 3
    assert report.chance == pytest.approx((200 / 4096 + 1 + (100 + 25) / 4096) / 3)
    assert report.center == pytest.approx(1 / 3)
    assert report.findings["Nodule"].hit_rate == 1 and report.findings["Mass"].pairs == 2
    low, high = report.interval
    assert low <= 2 / 3 <= high
    expected = classifier.probabilities([rows[3]["image"]])[0, 1].item()
    assert examples[1].probability == pytest.approx(expected, abs=1e-5)
    assert examples[1].heat.shape == examples[1].pixels.shape == (64, 64)


def test_real_heat_maps_run_and_no_box_is_a_reason(classifier):
    def evaluate(one_row):
        rows = datasets.Dataset.from_list([one_row], features=make_features(NAMES))
        return evaluate_localization(classifier, rows, Bootstrap(0))

    report, examples = evaluate(row(0, (0, 60, 40, 40, 20)))
    assert report.pairs == 1 and report.interval is None and np.isfinite(examples[0].heat).all()
    assert evaluate(row(0)) == (LocalizationReport(reason="no image has a box"), [])
    assert "lies in the crop" in evaluate(row(0, (0, 0, 0, 5, 5)))[0].reason
