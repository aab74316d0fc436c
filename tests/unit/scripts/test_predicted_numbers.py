"""What stands in the CSV of predict.py: the same numbers as the pipeline's and the page's."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_fixtures import NAMES, phantom, write_picture, write_sibling, write_stage2
from PIL import Image
from stage_records import SOME_REPORT
from transformers import pipeline

from medhiera.errors import UserError
from medhiera.evaluation.results import FindingOperatingPoints, OperatingPoint, OperatingPoints, Rescaling
from medhiera.space.reader import open_folder
from predict import MORE_COLUMNS, columns_of, main


def rows_of(output, *words):
    main(["--output", str(output), *map(str, words)])
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def write_calibrated(folder, threshold=0.2):
    """A classifier whose record holds a threshold for each finding and a rescaling for all but the last."""
    point = OperatingPoint(threshold=threshold, sensitivity=0.8, sensitivity_interval=None, specificity=0.7,
                           specificity_interval=None)  # fmt: skip
    both = FindingOperatingPoints(youden=point, sensitivity_90=point, positives=40, positive_patients=40)
    points = OperatingPoints(findings=dict.fromkeys(NAMES, both), validation_images=90)
    fits = dict.fromkeys(NAMES[:3], Rescaling(slope=2.0, intercept=-1.0)) | {NAMES[3]: None}
    return write_stage2(folder, evaluation=replace(SOME_REPORT, operating_points=points, rescaling=fits))


def test_the_same_numbers_as_the_pipeline_and_the_page(tmp_path):
    folder, picture = write_calibrated(tmp_path / "model"), write_picture(tmp_path / "a.png")
    [row] = rows_of(tmp_path / "out.csv", "--model", folder, picture)
    stock = {
        one["label"]: one["score"]
        for one in pipeline("image-classification", str(folder), top_k=4)(Image.open(picture).convert("RGB"))
    }
    page = {one.name: one for one in open_folder(folder).findings(np.asarray(Image.open(picture)))}
    for name in NAMES:
        probability = float(row[name])
        assert probability == pytest.approx(stock[name], abs=5e-3)
        assert probability == pytest.approx(page[name].probability, abs=1e-6)
        assert row[f"{name} threshold"] == "0.200000" and page[name].threshold == 0.2
        assert row[f"{name} is_above"] == str(int(probability >= 0.2)) == str(int(page[name].is_above))
        if name == NAMES[3]:
            assert row[f"{name} calibrated"] == "" and page[name].calibrated is None
            continue
        odds = np.exp(-1.0) * (probability / (1 - probability)) ** 2
        assert float(row[f"{name} calibrated"]) == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert float(row[f"{name} calibrated"]) == pytest.approx(page[name].calibrated, abs=1e-6)
    assert {row[f"{name} is_above"] for name in NAMES} == {"0", "1"}, "the picture tells both apart"


def test_rows_of_two_evaluations_of_one_model_are_not_mixed(tmp_path):
    folder, picture = write_calibrated(tmp_path / "model"), write_picture(tmp_path / "a.png")
    [row] = rows_of(tmp_path / "out.csv", "--model", folder, picture)
    weights, reading = row["model"].split(".")
    assert (len(weights), len(reading)) == (12, 8)
    write_calibrated(folder, threshold=0.3)
    with pytest.raises(UserError, match=f"predictions of another model .{weights}.{reading}, this one is"):
        rows_of(tmp_path / "out.csv", "--model", folder, picture)


def test_what_no_record_says_stays_empty(tmp_path):
    """Nothing recorded; labels that exclude each other; thresholds of med-hiera's head."""
    picture = write_picture(tmp_path / "a.png")
    bare, exclusive, legacy = (write_calibrated(tmp_path / name) for name in ("bare", "exclusive", "legacy"))
    (bare / "metrics.json").unlink()
    config = json.loads((exclusive / "config.json").read_text())
    config["problem_type"] = "single_label_classification"
    (exclusive / "config.json").write_text(json.dumps(config))
    record = json.loads((legacy / "metrics.json").read_text())
    record["recipe"]["legacy_head"] = True
    (legacy / "metrics.json").write_text(json.dumps(record))
    for folder in (bare, exclusive, legacy):
        [row] = rows_of(tmp_path / f"{folder.name}.csv", "--model", folder, picture)
        assert {row[f"{name} {kind}"] for name in NAMES for kind in MORE_COLUMNS} == {""}
        assert all(0 <= float(row[name]) <= 1 for name in NAMES) and "." not in row["model"]


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(UserError, match="two columns 'Mass threshold'"):
        columns_of(["Mass", "Mass threshold"])


def test_several_models_write_their_mean_and_resume(tmp_path):
    """Either order is the same ensemble; one of them alone is another model."""
    first = write_stage2(tmp_path / "first")
    second = write_sibling(tmp_path / "second", first)
    for name in ("a", "b"):
        Image.fromarray(phantom()).save(tmp_path / f"{name}.png")

    def rows(output, *words):
        main(["--output", str(tmp_path / output), *map(str, words)])
        with (tmp_path / output).open(newline="") as file:
            return list(csv.DictReader(file))

    picture = tmp_path / "a.png"
    [one], [two] = (rows(f"{model.name}.csv", "--model", model, picture) for model in (first, second))
    [both] = rows("both.csv", "--model", first, second, picture)  # what follows --model, sorted out
    for name in NAMES:
        assert float(both[name]) == pytest.approx((float(one[name]) + float(two[name])) / 2, abs=1.1e-6)
    assert set(both["model"].split("+")) == {one["model"], two["model"]}
    resumed = rows("both.csv", tmp_path / "b.png", picture, "--model", second, first)
    assert [Path(row["path"]).name for row in resumed] == ["a.png", "b.png"] and resumed[0] == both
    with pytest.raises(UserError, match="predictions of another model"):
        rows("both.csv", tmp_path / "b.png", "--model", first)
    writer = write_sibling(tmp_path / "writer", first)
    (writer / "config.json").write_text('{"model_type": "vision-encoder-decoder"}')
    with pytest.raises(UserError, match="writer writes reports, which have no mean"):
        rows("none.csv", "--model", first, writer, picture)
    (second / "config.json").unlink()  # a run that has not ended is no folder of pictures
    with pytest.raises(UserError, match="second has no config.json"):
        rows("none.csv", "--model", first, second, picture)
    with pytest.raises(SystemExit):  # no picture
        rows("none.csv", "--model", first, second)
