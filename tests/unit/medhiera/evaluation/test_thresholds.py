"""Thresholds against a search over all of them; intervals against brute force."""

import numpy as np
import pytest

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import ChosenThresholds
from medhiera.evaluation.thresholds import apply_thresholds, choose_thresholds


@pytest.fixture
def cohort():
    generator = np.random.default_rng(0)
    labels = (generator.random((300, 2)) < 0.3).astype(float)
    probabilities = np.round(1 / (1 + np.exp(-generator.normal(size=labels.shape) - 1.5 * labels)), 2)
    labels[::7, 0] = np.nan
    return probabilities, labels


def chosen(youden, sensitivity_90, positives=7):
    return ChosenThresholds(
        youden=youden, sensitivity_90=sensitivity_90, positives=positives, positive_patients=positives
    )


def rates(probabilities, labels, threshold):
    is_called = probabilities >= threshold
    return is_called[labels == 1].mean(), (~is_called[labels == 0]).mean()


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
        is_positive = labels[:, column] == 1
        assert thresholds[name].positives == is_positive.sum()
        assert thresholds[name].positive_patients == len(set(np.flatnonzero(is_positive) // 3))


def test_rates_on_test_and_their_intervals(cohort):
    probabilities, labels = cohort
    no_threshold = ChosenThresholds(
        youden=None, sensitivity_90=None, positives=None, positive_patients=None, reason="no positive image"
    )
    predictions = Predictions(probabilities, labels, ["a", "b"], [f"p{n // 3:03d}" for n in range(300)])
    result = apply_thresholds({"a": chosen(0.6, 0.3), "b": no_threshold}, predictions, Bootstrap(300))
    assert result["b"].reason == "no positive image" and result["b"].youden is None
    assert result["a"].positives == 7  # on validation
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(300):
        rows = np.concatenate([[3 * p, 3 * p + 1, 3 * p + 2] for p in generator.integers(100, size=100)])
        draws.append(rates(probabilities[rows, 0], labels[rows, 0], 0.6))
    point = result["a"].youden
    for index, (value, limits) in enumerate(
        [
            (point.sensitivity, point.sensitivity_interval),
            (point.specificity, point.specificity_interval),
        ]
    ):
        assert value == pytest.approx(rates(probabilities[:, 0], labels[:, 0], 0.6)[index])
        np.testing.assert_allclose(limits, np.percentile(np.array(draws)[:, index], [2.5, 97.5]))
    assert result["a"].sensitivity_90.sensitivity >= point.sensitivity


def test_no_resamples_no_intervals(cohort):
    predictions = Predictions(*cohort, ["a", "b"])
    result = apply_thresholds({"a": chosen(0.6, 0.3)}, predictions, Bootstrap(0))
    assert result["a"].youden.sensitivity_interval is None
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
    assert point.specificity == 0.0


def test_the_interval_of_all_or_none_is_exact():
    """Resampling cannot leave 0 or 1; 23 of 23 found is compatible with 0.852 (Clopper and Pearson)."""
    labels = np.repeat([1.0, 0.0], [23, 40])[:, None]
    predictions = Predictions(labels, labels, ["a"])
    point = apply_thresholds({"a": chosen(0.5, 0.5)}, predictions, Bootstrap(50))["a"].youden
    assert point.sensitivity == point.specificity == 1.0
    assert point.sensitivity_interval == pytest.approx([0.8518, 1.0], abs=1e-3)
    assert point.specificity_interval == pytest.approx([0.9119, 1.0], abs=1e-3)
