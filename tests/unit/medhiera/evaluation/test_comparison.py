"""DeLong against brute force, and differences that pairing makes visible."""

import re

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import (
    compare_models,
    compare_over_seeds,
    delong,
    delong_p_value,
)
from medhiera.evaluation.comparison_results import FindingComparison
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.tables import comparison_lines
from medhiera.scoring import OtherModel, compare


@pytest.fixture
def two_models():
    """Scores that share most of their noise; the first is a little better at finding a, equal at b."""
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 2)) < 0.3).astype(float)
    shared = generator.normal(size=(400, 2)) + labels
    first, second = (shared + 0.2 * generator.normal(size=(400, 2)) for _ in range(2))
    second[:, 0] -= 0.4 * labels[:, 0]
    return first, second, labels, [f"patient {n // 2}" for n in range(400)]


def brute_force(scores, truth):
    """DeLong as written in 1988: every pair of a positive and a negative."""
    placements = []
    for score in scores:
        positive, negative = score[truth], score[~truth]
        wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        placements.append((wins.mean(axis=1), wins.mean(axis=0)))
    v10, v01 = (np.stack(side) for side in zip(*placements, strict=True))
    return v10.mean(axis=1), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


@pytest.mark.parametrize("decimals", [1, 8])  # 1: many ties
def test_delong_equals_brute_force_and_scikit_learn(two_models, decimals):
    first, second, labels, _ = two_models
    scores, truth = np.round(np.stack([first[:, 0], second[:, 0]]), decimals), labels[:, 0] == 1
    values, covariance = delong(scores, truth)
    expected_values, expected_covariance = brute_force(scores, truth)
    np.testing.assert_allclose(values, expected_values, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-14)
    np.testing.assert_allclose(values, [roc_auc_score(truth, score) for score in scores], atol=1e-12)
    one, variance = delong(scores[:1], truth)
    assert one == pytest.approx(values[0]) and variance.shape == (1, 1)
    assert variance.item() == pytest.approx(expected_covariance[0, 0])


def test_delong_p_value_is_the_normal_tail(two_models):
    first, second, labels, _ = two_models
    scores, truth = np.stack([first[:, 0], second[:, 0]]), labels[:, 0] == 1
    values, covariance = brute_force(scores, truth)
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    expected = 2 * norm.sf(abs(values[0] - values[1]) / error)
    assert delong_p_value(scores, truth) == pytest.approx(expected)
    assert delong_p_value(scores[[0, 0]], truth) is None
    with pytest.raises(ValueError, match="1 positive and 4 negative"):
        delong(np.zeros((1, 5)), np.array([True, False, False, False, False]))


def both(two_models, names=("a", "b")):
    """The two models' predictions."""
    first, second, labels, patients = two_models
    return [Predictions(scores, labels, list(names), patients) for scores in (first, second)]


def test_pairing_finds_a_difference_that_two_intervals_hide(two_models):
    ours, theirs = both(two_models)
    result = compare_models(ours, theirs, Bootstrap(1000))
    alone = [rank_findings(each, Bootstrap(1000)).findings["a"] for each in (ours, theirs)]
    assert alone[0].auroc_interval[0] < alone[1].auroc_interval[1]  # the two overlap
    auroc = result.findings["a"].auroc
    assert auroc.difference == pytest.approx(alone[0].auroc - alone[1].auroc)
    assert auroc.interval[0] > 0
    assert auroc.p_value < 0.01
    same = result.findings["b"].auroc
    assert same.interval[0] < 0 < same.interval[1]
    assert same.p_value > 0.05


def test_the_interval_is_that_of_brute_force(two_models):
    first, second, labels, _ = two_models
    result = compare_models(*both(two_models), Bootstrap(130)).findings["a"]
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(130):  # more than are weighed at once
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in _in_order(generator.integers(200, size=200))])
        truth = labels[rows, 0]
        draws.append([m(truth, first[rows, 0]) - m(truth, second[rows, 0])
                      for m in (roc_auc_score, average_precision_score)])  # fmt: skip
    for row, measure in enumerate((result.auroc, result.average_precision)):
        expected = np.percentile(np.array(draws)[:, row], [2.5, 97.5])
        np.testing.assert_allclose(measure.interval, expected, atol=1e-12)


def _in_order(numbers):
    """Patients are numbered in the order of their sorted names."""
    names = sorted(f"patient {n}" for n in range(200))
    return [int(names[number].split()[1]) for number in numbers]


def test_a_finding_without_an_answer_and_the_lines(two_models):
    first, second, labels, patients = two_models
    labels[:, 1] = 0
    result = compare_models(*both(two_models, ("a", "No Finding")), Bootstrap(50))
    assert result.findings["No Finding"] == FindingComparison(reason="no positive image")
    assert result.mean == result.diseases
    assert result.mean.auroc == result.findings["a"].auroc
    lines = comparison_lines(result)
    assert lines[1].startswith("a ") and "no positive image" in lines[2]
    assert lines[3].startswith("mean of all ") and lines[4].startswith("mean of diseases ")
    assert lines[0].count("bootstrap p") == 2  # DeLong's is in the record
    for start in (end for end in range(len(lines[0])) if lines[0][end:].startswith("bootstrap p")):
        assert re.match(r" \d\.\d{3}", lines[1][start - 1 :]), "p stands below its heading"
    nothing = both((first[:, 1:], second[:, 1:], labels[:, 1:], patients), ["b"])
    assert compare_models(*nothing, Bootstrap(5)).mean is None


def test_without_resamples_a_difference_has_no_interval_and_no_p_value(two_models):
    ours, theirs = both(two_models)
    other = OtherModel(theirs.scores, "other/predictions.parquet", "0a")
    found = compare(ours, other, Bootstrap(0))
    known = compare(ours, other, Bootstrap(200))
    assert (found.other, found.other_sha256) == (other.name, other.sha256)
    for one, other in ((found.mean, known.mean), (found.findings["a"], known.findings["a"])):
        for measure in ("auroc", "average_precision"):
            difference = getattr(one, measure)
            assert difference.difference == getattr(other, measure).difference != 0
            assert difference.interval is None and difference.p_value is None
    assert found.bootstrap_resamples == 0
    line = comparison_lines(found)[1]
    assert line.count("none") == 2 and line.split().count("–") == 2
    assert compare_over_seeds([(ours, theirs)], Bootstrap(0)).auroc.interval is None


@pytest.mark.parametrize(("patients", "is_few"), [(9, True), (10, False)])
def test_a_finding_of_few_patients_has_a_star_and_no_p_value_nor_has_a_mean_with_it(patients, is_few):
    """Equally good models of five patients had p < .05 in 17 % of comparisons."""
    generator = np.random.default_rng(0)
    ids = [f"p{n % 40:02}" for n in range(400)]
    labels = (generator.random((400, 2)) < 0.5).astype(float)
    labels[:, 1] = [int(name[1:]) < patients for name in ids]  # whole patients, thus positive or negative
    pair = [Predictions(generator.normal(size=(400, 2)) + labels, labels, ["many", "few"], ids) for _ in "ab"]
    found = compare_models(*pair, Bootstrap(100))
    few, seeds = found.findings["few"], compare_over_seeds([tuple(pair)], Bootstrap(100))
    assert not found.findings["many"].has_few_cases and found.findings["many"].auroc.p_value is not None
    for each in (few, found.mean, found.diseases, seeds):
        assert each.has_few_cases is is_few
        for measure in (each.auroc, each.average_precision):
            assert (measure.p_value is None) is is_few and measure.interval
    assert (few.delong_p_value is None) is is_few
    lines = comparison_lines(found)
    starred = [line.split()[0] for line in lines if re.search(r"[+-]\d\.\d{3}\*  .* –", line)]
    assert starred == (["few", "mean", "mean"] if is_few else [])
    assert any(line.startswith("* a finding with fewer than 10 patients") for line in lines) is is_few
    positions = {line.index("–") for line in lines[1:] if " –" in line}
    assert positions <= {lines[0].index("bootstrap p")}


def test_other_images_are_not_compared(two_models):
    first, second, labels, patients = two_models
    ours, theirs = both(two_models)
    with pytest.raises(ValueError, match="findings .* differ"):
        compare_models(ours, Predictions(second, labels, ["b", "a"], patients), Bootstrap(5))
    with pytest.raises(ValueError, match="400 and 399 images"):
        compare_models(ours, theirs.select(np.arange(400) > 0), Bootstrap(5))
    with pytest.raises(ValueError, match="other labels or patients"):
        compare_models(ours, Predictions(second, labels, ["a", "b"], patients[::-1]), Bootstrap(5))


def test_a_difference_over_seeds_is_the_mean_of_theirs_under_the_same_patients(two_models):
    ours, theirs = both(two_models)
    single = compare_models(ours, theirs, Bootstrap(300)).mean
    assert compare_over_seeds([(ours, theirs)], Bootstrap(300)) == single
    assert compare_over_seeds([(ours, theirs), (theirs, ours)], Bootstrap(300)).auroc.difference == 0
    # What two seeds share of the patients stays; their own noise halves, so the interval is narrower.
    generator = np.random.default_rng(1)
    seeds = [
        tuple(
            Predictions(each.scores + 0.8 * generator.normal(size=(400, 2)), each.labels, ["a", "b"],
                        each.patient_ids)
            for each in (ours, theirs)
        )
        for _ in range(6)
    ]  # fmt: skip
    alone = compare_over_seeds(seeds[:1], Bootstrap(300))
    together = compare_over_seeds(seeds, Bootstrap(300))
    width = lambda found: found.auroc.interval[1] - found.auroc.interval[0]  # noqa: E731
    assert width(together) < 0.8 * width(alone)
    means = [rank_findings(each, Bootstrap(0)).mean_auroc for pair in seeds for each in pair]
    assert together.auroc.difference == pytest.approx(np.mean(np.array(means[::2]) - means[1::2]))
    precisions = [rank_findings(each, Bootstrap(0)).mean_average_precision for pair in seeds for each in pair]
    expected = np.mean(np.array(precisions[::2]) - precisions[1::2])
    assert together.average_precision.difference == pytest.approx(expected)
    low, high = together.average_precision.interval
    assert low < expected < high


def test_seeds_of_other_images_are_refused_and_one_label_value_has_no_difference(two_models):
    ours, theirs = both(two_models)
    fewer = tuple(each.select(np.arange(400) < 300) for each in (ours, theirs))
    with pytest.raises(ValueError, match="400 and 300 images"):
        compare_over_seeds([(ours, theirs), fewer], Bootstrap(10))
    nothing = [Predictions(each.scores, np.zeros((400, 2)), ["a", "b"]) for each in (ours, theirs)]
    assert compare_over_seeds([tuple(nothing)], Bootstrap(10)) is None
