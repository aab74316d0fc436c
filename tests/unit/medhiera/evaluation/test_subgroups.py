"""Groups are compared over the same findings, and an attribute that the data lacks is named."""

import numpy as np
import pandas as pd
import pytest

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import GroupScore, SubgroupReport
from medhiera.evaluation.subgroups import score_subgroups

SILENT = SubgroupReport(
    groups={}, findings_in_mean=[], findings_left_out=[], reason="the data says nothing about age"
)


def predictions_of(scores, labels, names, *, sex=None, age_years=None, view=None, patients=None):
    count = len(scores)
    patients = [str(n) for n in range(count)] if patients is None else patients
    given = {"sex": sex, "age_years": age_years, "view": view}
    columns = {name: [None] * count if each is None else list(each) for name, each in given.items()}
    rows = pd.DataFrame({"image_id": [str(n) for n in range(count)], "patient_id": patients} | columns)
    return Predictions(scores, labels, names, patients, rows)


@pytest.fixture
def cohort():
    """Findings a and b; b is never present in men; the model is blind in AP views."""
    generator = np.random.default_rng(0)
    sex = generator.choice(["F", "M"], 400)
    view = generator.choice(["PA", "AP"], 400)
    labels = (generator.random((400, 2)) < 0.4).astype(float)
    labels[sex == "M", 1] = 0
    scores = generator.normal(size=labels.shape) + 3 * labels * (view == "PA")[:, None]
    return scores, labels, sex, view


def test_groups_are_scored_over_the_findings_they_share(cohort):
    scores, labels, sex, view = cohort
    result = score_subgroups(
        predictions_of(scores, labels, ["a", "b"], sex=sex, age_years=np.full(400, np.nan), view=view),
        Bootstrap(100),
    )
    assert result["sex"].findings_in_mean == ["a"] and result["sex"].findings_left_out == ["b"]
    women = result["sex"].groups["F"]
    assert women.images == women.patients == (sex == "F").sum()
    part = Predictions(scores[sex == "F"], labels[sex == "F"], ["a", "b"])
    alone = rank_findings(part, Bootstrap(0)).findings["a"]
    assert women.mean_auroc == pytest.approx(alone.auroc)
    assert women.mean_average_precision == pytest.approx(alone.average_precision)
    low, high = women.mean_auroc_interval
    assert low < women.mean_auroc < high
    views = result["view"].groups
    assert views["PA"].mean_auroc > 0.95
    assert views["AP"].mean_auroc_interval[0] < 0.5 < views["AP"].mean_auroc_interval[1]
    assert result["age"] == SILENT


@pytest.mark.parametrize(("value", "what"), [(1.0, "positive"), (0.0, "negative")])
def test_a_finding_needs_ten_patients_in_every_group(value, what):
    """Nine patients of a group on one side, however many images they have, leave the finding out."""
    generator = np.random.default_rng(0)
    sex = np.repeat(["F", "M"], 200)
    patients = np.array([str(n) for n in range(400)], dtype=object)
    labels = (generator.random((400, 2)) < 0.5).astype(float)
    labels[200:, 1] = 1 - value
    labels[200:230, 1] = value  # thirty images of men: of ten patients, then of nine
    scores = generator.random((400, 2))

    def findings(number):
        patients[200:230] = [f"man {n % number}" for n in range(30)]
        predictions = predictions_of(scores, labels, ["a", "b"], sex=sex, patients=patients.tolist())
        result = score_subgroups(predictions, Bootstrap(0))["sex"]
        assert set(result.groups["M"].auroc) == set(result.findings_in_mean)
        return result.findings_in_mean, result.findings_left_out

    assert findings(10) == (["a", "b"], [])
    assert findings(9) == (["a"], ["b"])


def test_ages_become_bands_and_small_or_unknown_groups_are_counted(cohort):
    scores, labels, sex, view = cohort
    ages = np.full(400, 50.0)
    ages[:5], ages[5:7] = 17.9, np.nan
    ages[7:100] = 18
    patients = ["one"] * 7 + [str(n) for n in range(393)]
    predictions = predictions_of(
        scores, labels, ["a", "b"], sex=sex, age_years=ages, view=[""] * 400, patients=patients
    )
    result = score_subgroups(predictions, Bootstrap(0))
    table = result["age"].groups
    assert list(table) == ["0–17", "18–39", "40–59", "unknown"]
    # Too small to be scored, so it does not decide which findings are compared either:
    assert table["0–17"] == GroupScore(images=5, patients=1, reason="fewer than 30 images")
    assert table["unknown"] == GroupScore(images=2, patients=1, reason="age not given")
    assert result["age"].findings_in_mean == ["a", "b"]
    assert table["18–39"].images == 93 and table["18–39"].mean_auroc_interval is None
    assert table["18–39"].mean_auroc is not None
    assert result["view"].reason == "the data says nothing about view"


def test_no_shared_finding_is_a_reason(cohort):
    scores, labels, sex, view = cohort
    predictions = predictions_of(
        scores[:, 1:], labels[:, 1:], ["b"], sex=sex, age_years=[30.0] * 400, view=view
    )
    result = score_subgroups(predictions, Bootstrap(0))["sex"]
    assert result.groups["M"].reason == "no finding has 10 positive and 10 negative patients in every group"
    assert result.findings_left_out == ["b"]


def test_groups_want_rows(cohort):
    with pytest.raises(ValueError, match="no rows"):
        score_subgroups(Predictions(*cohort[:2], ["a", "b"]), Bootstrap(0))
