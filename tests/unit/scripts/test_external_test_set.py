"""evaluate_cls.py on another hospital's images: all of them, at the thresholds that the model brings."""

import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from page_fixtures import NAMES, write_stage2
from PIL import Image
from stage_records import predictions_of

import evaluate_cls
import predict
from medhiera.data.training_images import list_images, write_training_images
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.report import report

GAME = LocalizationReport(reason="no image has a box")


def write_films(folder, split=""):
    """Sixty films, of which a build that trains keeps fewer; findings are spelled as elsewhere."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    lines = ["image,edema,mass" + (",split" if split else "")]
    drawn = generator.integers(0, 256, (40, 80, 80), dtype=np.uint8)
    for number in range(60):
        pixels = drawn[number] if number < 40 else drawn[number - 40] // 2  # another window of the same film
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{number % 3 // 2}" + (f",{split}" if split else ""))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def model(tmp_path):
    """A stage 2 with thresholds and rescaling; its list names none of the films."""
    folder = tmp_path / "model"
    evaluation = report(
        predictions_of(NAMES, 0), predictions_of(NAMES, 1), Bootstrap(0), split="test", pointing_game=GAME
    )
    write_stage2(folder, kind="full", is_phantom=False, evaluation=evaluation)
    seen = Dataset.from_dict({"image_id": ["image folder/other.png"], "source": ["image folder"]})
    write_training_images(folder, list_images(seen, "train"))
    return folder


def evaluate(model, films, output, *more):
    words = ["--model", str(model), "--data_dir", str(films), "--output_dir", str(output), "--device", "cpu"]
    evaluate_cls.main([*words, "--bootstrap_resamples", "20", *more])
    return json.loads((output / "metrics.json").read_text())["evaluation"]


@pytest.mark.parametrize("split", ["", "test"])
def test_all_images_are_scored_at_the_models_own_thresholds(model, tmp_path, split, caplog):
    films = write_films(tmp_path / "films", split)
    found = evaluate(model, films, tmp_path / "out", *([] if split else ["--split", "all"]))
    own = json.loads((model / "metrics.json").read_text())["evaluation"]
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert found["images"] == len(table) == 60 and found["split"] == (split or "all")
    points = found["operating_points"]
    assert points["are_the_models"] and points["validation_images"] == 90 and points["reason"] is None
    for name, of_model in {"edema": "Edema", "mass": "Mass"}.items():
        for rule in ("youden", "sensitivity_90", "best_f1"):
            chosen = (own["operating_points"]["findings"][of_model][rule] or {}).get("threshold")
            assert (points["findings"][name][rule] or {}).get("threshold") == chosen
        assert found["rescaling"][name] == own["rescaling"][of_model]
    youden = points["findings"]["edema"]["youden"]
    is_called = table["edema"] >= youden["threshold"]
    assert youden["sensitivity"] == is_called[table["edema (label)"] == 1].mean()
    assert youden["sensitivity_interval"] is not None
    assert found["calibration"]["rescaled"] is not None
    assert "at the model's own thresholds, chosen on the 90 validation images of its training" in caplog.text


def test_a_drawn_tenth_of_foreign_images_is_scored_only_where_it_is_asked_for(model, tmp_path, caplog):
    films = write_films(tmp_path / "films")
    with pytest.raises(
        UserError, match=r"trained on none of these images, .* so 6 of its images .* --split all"
    ):
        evaluate(model, films, tmp_path / "out")
    found = evaluate(model, films, tmp_path / "out", "--split", "test")
    assert found["images"] == 6 and not found["operating_points"]["are_the_models"]
    (model / "training_images.parquet").unlink()
    assert evaluate(model, films, tmp_path / "out")["images"] == 6
    assert "Nothing says which images the model was trained on" in caplog.text


def test_images_that_were_trained_on_are_refused_among_all(model, tmp_path):
    films = write_films(tmp_path / "films")
    names = [f"image folder/{number}.png" for number in range(50)]
    seen = Dataset.from_dict({"image_id": names, "source": ["image folder"] * 50})
    write_training_images(model, list_images(seen, "train"))
    with pytest.raises(UserError, match="was trained on 50 of the 60 scored images"):
        evaluate(model, films, tmp_path / "out", "--split", "all")
    with pytest.raises(UserError, match="was trained on . of the 6 test images"):
        evaluate(model, films, tmp_path / "out")


@pytest.mark.parametrize("of_model", ["legacy_head", "nothing"])
def test_thresholds_of_other_numbers_are_not_applied(model, tmp_path, of_model, caplog):
    """Those of a mean of mirror images, or of a record that has none, are nobody's."""
    films = write_films(tmp_path / "films", "test")
    more = ["--tta"] if of_model == "nothing" else []
    if of_model == "legacy_head":
        record = json.loads((model / "metrics.json").read_text())
        record["recipe"]["legacy_head"] = True
        (model / "metrics.json").write_text(json.dumps(record))
    found = evaluate(model, films, tmp_path / "out", *more)
    assert found["operating_points"]["findings"] == {} == found["rescaling"]
    assert "no thresholds: no validation split to choose thresholds on" in caplog.text


def test_a_csv_of_predict_is_compared_with_and_a_paper_may_name_files_alone(model, tmp_path):
    films = write_films(tmp_path / "films", "test")
    own = tmp_path / "own.csv"
    predict.main(["--model", str(model), "--output", str(own), "--device", "cpu", str(films)])
    found = evaluate(model, films, tmp_path / "out", "--compare", str(own))
    assert found["comparison"]["findings"]["edema"]["auroc"]["difference"] == 0
    table = pd.read_csv(own)
    names = [path.rpartition("/")[2] for path in table["path"]]
    pd.DataFrame({"image_id": names, "edema": 0.5, "mass": 0.5}).to_csv(own, index=False)
    found = evaluate(model, films, tmp_path / "out", "--compare", str(own))
    assert found["comparison"]["other"].endswith("own.csv")
