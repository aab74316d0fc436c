"""Linear probes that learn from few labels: k patients of each label, or a share of all patients.

linear_probe.py fits them, metrics.py scores them; `probe.py` → here. Which patients are drawn depends on the
draw and on their names alone, so that two models learn from the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medhiera.data.seeding import derive_seed
from medhiera.data.selection import draw_label_fraction
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.linear_probe import (
    PENALTIES,
    LinearProbe,
    default_penalty,
    fit_finding,
    fit_probe,
    mean_auroc,
    one_thread,
    standardize,
)
from medhiera.evaluation.metrics import rank_findings, rank_over_draws
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.probe_results import ChosenOn, FewLabels, ProbeFit
from medhiera.evaluation.results import MeanScores

SHOTS = (1, 5, 10, 50)
SHARES = (0.01, 0.1)
DRAWS = 5

FEWEST_IMAGES = 10
"""A share that gives a draw fewer is left out: such a probe is of the draw more than of the features."""

_NO_MEAN = vars(
    MeanScores(
        mean_auroc=None, mean_auroc_interval=None, mean_average_precision=None,
        mean_average_precision_interval=None, findings_in_mean=[],
    )
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class FeatureSplit:
    """Frozen features of some images, and what is true of them.

    Attributes:
        features: (images, size).
        labels: (images, findings); 1, 0 or NaN.
        patient_ids: one an image.
    """

    features: Floats
    labels: Floats
    patient_ids: Sequence[str]

    def select(self, rows: Sequence[int] | NDArray[np.intp]) -> "FeatureSplit":
        """Some of the images."""
        chosen = np.asarray(rows, dtype=np.intp)
        return FeatureSplit(
            self.features[chosen], self.labels[chosen], [self.patient_ids[row] for row in chosen]
        )


def fit_by_patient(training: FeatureSplit, validation: FeatureSplit | None) -> tuple[LinearProbe, ProbeFit]:
    """Fit the probe of all labels, its penalty chosen on patients that it does not learn from.

    Without validation images a fifth of the training patients chooses the penalty; then all are learned from.
    """
    chosen_on: ChosenOn = "validation"
    fitted_on, held_out = training, validation
    if held_out is None:
        chosen_on = "a fifth of the training patients"
        is_in_fifth = np.array([_is_in_fifth(patient) for patient in training.patient_ids])
        held_out = training.select(np.flatnonzero(is_in_fifth))
        fitted_on = training.select(np.flatnonzero(~is_in_fifth)) if not is_in_fifth.all() else training
    probe = fit_probe(fitted_on.features, fitted_on.labels, (held_out.features, held_out.labels))
    if np.isnan(list(probe.validation_auroc.values())).all():
        chosen_on = "nothing"
    if fitted_on is not training:
        again = fit_probe(training.features, training.labels, None, penalties=[probe.C])
        probe = replace(again, validation_auroc=probe.validation_auroc)
    return probe, ProbeFit(
        penalty=probe.C, chosen_on=chosen_on, train_images=len(training.labels),
        train_patients=len(set(training.patient_ids)),
    )  # fmt: skip


def _is_in_fifth(patient: str) -> bool:
    return derive_seed(0, 0, patient, "probe validation") % 5 == 0


def score_few_labels(
    training: FeatureSplit,
    validation: FeatureSplit | None,
    test: FeatureSplit,
    whole: Predictions,
    bootstrap: Bootstrap,
    *,
    shots: Sequence[int] = SHOTS,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
) -> list[FewLabels]:
    """Probes of every number of shots and of every share, beside that of all labels.

    Args:
        training: that is drawn from.
        validation: where penalties are chosen; None takes the middle one.
        test: features that are scored.
        whole: predictions of the probe of all labels on them; its labels, patients and names serve here too.
        bootstrap: of patients, behind every interval.
        shots: patients of each label, ascending.
        shares: of the training images, ascending, below 1; one that leaves fewer than FEWEST_IMAGES is left
            out, as is a finding that some draw has only with or only without.
        draws: of each.
    """
    found = [_score_shots(training, validation, test, whole, bootstrap, k, draws) for k in shots]
    found += [_score_share(training, validation, test, whole, bootstrap, share, draws) for share in shares]
    means, findings = rank_over_draws([whole], bootstrap)
    found.append(
        FewLabels(
            **vars(means),
            share=1.0,
            train_images=[len(training.labels)],
            findings=findings,
            draw_aurocs=_mean_of_each([whole]),
        )  # fmt: skip
    )
    return found


def draw_shots(
    labels: Floats, patient_ids: Sequence[str], finding: int, shots: int, draw: int
) -> list[int] | None:
    """One image each of k patients with a finding and of k patients without it.

    A patient with both kinds of images counts as one with the finding, and shows it. Fewer shots of a draw
    are a part of more.

    Args:
        labels: (images, findings); 1, 0 or NaN.
        patient_ids: one an image.
        finding: its column.
        shots: k.
        draw: its number.

    Returns:
        2k images' numbers, those with the finding first; None where there are fewer patients.
    """
    positive, negative = (_images_of(labels[:, finding] == value, patient_ids) for value in (1, 0))
    for patient in positive:
        negative.pop(patient, None)
    if min(len(positive), len(negative)) < shots:
        return None
    rows = []
    for images in (positive, negative):
        line = sorted(images, key=lambda patient: derive_seed(draw, finding, patient, "shots"))
        for patient in line[:shots]:
            rows.append(images[patient][derive_seed(draw, finding, patient, "image") % len(images[patient])])
    return rows


def _images_of(is_in: NDArray[np.bool_], patient_ids: Sequence[str]) -> dict[str, list[int]]:
    """Patient → the numbers of their images among some."""
    found: dict[str, list[int]] = {}
    for row in np.flatnonzero(is_in).tolist():
        found.setdefault(patient_ids[row], []).append(row)
    return found


def _score_shots(
    training: FeatureSplit,
    validation: FeatureSplit | None,
    test: FeatureSplit,
    whole: Predictions,
    bootstrap: Bootstrap,
    shots: int,
    draws: int,
) -> FewLabels:
    """Each finding learned from so many patients of each label; one penalty for all findings and draws."""
    mean, std = standardize(training.features)  # needs no label
    chosen: dict[tuple[int, int], list[int]] = {}
    for finding in range(training.labels.shape[1]):
        for draw in range(draws):
            rows = draw_shots(training.labels, training.patient_ids, finding, shots, draw)
            if rows is not None:
                chosen[draw, finding] = rows
    kept = sorted({finding for _, finding in chosen})
    if not kept:
        return FewLabels(
            **_NO_MEAN, shots=shots,
            reason=f"no finding has {shots} training patients with and {shots} without it",
        )  # fmt: skip

    def probes(penalty: float) -> list[LinearProbe]:
        """One a draw, of the findings that are kept."""
        fitted = []
        for draw in range(draws):
            weights, bias = np.zeros((len(kept), training.features.shape[1])), np.zeros(len(kept))
            with one_thread():
                for place, finding in enumerate(kept):
                    rows = chosen[draw, finding]
                    scaled = (training.features[rows] - mean) / std
                    weights[place], bias[place] = fit_finding(scaled, training.labels[rows, finding], penalty)
            fitted.append(LinearProbe(mean, std, weights, bias, penalty))
        return fitted

    penalty, best = _choose(probes, validation, kept)
    several = [_predict(probe, test, whole, kept) for probe in best]
    means, findings = rank_over_draws(several, bootstrap)
    return FewLabels(
        **vars(means), shots=shots, train_images=[2 * shots] * draws, penalties=[penalty], findings=findings,
        draw_aurocs=_mean_of_each(several),
    )  # fmt: skip


def _choose(
    probes: Callable[[float], list[LinearProbe]], validation: FeatureSplit | None, kept: Sequence[int]
) -> tuple[float, list[LinearProbe]]:
    """The penalty with the highest mean validation AUROC over draws and findings, and its probes."""
    reached: dict[float, float] = {}
    fitted: dict[float, list[LinearProbe]] = {}
    for penalty in PENALTIES if validation is not None else ():
        assert validation is not None
        fitted[penalty] = probes(penalty)
        aurocs = [
            mean_auroc(each, validation.features, validation.labels[:, kept]) for each in fitted[penalty]
        ]
        if not np.isnan(aurocs).any():
            reached[penalty] = float(np.mean(aurocs))
    if not reached:
        return default_penalty(PENALTIES), probes(default_penalty(PENALTIES))
    best = max(reached, key=lambda penalty: reached[penalty])
    return best, fitted[best]


def _score_share(
    training: FeatureSplit,
    validation: FeatureSplit | None,
    test: FeatureSplit,
    whole: Predictions,
    bootstrap: Bootstrap,
    share: float,
    draws: int,
) -> FewLabels:
    """The findings that every draw has both with and without, learned from a share of the patients."""
    drawn = [
        draw_label_fraction(training.labels == 1, training.patient_ids, share, draw) for draw in range(draws)
    ]
    learned = [training.labels[rows] for rows in drawn]
    has_both = np.all([(each == 1).any(axis=0) & (each == 0).any(axis=0) for each in learned], axis=0)
    kept = np.flatnonzero(has_both).tolist()
    fewest = min(map(len, drawn))
    if fewest < FEWEST_IMAGES or not kept:
        patients = len(set(training.patient_ids))
        reason = f"left out: {100 * share:g} % of {patients:,} training patients gives a draw of "
        if fewest < FEWEST_IMAGES:
            reason += f"{fewest} image{'' if fewest == 1 else 's'}, fewer than {FEWEST_IMAGES}"
        else:
            reason += "no finding both with and without it"
        return FewLabels(**_NO_MEAN, share=share, reason=reason)
    pair = None if validation is None else (validation.features, validation.labels[:, kept])
    probes = [
        fit_probe(training.features[rows], labels[:, kept], pair)
        for rows, labels in zip(drawn, learned, strict=True)
    ]
    several = [_predict(probe, test, whole, kept) for probe in probes]
    means, findings = rank_over_draws(several, bootstrap)
    return FewLabels(
        **vars(means), share=share, train_images=[len(rows) for rows in drawn],
        penalties=[probe.C for probe in probes], findings=findings, draw_aurocs=_mean_of_each(several),
    )  # fmt: skip


def _predict(probe: LinearProbe, test: FeatureSplit, whole: Predictions, kept: Sequence[int]) -> Predictions:
    """What a probe of some findings says of the scored images; `whole` knows the rest."""
    names = [whole.finding_names[finding] for finding in kept]
    return Predictions(
        probe.scores(test.features), whole.labels[:, kept], names, whole.patient_ids, whole.rows
    )


def _mean_of_each(several: Sequence[Predictions]) -> list[float]:
    """Mean AUROC over findings, of each draw; none where no finding has one."""
    found = [rank_findings(each, Bootstrap(0)).mean_auroc for each in several]
    return [value for value in found if value is not None]
