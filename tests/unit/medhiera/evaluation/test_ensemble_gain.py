"""The mean of predictions, and its paired gain over each model."""

import dataclasses

import numpy as np
import pytest
from stage_records import predictions_of

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.ensemble import compare_members, mean_predictions, member_lines
from medhiera.evaluation.metrics import rank_findings

NAMES = ["Edema", "Mass", "No Finding"]


def members():
    """Two noisy views of one truth."""
    first = predictions_of(NAMES, 0)
    noise = np.random.default_rng(5).random(first.scores.shape)
    return [first, dataclasses.replace(first, scores=0.5 * first.scores + 0.5 * noise)]


def test_the_gain_is_the_means_minus_the_models_on_the_same_resamples():
    one, other = members()
    mean = mean_predictions([one, other])
    assert np.allclose(mean.scores, (one.scores + other.scores) / 2)
    bootstrap = Bootstrap(50)
    found = compare_members([("a", "0a"), ("b", "0b")], [one, other], bootstrap)
    assert [(each.model, each.fingerprint) for each in found] == [("a", "0a"), ("b", "0b")]
    ranked = rank_findings(mean, Bootstrap(0))
    for each, alone in zip(found, (one, other), strict=True):
        assert each.scores.mean_auroc == rank_findings(alone, Bootstrap(0)).mean_auroc
        assert each.scores.mean_auroc_interval is not None
        gain = each.gain.mean.auroc
        assert gain.difference == pytest.approx(ranked.mean_auroc - each.scores.mean_auroc)
        assert each.gain == compare_models(mean, alone, bootstrap)
    assert found[0].gain.mean.has_few_cases  # Edema has eight positive patients
    lines = "\n".join(member_lines(found, ranked))
    assert lines.count("* ") == 3 and lines.splitlines()[-1].startswith("* a finding with fewer than 10")
    assert f"{ranked.mean_auroc:.3f}" in lines and f"{found[1].gain.mean.auroc.difference:+.3f}" in lines


def test_one_model_has_no_members_and_no_intervals_are_no_obstacle():
    one, other = members()
    assert compare_members([("a", "0a")], [one], Bootstrap(20)) == []
    found = compare_members([("a", "0a"), ("b", "0b")], [one, other], Bootstrap(0))
    assert found[0].scores.mean_auroc_interval is None
    gain = found[0].gain.mean.auroc
    assert gain.difference != 0 and gain.interval is None and gain.p_value is None
    assert found[0].gain.bootstrap_resamples == 0
    mean = rank_findings(mean_predictions([one, other]), Bootstrap(0))
    line = member_lines(found, mean)[1]
    assert line.split("gain ")[1].split() == [f"{gain.difference:+.3f}*", "none", "–"]
