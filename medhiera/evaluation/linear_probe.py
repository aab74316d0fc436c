"""A linear probe: logistic regression on frozen features, its penalty chosen on validation.

`probe.py` hands it the features of three splits.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from medhiera.evaluation.bootstrap import Floats

PENALTIES = tuple(10.0**power for power in range(-4, 3))
"""scikit-learn's C that are tried; a small one is a strong penalty."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """One linear classifier a finding, on features brought to mean 0 and deviation 1.

    Attributes:
        mean: (features,), of the training images.
        std: (features,), the same; 1 where a feature never changes.
        weights: (findings, features).
        bias: (findings,).
        C: the inverse penalty that was chosen.
        validation_auroc: C → mean AUROC of the validation images, NaN where no finding has one.
    """

    mean: Floats
    std: Floats
    weights: Floats
    bias: Floats
    C: float
    validation_auroc: dict[float, float] = field(default_factory=dict)

    def scores(self, features: Floats) -> Floats:
        """Probabilities: (images, features) → (images, findings), float64."""
        logits = (features - self.mean) / self.std @ self.weights.T + self.bias
        return np.asarray(expit(logits), dtype=np.float64)


def fit_probe(
    features: Floats,
    labels: Floats,
    validation: tuple[Floats, Floats] | None,
    penalties: Sequence[float] = PENALTIES,
) -> LinearProbe:
    """Fit every finding by each penalty, and keep the penalty with the highest mean validation AUROC.

    One penalty serves all findings, as a rare one has too few validation images to choose its own. Where
    two reach the same the stronger is kept, and the middle one where validation decides nothing.

    Args:
        features: (images, features) of the training images.
        labels: (images, findings); 1, 0 or NaN (not annotated, left out). A finding that all images have, or
            none has, gets its share in training as its probability.
        validation: the same two of held-out images; None where there are none.
        penalties: C to try, in any order.

    Raises:
        ValueError: no training image.
    """
    if not len(features):
        raise ValueError("no training image to fit a probe on")
    mean, std = standardize(features)
    scaled = (features - mean) / std
    tried: dict[float, LinearProbe] = {}
    reached: dict[float, float] = {}
    for C in sorted(penalties):
        weights, bias = _fit(scaled, labels, C)
        tried[C] = LinearProbe(mean, std, weights, bias, C)
        reached[C] = np.nan if validation is None else mean_auroc(tried[C], *validation)
    known = {C: value for C, value in reached.items() if not np.isnan(value)}
    best = max(known, key=lambda C: known[C]) if known else default_penalty(penalties)
    chosen = tried[best]
    return LinearProbe(mean, std, chosen.weights, chosen.bias, best, reached)


def default_penalty(penalties: Sequence[float]) -> float:
    """The middle one, where nothing decides."""
    return sorted(penalties)[len(penalties) // 2]


def standardize(features: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each feature, (features,) both; 1 where a feature never changes."""
    std = features.std(axis=0, dtype=np.float64)
    return features.mean(axis=0, dtype=np.float64), np.where(std > 0, std, 1.0)


def _fit(scaled: Floats, labels: Floats, C: float) -> tuple[Floats, Floats]:
    """(findings, features) and (findings,)."""
    weights, bias = np.zeros((labels.shape[1], scaled.shape[1])), np.zeros(labels.shape[1])
    with one_thread():
        for finding, column in enumerate(labels.T):
            is_annotated = ~np.isnan(column)
            truth = column[is_annotated] == 1
            if truth.all() or not truth.any():  # also where nothing is annotated
                share = (truth.sum() + 1) / (len(truth) + 2)
                bias[finding] = np.log(share / (1 - share))
                continue
            weights[finding], bias[finding] = fit_finding(scaled[is_annotated], truth, C)
    return weights, bias


def one_thread() -> AbstractContextManager[Any]:
    """Around fits: products as small as theirs are slower on several threads."""
    return threadpool_limits(1, user_api="blas")


def fit_finding(scaled: Floats, truth: NDArray[Any], C: float) -> tuple[Floats, float]:
    """scikit-learn's logistic regression of one finding, fitted to its end: weights (features,) and bias.

    By its own tolerance of 1e-4 it stops early where the penalty is weak, and rounding of the features then
    moves scores by .03: the images of one batch are rounded otherwise than another's.

    Args:
        scaled: (images, features), standardized.
        truth: (images,), with both values among them.
        C: the inverse penalty.
    """
    solver = "newton-cholesky" if len(scaled) > 4 * scaled.shape[1] else "lbfgs"  # the faster one; equal ends
    model = LogisticRegression(C=C, solver=solver, tol=1e-9, max_iter=20_000).fit(scaled, truth)
    return model.coef_[0], float(model.intercept_[0])


def mean_auroc(probe: LinearProbe, features: Floats, labels: Floats) -> float:
    """Over the findings of which some validation images have each label; NaN where there is none."""
    scores = probe.scores(features)
    found = []
    for finding, column in enumerate(labels.T):
        is_annotated = ~np.isnan(column)
        truth = column[is_annotated] == 1
        if truth.any() and not truth.all():
            found.append(roc_auc_score(truth, scores[is_annotated, finding]))
    return float(np.mean(found)) if found else float("nan")
