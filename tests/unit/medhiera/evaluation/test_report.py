"""One report: its parts agree, it is fit for JSON and read back from it, and its figures are drawn."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from medhiera.evaluation import figures
from medhiera.evaluation import report as evaluation
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.localization import HeatMapExample
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.published_results import PAPER_AUROC, compare_with_published
from medhiera.evaluation.results import (
    ClassificationReport,
    FindingScore,
    MeanScores,
    RankingReport,
)
from medhiera.evaluation.tables import threshold_lines
from medhiera.evaluation.thresholds import choose_thresholds
from medhiera.formatting import threshold_text

NAMES = ["Edema", "Hernia", "No Finding"]
NO_BOXES = LocalizationReport(reason="no image has a box")


def cohort(seed, images=200):
    generator = np.random.default_rng(seed)
    labels = (generator.random((images, 3)) < 0.3).astype(float)
    labels[:, 1] = 0  # no hernia
    probabilities = 1 / (1 + np.exp(-(generator.normal(size=labels.shape) + 2 * labels - 1)))
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(images)],
            "patient_id": [f"p{n // 2}" for n in range(images)],
            "sex": ["F", "M"] * (images // 2),
            "age_years": [np.nan] * images,
            "view": ["PA"] * images,
        }
    )
    return Predictions(probabilities, labels, NAMES, rows["patient_id"].tolist(), rows)


def full_report(resamples=50, **parts):
    parts = {"pointing_game": NO_BOXES} | parts
    return evaluation.report(cohort(0), cohort(1), Bootstrap(resamples), split="test", **parts)


def test_the_parts_agree():
    validation, result = cohort(1), full_report()
    points = result.operating_points
    edema = points.findings["Edema"]
    # Chosen on validation, not on test:
    assert edema.youden.threshold == choose_thresholds(validation)["Edema"].youden
    assert points.validation_images == len(validation)
    assert points.findings["Hernia"].reason == "no positive image on validation"
    sensitivities = [points.findings[name].youden.sensitivity for name in NAMES[::2]]
    assert points.means["youden"].sensitivity == pytest.approx(np.mean(sensitivities))
    f1 = [points.findings[name].best_f1.f1 for name in NAMES[::2]]
    assert points.means["best_f1"].f1 == pytest.approx(np.mean(f1))
    assert result.calibration.findings["Edema"].rescaled_ece is not None
    assert set(result.subgroups) == {"sex", "age", "view"}
    assert result.subgroups["age"].reason == "the data says nothing about age"
    assert result.split == "test"
    assert (result.images, result.patients) == (200, 100) and not result.is_one_image_a_patient


def test_the_intervals_are_those_of_each_scorer_alone():
    """One bootstrap is shared by all scorers of a report; another one gives the same."""
    shared = Bootstrap(150)
    first = evaluation.report(cohort(0), cohort(1), shared, split="test", pointing_game=NO_BOXES)
    again = evaluation.report(cohort(0), cohort(1), shared, split="test", pointing_game=NO_BOXES)
    assert first == again == full_report(150)
    assert compare_models(cohort(0), cohort(0), shared) == compare_models(
        cohort(0), cohort(0), Bootstrap(150)
    )


def test_a_report_goes_to_json_and_back():
    hits = HitRate(hit_rate=0.5, interval=[0.25, 0.75], chance=0.1, center=0.2, pairs=4)
    other = replace(cohort(0), scores=cohort(5).scores)
    result = full_report(
        pointing_game=LocalizationReport(**asdict(hits), findings={"Edema": hits}),
        comparison=compare_models(cohort(0), other, Bootstrap(50)),
    )
    adapter = TypeAdapter(ClassificationReport)
    text = json.dumps(adapter.dump_python(result, mode="json"), allow_nan=False)
    assert adapter.validate_python(json.loads(text)) == result
    assert json.loads(text) == json.loads(json.dumps(asdict(result), allow_nan=False))
    damaged = json.loads(text)
    damaged["findings"]["Edema"]["auroc"] = "high"
    with pytest.raises(ValidationError, match="findings.Edema.auroc"):
        adapter.validate_python(damaged)


def example(finding, *, is_hit):
    heat = np.zeros((32, 32), dtype=np.float32)
    heat[10, 12] = 1
    return HeatMapExample(
        image_id="i0",
        patient_id="p0",
        finding=finding,
        probability=0.5,
        pixels=np.full((32, 32), 0.5, dtype=np.float32),
        heat=heat,
        boxes=[(8.0, 8.0, 20.0, 20.0)],
        is_hit=is_hit,
        is_center_hit=True,
        covered_share=0.14,
    )


def test_all_figures_are_drawn(tmp_path):
    game = LocalizationReport(hit_rate=0.5, interval=[0.2, 0.8], chance=0.1, center=0.2, pairs=2)
    examples = [example("Edema", is_hit=True), example("Hernia", is_hit=False)]
    evaluation.draw(
        full_report(pointing_game=game), cohort(0), examples, tmp_path, "Test split", "synthetic phantoms"
    )
    written = {path.stem for path in tmp_path.glob("*.png")}
    assert written == {"roc", "auroc", "reliability", "subgroups", "heat_maps"}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 150


def test_the_color_bar_of_heat_maps_has_their_colors(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, *_: drawn.append(figure))
    heat = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    gray = replace(example("Edema", is_hit=True), heat=heat, pixels=np.full_like(heat, 0.5), boxes=[])
    game = LocalizationReport(hit_rate=0.5, interval=[0.2, 0.8], chance=0.1, center=0.2, pairs=2)
    figures.heat_map_rows([gray], game, tmp_path / "heat_maps.png", title="Test split")
    [figure] = drawn
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)
    _, below, bar = figure.axes
    for value in (0.02, 0.25, 0.5, 0.75, 0.98):
        seen, wanted = (
            pixels[int(y), int(x)]
            for x, y in (
                below.transData.transform((255 * value, 128)),
                bar.transData.transform((0.5, 100 * value)),
            )
        )
        assert np.abs(seen - wanted).max() < 8, (value, seen, wanted)


def test_without_boxes_there_are_no_heat_maps(tmp_path):
    evaluation.draw(full_report(0), cohort(0), [], tmp_path, "Test split", "")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"roc", "auroc", "reliability", "subgroups"}


def test_a_figure_with_nothing_to_show_is_not_drawn_nor_left_from_before(tmp_path):
    for name in ("subgroups", "reliability", "heat_maps", "loss"):
        (tmp_path / f"{name}.png").touch()
    few, some = cohort(0, 58), cohort(0, 100)
    few = replace(few, rows=few.rows.assign(view=["PA", "AP"] * 29))
    result = evaluation.report(few, None, Bootstrap(0), split="test", pointing_game=NO_BOXES)
    assert {entry.images for entry in result.subgroups["sex"].groups.values()} == {29}
    evaluation.draw(result, few, [], tmp_path, "Test split", "")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"roc", "auroc", "loss"}
    result = evaluation.report(some, None, Bootstrap(0), split="test", pointing_game=NO_BOXES)
    evaluation.draw(result, some, [], tmp_path, "Test split", "")
    assert {path.stem for path in tmp_path.glob("*.png")} >= {"subgroups", "reliability"}


def test_without_validation_no_threshold_is_invented():
    result = evaluation.report(cohort(0), None, Bootstrap(0), split="validation", pointing_game=NO_BOXES)
    assert result.operating_points.findings == {} and result.operating_points.means == {}
    assert result.operating_points.reason == "no validation split to choose thresholds on"
    assert result.rescaling == {} and result.calibration.rescaled is None
    assert threshold_lines(result.operating_points) == [f"no thresholds: {result.operating_points.reason}"]


def test_a_threshold_is_written_with_four_digits():
    """Three decimals made one of 0.48837 and 0.48849, and nothing of 0.0003."""
    values = (0.48837, 0.48849, 0.5, 0.0189215, 0.000312345, 1.0000000000000002)
    assert [threshold_text(value) for value in values] == [
        "0.4884",
        "0.4885",
        "0.5000",
        "0.01892",
        "0.0003123",
        "1.000",
    ]


def test_accuracy_and_f1_as_text():
    points = full_report().operating_points
    lines = {line[:20].strip(): line for line in threshold_lines(points)}
    edema = points.findings["Edema"].best_f1
    low, high = edema.f1_interval
    assert f"{edema.f1:.3f}     {low:.3f} to {high:.3f}" in lines["Edema"]
    assert lines["Edema"][20:].startswith(f" {threshold_text(edema.threshold):<9} {edema.accuracy:.3f}  ")
    assert f"{edema.accuracy:.3f}" in lines["Edema"] and "no positive image" in lines["Hernia"]
    mean = points.means["best_f1"]
    assert lines[f"mean of {len(mean.findings_in_mean)}"].endswith(f"{mean.f1:.3f}")
    earlier = replace(points, means={"best_f1": replace(mean, findings_in_mean=None)})
    assert threshold_lines(earlier)[-1].startswith("mean    ")
    without = threshold_lines(full_report(resamples=0).operating_points)
    assert f"{edema.f1:.3f}     none " in without[2]


def means(value, names):
    return {
        "mean_auroc": value,
        "mean_auroc_interval": None,
        "mean_average_precision": value,
        "mean_average_precision_interval": None,
        "findings_in_mean": names,
    }


def ranking_of(names, images):
    findings = {
        name: FindingScore(
            auroc=0.9,
            auroc_interval=None,
            average_precision=0.5,
            average_precision_interval=None,
            positives=20,
            negatives=20,
            positive_patients=9 if name == "Hernia" else 20,
            negative_patients=20,
            has_few_cases=name == "Hernia",
        )
        for name in names
    }
    diseases = [name for name in names if name != "No Finding"]
    return RankingReport(
        **means(0.9, list(names)),
        diseases=MeanScores(**means(0.825, diseases)),
        findings=findings,
        images=images,
        bootstrap_resamples=0,
    )


NIH_IMAGE = ["image folder/a.png", "ChestX-ray14/00000001_000.png"]


def test_the_papers_tables_have_ours_in_its_place():
    ranking = ranking_of(PAPER_AUROC, 25_596)
    lines = compare_with_published(ranking, NIH_IMAGE, is_phantom=False)
    assert [line.split()[0] for line in lines if "90.00*" in line] == ["Hernia"]
    assert any(line.startswith("* fewer than 10 positive or negative patients") for line in lines)
    assert "compare" not in lines[1]
    fewer = compare_with_published(replace(ranking, images=214), NIH_IMAGE, is_phantom=False)
    assert "not the official list's 25,596" in fewer[1]
    names = [line.split()[0] for line in lines[lines.index("Table 3: mean of 14 diseases") + 1 :]]
    place = names.index("this")
    assert names[place - 1 : place + 2] == ["CheXFound", "this", "EVA-X-Ti"]
    assert [line.split()[-1] for line in lines if line.startswith(("SynthEnsemble", "X-WIN"))] == ["(d)"] * 3
    assert any(line.startswith("mean of 15") and line.endswith("81.68") for line in lines)
    [line] = compare_with_published(ranking, NIH_IMAGE, is_phantom=True)
    assert "not shown beside this: the images are synthetic" in line
    assert compare_with_published(ranking_of(["disk"], 10), NIH_IMAGE, is_phantom=False) == []
    # Pneumonia of other films is another task, however its name reads.
    assert compare_with_published(ranking, ["image folder/1.png"], is_phantom=False) == []
