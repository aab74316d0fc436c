"""A run that cannot have learned, or that ranks no better than chance, says so before anything else."""

from dataclasses import replace

import pytest
from stage_records import SOME_REPORT, classification_record, pretraining_record, training

from medhiera.hub.model_card import render_card
from medhiera.hub.result_warnings import result_warnings
from medhiera.run import Run


def scored(low, high, mean=0.301, has_few_cases=False):
    findings = {
        name: replace(entry, has_few_cases=has_few_cases) for name, entry in SOME_REPORT.findings.items()
    }
    interval = None if low is None else [low, high]
    return replace(SOME_REPORT, mean_auroc=mean, mean_auroc_interval=interval, findings=findings)


def head(record):
    """The card above its first section."""
    return render_card(record, []).split("## Where its weights")[0]


def test_less_than_one_epoch_is_on_the_card_and_in_its_title():
    record = pretraining_record()
    assert result_warnings(record) == [] and "Warning" not in head(record)
    record.training = replace(record.training, steps=4, epochs=0.157)
    card = head(record)
    assert "# Hiera MAE, pre-trained on medical images (less than one epoch)\n" in card
    assert "> **Warning.** Training ended before one epoch: 4 steps, 0.16 of an epoch of 1,000 images" in card
    assert "started from random weights. This is hardly a trained model.\n" in card
    record.training = training(epochs=1.0)
    assert "Warning" not in head(record)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.192, 0.436, "AUROC is 0.301 (95 % interval: 0.192 to 0.436): below 0.5, so it ranks worse"),
        (
            0.45,
            0.61,
            "(95 % interval: 0.450 to 0.610): it cannot be told from 0.5, which a model that knows nothing",
        ),
        (0.5, 0.61, "cannot be told from 0.5"),
        (0.501, 0.61, ""),
        (None, None, "below 0.5"),
    ],
)
def test_an_auroc_that_is_not_above_chance_is_said(low, high, said):
    card = head(classification_record(scored(low, high)))
    assert (
        (said in card and "> **Warning.** On the test split the mean AUROC is 0.301" in card)
        if said
        else ("Warning" not in card)
    )


def test_a_finding_that_training_shows_only_present_is_said():
    record = classification_record(scored(0.7, 0.8))
    assert result_warnings(record) == []
    record.training = training(one_sided={"No Finding": "present wherever annotated"})
    said = "do not show both present and absent of No Finding (present wherever annotated): what the model"
    assert said in head(record) and len(result_warnings(record)) == 1


def test_of_too_few_patients_no_verdict_is_given():
    card = head(classification_record(scored(0.0, 0.0, 0.0, has_few_cases=True)))
    assert "AUROC is 0.000 (95 % interval: 0.000 to 0.000): of too few patients to judge the model by" in card
    assert "swapped" not in card


def test_the_log_ends_with_the_same(tmp_path, caplog, monkeypatch):
    """Of a run, whose folder is written elsewhere."""
    monkeypatch.setattr("medhiera.run.write_stage", lambda *given: None)
    record = classification_record(scored(0.192, 0.436))

    class Ended:
        output, stage = tmp_path, type("stage", (), {"number": 2})
        config = type("config", (), {"training": type("t", (), {"device": "cpu"}), "hub_id": None})
        preprocessing = None

    monkeypatch.setattr("medhiera.run.log_peak_memory", lambda device: None)
    Run.finish(Ended(), record, None)
    assert [entry.levelname for entry in caplog.records if entry.levelname != "INFO"] == ["WARNING"]
    assert "ranks worse than chance" in caplog.text
