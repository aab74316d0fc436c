"""A card's code runs and gives what the model says; thresholds are said to be of that, or not to be."""

import contextlib
import io
import re
from dataclasses import replace

import pytest
import yaml
from page_fixtures import phantom, write_stage2
from PIL import Image
from stage_records import classification_record
from test_report_card import report_record

from medhiera.hub.data_record import PreprocessingRecord
from medhiera.hub.model_card import card_of, render_card
from medhiera.hub.operation import Operation
from medhiera.inference.classifier import Classifier

GRAY = PreprocessingRecord(image_size=64, resize_size=72, mean=0.45, std=0.28, channels=1)


def test_thresholds_of_the_legacy_head_are_not_said_to_be_the_models(tmp_path):
    record = classification_record()
    present = "A finding is called present where its probability"
    assert present in render_card(record, []) and "sigmoid(softmax" not in render_card(record, [])
    record.recipe["legacy_head"] = True
    record.write(tmp_path)
    assert Operation.read(tmp_path).thresholds == {}
    card = render_card(record, [])
    points, calibration = (card.split(f"### {name}")[1].split("###")[0] for name in ("Operating", "Calib"))
    for part in (points, calibration):
        assert "f sigmoid(softmax(logits)), not of the probabilities that this model" in part
    assert present not in card and "thresholds* are of the model's own" not in card
    said = "It is uncalibrated and has no threshold: those above are of sigmoid(softmax(logits)), so `predict"
    assert said in card


def test_the_code_of_a_model_of_one_channel_runs(tmp_path, monkeypatch):
    folder = write_stage2(tmp_path / "stage2", preprocessing=GRAY)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(phantom()).save("chest.png")
    [wanted] = Classifier.from_pretrained(folder).predict(["chest.png"])
    card = card_of(folder)
    assert "pipeline of transformers gives three" in card and "import pipeline" not in card
    assert "one channel (the processor makes three equal ones: take `pixel_values[:, :1]`), shorter" in card
    snippets = [part for part in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "hf_hub" not in part]
    assert len(snippets) == 1
    code = snippets[0].replace("THIS_FOLDER", str(folder))
    for flags in ('trust_remote_code=True, revision="main"', ""):  # ours, and stock transformers'
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code.replace('trust_remote_code=True, revision="THIS_REVISION"', flags), {})
        assert yaml.safe_load(printed.getvalue()) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("views", [1, 2])
def test_a_writer_of_one_channel_has_code_of_its_own(views):
    record = report_record()
    record.views = views
    before = render_card(record, [])
    assert (
        "import pipeline" in before and "[:, :1]" not in before.split("## How to use it")[1].split("Input")[0]
    )
    record.preprocessing = replace(record.preprocessing, channels=1)
    card = render_card(record, [])
    assert "import pipeline" not in card and 'return_tensors="pt")["pixel_values"][:, :1])' in card
    assert ("view_embeddings" in card) == (views > 1) and "inference: false" in card
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(code, "card", "exec")
