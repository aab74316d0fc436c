"""The sentence and the text of a licence say where the weights come from, as the lineage has it."""

from dataclasses import replace

import pytest
from stage_records import imagenet_record, pretraining_record
from test_report_card import report_record

from medhiera.hub.licences import hub_licence, licence_sentence, licence_text
from medhiera.hub.model_card import render_card
from medhiera.hub.record import Lineage
from medhiera.hub.teachers import TeacherRecord

TIMM = "timm/hiera_small_abswin_256.sbb2_e200_in12k"
AT_RANDOM = "Apache-2.0, as the code: the weights started at random."
TEACHER = TeacherRecord("org/dino", "dinov2", "0a", "mit", [])


def lineage(started_from, license="apache-2.0", teachers=()):
    return Lineage(started_from, license, None, [], [], [], teachers=list(teachers))


@pytest.mark.parametrize(
    "started_from",
    [
        "random weights",
        "stage 1 (from random weights; ChestX-ray14 1,000 images)",
        "stage 2 (from stage 1 (from random weights; COVIDx CXR-3 3 images); ChestX-ray14 4 images)",
        "stage 1 (from random weights)",
        "checkpoint-2 of stage 1 (from random weights; ChestX-ray14 1,000 images)",
        "stage 2 (from checkpoint-2 of stage 1 (from random weights; x 3 images); y 4 images)",
    ],
)
def test_weights_that_began_here_began_at_random(started_from):
    record = pretraining_record(lineage=lineage(started_from))
    assert licence_sentence(record) == f"{AT_RANDOM} The images keep their own licences."


@pytest.mark.parametrize(
    "started_from",
    [
        TIMM,
        f"stage 0 (from {TIMM})",
        f"stage 1 (from stage 0 (from {TIMM}); ChestX-ray14 1,000 images)",
        "the folder foreign",
        "the folder random weights",
    ],
)
def test_weights_of_others_are_inherited_under_a_permissive_licence_too(started_from):
    """The licence's name is no proof that nobody else trained them."""
    for licence in ("apache-2.0", "Apache-2.0"):
        record = pretraining_record(lineage=lineage(started_from, licence))
        expected = f"Apache-2.0, inherited from the weights it started from ({started_from}). The images keep"
        assert licence_sentence(record).startswith(expected)
        text = licence_text(record)
        assert expected in text and "at random" not in text and "Apache License" in text


def test_a_stage_0_of_another_projects_weights_did_not_start_at_random():
    record = imagenet_record()
    record.lineage = lineage(TIMM)
    card = render_card(record, [])
    assert "at random" not in card
    assert f"Apache-2.0, inherited from the weights it started from ({TIMM})." in card.replace("\\", "")


def test_a_permissive_teacher_is_named():
    record = pretraining_record(lineage=lineage("random weights", teachers=[TEACHER]))
    said = f"{AT_RANDOM} It learned to predict the features of a teacher (org/dino: mit)."
    assert licence_sentence(record).startswith(said)


def test_a_writer_of_reports_depends_on_decoder_encoder_and_teacher():
    record = replace(report_record(), decoder="distilgpt2", lineage=Lineage.random())
    said = "It depends on the decoder that it started from, distilgpt2: look it up first."
    assert licence_sentence(record) == said
    record.lineage = lineage(TIMM)
    assert f"distilgpt2 and on {TIMM}: look it up" in licence_sentence(record)
    record.lineage = lineage("stage 1 (from random weights; x 3 images)", "mit", [TEACHER])
    assert "(org/dino: mit): look it up first." in licence_sentence(record)


def test_random_weights_hold_no_text_of_a_licence():
    record = replace(report_record(), decoder="the folder gpt", lineage=Lineage.random())
    assert "it stands with what they were made from (the folder gpt)." in licence_text(record)


def test_only_a_non_commercial_licence_is_called_one():
    for licence, is_named in (
        ("mit", False), ("BSD 3-Clause", False), ("cc-by-4.0", False), ("Ours", False),
        ("cc-by-nc-4.0", True), ("CC BY-NC-SA 4.0", True),
    ):  # fmt: skip
        sentence = licence_sentence(pretraining_record(lineage=lineage("some-lab/hiera", licence)))
        assert sentence.startswith(f"{licence}: inherited from the weights it started from (some-lab/hiera).")
        assert ("non-commercial" in sentence) == is_named


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Apache 2.0", "apache-2.0"), ("Apache License, Version 2.0", "apache-2.0"), ("MIT License", "mit"),
        ("The MIT licence", "mit"), ("BSD 3-Clause", "bsd-3-clause"), ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("CC0 v1.0", "cc0-1.0"), ("DeepFloyd-IF-License", "deepfloyd-if-license"),
        ("OpenRAIL++", "openrail++"),
        ("License", "other"), ("Apache 2.0 with changes", "other"), ("MIT or Apache 2.0", "other"),
    ],
)  # fmt: skip
def test_the_usual_spellings_are_the_hubs_names(spelled, name):
    record = pretraining_record(lineage=lineage("some-lab/hiera", spelled))
    assert hub_licence(record).license == name
    assert ("Apache License" in licence_text(record)) == (name == "apache-2.0")
