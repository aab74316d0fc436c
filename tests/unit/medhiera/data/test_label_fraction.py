"""A share of the labels is of whole patients, keeps each finding's share, and is part of each larger one."""

import math
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from medhiera.data.selection import take_label_fraction
from medhiera.errors import UserError


@pytest.fixture(scope="module")
def labeled() -> Dataset:
    """Four thousand images of two thousand patients: a fifth with an opacity, one finding not annotated."""
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 2000, 4000)
    is_ill = rng.random(2000) < 0.2
    labels = [[float(is_ill[patient]), math.nan] for patient in patients]
    names = [f"image {number}" for number in range(4000)]
    return Dataset.from_dict(
        {"image_id": names, "patient_id": [f"patient {p}" for p in patients], "labels": labels}
    )


def test_fractions_are_nested_stratified_and_of_whole_patients(labeled: Dataset) -> None:
    whole = Counter(labeled["patient_id"])
    positives = np.array(labeled["labels"])[:, 0].sum()
    for seed in range(5):
        parts = {share: take_label_fraction(labeled, share, seed) for share in (0.01, 0.1, 0.5, 1.0)}
        ids = {share: set(rows["image_id"]) for share, rows in parts.items()}
        assert ids[0.01] < ids[0.1] < ids[0.5] < ids[1.0] == set(labeled["image_id"])
        for share, rows in parts.items():
            assert len(rows) == pytest.approx(share * 4000, abs=10)
            assert np.array(rows["labels"])[:, 0].sum() == pytest.approx(share * positives, abs=10)
            assert all(whole[patient] == count for patient, count in Counter(rows["patient_id"]).items())
            order = [int(name.split()[1]) for name in rows["image_id"]]
            assert order == sorted(order)


def test_a_fraction_depends_on_the_seed_and_not_on_the_order(labeled: Dataset) -> None:
    chosen = set(take_label_fraction(labeled, 0.1, seed=3)["image_id"])
    assert set(take_label_fraction(labeled.shuffle(seed=1), 0.1, seed=3)["image_id"]) == chosen
    other = set(take_label_fraction(labeled, 0.1, seed=4)["image_id"])
    assert len(chosen & other) < 0.3 * len(chosen)


def test_findings_that_few_patients_share_are_neither_always_nor_never_taken() -> None:
    labels = [[float(bit) for bit in f"{number:010b}"] for number in range(1024)]  # each set of findings once
    rows = Dataset.from_dict(
        {
            "image_id": [str(n) for n in range(1024)],
            "patient_id": [str(n) for n in range(1024)],
            "labels": labels,
        }
    )
    assert 60 < len(take_label_fraction(rows, 0.1, seed=0)) < 150


def test_a_fraction_of_nothing_is_refused(labeled: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"label_fraction 1e-06 of 4000 training images.*raise it"):
        take_label_fraction(labeled, 1e-6, seed=0)
    rows = labeled.select(range(200))
    with caplog.at_level("INFO", logger="medhiera"):
        few = take_label_fraction(rows, 0.01, seed=2)
    assert f"label_fraction 0.01: {len(few)} of 200 training images" in caplog.text
