"""Calibration against known answers, and its repair."""

import numpy as np
import pytest

from medhiera.evaluation.calibration import (
    calibration_error,
    fit_rescaling,
    measure_calibration,
    reliability_curve,
    rescale,
)
from medhiera.evaluation.predictions import Predictions


@pytest.fixture
def shifted():
    """True probabilities, labels drawn from them, and what an overconfident model says."""
    generator = np.random.default_rng(0)
    true = generator.beta(1, 3, (20_000, 1))
    labels = (generator.random(true.shape) < true).astype(float)
    logits = np.log(true / (1 - true))
    return true, labels, 1 / (1 + np.exp(-(2 * logits + 1)))


def test_error_of_known_gaps():
    # Five images at 0.1 with no positive, five at 0.9 of which four are.
    probabilities = np.repeat([0.1, 0.9], 5)
    truth = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 0.0])
    curve = reliability_curve(probabilities, truth)
    assert [(part.images, part.predicted, part.observed) for part in curve] == [
        (5, pytest.approx(0.1), 0.0), (5, pytest.approx(0.9), 0.8),
    ]  # fmt: skip
    assert calibration_error(curve) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert calibration_error(reliability_curve(np.array([1.0, 0.0]), np.array([1.0, 0.0]))) == 0


def test_the_order_of_equal_probabilities_changes_nothing():
    probabilities = np.round(np.random.default_rng(1).random(237), 1)
    truth = (np.random.default_rng(2).random(237) < probabilities).astype(float)
    order = np.random.default_rng(3).permutation(237)
    curves = reliability_curve(probabilities, truth), reliability_curve(probabilities[order], truth[order])
    parts = [[(part.images, part.observed) for part in curve] for curve in curves]
    assert parts[0] == parts[1]
    assert calibration_error(curves[0]) == pytest.approx(calibration_error(curves[1]))


def test_the_error_is_that_of_the_plotted_bins(shifted):
    _, labels, overconfident = shifted
    entry = measure_calibration(Predictions(overconfident, labels, ["a"])).findings["a"]
    gaps = [part.images * abs(part.predicted - part.observed) for part in entry.curve]
    assert len(gaps) == 10 and entry.ece == pytest.approx(sum(gaps) / 20_000)


def test_true_probabilities_are_calibrated_and_overconfident_ones_are_not(shifted):
    true, labels, overconfident = shifted
    good = measure_calibration(Predictions(true, labels, ["a"])).findings["a"]
    bad = measure_calibration(Predictions(overconfident, labels, ["a"])).findings["a"]
    assert good.ece < 0.015 < 0.05 < bad.ece
    assert bad.brier > good.brier == pytest.approx(np.mean((true - labels) ** 2))
    assert [part.images for part in good.curve] == [2000] * 10
    for part in good.curve:
        assert part.predicted == pytest.approx(part.observed, abs=0.04)
        assert part.interval[0] < part.observed < part.interval[1]


def test_rescaling_finds_the_distortion_and_keeps_the_order(shifted):
    true, labels, overconfident = shifted
    fits = fit_rescaling(Predictions(overconfident[::2], labels[::2], ["a"]))
    assert fits["a"].slope == pytest.approx(0.5, abs=0.03)
    assert fits["a"].intercept == pytest.approx(-0.5, abs=0.05)
    repaired = rescale(overconfident[1::2], fits, ["a"])
    assert measure_calibration(Predictions(repaired, labels[1::2], ["a"])).mean_ece < 0.02
    np.testing.assert_array_equal(np.argsort(repaired[:, 0]), np.argsort(overconfident[1::2, 0]))


def test_scores_that_hardly_differ_are_rescaled_as_scores_that_do():
    """Platt's fit asks for the order and the gaps of the logits, wherever they lie and however small."""
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 1)) < 0.3).astype(float)
    signal = generator.normal(size=labels.shape) + 1.5 * labels
    near, wide = (1 / (1 + np.exp(-logits)) for logits in (-3 + 0.001 * signal, signal))
    fits = [fit_rescaling(Predictions(scores, labels, ["a"])) for scores in (near, wide)]
    assert fits[0]["a"].slope == pytest.approx(1000 * fits[1]["a"].slope, rel=0.01)
    repaired = [rescale(scores, fit, ["a"]) for scores, fit in zip((near, wide), fits, strict=True)]
    np.testing.assert_allclose(*repaired, atol=1e-3)


def test_too_few_or_reversed_scores_are_left_alone(shifted):
    true, labels, _ = shifted
    few = labels.copy()
    few[np.flatnonzero(few)[9:]] = 0  # nine positives
    assert fit_rescaling(Predictions(true, few, ["a"])) == {"a": None}
    assert fit_rescaling(Predictions(1 - true, labels, ["a"])) == {"a": None}
    np.testing.assert_array_equal(rescale(true, {"a": None}, ["a"]), true)


def test_many_positives_of_few_patients_are_too_few(shifted):
    true, labels, _ = shifted
    patients = np.array([f"p{number}" for number in range(len(labels))], dtype=object)
    patients[labels[:, 0] == 1] = [f"q{number % 9}" for number in range(int(labels.sum()))]
    assert fit_rescaling(Predictions(true, labels, ["a"], patients.tolist())) == {"a": None}


def test_unannotated_images_do_not_count_and_bad_input_is_refused(shifted):
    true, labels, _ = shifted
    labels = np.concatenate([labels, np.full_like(labels, np.nan)], axis=1)
    both = np.concatenate([true, true], axis=1)
    result = measure_calibration(Predictions(both, labels, ["a", "b"]))
    unknown = result.findings["b"]
    assert unknown.reason == "no image is annotated for it"
    assert unknown.ece is None and unknown.brier is None and unknown.curve == []
    assert result.mean_ece == result.findings["a"].ece
    with pytest.raises(ValueError, match="apply a sigmoid"):
        measure_calibration(Predictions(both * 5, labels, ["a", "b"]))
