"""Groups are compared over the same findings, and silence of the data is said."""

import numpy as np
import pytest

from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.subgroups import groups_of, score_subgroups


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
    groups = groups_of(sex, np.full(400, np.nan), view)
    result = score_subgroups(scores, labels, ["a", "b"], groups, [str(n) for n in range(400)], 100)
    assert result["sex"]["findings_in_mean"] == ["a"]
    women = result["sex"]["groups"]["F"]
    assert women["images"] == women["patients"] == (sex == "F").sum()
    alone = rank_findings(scores[sex == "F"], labels[sex == "F"], ["a", "b"])["findings"]["a"]
    assert women["mean_auroc"] == pytest.approx(alone["auroc"])
    assert women["mean_average_precision"] == pytest.approx(alone["average_precision"])
    low, high = women["mean_auroc_interval"]
    assert low < women["mean_auroc"] < high
    views = result["view"]["groups"]
    assert views["PA"]["mean_auroc"] > 0.95
    assert views["AP"]["mean_auroc_interval"][0] < 0.5 < views["AP"]["mean_auroc_interval"][1]
    assert result["age"] == {
        "groups": {}, "findings_in_mean": [], "reason": "the data says nothing about age",
    }  # fmt: skip


def test_ages_become_bands_and_small_or_unknown_groups_are_counted(cohort):
    scores, labels, sex, view = cohort
    ages = np.full(400, 50.0)
    ages[:5], ages[5:7] = 17.9, np.nan
    ages[7:100] = 18
    groups = groups_of(sex, [None if np.isnan(age) else age for age in ages], [""] * 400)
    result = score_subgroups(scores, labels, ["a", "b"], groups, ["one"] * 400)
    table = result["age"]["groups"]
    assert list(table) == ["0–17", "18–39", "40–59", "unknown"]
    assert table["0–17"] == {"images": 5, "patients": 1, "reason": "fewer than 30 images"}
    assert table["unknown"] == {"images": 2, "patients": 1, "reason": "age not given"}
    assert table["18–39"]["images"] == 93 and table["18–39"]["mean_auroc_interval"] is None
    assert result["view"]["reason"] == "the data says nothing about view"


def test_no_shared_finding_is_a_reason(cohort):
    scores, labels, sex, view = cohort
    groups = groups_of(sex, [30.0] * 400, view)
    result = score_subgroups(scores[:, 1:], labels[:, 1:], ["b"], groups, [str(n) for n in range(400)])
    assert result["sex"]["groups"]["M"]["reason"] == "no finding has present and absent images in every group"
