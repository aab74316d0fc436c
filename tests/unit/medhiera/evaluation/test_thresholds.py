"""Thresholds against a search over all of them; intervals against brute force."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import ChosenThresholds
from medhiera.evaluation.thresholds import RULES, apply_thresholds, choose_thresholds, score_thresholds


@pytest.fixture
def cohort():
    generator = np.random.default_rng(0)
    labels = (generator.random((300, 2)) < 0.3).astype(float)
    probabilities = np.round(1 / (1 + np.exp(-generator.normal(size=labels.shape) - 1.5 * labels)), 2)
    labels[::7, 0] = np.nan
    return probabilities, labels


def chosen(youden, sensitivity_90, best_f1=0.5, positives=7):
    return ChosenThresholds(
        youden=youden, sensitivity_90=sensitivity_90, best_f1=best_f1, positives=positives,
        positive_patients=positives,
    )  # fmt: skip


def rates(probabilities, labels, threshold):
    is_called = probabilities >= threshold
    return is_called[labels == 1].mean(), (~is_called[labels == 0]).mean()


def accuracy_and_f1(probabilities, labels, threshold):
    known = ~np.isnan(labels)
    truth, called = labels[known], probabilities[known] >= threshold
    return accuracy_score(truth, called), f1_score(truth, called)


def test_thresholds_are_the_best_of_all(cohort):
    probabilities, labels = cohort
    patients = [f"p{n // 3}" for n in range(300)]
    thresholds = choose_thresholds(Predictions(probabilities, labels, ["a", "b"], patients))
    for column, name in enumerate("ab"):
        candidates = np.unique(probabilities[~np.isnan(labels[:, column]), column])
        every = np.array([rates(probabilities[:, column], labels[:, column], t) for t in candidates])
        sensitivity, specificity = rates(probabilities[:, column], labels[:, column], thresholds[name].youden)
        assert sensitivity + specificity == pytest.approx(every.sum(axis=1).max())
        assert thresholds[name].sensitivity_90 == candidates[every[:, 0] >= 0.9].max()
        f1 = np.array(
            [accuracy_and_f1(probabilities[:, column], labels[:, column], t)[1] for t in candidates]
        )
        assert thresholds[name].best_f1 == candidates[f1 > f1.max() - 1e-12].max()
        is_positive = labels[:, column] == 1
        assert thresholds[name].positives == is_positive.sum()
        assert thresholds[name].positive_patients == len(set(np.flatnonzero(is_positive) // 3))


def test_rates_on_test_and_their_intervals(cohort):
    probabilities, labels = cohort
    no_threshold = ChosenThresholds(
        youden=None, sensitivity_90=None, best_f1=None, positives=None, positive_patients=None,
        reason="no positive image",
    )  # fmt: skip
    predictions = Predictions(probabilities, labels, ["a", "b"], [f"p{n // 3:03d}" for n in range(300)])
    result = apply_thresholds({"a": chosen(0.6, 0.3), "b": no_threshold}, predictions, Bootstrap(300))
    assert result["b"].reason == "no positive image" and result["b"].youden is None
    assert result["a"].positives == 7  # on validation
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(300):
        rows = np.concatenate([[3 * p, 3 * p + 1, 3 * p + 2] for p in generator.integers(100, size=100)])
        drawn = probabilities[rows, 0], labels[rows, 0], 0.6
        draws.append((*rates(*drawn), *accuracy_and_f1(*drawn)))
    point = result["a"].youden
    found = probabilities[:, 0], labels[:, 0], 0.6
    expected = (*rates(*found), *accuracy_and_f1(*found))
    for index, measure in enumerate(("sensitivity", "specificity", "accuracy", "f1")):
        assert getattr(point, measure) == pytest.approx(expected[index])
        limits = np.percentile(np.array(draws)[:, index], [2.5, 97.5])
        np.testing.assert_allclose(getattr(point, f"{measure}_interval"), limits, atol=1e-5)
    assert result["a"].sensitivity_90.sensitivity >= point.sensitivity


def test_no_resamples_no_intervals(cohort):
    predictions = Predictions(*cohort, ["a", "b"])
    result = apply_thresholds({"a": chosen(0.6, 0.3)}, predictions, Bootstrap(0))
    point = result["a"].youden
    assert point.sensitivity_interval is point.accuracy_interval is point.f1_interval is None
    assert point.f1 is not None
    assert result["b"].reason == "no threshold was chosen for it"


def test_useless_scores_call_nothing_and_missing_values_have_reasons():
    labels = np.array([[1.0, 0.0], [0.0, 0.0]])
    validation = Predictions(np.array([[0.2, 0.5], [0.8, 0.5]]), labels, ["a", "b"])
    thresholds = choose_thresholds(validation)
    assert thresholds["b"].reason == "no positive image on validation"
    test = Predictions(np.array([[0.9, 0.1]]), np.array([[0.0, 0.0]]), ["a", "b"])
    point = apply_thresholds(thresholds, test, Bootstrap(10))["a"].sensitivity_90
    assert point.sensitivity is None  # no positive image on test
    assert point.sensitivity_interval is None
    assert point.specificity == point.accuracy == 0.0
    assert point.f1 is point.f1_interval is None


def test_what_needs_no_model_stands_beside(cohort):
    probabilities, labels = cohort
    result = apply_thresholds({}, Predictions(probabilities, labels, ["a", "b"]), Bootstrap(0))
    for column, name in enumerate("ab"):
        for level, measure in ((2.0, 0), (-1.0, 1)):
            reached = accuracy_and_f1(probabilities[:, column], labels[:, column], level)[measure]
            assert (result[name].accuracy_of_none, result[name].f1_of_all)[measure] == pytest.approx(reached)


def test_best_f1_is_not_youdens():
    """Where few are positive, F1 wants fewer false alarms than sensitivity + specificity does."""
    scores = np.linspace(1, 0, 101)[:, None]
    labels = np.zeros((101, 1))
    labels[[0, 1, 20, 21, 22]] = 1
    thresholds = choose_thresholds(Predictions(scores, labels, ["a"]))["a"]
    assert thresholds.best_f1 == scores[1, 0] and thresholds.youden == scores[22, 0]


def test_the_interval_of_all_or_none_is_exact():
    """Resampling cannot leave 0 or 1; 23 of 23 found is compatible with 0.852 (Clopper and Pearson)."""
    labels = np.repeat([1.0, 0.0], [23, 40])[:, None]
    predictions = Predictions(labels, labels, ["a"])
    point = apply_thresholds({"a": chosen(0.5, 0.5)}, predictions, Bootstrap(50))["a"].youden
    assert point.sensitivity == point.specificity == 1.0
    assert point.sensitivity_interval == pytest.approx([0.8518, 1.0], abs=1e-3)
    assert point.specificity_interval == pytest.approx([0.9119, 1.0], abs=1e-3)
    assert point.accuracy_interval == pytest.approx([0.9431, 1.0], abs=1e-3)  # 63 of 63
    assert point.f1_interval == pytest.approx([2 * 0.8518 / 1.8518, 1.0], abs=1e-3)


def test_the_exact_interval_counts_patients():
    """Twelve patients of eight images each are twelve independent cases: from .735 on, not .962."""
    labels = np.repeat([1.0, 0.0], [96, 96])[:, None]
    ids = [f"p{n // 8}" for n in range(192)]
    right, wrong = Predictions(labels, labels, ["a"], ids), Predictions(1 - labels, labels, ["a"], ids)
    found = apply_thresholds({"a": chosen(0.5, 0.5)}, right, Bootstrap(50))["a"].youden
    low, both = 0.025 ** (1 / 12), 0.025 ** (1 / 24)
    for measure, end in (("sensitivity", low), ("specificity", low), ("accuracy", both)):
        assert getattr(found, f"{measure}_interval") == pytest.approx([end, 1.0])
    assert found.f1_interval == pytest.approx([2 * low / (1 + low), 1.0])
    found = apply_thresholds({"a": chosen(0.5, 0.5)}, wrong, Bootstrap(50))["a"].youden
    assert found.sensitivity_interval == found.specificity_interval == pytest.approx([0.0, 1 - low])
    assert found.accuracy_interval == pytest.approx([0.0, 1 - both])
    high = 1 - both  # of the patients with an image that is positive or called so, here all
    assert found.f1_interval == pytest.approx([0.0, 2 * high / (1 + high)])
    one = replace(right, patient_ids=["p"] * 192)
    found = apply_thresholds({"a": chosen(0.5, 0.5)}, one, Bootstrap(50))["a"].youden
    assert found.sensitivity_interval == pytest.approx([0.025, 1.0])


def test_all_means_of_a_rule_are_of_the_same_findings():
    """Of a finding without positive images there is a specificity and no F1, of one without negatives no
    specificity."""
    generator = np.random.default_rng(0)
    labels = (generator.random((80, 4)) < 0.4).astype(float)
    scores = np.clip(0.3 * labels + 0.7 * generator.random((80, 4)), 0, 1)
    validation = Predictions(scores, labels, ["a", "b", "none", "all"])
    labels = labels.copy()
    labels[:, 2], labels[:, 3] = 0, 1
    found = score_thresholds(replace(validation, labels=labels), validation, Bootstrap(0))
    assert found.findings["none"].youden.specificity is not None and found.findings["all"].youden.f1
    for rule in RULES:
        mean, points = found.means[rule], [getattr(found.findings[name], rule) for name in "ab"]
        assert mean.findings_in_mean == ["a", "b"]
        for measure in ("sensitivity", "specificity", "accuracy", "f1"):
            expected = np.mean([getattr(point, measure) for point in points])
            assert getattr(mean, measure) == pytest.approx(expected), measure
    nothing = score_thresholds(replace(validation, labels=np.zeros((80, 4))), validation, Bootstrap(0))
    assert nothing.means["youden"].accuracy is None and nothing.means["youden"].findings_in_mean == []
