"""Labels that exclude each other: the numbers of the most probable one, against scikit-learn and by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_score,
    recall_score,
)

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.exclusive import score_calls
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.report import report
from medhiera.evaluation.tables import call_lines

NAMES = ["NORMAL", "bacteria", "virus"]


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    true = generator.integers(0, 3, 90)
    labels = np.eye(3)[true]
    scores = generator.dirichlet(np.ones(3), 90) * 0.7 + 0.3 * labels
    patients = [f"p{index // 3}" for index in range(90)]
    return Predictions(scores, labels, NAMES, patients, is_exclusive=True)


def test_values_are_those_of_scikit_learn(predictions):
    true, called = predictions.labels.argmax(1), predictions.scores.argmax(1)
    result = score_calls(predictions, Bootstrap(0))
    assert result.accuracy == pytest.approx(accuracy_score(true, called))
    assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, called))
    assert result.accuracy_of_commonest == pytest.approx(np.bincount(true).max() / 90)
    of_labels = result.labels.values()
    assert [one.recall for one in of_labels] == pytest.approx(recall_score(true, called, average=None))
    assert [one.precision for one in of_labels] == pytest.approx(precision_score(true, called, average=None))
    assert [list(one.called.values()) for one in of_labels] == confusion_matrix(true, called).tolist()
    assert result.accuracy_interval is None


def test_intervals_are_of_resampled_patients(predictions):
    bootstrap = Bootstrap(300)
    result = score_calls(predictions, bootstrap)
    is_right = predictions.labels.argmax(1) == predictions.scores.argmax(1)
    drawn = np.concatenate([
        (weights[predictions.patients] * is_right[:, None]).sum(0) / weights[predictions.patients].sum(0)
        for weights in bootstrap.weights(30)
    ])  # fmt: skip
    assert result.accuracy_interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    alone = score_calls(replace(predictions, patient_ids=None), bootstrap)
    assert alone.accuracy == result.accuracy and alone.accuracy_interval != result.accuracy_interval


def test_shares_of_0_and_1_have_exact_intervals_over_patients(predictions):
    """Ten patients of three images each of every label: thirty images and ten independent cases."""
    labels = np.repeat(np.eye(3), 30, axis=0)
    perfect = replace(predictions, labels=labels, scores=labels)
    found = score_calls(perfect, Bootstrap(50))
    low = 0.025 ** (1 / 10)
    for each in found.labels.values():
        assert each.recall_interval == each.precision_interval == pytest.approx([low, 1.0])
    assert found.accuracy_interval == pytest.approx([0.025 ** (1 / 30), 1.0])
    assert found.balanced_accuracy == 1 and found.balanced_accuracy_interval is None  # no share of images
    assert "balanced accuracy 1.000 (none)" in call_lines(found)
    wrong = score_calls(replace(perfect, scores=np.roll(labels, 1, axis=1)), Bootstrap(50))
    assert wrong.labels["virus"].recall_interval == pytest.approx([0.0, 1 - low])


def test_what_cannot_be_computed_is_none(predictions):
    never = np.eye(3)[np.zeros(90, int)]  # every image is called NORMAL
    result = score_calls(replace(predictions, scores=never), Bootstrap(50))
    assert result.labels["virus"].precision is None and result.labels["virus"].recall == 0
    assert result.labels["NORMAL"].recall_interval[1] == 1 > result.labels["NORMAL"].recall_interval[0]
    unknown = score_calls(replace(predictions, labels=np.full((90, 3), np.nan)), Bootstrap(50))
    assert unknown.accuracy is None and unknown.accuracy_of_commonest is None


def test_the_balanced_accuracy_is_of_the_labels_that_have_an_image(predictions):
    labels = np.eye(3)[predictions.labels.argmax(1) % 2]  # no virus, which many images are called
    result = score_calls(replace(predictions, labels=labels), Bootstrap(50))
    recalls = [result.labels[name].recall for name in NAMES]
    assert recalls[2] is None and result.labels["virus"].precision == 0
    assert result.balanced_accuracy == pytest.approx((recalls[0] + recalls[1]) / 2)
    low, high = result.balanced_accuracy_interval
    assert low < result.balanced_accuracy < high < 1 and result.labels["NORMAL"].called["virus"] > 0


def test_the_report_has_no_thresholds_and_rescales_nothing(predictions):
    with_rows = replace(predictions, rows=_rows(predictions))
    game = LocalizationReport(reason="none here")
    found = report(with_rows, with_rows, Bootstrap(50), split="test", pointing_game=game)
    assert found.exclusive is not None and found.operating_points.findings == {}
    assert "most probable" in found.operating_points.reason
    assert found.rescaling == {} and found.calibration.rescaled is None
    assert any("balanced accuracy" in line for line in call_lines(found.exclusive))
    several = report(
        replace(with_rows, is_exclusive=False), with_rows, Bootstrap(50), split="test", pointing_game=game
    )
    assert several.exclusive is None and several.operating_points.findings and call_lines(None) == []


def _rows(predictions):
    count = len(predictions)
    return pd.DataFrame({
        "image_id": [str(index) for index in range(count)], "patient_id": predictions.patient_ids,
        "sex": "", "age_years": np.nan, "view": "",
    })  # fmt: skip
