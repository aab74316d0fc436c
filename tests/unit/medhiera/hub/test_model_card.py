"""The card says what metrics.json says, and nothing it does not know."""

import contextlib
import copy
import io
import json
import re
from dataclasses import asdict

import jinja2
import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from page_fixtures import phantom, write_stage1, write_stage2
from PIL import Image

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.report import report
from medhiera.evaluation.results import LocalizationReport
from medhiera.hub.model_card import TEMPLATES, card_of, render_card
from medhiera.hub.widget_examples import EXAMPLES, write_examples
from medhiera.inference.classifier import Classifier

NAMES = ["Edema", "Hernia", "No Finding"]


def split(seed):
    """Ninety images of as many patients, eight with an edema and none with a hernia."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((90, 3)) < 0.5).astype(float)
    labels[:8, 0], labels[8:, 0], labels[:, 1] = 1, 0, 0
    rows = pd.DataFrame({"image_id": np.arange(90).astype(str), "patient_id": np.arange(90).astype(str)})
    rows = rows.assign(sex=["F", "M"] * 45, age_years=np.nan, view="PA")
    scores = generator.random((90, 3)) * 0.7 + 0.3 * labels
    return Predictions(scores, labels, NAMES, rows["patient_id"].tolist(), rows)


def scored():
    """A report of the split as metrics.json holds it."""
    no_boxes = LocalizationReport(reason="no image has a box")
    result = report(split(0), split(1), Bootstrap(20), split="test", pointing_game=no_boxes)
    return json.loads(json.dumps(asdict(result), allow_nan=False))


RECORD = {
    "stage": 2,
    "kind": "full",
    "lineage": {
        "started_from": "stage 1 (facebook/hiera-tiny-224-mae-hf)",
        "base_model": None,
        "license": "cc-by-nc-4.0",
        "new_weights": ["classifier.bias"],
    },
    "data": {
        "is_phantom": False,
        "leakage": {"is_checked": True, "held_out": 305, "compared": 436, "dropped": 25, "allowed": 0},
        "trained_on": {"ChestX-ray14": 1000},
        "validated_on": {"ChestX-ray14": 100},
        "tested_on": {"ChestX-ray14": 214},
    },
    "preprocessing": {"image_size": 224, "resize_size": 256, "mean": 0.5, "std": 0.25},
    "recipe": {"learning_rate": 1e-4, "sources": None},
    "training": {
        "steps": 10,
        "seconds": 3725.0,
        "images_per_second": 12.0,
        "parameters": 27_900_000,
        "best_step": 5,
    },
    "evaluation": scored(),
    "commit": "0123abc",
    "libraries": {"torch": "2.15.0"},
}  # fmt: skip


@pytest.fixture
def record():
    return copy.deepcopy(RECORD)


def cell(value):
    return f"{value:.3f}"


def test_numbers_reasons_and_metadata(record):
    evaluation = record["evaluation"]
    card = ModelCard(render_card(record, ["figures/roc.png"]))
    edema, hernia = evaluation["findings"]["Edema"], evaluation["findings"]["Hernia"]
    for value in (evaluation["mean_auroc"], evaluation["diseases"]["mean_auroc"]):
        assert f"| **{cell(value)}** |" in card.text
    row = next(line for line in card.text.splitlines() if line.startswith("| Edema* |"))
    assert row.split(" | ")[1:] == [
        cell(edema["auroc"]), " to ".join(map(cell, edema["auroc_interval"])),
        cell(edema["average_precision"]), " to ".join(map(cell, edema["average_precision_interval"])),
        "8 (8)", "82 (82) |",
    ]  # fmt: skip
    assert hernia["auroc"] is None
    assert "| Hernia | – | no positive image | – | – | 0 (0) | 90 (90) |" in card.text
    youden = evaluation["operating_points"]["findings"]["Edema"]["youden"]
    assert f"| Edema* | {cell(youden['threshold'])} | {cell(youden['sensitivity'])} (" in card.text
    assert "| Hernia | – | no positive image on validation |" in card.text
    women = evaluation["subgroups"]["sex"]["groups"]["F"]
    assert f"| F | 45 | 45 | {cell(women['mean_auroc'])} |" in card.text
    shared = "Sex, over the 1 finding with at least 10 positive and 10 negative patients in every group"
    assert f"{shared} (left out: Edema, Hernia):" in card.text
    assert "Age: the data says nothing about age." in card.text
    assert f"calibration error over findings {cell(evaluation['calibration']['mean_ece'])}" in card.text
    assert "Not scored: no image has a box." in card.text
    assert "commit `0123abc`" in card.text
    assert "![ROC curve of each finding on the test split](figures/roc.png)" in card.text
    assert "62 min" in card.text
    assert "| Edema* |" in card.text and "\\* Fewer than ten patients with a positive image" in card.text
    assert "`sources`" not in card.text  # an unset field is not shown
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.eval_results[0].dataset_name == (
        "NIH ChestX-ray14, 90 images, not the official test list"
    )
    values = [result.metric_value for result in card.data.eval_results]
    assert values[0] == round(evaluation["mean_auroc"], 4)
    assert values[2] == round(evaluation["mean_average_precision"], 4)
    assert card.data.datasets == ["chestxray14"]
    assert "no trained model" not in card.text


@pytest.mark.parametrize(
    ("leakage", "sentence"),
    [
        ({}, "436 images of other sources were compared with the 305 held-out"),
        ({"is_checked": False}, "Leakage: not checked"),
        ({"allowed": 25, "dropped": 0}, "Leakage: ALLOWED. 25 training images show a held-out"),
    ],
)
def test_leakage_is_stated(record, leakage, sentence):
    record["data"]["leakage"] |= leakage
    assert sentence in render_card(record, [])


def test_what_earlier_stages_saw_is_stated_and_cited(record):
    assert "which it started from" not in render_card(record, [])  # an older record
    first = {"is_checked": True, "held_out": 305, "compared": 436, "dropped": 0, "allowed": 25}
    record["lineage"] |= {
        "trained_before": ["BraTS 2020", "ChestX-ray14"],
        "leakage_before": [{"stage": 1, **first}, {"stage": 2, **first, "is_checked": False}],
    }
    card = ModelCard(render_card(record, []))
    lines = card.text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("- Leakage: "))
    assert lines[at + 1].startswith(
        "- Leakage in stage 1, which it started from: ALLOWED. 25 training images"
    )
    assert lines[at + 2].startswith("- Leakage in stage 2, which it started from: not checked")
    assert lines[at + 3] == ""
    assert card.data.datasets == ["chestxray14", "brats-2020"]
    assert "Menze et al." in card.text and "Wang et al." in card.text and "Chowdhury" not in card.text
    record["data"]["is_phantom"] = True  # phantoms after real images: these are still named
    assert "Menze et al." in render_card(record, [])
    record["lineage"] |= {"trained_before": [], "leakage_before": None}
    assert "- Leakage before this stage: not known; nothing is recorded" in render_card(record, [])
    assert "Wang et al." not in render_card(record, [])


@pytest.mark.parametrize(
    ("licence", "field", "sentence"),
    [
        ("apache-2.0", "apache-2.0", "the weights started at random"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "non-commercial use"),
        (None, "other", "of unknown licence: look it up first"),
    ],
)
def test_licence_is_inherited(record, licence, field, sentence):
    record["lineage"]["license"] = licence
    card = ModelCard(render_card(record, []))
    assert card.data.license == field
    assert sentence in card.text


def test_a_smoke_run_says_so_at_its_top(record):
    record["kind"] = "smoke"
    card = ModelCard(render_card(record, []))
    title, warning = card.text.strip().splitlines()[:3:2]
    assert title.endswith("(smoke run)")
    assert warning.startswith("> **This is no trained model.**")
    assert "smoke-run" in card.data.tags
    assert card.data.model_name == title.removeprefix("# ")


@pytest.mark.parametrize("stage", [1, 2])
def test_so_does_a_whole_run_on_phantoms(record, stage):
    record["stage"], record["data"]["is_phantom"] = stage, True
    record["evaluation"] |= {"mask_ratio": 0.6, "masked_loss": 0.8, "masked_loss_before": 1.2}
    card = ModelCard(render_card(record, []))
    title, warning = card.text.strip().splitlines()[:3:2]
    assert title.endswith("(on phantoms)")
    assert warning.startswith("> **This is no model of patients.** It was trained on synthetic phantom")
    assert "Its numbers say nothing about medicine." in card.text
    if stage == 2:
        assert card.data.model_name == title.removeprefix("# ")
        assert card.data.eval_results[0].dataset_name == "Phantom chest radiographs"


def test_the_official_test_list_needs_no_count(record):
    record["evaluation"]["images"] = 25_596
    assert ModelCard(render_card(record, [])).data.eval_results[0].dataset_name == "NIH ChestX-ray14"


def test_which_weights_were_kept(record):
    assert "was chosen on validation (step 5), the test split was read once." in render_card(record, [])
    record["training"]["best_step"] = None
    card = render_card(record, [])
    assert "\nThe last weights were kept (step 10); the test split was read once.\n" in card
    assert "chosen on validation (" not in card


def test_few_validation_images_show(record):
    evaluation = record["evaluation"]
    points = evaluation["operating_points"]["findings"]
    points["Edema"]["positive_patients"], points["No Finding"]["positive_patients"] = 9, 10
    points["Edema"]["positives"] = 30  # images of nine patients
    table = render_card(record, []).split("### Operating points")[1].split("### Calibration")[0]
    assert "\n| Edema* |" in table and "\n| No Finding |" in table and "\n| Hernia |" in table
    assert "\\* Chosen on fewer than ten validation patients with the finding" in table
    points["Edema"]["positive_patients"] = 10
    assert "Chosen on fewer" not in render_card(record, [])
    fit = {"slope": 1.0, "intercept": 0.0}
    evaluation["rescaling"] = {"Edema": fit, "Hernia": None, "No Finding": fit}
    assert "each of the 2 of 3 findings that validation allowed, fitted there: 0." in render_card(record, [])
    evaluation["rescaling"] = dict.fromkeys(NAMES)
    assert "Nothing is rescaled" in render_card(record, [])


def test_a_missing_field_is_an_error_not_a_blank(record):
    del record["training"]["steps"]
    with pytest.raises(jinja2.UndefinedError, match="steps"):
        render_card(record, [])


def test_a_test_split_without_an_answer_is_stated(record):
    record["evaluation"]["mean_auroc_interval"] = None
    assert "No interval was computed." in render_card(record, [])
    record["evaluation"]["pointing_game"] |= {
        "hit_rate": 0.25, "chance": 0.1, "center": 0.0, "interval": [0.2, 0.3], "pairs": 40,
    }  # fmt: skip
    assert "of the finding in 25 % of 40 cases\n(95 % interval 20 to 30 %); a random" in render_card(
        record, []
    )
    record["evaluation"]["pointing_game"]["chance"] = 0.2
    assert "(95 % interval 20 to 30 %): not above chance; a random" in render_card(record, [])
    record["evaluation"]["pointing_game"]["interval"] = None
    assert "(no interval was computed); a random" in render_card(record, [])
    record["evaluation"] |= {"mean_auroc": None, "mean_average_precision": None, "findings_in_mean": []}
    record["evaluation"]["diseases"]["mean_auroc"] = None
    card = ModelCard(render_card(record, []))
    assert "No AUROC: no finding has both" in card.text
    assert card.data.eval_results is None


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def test_the_snippets_run_and_agree(record, tmp_path, monkeypatch):
    folder = write_stage2(tmp_path / "stage2")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(phantom()).save("chest.png")
    classifier = Classifier.open(folder)
    [wanted] = classifier.probabilities([Image.fromarray(phantom())]).tolist()
    wanted = dict(zip(classifier.names, wanted, strict=True))
    card = render_card(record, [])
    ours, fast = snippets(card)
    for snippet in (ours.replace("top_k=3", "top_k=4"), fast):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(snippet.replace("THIS_FOLDER", str(folder)), {})
        found = yaml.safe_load(printed.getvalue())
        found = {row["label"]: row["score"] for row in found} if isinstance(found, list) else found
        assert found == pytest.approx(wanted, abs=5e-3)
    assert "16-bit PNG, DICOM and MONOCHROME1 need windowing or inversion first" in card
    for stage in (0, 1):
        card = (TEMPLATES / "examples" / f"stage{stage}" / "README.md").read_text(encoding="utf-8")
        for snippet in snippets(card):
            exec(snippet.replace("THIS_FOLDER", str(write_stage1(tmp_path / "stage1"))), {})


def check(card):
    schema = json.loads((TEMPLATES / "metadata.schema.json").read_text())
    metadata = yaml.safe_load(card.split("---\n")[1])
    jsonschema.validate(metadata, schema)
    return metadata


def test_the_metadata_fits_the_schema_and_damage_does_not(record):
    record["lineage"]["base_model"] = "facebook/hiera-tiny-224-mae-hf"
    card = render_card(record, [], ["examples/Phantom_one.png"])
    metadata = check(card)
    assert metadata["widget"] == [{"src": "examples/Phantom_one.png", "example_title": "Phantom one"}]
    assert all(entry["metrics"][0]["verified"] is False for entry in metadata["model-index"][0]["results"])
    for right, wrong in (
        ("verified: false", "verified: true"),
        ("pipeline_tag: image-classification", "pipeline_tag: x-ray-classification"),
        ("pipeline_tag: image-classification", "pipeline_tag: image-feature-extraction"),
        ("base_model: facebook/hiera-tiny-224-mae-hf", "base_model: /home/somebody/hiera"),
        ("license: cc-by-nc-4.0", "licence: cc-by-nc-4.0"),
        ("- chestxray14", "- NIH ChestX-ray14"),
        ("src: examples/", "src: /tmp/"),
    ):
        assert right in card
        with pytest.raises(jsonschema.ValidationError):
            check(card.replace(right, wrong))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_committed_examples_are_what_is_rendered(stage):
    folder = TEMPLATES / "examples" / f"stage{stage}"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == card_of(folder), "render them anew: python -m medhiera.hub.model_card"
    assert "\\\\\n" not in card  # a shell line that goes on ends in one backslash
    metadata = check(card)
    assert ("Nobody's weights lie here" in card) == (stage == 0)  # rendered from random weights
    assert ("widget" in metadata) == (stage == 2)
    for line in card.splitlines():
        if line.startswith("!["):
            assert (folder / line.split("(")[-1].rstrip(")")).is_file()


def test_the_committed_example_images_are_what_is_drawn(tmp_path):
    write_examples(tmp_path)
    committed = TEMPLATES / "examples" / "stage2" / "examples"
    assert {path.stem for path in committed.iterdir()} == set(EXAMPLES)
    for path in tmp_path.iterdir():
        with Image.open(path) as drawn, Image.open(committed / path.name) as kept:
            difference = np.asarray(drawn, dtype=int) - np.asarray(kept, dtype=int)
        assert np.abs(difference).max() <= 1  # another machine's floating point
