"""Real cards of records with hostile names: parsed back, they say what they say of plain names."""

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from stage_records import classification_record, facts, imagenet_record, pretraining_record

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.checkpoint_selection import Selection
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.report import report
from medhiera.evaluation.results import LocalizationReport
from medhiera.hub.model_card import card_of, render_card
from medhiera.hub.record import Lineage, read_record

HOSTILE = [
    "a: b\n---\n# x",
    "<script>alert(1)</script>",
    "| cell | cell |\n|---|---|",
    "`code` <!-- {{ 7 * 7 }} {% raw %}",
    "[link](javascript:alert(1)) ![image](http://example.org/x.png)",
    "\\",
]
PLAIN = [f"finding {letter}" for letter in "abcdef"]


def some_report(names):
    import pandas as pd

    generator = np.random.default_rng(0)
    labels = (generator.random((90, len(names))) < 0.5).astype(float)
    labels[:, 1] = 0
    ids = np.arange(90).astype(str)
    rows = pd.DataFrame({"image_id": ids, "patient_id": ids, "sex": ["F", "M"] * 45})
    rows = rows.assign(age_years=np.nan, view="PA")
    scores = generator.random((90, len(names))) * 0.7 + 0.3 * labels
    predictions = Predictions(scores, labels, names, ids.tolist(), rows)
    game = LocalizationReport(reason="no image has a box")
    return report(predictions, predictions, Bootstrap(20), split="test", pointing_game=game)


def records(names):
    """One of each stage; every place that a user can name holds one of the names."""
    lineage = Lineage(names[0], names[1], names[3], [names[2]], [], None)
    counts = {name: number for number, name in enumerate(names, 1)}
    told = {"lineage": lineage, "trained_on": counts, "recipe": dict.fromkeys(names, names[4])}
    told |= {"libraries": dict.fromkeys(names, names[2]), "commit": names[3]}
    second = classification_record(some_report(names), tested_on=counts, **told)
    second.data.validated_on = counts
    second.training.selection = Selection(names, names[0])
    zero = imagenet_record()
    zero.lineage, zero.commit, zero.libraries = lineage, names[3], {names[0]: names[1]}
    return [zero, pretraining_record(**told), second]


def structure(card):
    """Headings, rows of tables by their number of cells, and lines of each kind."""
    body = ModelCard(card).text
    lines = body.splitlines()
    rows = [len(re.sub(r"\\.", "", line).split("|")) for line in lines if line.startswith("|")]
    headings = [line for line in lines if line.startswith("#")]
    return headings, rows, len(lines), body.count("`"), body.count("<"), len(re.findall(r"\]\(", body))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_hostile_names_change_nothing_but_themselves(stage):
    hostile, plain = (render_card(records(names)[stage], ["figures/loss.png"]) for names in (HOSTILE, PLAIN))
    assert structure(hostile) == structure(plain)
    assert "<script>" not in hostile.split("---\n", 2)[2] and "<!--" not in hostile.split("---\n", 2)[2]
    metadata = yaml.safe_load(hostile.split("---\n")[1])
    expected = yaml.safe_load(plain.split("---\n")[1])
    assert metadata.keys() == expected.keys()
    assert metadata["license"] == "other" and metadata["base_model"] == HOSTILE[3]
    assert re.fullmatch("[a-z0-9][a-z0-9.-]*", metadata["license_name"])
    assert ModelCard(hostile).data.license_name == metadata["license_name"]


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("name", HOSTILE)
def test_any_place_takes_any_of_them(stage, name):
    hostile, plain = (
        render_card(records([one] + [f"{one}{number}" for number in range(5)])[stage], [])
        for one in (name, "x")
    )
    assert structure(hostile)[:3] == structure(plain)[:3]
    assert yaml.safe_load(hostile.split("---\n")[1])["base_model"] == f"{name}2"


def test_a_record_on_disk_says_the_same(tmp_path):
    record = records(HOSTILE)[2]
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert card_of(tmp_path) == render_card(record, [])


def test_pictures_with_odd_names(tmp_path):
    pretraining_record().write(tmp_path)
    for folder, name in (("figures", "a](x) <b> [c].png"), ("examples", "a: b # c.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    card = card_of(tmp_path)
    assert "](figures/a%5D%28x%29%20%3Cb%3E%20%5Bc%5D.png)" in card and "<b>" not in card
    assert yaml.safe_load(card.split("---\n")[1])["widget"] == [
        {"src": "examples/a: b # c.png", "example_title": "a: b # c"}
    ]
    (tmp_path / "figures" / "two\nlines.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"'figures/two\\nlines\.png', which no card can name"):
        card_of(tmp_path)


def test_the_sentence_of_a_licence_begins_no_block():
    record = pretraining_record()
    for licence in ("# big", "- item", "1. one", "---", "> quoted", "=== x"):
        record.lineage = replace(record.lineage, license=licence)
        line = render_card(record, []).split("## Licence\n\n")[1].splitlines()[0]
        assert re.match(r"(\\[-#=]|1\\\.|&gt;)", line), line


def test_what_is_written_is_utf_8(tmp_path):
    record = pretraining_record(**{key: value for key, value in facts().items() if key == "recipe"})
    record.recipe = {"data_dir": "caf\udce9"}
    assert "caf\N{REPLACEMENT CHARACTER}".encode() in render_card(record, []).encode()
