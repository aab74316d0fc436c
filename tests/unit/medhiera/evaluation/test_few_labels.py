"""Few labels: whose they are, that fewer are a part of more, and what probes reach with them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.few_labels import FeatureSplit, draw_shots, fit_by_patient, score_few_labels
from medhiera.evaluation.label_figures import draw_few_labels
from medhiera.evaluation.linear_probe import PENALTIES
from medhiera.evaluation.metrics import rank_findings, rank_over_draws
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.probe_results import FewLabels, ProbeFit
from medhiera.evaluation.tables import few_labels_lines
from probe import penalty_lines

NAMES = ["Common", "Rare", "Absent"]


def draw_split(patients, seed, name="p"):
    """Patients with one to three images; the common finding is of the patient, in the first feature."""
    generator = np.random.default_rng(seed)
    images = generator.integers(1, 4, patients)
    owner = np.repeat(np.arange(patients), images)
    labels = np.zeros((len(owner), 3))
    labels[:, 0] = (generator.random(patients) < 0.5)[owner]
    labels[:, 1] = owner < 3
    labels[generator.random(len(owner)) < 0.1, 0] = np.nan
    features = generator.normal(size=(len(owner), 12))
    features[:, 0] += 2.5 * np.nan_to_num(labels[:, 0])
    return FeatureSplit(features.astype(np.float32), labels, [f"{name}{number}" for number in owner])


TRAINING, VALIDATION, TEST = draw_split(200, 0), draw_split(60, 1, "v"), draw_split(150, 2, "t")


def predictions(probe):
    return Predictions(probe.scores(TEST.features), TEST.labels, NAMES, TEST.patient_ids)


def test_shots_are_one_image_each_of_k_patients_of_either_kind():
    for draw in range(3):
        rows = draw_shots(TRAINING.labels, TRAINING.patient_ids, 0, 5, draw)
        assert TRAINING.labels[rows, 0].tolist() == [1.0] * 5 + [0.0] * 5
        owners = [TRAINING.patient_ids[row] for row in rows]
        assert len(set(owners)) == 10
        more = draw_shots(TRAINING.labels, TRAINING.patient_ids, 0, 20, draw)
        assert set(rows) < set(more)
    assert rows != draw_shots(TRAINING.labels, TRAINING.patient_ids, 0, 5, 0)
    order = np.random.default_rng(5).permutation(len(TRAINING.labels))
    shuffled = TRAINING.select(order)
    again = draw_shots(shuffled.labels, shuffled.patient_ids, 0, 5, draw)
    assert [shuffled.patient_ids[row] for row in again] == owners, "names and draw alone decide"
    assert draw_shots(TRAINING.labels, TRAINING.patient_ids, 1, 4, 0) is None  # three patients have it
    assert draw_shots(TRAINING.labels, TRAINING.patient_ids, 2, 1, 0) is None
    # One who has both kinds of images shows the finding and is none without it.
    mixed = np.array([[1.0], [0.0], [0.0]])
    assert draw_shots(mixed, ["a", "a", "b"], 0, 1, 0) == [0, 2]


def test_few_labels_are_scored_beside_all_and_more_teach_more():
    probe, fit = fit_by_patient(TRAINING, VALIDATION)
    whole, bootstrap = predictions(probe), Bootstrap(50)
    few = score_few_labels(
        TRAINING, VALIDATION, TEST, whole, bootstrap, shots=(1, 3, 50, 500), shares=(0.001, 0.1), draws=3
    )
    one, three, fifty, too_many, none, tenth, everything = few
    assert (fit.chosen_on, fit.train_patients, fit.penalty) == ("validation", 200, probe.C)
    assert [each.shots for each in few] == [1, 3, 50, 500, None, None, None]
    assert one.findings_in_mean == three.findings_in_mean == ["Common", "Rare"]
    assert fifty.findings_in_mean == ["Common"] and list(fifty.findings) == ["Common"]
    assert too_many.reason == "no finding has 500 training patients with and 500 without it"
    assert too_many.mean_auroc is None and none.mean_auroc is None
    assert none.reason == "left out: 0.1 % of 200 training patients gives a draw of 0 images, fewer than 10"
    assert tenth.findings_in_mean == ["Common"], "a draw has no patient of the rare one"
    found = [each.findings["Common"].auroc for each in (one, fifty, everything)]
    assert found == sorted(found) and found[-1] > 0.9
    assert len(tenth.penalties) == 3 and 10 < np.mean(tenth.train_images) < 80
    assert everything.mean_auroc == rank_findings(whole, Bootstrap(0)).mean_auroc
    entry = fifty.findings["Common"]
    assert entry.lowest_auroc <= entry.auroc <= entry.highest_auroc
    assert entry.auroc_interval[0] < entry.auroc < entry.auroc_interval[1]
    assert everything.findings["Absent"].reason == "no positive image"
    # By scikit-learn alone.
    rows = [draw_shots(TRAINING.labels, TRAINING.patient_ids, 0, 50, draw) for draw in range(3)]
    mean, std = TRAINING.features.mean(0), TRAINING.features.std(0)
    is_known = ~np.isnan(TEST.labels[:, 0])
    aurocs = []
    for each in rows:
        model = LogisticRegression(C=fifty.penalties[0], tol=1e-9, max_iter=9999)
        model.fit((TRAINING.features[each] - mean) / std, TRAINING.labels[each, 0])
        scores = model.decision_function((TEST.features - mean) / std)
        aurocs.append(roc_auc_score(TEST.labels[is_known, 0], scores[is_known]))
    assert entry.auroc == pytest.approx(np.mean(aurocs), abs=1e-4)
    assert fifty.draw_aurocs == pytest.approx(aurocs, abs=1e-4)


def test_without_validation_a_fifth_of_the_patients_chooses_and_all_are_learned_from():
    probe, fit = fit_by_patient(TRAINING, None)
    assert fit.chosen_on == "a fifth of the training patients" and fit.train_images == len(TRAINING.labels)
    assert list(probe.validation_auroc) == sorted(PENALTIES) and not np.isnan(probe.validation_auroc[1.0])
    np.testing.assert_allclose(probe.mean, TRAINING.features.mean(axis=0, dtype=np.float64))
    alone = FeatureSplit(TRAINING.features[:4], np.array([[1.0], [0], [1], [0]]), ["a"] * 4)
    assert fit_by_patient(alone, None)[1].chosen_on == "nothing"


def test_the_mean_over_equal_draws_is_the_draw():
    probe, _ = fit_by_patient(TRAINING, VALIDATION)
    whole = predictions(probe)
    report = rank_findings(whole, Bootstrap(40))
    means, findings = rank_over_draws([whole, replace(whole)], Bootstrap(40))
    assert means.mean_auroc_interval == pytest.approx(report.mean_auroc_interval)
    for name in ("Common", "Rare"):
        assert findings[name].auroc == pytest.approx(report.findings[name].auroc)
        assert findings[name].auroc_interval == pytest.approx(report.findings[name].auroc_interval)
        assert findings[name].average_precision_interval == pytest.approx(
            report.findings[name].average_precision_interval
        )


def test_figures_are_drawn_where_there_is_something_to_draw(tmp_path):
    probe, fit = fit_by_patient(TRAINING, VALIDATION)
    few = score_few_labels(
        TRAINING, VALIDATION, TEST, predictions(probe), Bootstrap(10), shots=(1, 5), draws=2
    )
    draw_few_labels(replace(fit, few_labels=few), "model", tmp_path, title="Few labels", mark="PHANTOMS")
    assert {path.name for path in tmp_path.iterdir()} == {"label_efficiency.png", "few_shots.png"}
    draw_few_labels(fit, "model", tmp_path, title="Few labels", mark="")
    assert not list(tmp_path.iterdir()), "an earlier probe's are no figure of this one"


def test_intervals_hold_draws_and_patients_together():
    """Draws that differ widen the interval by what their mean varies, whatever patients are scored."""
    generator = np.random.default_rng(7)
    labels = np.repeat([[1.0], [0.0]], 3000, axis=0)  # so many that patients move the mean little
    several = [
        Predictions(labels * shift + generator.normal(size=labels.shape), labels, ["Common"])
        for shift in (-0.5, 0.0, 0.5, 1.5, 2.5)
    ]
    means, findings = rank_over_draws(several, Bootstrap(400))
    aurocs = [rank_findings(each, Bootstrap(0)).mean_auroc for each in several]
    low, high = means.mean_auroc_interval
    assert findings["Common"].auroc_interval == pytest.approx([low, high])
    assert low < means.mean_auroc < high
    expected = 2 * 1.96 * np.std(aurocs, ddof=1) / np.sqrt(5)
    assert high - low == pytest.approx(expected, rel=0.15)
    narrow, _ = rank_over_draws(several[:1] * 5, Bootstrap(400))
    alone, _ = rank_over_draws(several[:1], Bootstrap(400))
    assert narrow.mean_auroc_interval == pytest.approx(alone.mean_auroc_interval), "equal draws add nothing"


def test_a_share_that_leaves_too_few_images_is_left_out_and_says_why():
    probe, _ = fit_by_patient(TRAINING, VALIDATION)
    few = score_few_labels(
        TRAINING, VALIDATION, TEST, predictions(probe), Bootstrap(5), shots=(), shares=(0.01,), draws=3
    )
    assert few[0].mean_auroc is None and not few[0].draw_aurocs
    assert few[0].reason.startswith("left out: 1 % of 200 training patients gives a draw of ")
    assert few[0].reason.endswith(", fewer than 10")
    labels = np.zeros_like(TRAINING.labels)
    labels[0] = 1.0  # one patient has them all
    few = score_few_labels(
        replace(TRAINING, labels=labels),
        None,
        TEST,
        predictions(probe),
        Bootstrap(5),
        shots=(),
        shares=(0.1,),
        draws=5,
    )
    assert few[0].reason.endswith("gives a draw of no finding both with and without it")


def test_the_table_says_why_a_mean_has_no_interval():
    def lines(*intervals):
        few = [
            FewLabels(
                mean_auroc=1.0, mean_auroc_interval=limits, mean_average_precision=1.0,
                mean_average_precision_interval=limits, findings_in_mean=["a"], shots=1, train_images=[2],
                draw_aurocs=[1.0],
            )
            for limits in intervals
        ]  # fmt: skip
        fit = ProbeFit(penalty=1.0, chosen_on="nothing", train_images=2, train_patients=2, few_labels=few)
        return few_labels_lines(fit)

    said = "; none where every resample gives the same value"
    found = lines([0.8, 1.0], None)
    assert found[2].split()[4:6] == ["1.000", "none"] and found[-1].endswith(said)
    assert said not in lines([0.8, 1.0])[-1] + lines(None)[-1]  # all of it, as without resamples


def test_the_log_says_where_the_penalty_was_chosen():
    """It said "validation" of a fifth of the training patients, too."""
    alone = TRAINING.select(np.flatnonzero([patient == "p0" for patient in TRAINING.patient_ids]))
    assert fit_by_patient(alone, None)[1].chosen_on == "nothing"
    places = {"validation": VALIDATION, "a fifth of the training patients": None}
    for place, validation in places.items():
        fitted, fit = fit_by_patient(TRAINING, validation)
        lines = penalty_lines(fitted.validation_auroc, fit)
        reached = fitted.validation_auroc[fit.penalty]
        assert len(lines) == len(PENALTIES) and all(f" on {place}" in line for line in lines)
        assert f"C {fit.penalty:g}: mean AUROC {reached:.4f} on {place}, kept" in lines
        assert sum(line.endswith("kept") for line in lines) == 1
    fitted, fit = fit_by_patient(alone, None)
    [line] = penalty_lines(fitted.validation_auroc, fit)
    assert line == f"C {fit.penalty:g}: by default, as no labels were left to choose it on"
