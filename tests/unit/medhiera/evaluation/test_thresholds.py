"""Thresholds against a search over all of them; intervals against brute force."""

import numpy as np
import pytest

from medhiera.evaluation.thresholds import apply_thresholds, choose_thresholds


@pytest.fixture
def cohort():
    generator = np.random.default_rng(0)
    labels = (generator.random((300, 2)) < 0.3).astype(float)
    chances = np.round(1 / (1 + np.exp(-generator.normal(size=labels.shape) - 1.5 * labels)), 2)
    labels[::7, 0] = np.nan
    return chances, labels


def rates(chances, labels, threshold):
    called = chances >= threshold
    return called[labels == 1].mean(), (~called[labels == 0]).mean()


def test_thresholds_are_the_best_of_all(cohort):
    chances, labels = cohort
    chosen = choose_thresholds(chances, labels, ["a", "b"])
    for column, name in enumerate("ab"):
        candidates = np.unique(chances[~np.isnan(labels[:, column]), column])
        every = np.array([rates(chances[:, column], labels[:, column], t) for t in candidates])
        sensitivity, specificity = rates(chances[:, column], labels[:, column], chosen[name]["youden"])
        assert sensitivity + specificity == pytest.approx(every.sum(axis=1).max())
        assert chosen[name]["sensitivity_90"] == candidates[every[:, 0] >= 0.9].max()


def test_rates_on_test_and_their_intervals(cohort):
    chances, labels = cohort
    thresholds = {
        "a": {"youden": 0.6, "sensitivity_90": 0.3, "positives": 7},
        "b": {"reason": "no positive image"},
    }
    patients = [f"p{n // 3:03d}" for n in range(300)]
    result = apply_thresholds(thresholds, chances, labels, ["a", "b"], patients, 300, seed=5)
    assert result["b"] == {"reason": "no positive image"}
    assert result["a"]["positives"] == 7  # on validation
    generator = np.random.default_rng(5)
    draws = []
    for _ in range(300):
        rows = np.concatenate([[3 * p, 3 * p + 1, 3 * p + 2] for p in generator.integers(100, size=100)])
        draws.append(rates(chances[rows, 0], labels[rows, 0], 0.6))
    for index, measure in enumerate(("sensitivity", "specificity")):
        found = result["a"]["youden"]
        assert found[measure] == pytest.approx(rates(chances[:, 0], labels[:, 0], 0.6)[index])
        expected = np.percentile(np.array(draws)[:, index], [2.5, 97.5])
        np.testing.assert_allclose(found[f"{measure}_interval"], expected)
    assert result["a"]["sensitivity_90"]["sensitivity"] > found["sensitivity"] - 1


def test_useless_scores_call_nothing_and_missing_values_have_reasons():
    labels = np.array([[1.0, 0.0], [0.0, 0.0]])
    chosen = choose_thresholds(np.array([[0.2, 0.5], [0.8, 0.5]]), labels, ["a", "b"])
    assert chosen["b"] == {"reason": "no positive image on validation"}
    result = apply_thresholds(chosen, np.array([[0.9, 0.1]]), np.array([[0.0, 0.0]]), ["a", "b"], None, 10)
    assert result["a"]["sensitivity_90"]["sensitivity"] is None  # no positive image on test
    assert result["a"]["sensitivity_90"]["sensitivity_interval"] is None
    assert result["a"]["sensitivity_90"]["specificity"] == 0.0


def test_the_interval_of_all_or_none_is_exact():
    """Resampling cannot leave 0 or 1; 23 of 23 found is compatible with 0.852 (Clopper and Pearson)."""
    labels = np.repeat([1.0, 0.0], [23, 40])[:, None]
    thresholds = {"a": {"youden": 0.5, "sensitivity_90": 0.5, "positives": 5}}
    point = apply_thresholds(thresholds, labels, labels, ["a"], bootstrap_resamples=50)["a"]["youden"]
    assert point["sensitivity"] == point["specificity"] == 1.0
    assert point["sensitivity_interval"] == pytest.approx([0.8518, 1.0], abs=1e-3)
    assert point["specificity_interval"] == pytest.approx([0.9119, 1.0], abs=1e-3)
