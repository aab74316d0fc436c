"""The card, figures and log of a stage that learned one's own classes are worded for these."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from stage_records import CLEAN, check_metadata, classification_record, training

from dataset_scripts.build.origin import DatasetOrigin
from medhiera.data.build_reports import are_patients_guessed
from medhiera.evaluation import figures
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.checkpoint_selection import choose_findings
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.report import report
from medhiera.evaluation.tables import format_table
from medhiera.hub.lineage import lineage_of
from medhiera.hub.model_card import TEMPLATES, render_card
from medhiera.hub.model_index import results
from medhiera.hub.record import read_record

NAMES = ["BACTERIA", "NORMAL", "VIRUS"]


def predicted(names):
    """Ninety images, each of one class, with probabilities that sum to one."""
    generator = np.random.default_rng(3)
    true = np.arange(90) % len(names)
    scores = generator.random((90, len(names))) + 0.3 * np.eye(len(names))[true]
    ids = np.arange(90).astype(str)
    rows = pd.DataFrame({"image_id": ids, "patient_id": ids, "sex": "F", "age_years": np.nan, "view": "PA"})
    scores /= scores.sum(axis=1, keepdims=True)
    return Predictions(scores, np.eye(len(names))[true], names, ids.tolist(), rows, is_exclusive=True)


def scored(names):
    return report(predicted(names), None, Bootstrap(20), split="test",
                  pointing_game=LocalizationReport(reason="no image has a box"))  # fmt: skip


def record_of(names, **changes):
    record = classification_record(
        scored(names), trained_on={"image folder": 100}, tested_on={"image folder": 90}, **changes
    )
    labels = np.eye(len(names))[np.arange(90) % len(names)]
    selection = choose_findings(labels, list(map(str, range(90))), names, is_exclusive=True)
    record.training = training(images_per_second=0.34, selection=selection)
    return record


def test_two_classes_have_one_auroc():
    record = record_of(NAMES[:2])
    card, value = render_card(record, []), f"{record.evaluation.mean_auroc:.3f}"
    assert f"| NORMAL against BACTERIA | **{value}** |" in card
    assert card.split("---\n")[2].split("### The most")[0].count(value) == 1
    assert "mean AUROC |" not in card.split("### By sex")[0] and "diseases" not in card
    assert "\n| class | average precision |" in card and "A Hiera classifier of 2 classes" in card
    assert "by the AUROC of both classes, which have the same AUROC: BACTERIA, NORMAL." in card
    titles = [title for _, title, _ in results(record)]
    assert titles == ["accuracy", "AUROC", "mean average precision of 2 classes"]
    assert not any(line.startswith("mean of") for line in format_table(record.evaluation))


def test_three_classes_are_no_diseases():
    record = record_of(NAMES)
    card = render_card(record, [])
    assert "by the mean AUROC of classes with at least 30 positive validation patients" in card
    assert "diseases" not in card and "| class | AUROC | 95 % interval |" in card
    assert "mean AUROC of 3 classes" in str(results(record)) and "diseases" not in str(results(record))
    assert any(line.startswith("mean of all 3") for line in format_table(record.evaluation))


@pytest.mark.parametrize(("names", "panels"), [(NAMES[:2], ["NORMAL against BACTERIA"]), (NAMES, NAMES)])
def test_figures_show_two_classes_once(names, panels, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save", lambda figure, path, mark: drawn.update({path.name: figure}))
    figures.roc_curves(predicted(names), scored(names), tmp_path / "roc.png", title="Test")
    figures.auroc_points(scored(names), tmp_path / "auroc.png", title="Test")
    titles = [axis.get_title() for axis in drawn["roc.png"].axes if axis.lines]
    assert titles == panels
    points = drawn["auroc.png"].axes[0]
    assert sorted(tick.get_text().replace("\n", " ") for tick in points.get_yticklabels()) == sorted(panels)
    assert any("mean" in text.get_text() for text in points.texts) == (len(names) > 2)


def test_what_the_card_says_is_of_this_model():
    record = record_of(NAMES)
    card = render_card(record, [])
    own_part = card.split("## Which images it has seen")[1]
    assert "ChestX-ray14" not in own_part and 'print(seen["image_id"])' in card
    assert "0.34 images/s" in card and "On the Hub, `LICENSE` beside these weights" in card
    assert "the 25 that show one of them were left out." in card
    record.data = replace(record.data, leakage=replace(CLEAN, dropped=0))
    assert "by pixels and by name; none shows one of them." in render_card(record, [])
    record.data = replace(record.data, leakage=replace(CLEAN, unsure=7, unsure_drawn=7))
    said = "left out. 7 of these were found by a score near the threshold, where drawn chests are alike: some"
    assert said in render_card(record, [])
    assert "here ChestX-ray14's" in render_card(classification_record(), [])


def test_the_card_says_where_patients_come_from(tmp_path):
    record = record_of(NAMES)
    record.evaluation = replace(record.evaluation, patients=45)
    assert "guessed" not in render_card(record, []) and "not known, and each" not in render_card(record, [])
    counts = {"image folder": {"patient_by_name": 1, "no_patient": 12}}
    (tmp_path / "build_report.json").write_text(json.dumps({"problem_counts": counts}))
    assert are_patients_guessed(tmp_path) and not are_patients_guessed(tmp_path / "none")
    record.data = replace(record.data, patients_guessed=True, images_without_patient=12)
    card = render_card(record, [])
    said = card[card.index("Intervals: patients resampled") :].split("\n", 1)[0]
    assert "Of 12 of the images" in said and "not known, and each counts as a patient of its own" in said
    assert "Patients were guessed from the names of the files" in said


HUB = DatasetOrigin(hub_id="lab/films", config="big", revision="0123abc", splits=("test", "train"))


def test_a_dataset_of_the_hub_is_named_in_metadata_and_text(tmp_path):
    record = record_of(NAMES)
    record.data = replace(record.data, own_images=HUB)
    card = render_card(record, [])
    head = check_metadata(card)
    assert head["datasets"] == ["lab/films"] and "# Hiera, findings of lab/films\n" in card
    assert head["model-index"][0]["results"][0]["dataset"] == {
        "type": "lab/films", "name": "lab/films", "config": "big", "split": "test", "revision": "0123abc"
    }  # fmt: skip
    place = "[lab/films](https://huggingface.co/datasets/lab/films) on the Hub"
    assert f"{place}, configuration `big`, revision `0123abc`; its licence" in card
    record.data = replace(record.data, own_images=replace(HUB, splits=("train",)))
    dataset = check_metadata(render_card(record, []))["model-index"][0]["results"][0]["dataset"]
    assert "split" not in dataset and dataset["name"] == "lab/films, 90 images held out of it"
    record.write(tmp_path)
    assert read_record(tmp_path).data.own_images == record.data.own_images
    after = lineage_of(str(tmp_path), [])
    assert after.earlier_datasets == ["lab/films"]
    later = classification_record(lineage=after)
    assert check_metadata(render_card(later, []))["datasets"][-1] == "lab/films"
    record.data = replace(record.data, is_phantom=True)
    assert "datasets" not in check_metadata(render_card(record, []))


def test_a_folder_is_called_private_unless_a_card_in_it_names_it():
    record = record_of(NAMES)
    assert "private folder" not in render_card(record, [])  # a record from before names nothing
    record.data = replace(record.data, own_images=DatasetOrigin(folder="films"))
    card = render_card(record, [])
    assert "a private folder called `films`" in card and "findings of the user's own images" in card
    assert not {"datasets", "model-index"} & check_metadata(card).keys()
    named = DatasetOrigin("films", "Films of Lund", "cc-by-4.0", "https://films.example")
    record.data = replace(record.data, own_images=named)
    card = render_card(record, [])
    assert "are of Films of Lund, https://films.example; licence: cc-by-4.0." in card
    assert "# Hiera, findings of Films of Lund\n" in card and "private" not in card.split("## Results")[0]


def test_built_data_on_the_hub_is_named():
    record = classification_record()
    record.data = replace(record.data, hub_copy=DatasetOrigin(hub_id="lab/built", revision="77"))
    card = render_card(record, [])
    assert check_metadata(card)["datasets"][-1] == "lab/built"
    assert "read from the dataset [lab/built](https://huggingface.co/datasets/lab/built)" in card


def test_one_finding_is_no_mean_of_findings():
    record = read_record(TEMPLATES / "examples" / "small-result-stage2")
    assert list(record.evaluation.findings) == ["Pneumonia"]
    text = render_card(record, [])
    assert "| on the test split | AUROC |" in text and "A Hiera classifier of one finding:" in text
    assert not re.search(r"\bmean AUROC|mean average|1 findings|1 of 1", text)
