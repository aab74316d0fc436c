"""The best checkpoint is chosen by findings that have enough patients, and the record says by which."""

import numpy as np
import pytest
from transformers import EvalPrediction

from medhiera.errors import UserError
from medhiera.evaluation.checkpoint_selection import ValidationScores, choose_findings, one_sided_findings

NAMES = ["Effusion", "Hernia", "No Finding"]


def split(hernia_patients, images_each=1):
    """Two hundred patients; effusion in every third, hernia in the first few, with several images each."""
    effusion = np.arange(200) % 3 == 0
    hernia = np.arange(200) < hernia_patients
    labels = np.stack([effusion, hernia, ~(effusion | hernia)], axis=1).astype(float)
    patients = [f"patient {number}" for number in range(200)]
    return labels.repeat(images_each, axis=0), [name for name in patients for _ in range(images_each)]


def test_a_rare_finding_does_not_choose_the_checkpoint():
    labels, patients = split(hernia_patients=14)
    assert choose_findings(labels, patients, NAMES).findings == ["Effusion"]
    labels, patients = split(hernia_patients=30)
    selection = choose_findings(labels, patients, NAMES)
    assert selection.findings == ["Effusion", "Hernia"]
    assert "30 positive validation patients" in selection.rule


def test_patients_count_and_not_images():
    labels, patients = split(hernia_patients=14, images_each=5)
    assert (labels[:, 1] == 1).sum() == 70
    assert choose_findings(labels, patients, NAMES).findings == ["Effusion"]


def test_a_small_split_uses_every_disease_with_both_values():
    labels = np.array([[1, 0, 0], [0, 0, 1], [np.nan, 0, 0]])
    selection = choose_findings(labels, ["a", "b", "c"], NAMES)
    assert selection.findings == ["Effusion"] and selection.rule.startswith("all diseases")
    assert choose_findings(labels[:, 2:], ["a", "b", "c"], NAMES[2:]).rule == "all findings"


def test_a_finding_of_one_value_in_training_does_not_choose_the_checkpoint():
    labels, patients = split(hernia_patients=30)
    trained = labels.copy()
    trained[trained[:, 1] == 0, 1] = np.nan  # as CheXpert's table writes No Finding: 1 or empty
    one_sided = one_sided_findings(trained, NAMES)
    assert one_sided == {"Hernia": "present wherever annotated"}
    selection = choose_findings(labels, patients, NAMES, one_sided=one_sided)
    assert selection.findings == ["Effusion"]
    assert selection.rule.startswith("diseases of both label values in training with at least 30")
    assert choose_findings(labels, patients, NAMES, one_sided=NAMES).findings == ["Effusion", "Hernia"]
    assert one_sided_findings(np.array([[0, np.nan, 1.0], [0, np.nan, 0]]), NAMES) == {
        "Effusion": "absent wherever annotated", "Hernia": "never annotated",
    }  # fmt: skip


def test_a_split_with_one_value_only_is_refused():
    with pytest.raises(UserError, match="no finding has both present and absent images among the 2"):
        choose_findings(np.array([[1.0, 0.0, np.nan]] * 2), ["a", "b"], NAMES)


def test_a_better_mean_of_all_does_not_win_where_a_rare_finding_made_it():
    """Effusion is ranked worse and Hernia, of 14 patients, better: the mean over both rises."""
    labels, patients = split(hernia_patients=14)
    generator = np.random.default_rng(0)
    noise = generator.normal(size=labels.shape)
    first = noise + labels * [1.5, 0.2, 1.0]
    second = noise + labels * [1.2, 3.0, 1.0]
    selection = choose_findings(labels, patients, NAMES)
    scores = ValidationScores(NAMES, selection.findings)
    one, two = (scores(EvalPrediction(logits, labels)) for logits in (first, second))
    assert two["mean_auroc"] > one["mean_auroc"]
    assert two["selection_auroc"] < one["selection_auroc"]
