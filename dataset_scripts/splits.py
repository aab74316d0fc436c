"""Who is held out: pure functions from patients and labels to splits.

Stands between a source's lists and its records. Nothing here opens a file, so a split depends on the
published lists alone: a partial download keeps the same split.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

VALIDATION_FRACTION = 0.1

SEED = 20170929  # fixed for good: another seed is another benchmark

HELD_OUT = ("validation_mae", "validation", "test")

SPLITS = ("train", *HELD_OUT)

SPLIT_SCHEMES = ("official", "medtransformer", "mrm", "r2gen")

MEDTRANSFORMER_PARTS = HELD_OUT  # the paper's order of the three parts of the test list

T = TypeVar("T")


def thirds(names: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
    """Cut a list in three consecutive parts whose lengths differ by one at most.

    The MedTransformer paper cuts the official test list like this, in file order: validation of the MAE,
    validation of the classifier, test. The list is sorted by patient, so a patient can straddle a cut and
    the rare findings are spread unevenly; the `official` split is the honest one.
    """
    first, second = len(names) // 3, 2 * len(names) // 3
    return names[:first], names[first:second], names[second:]


def stratified_patients(
    label_counts: Mapping[str, Sequence[float]],
    fraction: float = VALIDATION_FRACTION,
    seed: int = SEED,
) -> frozenset[str]:
    """Choose patients so that every label keeps its share: iterative stratification by patient.

    Labels are served from the rarest to the most common. Each patient who has the label goes to the
    side that, after taking all of the patient's images, keeps the larger part of its wanted number of
    images of this label. A label held by three patients or more gets at least one image wanted.

    Args:
        label_counts: patient → images with each label; every patient the same length.
        fraction: share of images wanted in the chosen part, 0 < fraction < 1.
        seed: order in which patients of one label are served.

    Returns:
        The chosen patients.

    Raises:
        ValueError: fraction is out of range.
    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", by
    groups instead of single examples.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; wanted a share between 0 and 1, for example 0.1.")
    patients = sorted(label_counts)
    if not patients:
        return frozenset()
    counts = np.array([label_counts[patient] for patient in patients], dtype=np.float64)
    totals = counts.sum(axis=0)
    holders = (counts > 0).sum(axis=0)
    chosen_wanted = np.where(holders >= 3, np.maximum(totals * fraction, 1.0), totals * fraction)
    wanted = np.stack([chosen_wanted, totals - chosen_wanted])  # (side, label); side 0 is the chosen part
    needed = wanted.copy()
    order = np.random.default_rng(seed).permutation(len(patients))
    is_open = np.ones(len(patients), dtype=bool)
    is_chosen = np.zeros(len(patients), dtype=bool)
    while True:
        left = counts[is_open].sum(axis=0)
        if not left.any():
            break
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        for index in order[(counts[order, label] > 0) & is_open[order]]:
            after = (needed[:, label] - counts[index, label]) / np.maximum(wanted[:, label], 1e-9)
            side = 0 if after[0] > after[1] else 1
            needed[side] -= counts[index]
            is_chosen[index] = side == 0
            is_open[index] = False
    return frozenset(patient for patient, chosen in zip(patients, is_chosen, strict=True) if chosen)
