"""Stratification by patient: shares kept, patients whole, the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.splits import stratified_patients, thirds


def counts_of(seed: int, patients: int, labels: int = 6) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.01, 0.5, labels)
    images = rng.integers(1, 12, patients)
    return {str(index): rng.binomial(images[index], rates).tolist() for index in range(patients)}


def test_every_label_keeps_its_share() -> None:
    counts = counts_of(0, 3000)
    chosen = stratified_patients(counts, 0.1)
    total = np.sum(list(counts.values()), axis=0)
    part = np.sum([counts[patient] for patient in chosen], axis=0)
    assert np.abs(part / total - 0.1).max() < 0.005


def test_a_random_choice_of_patients_would_not_pass_the_test_above() -> None:
    counts = counts_of(0, 3000)
    rng = np.random.default_rng(0)
    total = np.sum(list(counts.values()), axis=0)
    worst = []
    for _ in range(20):
        chosen = rng.choice(sorted(counts), 300, replace=False)
        worst.append(np.abs(np.sum([counts[patient] for patient in chosen], axis=0) / total - 0.1).max())
    assert np.median(worst) > 0.005


def test_a_rare_label_reaches_both_sides() -> None:
    counts = {str(index): [1.0, float(index < 4)] for index in range(100)}
    chosen = stratified_patients(counts, 0.1)
    assert 1 <= sum(counts[patient][1] for patient in chosen) <= 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.05, 0.5))
def test_order_of_the_patients_does_not_matter(seed: int, patients: int, fraction: float) -> None:
    counts = counts_of(seed, patients)
    backwards = dict(reversed(counts.items()))
    chosen = stratified_patients(counts, fraction)
    assert chosen == stratified_patients(backwards, fraction)
    assert chosen <= counts.keys()


def test_another_seed_is_another_split() -> None:
    counts = counts_of(1, 500)
    assert stratified_patients(counts, seed=1) != stratified_patients(counts, seed=2)


def test_a_fraction_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1\.5"):
        stratified_patients({"a": [1.0]}, 1.5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=50))
def test_thirds_are_the_list_in_order(names: list[int]) -> None:
    parts = thirds(names)
    assert [name for part in parts for name in part] == names
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_official_list_is_cut_in_three_equal_parts() -> None:
    assert [len(part) for part in thirds(range(25_596))] == [8_532] * 3
