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
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.inference.classifier import Classifier
from medhiera.inference.heat_maps import METHOD
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
        "view": "PA", "nih_image": "", "rsna_image": "", "is_phantom": False,
        "boxes": [dict(zip(names, box, strict=True)) for box in boxes],
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

    def peak_at_fifteen(model, pixels):
        heat = torch.zeros(len(pixels), 2, 64, 64)
        heat[:, 1, 15, 15] = 1  # of Mass, the model's second output; Nodule's map is empty and hits nothing
        heat[:, 0, 15, 15] = torch.tensor([0.0, 1.0, 0.0])  # of the second image's Nodule
        return heat

    monkeypatch.setattr(localization, "heat_maps", peak_at_fifteen)
    report, examples = evaluate_localization(classifier, rows, Bootstrap(50), batch_size=10)
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
    assert report.method == METHOD and report.patients == 2 and report.verdict == "unchecked"


def test_boxes_and_model_may_spell_a_finding_apart(classifier):
    rows = [row(number, (1, 60, 40, 40, 20)) for number in range(3)]

    def pointed(name):
        table = datasets.Dataset.from_list(rows, features=make_features(["Nodule", name]))
        model = Classifier(classifier.model, classifier.preprocessing, ["Nodule", "Pleural_Thickening"])
        return evaluate_localization(model, table, Bootstrap(20))

    (report, examples), (expected, same) = pointed("pleural thickening"), pointed("Pleural_Thickening")
    assert report.reason is None and report.pairs == expected.pairs == 3
    assert report.hit_rate == expected.hit_rate
    assert report.findings == {"pleural thickening": expected.findings["Pleural_Thickening"]}
    assert [one.probability for one in examples] == [one.probability for one in same]
    assert pointed("Mass")[0].reason == "no box of the model's findings lies in the crop"


def test_raw_images_are_pointed_at_like_pngs(classifier):
    pngs = [row(number, (0, 60, 40, 40, 20)) for number in range(3)]
    raw = [one | {"image": {"pixels": one["image"].tobytes(), "height": 160, "width": 200}} for one in pngs]
    found = [
        evaluate_localization(
            classifier, datasets.Dataset.from_list(rows, features=make_features(NAMES, is_raw=rows is raw)),
            Bootstrap(5), batch_size=2,
        )[1]
        for rows in (pngs, raw)
    ]  # fmt: skip
    assert len(found[0]) == len(found[1]) == 3
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one.pixels, other.pixels) and one.probability == other.probability
        assert np.array_equal(one.heat, other.heat)


def unit_reader():
    """A classifier whose Mass is any bright place: trained in a second, so that its maps find one."""
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_labels=2
    )
    model = HieraMAEForImageClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    preprocessing = Preprocessing(64, 64, 0.5, 0.25)
    for step in range(200):
        images = [bright_square(step * 8 + number, number % 2 == 0)["image"] for number in range(8)]
        labels = torch.arange(8).remainder(2).eq(0).float()[:, None].repeat(1, 2)
        loss = model(preprocessing.pixel_values(images), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    return Classifier(model.eval(), preprocessing, ["Nodule", "Mass"])


def bright_square(number, is_there=True, is_elsewhere=False):
    """A gray image with a square in one of four units, and its box; or the box in the opposite unit."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(100, 120, (64, 64), dtype=np.uint8)
    top, left = (int(32 * value + 8) for value in generator.integers(0, 2, 2))
    if is_there:
        pixels[top : top + 16, left : left + 16] = 250
    x, y = ((40 - left) + 8, (40 - top) + 8) if is_elsewhere else (left, top)
    return row(number, (0, x, y, 16, 16)) | {"image": Image.fromarray(pixels)}


def test_maps_that_find_boxes_are_above_chance_and_others_are_not():
    classifier = unit_reader()

    def verdict(rows, resamples=200):
        rows = datasets.Dataset.from_list(rows, features=make_features(NAMES))
        report, _ = evaluate_localization(classifier, rows, Bootstrap(resamples))
        return report

    found = verdict([bright_square(number) for number in range(40)])
    assert found.patients == 20 and found.hit_rate > 0.9
    low, high = found.above_chance_interval
    assert found.hit_rate == 1 and (low, high) == pytest.approx((0.025 ** (1 / 20) - 1 / 16, 15 / 16))
    assert found.interval == pytest.approx([0.025 ** (1 / 20), 1.0])  # resamples hold nothing but hits
    assert found.chance == pytest.approx(16 * 16 / 64**2)
    assert found.verdict == found.findings["Mass"].verdict == found.verdict_on("Mass") == "above chance"
    assert found.verdict_on("Nodule") == "unchecked", "no box of it"
    elsewhere = verdict([bright_square(number, is_elsewhere=True) for number in range(40)])
    assert elsewhere.interval == pytest.approx([0.0, 1 - 0.025 ** (1 / 20)])
    assert elsewhere.above_chance_interval == pytest.approx([-1 / 16, 15 / 16 - 0.025 ** (1 / 20)])
    assert elsewhere.verdict == elsewhere.verdict_on("Nodule") == "not above chance"
    assert verdict([bright_square(number) for number in range(18)]).verdict == "unchecked", "nine patients"
    assert verdict([bright_square(number) for number in range(40)], resamples=0).verdict == "unchecked"


def test_a_finding_may_be_worse_than_its_model():
    numbers = {
        "hit_rate": 0.6,
        "interval": [0.5, 0.7],
        "chance": 0.1,
        "center": 0.1,
        "pairs": 40,
        "patients": 30,
    }
    good = HitRate(**numbers, above_chance_interval=[0.4, 0.6])
    bad = HitRate(**numbers | {"hit_rate": 0.1}, above_chance_interval=[-0.05, 0.05])
    few = HitRate(**numbers | {"patients": 9}, above_chance_interval=[0.4, 0.6])
    findings = {"Mass": good, "Nodule": bad, "Edema": few}
    report = LocalizationReport(**vars(good), method=METHOD, findings=findings)
    assert {name: report.verdict_on(name) for name in (*findings, "Hernia")} == {
        "Mass": "above chance", "Nodule": "not above chance", "Edema": "unchecked", "Hernia": "unchecked",
    }  # fmt: skip
    assert LocalizationReport(**vars(bad), findings=findings).verdict_on("Mass") == "not above chance"
    assert LocalizationReport(reason="no image has a box").verdict_on("Mass") == "unchecked"


def test_real_heat_maps_run_and_no_box_is_a_reason(classifier):
    def evaluate(one_row):
        rows = datasets.Dataset.from_list([one_row], features=make_features(NAMES))
        return evaluate_localization(classifier, rows, Bootstrap(0))

    report, examples = evaluate(row(0, (0, 60, 40, 40, 20)))
    assert report.pairs == 1 and report.interval is None and np.isfinite(examples[0].heat).all()
    assert evaluate(row(0)) == (LocalizationReport(reason="no image has a box"), [])
    assert "lies in the crop" in evaluate(row(0, (0, 0, 0, 5, 5)))[0].reason
