"""One report: its parts agree, it is fit for JSON, and its figures and files can be read back."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medhiera.evaluation import report as evaluation
from medhiera.evaluation.predictions import Predictions, read_predictions
from medhiera.evaluation.published_results import PAPER_AUROC, beside_the_paper
from medhiera.evaluation.report import report
from medhiera.evaluation.thresholds import choose_thresholds

NAMES = ["Edema", "Hernia", "No Finding"]


def cohort(seed, images=200):
    generator = np.random.default_rng(seed)
    labels = (generator.random((images, 3)) < 0.3).astype(float)
    labels[:, 1] = 0  # no hernia
    chances = 1 / (1 + np.exp(-(generator.normal(size=labels.shape) + 2 * labels - 1)))
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(images)],
            "patient_id": [f"p{n // 2}" for n in range(images)],
            "sex": ["F", "M"] * (images // 2),
            "age_years": [np.nan] * images,
            "view": ["PA"] * images,
        }
    )
    return Predictions(chances, labels, rows)


def test_a_report_is_whole_and_json(tmp_path):
    test, validation = cohort(0), cohort(1)
    record = json.loads(json.dumps(report(NAMES, test, validation, 50), allow_nan=False))
    edema = record["operating_points"]["findings"]["Edema"]
    chosen = choose_thresholds(validation.probabilities, validation.labels, NAMES)
    assert edema["youden"]["threshold"] == chosen["Edema"]["youden"]  # chosen on validation, not on test
    assert record["operating_points"]["findings"]["Hernia"]["reason"] == "no positive image on validation"
    assert record["operating_points"]["means"]["youden"]["sensitivity"] == pytest.approx(
        np.mean([record["operating_points"]["findings"][n]["youden"]["sensitivity"] for n in NAMES[::2]])
    )
    assert record["calibration"]["findings"]["Edema"].keys() >= {"ece", "brier", "rescaled_ece"}
    assert set(record["subgroups"]) == {"sex", "age", "view"}
    assert record["subgroups"]["age"]["reason"] == "the data says nothing about age"
    record["pointing_game"] = {"reason": "no image has a box", "pairs": 0}
    evaluation.draw(record, NAMES, test, [], tmp_path, "Test split")
    written = {path.stem for path in tmp_path.glob("*.png")}
    assert written == {"roc", "auroc", "reliability", "subgroups"}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 150


def test_without_validation_no_threshold_is_invented():
    record = report(NAMES, cohort(0), None, 0)
    assert record["operating_points"] == {
        "findings": {}, "reason": "no validation split to choose thresholds on",
    }  # fmt: skip
    assert record["rescaling"] == {} and "rescaled" not in record["calibration"]


def test_predictions_go_there_and_back_in_any_order(tmp_path):
    test = cohort(0)
    path = tmp_path / "predictions.parquet"
    test.table(NAMES).sample(frac=1, random_state=0).to_parquet(path)
    images = test.rows["image_id"].tolist()
    np.testing.assert_array_equal(read_predictions(path, NAMES, images), test.probabilities)
    with pytest.raises(ValueError, match="lacks 1 of 201 images, such as other"):
        read_predictions(path, NAMES, [*images, "other"])
    with pytest.raises(ValueError, match="no column 'Mass'"):
        read_predictions(path, ["Mass"], images)
    with pytest.raises(ValueError, match="no such file"):
        read_predictions(tmp_path / "absent.parquet", NAMES, images)


def test_the_papers_tables_have_ours_in_its_place():
    findings = {name: {"auroc": 0.9, "is_rare": name == "Hernia"} for name in PAPER_AUROC}
    diseases = [name for name in PAPER_AUROC if name != "No Finding"]
    record = {
        "findings": findings,
        "mean_auroc": 0.9,
        "diseases": {"findings_in_mean": diseases, "mean_auroc": 0.825},
        "images": 25_596,
    }
    lines = beside_the_paper(record, is_phantom=False)
    assert [line.split()[0] for line in lines if "90.00*" in line] == ["Hernia"]
    assert any(line.startswith("* fewer than 10") for line in lines)
    assert "compare" not in lines[1]
    assert "not the official list's 25,596" in beside_the_paper(record | {"images": 214}, False)[1]
    means = [line.split()[0] for line in lines[lines.index("Table 3: mean of 14 diseases") + 1 :]]
    assert means[3:5] == ["this", "EVA-X-Ti"]
    assert any(line.startswith("mean of 15") and line.endswith("81.68") for line in lines)
    assert "no comparison" in beside_the_paper(record, is_phantom=True)[0]
    record["findings"] = {"disk": {"auroc": 0.9}}
    assert beside_the_paper(record, is_phantom=False) == []
