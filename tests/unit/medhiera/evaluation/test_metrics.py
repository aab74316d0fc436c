"""AUROC against scikit-learn, intervals against brute force, and the cases with no answer."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medhiera.evaluation.bootstrap import Bootstrap, WeightedRanking, group_patients
from medhiera.evaluation.comparison import delong
from medhiera.evaluation.metrics import MultilabelRanking, rank_over_draws, rank_over_seeds
from medhiera.evaluation.metrics import rank_findings as rank_predictions
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.tables import format_table


def rank_findings(scores, labels, names, patients=None, resamples=0):
    return rank_predictions(Predictions(scores, labels, names, patients), Bootstrap(resamples))


@pytest.fixture
def cohort():
    generator = np.random.default_rng(0)
    labels = (generator.random((300, 3)) < 0.3).astype(float)
    scores = np.round(generator.normal(size=(300, 3)) + labels, 1)  # rounding makes ties
    labels[generator.random((300, 3)) < 0.2] = np.nan
    return scores, labels, [f"patient {n // 3}" for n in range(300)]


def test_equals_scikit_learn_over_annotated_labels(cohort):
    scores, labels, _ = cohort
    result = rank_findings(scores, labels, ["a", "No Finding", "c"])
    for column, entry in enumerate(result.findings.values()):
        known = ~np.isnan(labels[:, column])
        truth, score = labels[known, column], scores[known, column]
        assert entry.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        expected = average_precision_score(truth, score)
        assert entry.average_precision == pytest.approx(expected, abs=1e-12)
    for measure in ("auroc", "average_precision"):
        values = [getattr(entry, measure) for entry in result.findings.values()]
        assert getattr(result, f"mean_{measure}") == pytest.approx(np.mean(values))
        assert getattr(result.diseases, f"mean_{measure}") == pytest.approx(np.mean(values[::2]))
    assert result.diseases.findings_in_mean == ["a", "c"]


def test_weighing_patients_equals_repeating_their_images(cohort):
    scores, labels, patient_ids = cohort
    known = ~np.isnan(labels[:, 0])
    score, truth = scores[known, 0], labels[known, 0] == 1
    patients = group_patients(patient_ids)
    weights = np.random.default_rng(1).integers(0, 4, (patients.max() + 1, 20)).astype(float)
    fast = WeightedRanking.of(score, truth, patients[known], patients.max() + 1).weigh(weights)
    for column, times in enumerate(weights[patients[known]].T.astype(int)):
        again = np.repeat(truth, times), np.repeat(score, times)
        assert fast[0][column] == pytest.approx(roc_auc_score(*again), abs=1e-12)
        assert fast[1][column] == pytest.approx(average_precision_score(*again), abs=1e-12)


def test_a_resample_without_positives_has_no_value():
    ranking = WeightedRanking.of(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]), np.arange(3), 3)
    auroc, precision = ranking.weigh(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0]]))
    np.testing.assert_array_equal(auroc, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(precision, [1.0, np.nan, np.nan])


def test_interval_covers_the_truth_and_patients_widen_it(cohort):
    scores, labels, _ = cohort
    repeated_scores, repeated_labels = np.repeat(scores, 4, axis=0), np.repeat(labels, 4, axis=0)
    patients = [str(n // 4) for n in range(1200)]
    by_image = rank_findings(repeated_scores, repeated_labels, list("abc"), None, 400)
    by_patient = rank_findings(repeated_scores, repeated_labels, list("abc"), patients, 400)
    low, high = by_patient.findings["a"].auroc_interval
    assert low < by_patient.findings["a"].auroc < high
    width = high - low
    narrow = np.diff(by_image.findings["a"].auroc_interval)[0]
    assert width > 1.5 * narrow  # four copies of an image are one observation: the width doubles


def test_interval_has_the_width_of_delong(cohort):
    scores, labels, _ = cohort
    known = ~np.isnan(labels[:, 0])
    _, variance = delong(scores[known, :1].T, labels[known, 0] == 1)
    low, high = rank_findings(scores, labels, list("abc"), None, 2000).findings["a"].auroc_interval
    assert (high - low) == pytest.approx(2 * 1.96 * variance.item() ** 0.5, rel=0.1)


def test_a_finding_with_one_label_value_has_a_reason_not_a_number():
    scores = np.random.default_rng(0).normal(size=(10, 4))
    labels = np.zeros((10, 4))
    labels[:, 1] = 1
    labels[:, 2] = np.nan
    labels[:5, 3] = 1
    result = rank_findings(scores, labels, ["none", "all", "unknown", "fine"], None, 50)
    reasons = {name: entry.reason for name, entry in result.findings.items()}
    assert reasons == {
        "none": "no positive image",
        "all": "no negative image",
        "unknown": "no image is annotated for it",
        "fine": None,
    }
    assert result.findings_in_mean == ["fine"]
    assert result.findings["fine"].has_few_cases  # five positives say little
    assert result.findings["none"].auroc is None
    assert result.findings["none"].average_precision is None


def test_nothing_to_average_is_none_not_zero():
    result = rank_findings(np.zeros((4, 1)), np.zeros((4, 1)), ["a"], None, 10)
    assert result.mean_auroc is None
    assert result.mean_auroc_interval is None


def test_cases_are_patients_not_images():
    """Twelve positive images of nine patients are few cases, of ten are enough; the same for negatives."""
    labels = np.repeat([1.0, 0.0], [12, 40])[:, None]
    scores = np.arange(52.0)[:, None]

    def score(labels, positive_patients):
        patients = [f"ill {n % positive_patients}" for n in range(12)] + [f"well {n}" for n in range(40)]
        return rank_findings(scores, labels, ["a"], patients).findings["a"]

    few, enough = score(labels, 9), score(labels, 10)
    assert few.has_few_cases and (few.positives, few.positive_patients, few.negative_patients) == (12, 9, 40)
    assert not enough.has_few_cases and enough.positive_patients == 10
    assert score(1 - labels, 9).has_few_cases and not score(1 - labels, 10).has_few_cases
    predictions = Predictions(scores, labels, ["a"], ["one"] * 12 + [str(n) for n in range(40)])
    lines = format_table(rank_predictions(predictions, Bootstrap(0)))
    assert "*" in lines[1] and lines[-1].startswith("* a: fewer than 10 patients")


def test_a_patient_with_both_values_counts_on_both_sides():
    labels = np.tile([1.0, 0.0], 10)[:, None]
    entry = rank_findings(np.arange(20.0)[:, None], labels, ["a"], [f"p{n // 2}" for n in range(20)])
    entry = entry.findings["a"]
    assert entry.positive_patients == entry.negative_patients == 10 and not entry.has_few_cases


def test_works_as_an_evaluate_metric_offline(cohort):
    scores, labels, patients = cohort
    metric = MultilabelRanking(keep_in_memory=True)
    result = metric.compute(
        predictions=scores, references=labels, finding_names=list("abc"), patient_ids=patients,
        bootstrap_resamples=50,
    )  # fmt: skip
    assert result == asdict(rank_findings(scores, labels, list("abc"), patients, 50))


@pytest.mark.parametrize("resamples", [0, 50])
def test_lines_for_people_say_what_is_missing(cohort, resamples):
    scores, labels, patients = cohort
    labels[:, 1] = 0.0
    lines = format_table(rank_findings(scores, labels, ["a", "b_c", "d"], patients, resamples))
    assert "no positive image" in lines[2] and lines[2].startswith("b c")
    assert lines[1].count("none") == (2 if resamples == 0 else 0)
    assert lines[4].startswith("mean of all 2") and len(lines) == 5
    assert (
        len({len(line) - len(line.split("  ")[-1].lstrip()) for line in lines[1:4]}) == 1
    )  # columns stand below each other


def test_lines_for_people_without_any_auroc():
    lines = format_table(rank_findings(np.zeros((4, 1)), np.zeros((4, 1)), ["a"], None, 10))
    assert "no finding has both" in lines[-1]


def test_the_interval_of_average_precision_covers_the_truth(cohort):
    """Uncorrected, resampling inflates it: of few positives the interval then often lies above the value."""
    generator = np.random.default_rng(2)
    covered, lies_above = 0, 0
    labels = (generator.random((400, 30)) < 0.06).astype(float)
    scores = generator.normal(size=labels.shape) + labels
    entries = rank_findings(scores, labels, [str(n) for n in range(30)], None, 200).findings.values()
    big = (generator.random((200_000, 1)) < 0.06).astype(float)
    truth = average_precision_score(big, generator.normal(size=big.shape) + big)
    for entry in entries:
        low, high = entry.average_precision_interval
        assert low < entry.average_precision < high
        covered += low <= truth <= high
        lies_above += low > truth
    assert covered >= 24 and lies_above <= 3


def test_over_seeds_is_the_mean_under_the_same_patients(cohort):
    scores, labels, patients = cohort
    generator = np.random.default_rng(1)
    several = [
        Predictions(scores + 1.5 * generator.normal(size=scores.shape), labels, list("abc"), patients)
        for _ in range(6)
    ]
    alone = rank_predictions(several[0], Bootstrap(200))
    one, all_six = rank_over_seeds(several[:1], Bootstrap(200)), rank_over_seeds(several, Bootstrap(200))
    for measure in ("mean_auroc", "mean_average_precision"):
        assert getattr(one, measure) == getattr(alone, measure)
        assert getattr(one, f"{measure}_interval") == pytest.approx(getattr(alone, f"{measure}_interval"))
        values = [getattr(rank_predictions(each, Bootstrap(0)), measure) for each in several]
        assert getattr(all_six, measure) == pytest.approx(np.mean(values))
        widths = [np.diff(getattr(found, f"{measure}_interval"))[0] for found in (one, all_six)]
        assert 0 < widths[1] < widths[0]  # the seeds' own noise halves, the patients' stays
    nothing = [Predictions(scores, np.zeros_like(labels), list("abc"), patients)]
    assert rank_over_seeds(nothing, Bootstrap(5)).mean_auroc is None


def test_a_value_that_resampling_cannot_leave_has_no_interval():
    """12 patients with and 12 without that are ranked perfectly had an AUROC of "1.000 to 1.000"."""
    labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (12, 1))
    perfect = Predictions(labels, labels, ["a", "b"])
    found = rank_predictions(perfect, Bootstrap(200))
    over_draws, of_findings = rank_over_draws([perfect] * 3, Bootstrap(200))
    for each in (found, found.diseases, rank_over_seeds([perfect] * 2, Bootstrap(200)), over_draws):
        assert (each.mean_auroc, each.mean_average_precision) == (1.0, 1.0)
        assert each.mean_auroc_interval is each.mean_average_precision_interval is None
    for each in (*found.findings.values(), *of_findings.values()):
        assert each.auroc == 1.0 and each.auroc_interval is each.average_precision_interval is None
    worst = rank_predictions(replace(perfect, scores=1 - labels), Bootstrap(200))
    assert worst.mean_auroc == 0.0 and worst.mean_auroc_interval is None
    one = np.random.default_rng(0).random((24, 2))
    alone = rank_predictions(Predictions(one, labels, ["a", "b"], ["p"] * 24), Bootstrap(200))
    assert 0 < alone.mean_auroc < 1 and alone.mean_auroc_interval is None  # of one patient
    said = "no interval: every resample gives the same value, which does not make it certain"
    lines = format_table(found)
    assert lines[-1] == said and "1.000 to 1.000" not in "".join(lines) and lines[1].count("none") == 2
    assert said not in format_table(rank_predictions(perfect, Bootstrap(0)))
    almost = replace(perfect, scores=np.where(np.arange(24)[:, None] == 0, 1 - labels, labels))
    assert rank_predictions(almost, Bootstrap(200)).mean_auroc_interval and said not in format_table(
        rank_predictions(almost, Bootstrap(200))
    )
