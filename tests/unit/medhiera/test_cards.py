"""The card says what metrics.json says, and nothing it does not know."""

import copy

import jinja2
import pytest
from huggingface_hub import ModelCard

from medhiera.cards import render_card

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
    "evaluation": {
        "mean_auroc": 0.81234,
        "mean_auroc_interval": [0.8, 0.82],
        "findings_in_mean": ["Edema"],
        "bootstrap_resamples": 2000,
        "findings": {
            "Edema": {"auroc": 0.81234, "interval": [0.8, 0.82], "positives": 7, "negatives": 207,
                      "is_rare": True},
            "Hernia": {
                "auroc": None, "interval": None, "positives": 0, "negatives": 214, "is_rare": True,
                "reason": "no positive image",
            },
        },
    },
    "libraries": {"torch": "2.15.0"},
}  # fmt: skip


@pytest.fixture
def record():
    return copy.deepcopy(RECORD)


def test_numbers_reasons_and_metadata(record):
    card = ModelCard(render_card(record, ["figures/roc.png"]))
    assert "**0.812**" in card.text and "0.800 to 0.820" in card.text
    assert "| Hernia | – | no positive image | 0 | 214 |" in card.text
    assert "![ROC curve of each finding on the test split](figures/roc.png)" in card.text
    assert "1 h 2 min" in card.text
    assert "| Edema* |" in card.text and "\\* Fewer than ten positive or negative" in card.text
    assert "`sources`" not in card.text  # an unset field is not shown
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.eval_results[0].dataset_name == "NIH ChestX-ray14"
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


def test_a_missing_field_is_an_error_not_a_blank(record):
    del record["training"]["steps"]
    with pytest.raises(jinja2.UndefinedError, match="steps"):
        render_card(record, [])


def test_a_test_split_without_an_answer_is_stated(record):
    record["evaluation"]["mean_auroc_interval"] = None
    assert "(no interval was computed), over" in render_card(record, [])
    record["evaluation"] |= {"mean_auroc": None, "findings_in_mean": []}
    assert "No AUROC: no finding has both" in render_card(record, [])
