"""Mean and std against the plain formulas, whatever the order and number of workers."""

import json

import numpy as np
import pytest

from dataset_scripts.build.pixel_statistics import PixelHistogram


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.clip(rng.normal(60 + 20 * index, 30, (20 + index, 31)), 0, 255).astype(np.uint8)
        for index in range(9)
    ]


def histogram(images: list[np.ndarray]) -> PixelHistogram:
    counted = PixelHistogram()
    for image in images:
        counted.add(image)
    return counted


def test_each_image_weighs_the_same(images: list[np.ndarray]) -> None:
    statistics = histogram(images).statistics()
    values = [image / 255.0 for image in images]
    mean = np.mean([value.mean() for value in values])
    second = np.mean([(value**2).mean() for value in values])
    assert statistics["mean"] == pytest.approx(mean, abs=1e-9)
    assert statistics["std"] == pytest.approx(np.sqrt(second - mean**2), abs=1e-9)
    assert statistics["mean_of_stds"] == pytest.approx(np.mean([value.std() for value in values]), abs=1e-9)
    assert statistics["images"] == 9
    assert statistics["mean_of_stds"] < statistics["std"]


def test_any_number_of_workers_gives_the_same_bits(images: list[np.ndarray]) -> None:
    one = histogram(images).statistics()
    parts = [histogram(images[3:]), histogram(images[1:3]), histogram(images[:1])]
    handed_over = [json.loads(json.dumps(part.to_json())) for part in parts]
    assert PixelHistogram.merged(handed_over).statistics() == one


def test_no_image_is_no_mean() -> None:
    with pytest.raises(ValueError, match="No image was counted"):
        PixelHistogram().statistics()
