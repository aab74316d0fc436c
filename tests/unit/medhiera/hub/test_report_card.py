"""The card of a model that writes reports: what it always shows, and that no text of patients is in it."""

import json
import re
from dataclasses import replace

import jsonschema
import pytest
import yaml
from stage_records import classification_record, facts, training

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.caption_results import ChexbertScores, RadGraphScores
from medhiera.evaluation.written_reports import WrittenReports
from medhiera.hub.model_card import TEMPLATES, render_card
from medhiera.hub.publish import build_parser
from medhiera.hub.record import ReportRecord, read_record
from medhiera.stages import REPORTS, STAGES

TRUE = [
    "Small left effusion. The heart is normal.",
    "Large right effusion. The heart is normal.",
    "The lungs are clear. The heart is normal in size.",
    "Lungs clear. Normal heart.",
]


def report_record(written=TRUE, shows_texts=False, normal=None, split="test", **changes):
    studies = [f"IU X-Ray/{number}" for number in range(len(written))]
    references = TRUE * (len(written) // len(TRUE))
    reports = WrittenReports(
        split=split, section="findings", clean="iu", references=dict(zip(studies, references, strict=True)),
        written=dict(zip(studies, written, strict=True)), nearest=dict.fromkeys(studies, TRUE[0]),
        training=[TRUE[0], TRUE[2], "The heart is large."], validation=[TRUE[2]], normal=normal,
        shows_texts=shows_texts,
    )  # fmt: skip
    source = {"IU X-Ray": 8}
    return ReportRecord(
        **facts(trained_on=source, tested_on=source if split == "test" else {}, **changes),
        training=training(), decoder=None, vocabulary=2000, views=2,
        evaluation=reports.evaluate(Bootstrap(50)),
    )  # fmt: skip


def test_it_shows_what_nobody_shows():
    card = render_card(report_record(normal={"IU X-Ray/2", "IU X-Ray/3"}), ["figures/loss.png"])
    for phrase in (
        "| one constant report, chosen by BLEU-4 |",
        "| one constant report, chosen by CIDEr-D |",
        "| report of the nearest training picture |",
        "**This model minus the constant chosen by CIDEr-D**",
        "**4 distinct reports** for 4 studies",
        "50 % of them stand word for word among the 3 training reports; of the references 50 % do",
        "of 2 studies whose reference names left or right, the written report names the same in 2 (100 %",
        "| normal | 2 |",
        "| other | 2 |",
        "METEOR: ",
        "**What it writes may be wrong in\nevery sentence**",
        "Not for clinical use",
        "12 studies/s",
    ):
        assert phrase in card, phrase
    metadata = yaml.safe_load(card.split("---\n")[1])
    jsonschema.validate(metadata, json.loads((TEMPLATES / "metadata.schema.json").read_text()))
    assert metadata["pipeline_tag"] == "image-text-to-text"
    assert "model-index" not in metadata  # IU X-Ray has no id on the Hub
    assert not re.search(r"\{\{|\{%|[|(] None\b", card)


def test_what_was_chosen_on_the_studies_that_are_scored():
    record = report_record(split="validation")
    same = "**These numbers are of the same validation studies** that chose "
    assert f"{same}checkpoint and constants, so they are too high;" in render_card(record, [])
    record.training.best_step = None
    assert f"{same}the constants, so those of the constants are too high;" in render_card(record, [])


def test_chexbert_radgraph_and_written_sides_have_their_rows():
    record = report_record([TRUE[0], TRUE[2], TRUE[2], TRUE[3]])
    plain = render_card(record, [])
    assert "Written sides: of 1 written reports that name left or right, 100 % (95 %" in plain
    assert "CheXbert" not in plain and "RadGraph" not in plain
    share = {"micro_f1": 0.5, "macro_f1": 0.25, "micro_f1_five": 0.75, "macro_f1_five": 0.125}
    intervals = {f"{name}_interval": [0.1, 0.9] for name in share}
    labels = ChexbertScores(**share, **intervals, f1={"Edema": 0.5}, positives={"Edema": 3})
    graph = RadGraphScores(
        simple=0.6, partial=0.5, complete=0.4, simple_interval=None, partial_interval=[0.3, 0.7],
        complete_interval=None,
    )  # fmt: skip
    evaluation = record.evaluation
    record.evaluation = replace(
        evaluation,
        written=replace(evaluation.written, chexbert=labels, radgraph=graph),
        nearest=replace(evaluation.nearest, chexbert=labels),
    )
    card = render_card(record, [])
    assert "| **this model** | 0.500 (0.100 to 0.900) | 0.250 (0.100 to 0.900) | 0.750" in card
    assert card.count("| report of the nearest training picture | 0.500 (0.100 to 0.900) | 0.250") == 1
    assert (
        "RadGraph F1 of this model's reports: simple 0.600" in card
        and "partial 0.500 (0.300 to 0.700)" in card
    )
    silent = render_card(report_record([TRUE[2]] * 4), [])
    assert "- Written sides: no written report names left or right." in silent


def test_a_record_from_before_written_sides_were_counted_is_still_read(tmp_path):
    report_record().write(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    for scores in (content["evaluation"]["written"], content["evaluation"]["nearest"]):
        for name in ("written", "share_written_correct", "share_written_correct_interval"):
            del scores["laterality"][name]
        del scores["chexbert"], scores["radgraph"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert "Written sides" not in render_card(read_record(tmp_path), [])


def test_a_model_that_is_no_better_than_a_constant_is_said_to_be():
    warning = "**By CIDEr-D this model is not shown to be better than one constant report.**"
    assert warning in render_card(report_record([TRUE[2]] * 4), [])
    assert warning in render_card(report_record(TRUE), [])  # four studies show nothing
    assert warning not in render_card(report_record(TRUE * 3), [])


def test_texts_are_of_phantoms_alone():
    assert "effusion" not in render_card(report_record(), [])
    card = render_card(report_record(shows_texts=True, is_phantom=True), [])
    assert "1. Reference: small left effusion" in card and "(on phantoms)" in card


def test_the_decoders_licence_counts():
    record = report_record()
    record.lineage.license, record.decoder = "apache-2.0", "distilgpt2"
    card = render_card(record, [])
    assert "depends on the decoder that it started from, distilgpt2: look it up first" in card
    assert "Apache-2.0" not in card and "\nlicense: other\n" in card
    record.decoder = None
    assert "Apache-2.0, as the code" in render_card(record, [])


def test_validation_alone_is_said_to_be_too_high():
    card = render_card(report_record(split="validation"), [])
    assert "These numbers are of the same validation studies" in card and "model-index" not in card


def test_the_record_comes_back_and_is_of_its_own_kind(tmp_path):
    record = report_record(TRUE, normal=set())
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    numbers = sorted({stage.number for stage in STAGES.values()})
    assert STAGES[record.key] is REPORTS and REPORTS.number in numbers
    # The parser of publish.py stands above the imports, and so names them once more.
    assert [tuple(numbers)] == [a.choices for a in build_parser()._actions if a.dest == "stage"]
    assert classification_record().key == (2, "")
    content = json.loads((tmp_path / "metrics.json").read_text())
    content["evaluation"]["written"]["scores"]["cider"] = 11.0
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"scores\.cider is 11\.0"):
        read_record(tmp_path)
    content["task"] = "poems"
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not the record of a stage that this version can read"):
        read_record(tmp_path)
