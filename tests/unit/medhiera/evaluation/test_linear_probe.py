"""A probe ranks as scikit-learn's own pipeline does, and its penalty is the one that validation prefers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medhiera.evaluation.linear_probe import PENALTIES, fit_probe


def draw(images, seed, noise_features=40):
    """Two findings, each in one feature of another scale, among features that say nothing."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((images, 2)) < 0.4).astype(np.float64)
    signal = labels * [2.0, 200.0] + generator.normal(size=(images, 2)) * [1.0, 100.0]
    return np.concatenate([signal, generator.normal(size=(images, noise_features))], 1), labels


def test_one_penalty_gives_scikit_learns_own_probabilities():
    features, labels = draw(200, 0)
    probe = fit_probe(features, labels, None, penalties=[0.1])
    for finding in range(2):
        reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-10, max_iter=9999))
        reference.fit(features, labels[:, finding] == 1)
        expected = reference.predict_proba(features)[:, 1]
        np.testing.assert_allclose(probe.scores(features)[:, finding], expected, atol=1e-6)


@pytest.mark.parametrize("images", [120, 600], ids=["lbfgs", "newton-cholesky"])
def test_rounding_of_the_features_does_not_move_the_scores(images):
    """As where a model embeds them in batches of another size."""
    features, labels = draw(images, 7, noise_features=100)
    features[:, 2:] += 3.0 * features[:, :1]
    rounded = features.astype(np.float32).astype(np.float64) * (1 + 1e-7 * np.sin(np.arange(images))[:, None])
    scores = [
        fit_probe(each, labels, None, penalties=[100.0]).scores(features) for each in (features, rounded)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_validation_chooses_the_penalty_and_nothing_else_does():
    features, labels = draw(1000, 1, noise_features=300)  # where a plane parts few, all penalties do alike
    validation, test = draw(500, 2, 300), draw(2000, 3, 300)
    probe = fit_probe(features, labels, validation)
    assert list(probe.validation_auroc) == sorted(PENALTIES)
    assert probe.C == max(probe.validation_auroc, key=lambda C: probe.validation_auroc[C])
    kept = fit_probe(features, labels, None, penalties=[probe.C])
    np.testing.assert_array_equal(probe.scores(test[0]), kept.scores(test[0]))
    loose = fit_probe(features, labels, None, penalties=[100.0])
    aurocs = [
        np.mean([roc_auc_score(test[1][:, k], each.scores(test[0])[:, k]) for k in range(2)])
        for each in (probe, loose)
    ]
    assert aurocs[0] > aurocs[1]
    # without validation, or where it has one label value, the middle one
    one_sided = (validation[0], np.ones_like(validation[1]))
    assert fit_probe(features, labels, None).C == fit_probe(features, labels, one_sided).C == 0.1


def test_what_is_not_annotated_is_left_out_and_a_one_sided_finding_has_its_share():
    features, labels = draw(300, 4)
    unknown = np.arange(300) >= 150
    spoiled = features.copy()
    spoiled[unknown, 0] = -spoiled[unknown, 0]  # would turn the finding round, were it looked at
    partial = np.where(unknown[:, None] & [True, False], np.nan, labels)
    test = draw(1000, 5)
    scores = fit_probe(spoiled, partial, None).scores(test[0])
    assert roc_auc_score(test[1][:, 0], scores[:, 0]) > 0.8, "0.5 had they been looked at"
    for column, expected in (
        (np.ones(300), 301 / 302),
        (np.zeros(300), 1 / 302),
        (np.full(300, np.nan), 0.5),
    ):
        scores = fit_probe(features, np.stack([labels[:, 0], column], 1), None).scores(test[0])
        np.testing.assert_allclose(scores[:, 1], expected)


def test_a_feature_that_never_changes_does_no_harm_and_no_image_is_refused():
    features, labels = draw(100, 6)
    features[:, 5] = 7.0
    assert np.isfinite(fit_probe(features, labels, None).scores(features)).all()
    with pytest.raises(ValueError, match="no training image"):
        fit_probe(features[:0], labels[:0], None)
