"""What stands in the CSV of predict.py: the same numbers as the pipeline's and the page's."""

import csv
import itertools
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
from medhiera.evaluation.results import (
    FindingOperatingPoints,
    MeanCalibration,
    OperatingPoint,
    OperatingPoints,
    Rescaling,
)
from medhiera.hub.model_card import card_of
from medhiera.hub.operation import Operation
from medhiera.hub.record import read_record
from medhiera.inference.classifier import Classifier
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
        assert probability == pytest.approx(stock[name], abs=1e-5)
        assert probability == pytest.approx(page[name].probability, abs=1e-7)
        assert row[f"{name} threshold"] == "0.2" and page[name].threshold == 0.2
        assert row[f"{name} is_above"] == str(int(probability >= 0.2)) == str(int(page[name].is_above))
        if name == NAMES[3]:
            assert row[f"{name} calibrated"] == "" and page[name].calibrated is None
            continue
        odds = np.exp(-1.0) * (probability / (1 - probability)) ** 2
        assert float(row[f"{name} calibrated"]) == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert float(row[f"{name} calibrated"]) == pytest.approx(page[name].calibrated, abs=1e-6)
    assert {row[f"{name} is_above"] for name in NAMES} == {"0", "1"}, "the picture tells both apart"


def test_a_probability_at_its_threshold_is_above_it_everywhere(tmp_path):
    folder, picture = write_calibrated(tmp_path / "model"), write_picture(tmp_path / "a.png")
    own = Classifier.from_pretrained(folder).probabilities([Image.open(picture)])[0, 0].item()
    for threshold, is_above in ((own, "1"), (np.nextafter(np.float32(own), np.float32(1)).item(), "0")):
        write_calibrated(folder, threshold)
        [row] = rows_of(tmp_path / f"{is_above}.csv", "--model", folder, picture)
        assert row[f"{NAMES[0]} is_above"] == is_above
        assert (float(row[NAMES[0]]) >= float(row[f"{NAMES[0]} threshold"])) == bool(int(is_above))
        [shown] = [
            one
            for one in open_folder(folder).findings(np.asarray(Image.open(picture)))
            if one.name == NAMES[0]
        ]
        assert shown.is_above == bool(int(is_above))


def test_a_rescaling_that_did_not_help_is_said(tmp_path, caplog):
    folder, picture = write_calibrated(tmp_path / "model"), write_picture(tmp_path / "a.png")
    record = read_record(folder)
    own = replace(
        record.evaluation.calibration,
        mean_ece=0.042,
        rescaled=MeanCalibration(mean_ece=0.126, mean_brier=0.1),
    )
    record.evaluation = replace(record.evaluation, calibration=own)
    record.write(folder)
    rows_of(tmp_path / "out.csv", "--model", folder, picture)
    words = "did not help: the calibration error is 0.042 without and 0.126 with it"
    assert words in caplog.text and words in Operation.read(folder).notes(NAMES)[0]
    assert "**The rescaling did not help on this split.**" in card_of(folder)
    better = replace(own, rescaled=MeanCalibration(mean_ece=0.03, mean_brier=0.1))
    record.evaluation = replace(record.evaluation, calibration=better)
    record.write(folder)
    assert "did not help" not in Operation.read(folder).notes(NAMES)[0] + card_of(folder)


def test_rows_of_two_evaluations_of_one_model_are_not_mixed(tmp_path):
    folder, picture = write_calibrated(tmp_path / "model"), write_picture(tmp_path / "a.png")
    [row] = rows_of(tmp_path / "out.csv", "--model", folder, picture)
    weights, reading = row["model"].split(".")
    assert (len(weights), len(reading)) == (12, 8)
    write_calibrated(folder, threshold=0.3)
    with pytest.raises(UserError, match=f"predictions of another model .{weights}.{reading}, this one is"):
        rows_of(tmp_path / "out.csv", "--model", folder, picture)


def make_exclusive(folder):
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "single_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_no_column_is_written_of_which_nothing_is_recorded(tmp_path):
    """Nothing recorded; thresholds of med-hiera's head."""
    picture = write_picture(tmp_path / "a.png")
    bare, legacy = (write_calibrated(tmp_path / name) for name in ("bare", "legacy"))
    (bare / "metrics.json").unlink()
    record = json.loads((legacy / "metrics.json").read_text())
    record["recipe"]["legacy_head"] = True
    (legacy / "metrics.json").write_text(json.dumps(record))
    for folder in (bare, legacy):
        [row] = rows_of(tmp_path / f"{folder.name}.csv", "--model", folder, picture)
        assert list(row) == ["path", "model", "content", *NAMES]
        assert all(0 <= float(row[name]) <= 1 for name in NAMES) and "." not in row["model"]


def test_of_exclusive_labels_one_is_predicted(tmp_path):
    """By one model and by the mean of two, whose first says another label; each as the page calls it."""
    first = make_exclusive(write_calibrated(tmp_path / "first"))
    others = (write_sibling(tmp_path / f"sibling{seed}", first, seed) for seed in itertools.count())
    picture = write_picture(tmp_path / "a.png")

    def called(*models):
        [row] = rows_of(tmp_path / f"{models[-1].name}.csv", "--model", *models, picture)
        assert list(row) == ["path", "model", "content", *NAMES, "predicted"] and "." not in row["model"]
        probabilities = {name: float(row[name]) for name in NAMES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(NAMES, key=probabilities.__getitem__)
        return row["predicted"]

    alone = called(first)
    [best] = [one for one in open_folder(first).findings(np.asarray(Image.open(picture))) if one.is_marked]
    assert best.name == alone
    assert any(called(first, other) != alone for other in itertools.islice(others, 20))


def test_a_csv_of_an_exclusive_model_with_the_older_columns_is_refused(tmp_path):
    folder, picture = make_exclusive(write_stage2(tmp_path / "model")), write_picture(tmp_path / "a.png")
    [row] = rows_of(tmp_path / "out.csv", "--model", folder, picture)
    older = [*list(row)[:-1], *(f"{name} {kind}" for kind in MORE_COLUMNS for name in NAMES)]
    (tmp_path / "out.csv").write_text(",".join(older) + "\n")
    with pytest.raises(
        UserError, match=rf"it has '{NAMES[0]} calibrated', .* … and it lacks 'predicted'; name"
    ):
        rows_of(tmp_path / "out.csv", "--model", folder, picture)


def test_of_equal_probabilities_the_first_is_called():
    findings = Operation.none().findings(["a", "b", "c"], [0.2, 0.4, 0.4], is_exclusive=True)
    assert [one.name for one in findings if one.is_called] == ["b"]


@pytest.mark.parametrize(
    ("names", "is_exclusive", "twice"),
    [
        (["Mass", "Mass threshold"], False, "Mass threshold"),
        (["healthy", "predicted"], True, "predicted"),
        (["Mass", "content"], False, "content"),
    ],
)
def test_two_columns_of_one_name_are_refused(names, is_exclusive, twice):
    with pytest.raises(UserError, match=f"two columns '{twice}'"):
        columns_of(names, is_exclusive, has_more=not is_exclusive)
    assert columns_of(["predicted"], is_exclusive=False, has_more=False) == ["predicted"]


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
    assert list(both) == ["path", "model", "content", *NAMES]
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
