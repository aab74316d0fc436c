"""metrics.json as it may be found: numbers that no run can have written are refused where it is opened."""

import json
import re
from dataclasses import replace

import pytest
from stage_records import SOME_REPORT, classification_record, imagenet_record, pretraining_record

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Difference
from medhiera.evaluation.comparison_results import Comparison, FindingComparison, MeanComparison
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.evaluation.results import Rescaling
from medhiera.hub.record import read_record

GAME = {"hit_rate": 0.25, "interval": [0.1, 0.4], "chance": 0.3, "center": 0.2, "pairs": 20}
BELOW = {"above_chance_interval": [-0.2, 0.1], "patients": 12}
LOSES = Difference(difference=-0.2, interval=[-0.4, -0.1], p_value=0.01)


def full_report():
    """Every part of a report holds numbers, negative differences among them."""
    both = FindingComparison(auroc=LOSES, average_precision=LOSES, delong_p_value=0.04)
    means = MeanComparison(auroc=LOSES, average_precision=LOSES)
    return replace(
        SOME_REPORT,
        rescaling={"Edema": Rescaling(slope=0.8, intercept=-2.5), "Hernia": None},
        pointing_game=LocalizationReport(**GAME, **BELOW, findings={"Edema": HitRate(**GAME, **BELOW)}),
        comparison=Comparison(
            mean=means, diseases=means, findings={"Edema": both}, images=90, bootstrap_resamples=20
        ),
    )


def set_in(content, place, value):
    *path, last = place.split(".")
    for key in path:
        content = content[key]
    assert last in content, place
    content[last] = value


@pytest.mark.parametrize(
    "record",
    [
        imagenet_record(),
        pretraining_record(),
        classification_record(full_report()),
        classification_record(full_report(), is_phantom=True),
    ],
)
def test_what_a_run_writes_is_read(tmp_path, record):
    record.write(tmp_path)
    assert read_record(tmp_path) == record


def test_a_record_of_before_it_said_so_much_is_read(tmp_path):
    record = classification_record(full_report())
    record.write(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    comparison = content["evaluation"]["comparison"]
    del comparison["other"], comparison["other_sha256"], comparison["mean"]["has_few_cases"]
    del comparison["findings"]["Edema"]["has_few_cases"]
    for mean in content["evaluation"]["operating_points"]["means"].values():
        del mean["findings_in_mean"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    read = read_record(tmp_path).evaluation
    assert read.comparison == record.evaluation.comparison
    assert {mean.findings_in_mean for mean in read.operating_points.means.values()} == {None}


SHARE, COUNT = "a share from 0 to 1", "a whole number from 0 up"


@pytest.mark.parametrize(
    ("place", "value", "wanted"),
    [
        ("evaluation.rescaling.Edema.slope", -2.0, "a finite number above 0"),
        ("evaluation.rescaling.Edema.slope", 0.0, "a finite number above 0"),
        ("evaluation.operating_points.findings.Edema.youden.threshold", 7.0, SHARE),
        ("evaluation.operating_points.findings.Edema.youden.threshold", -3.0, SHARE),
        ("evaluation.operating_points.findings.Edema.youden.sensitivity", 1.1, SHARE),
        ("evaluation.pointing_game.hit_rate", 5.0, SHARE),
        ("evaluation.pointing_game.findings.Edema.chance", -0.1, SHARE),
        ("evaluation.findings.Edema.auroc", 1.5, SHARE),
        ("evaluation.mean_auroc_interval", [0.2, 1.2], SHARE),
        ("evaluation.comparison.mean.auroc.difference", -1.5, "a share from -1 to 1"),
        ("evaluation.images", -4, COUNT),
        ("data.trained_on.ChestX-ray14", -4, COUNT),
        ("preprocessing.std", -0.2, "a share above 0 and at most 1"),
        ("preprocessing.mean", 128.0, SHARE),
        ("training.seconds", -1.0, "a finite number from 0 up"),
    ],
)
def test_a_number_that_no_run_reaches_is_refused(tmp_path, place, value, wanted):
    classification_record(full_report()).write(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    set_in(content, place, value)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    shown = value[1] if isinstance(value, list) else value
    with pytest.raises(UserError, match=rf"{re.escape(place)}[.\d]* is {shown}; wanted {re.escape(wanted)}"):
        read_record(tmp_path)


def test_a_threshold_that_nothing_reaches_is_read(tmp_path):
    """Where no probability is to be called present, the threshold is the number above the largest."""
    classification_record(full_report()).write(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    set_in(content, "evaluation.operating_points.findings.Edema.youden.threshold", 1.0000000000000002)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert read_record(tmp_path).evaluation.operating_points.findings["Edema"].youden.threshold > 1
