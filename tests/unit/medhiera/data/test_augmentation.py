"""What is drawn for an image: by its key alone, and distributed as torchvision's."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from medhiera.config.arguments import AugmentationArguments
from medhiera.data.augmentation import Augmentation
from medhiera.data.batch_augmentation import OPERATIONS
from medhiera.data.masks import MaskDrawing
from medhiera.data.seeding import derive_seed, uniform

KEYS = np.array([derive_seed(0, 0, f"image {n}", "image") for n in range(20_000)], np.uint64)
ALL = Augmentation(0.3, has_flip=True, has_rand_augment=True, rotation_degrees=10.0)


def test_splitmix_gives_its_published_numbers():
    """The sequence of seed 1234567 as Vigna's splitmix64.c prints it, cut to 24 bits."""
    published = np.array([6457827717110365317, 3203168211198807973, 9817491932198370423], np.uint64)
    expected = (published >> np.uint64(40)).astype(np.float32) / 2**24
    assert np.array_equal(uniform(np.array([1234567], np.uint64), 0, 3)[0], expected)
    assert np.array_equal(uniform(np.array([1234567], np.uint64), 1, 2)[0], expected[1:])


def test_numbers_are_uniform_and_independent_of_their_neighbours():
    drawn = uniform(KEYS, 0, 40)
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / len(KEYS))
    correlations = np.corrcoef(drawn.T) - np.eye(40)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(KEYS))
    assert len(np.unique(drawn[:, 0])) > 0.99 * len(KEYS)


@pytest.mark.parametrize("size", [(256, 256), (256, 400), (256, 40)])
def test_boxes_are_distributed_as_torchvisions(size):
    ours = Augmentation(0.3).boxes(KEYS, np.full((len(KEYS), 2), size))
    crop = v2.RandomResizedCrop(224, scale=(0.3, 1.0))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        drawn = [crop.make_params([torch.zeros(1, *size)]) for _ in range(2000)]
    theirs = np.array([[box[name] for name in ("top", "left", "height", "width")] for box in drawn])
    assert (ours[:, 2:] > 0).all() and (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    for column in range(4):
        spread = max(theirs[:, column].std(), 0.2)
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 5 * spread / np.sqrt(len(theirs))
        assert abs(ours[:, column].std() - theirs[:, column].std()) < 5 * spread / np.sqrt(len(theirs))


def test_draws_are_what_the_recipe_has():
    assert Augmentation.of(AugmentationArguments()) == Augmentation()
    assert Augmentation().draws(KEYS) == {}
    options = AugmentationArguments(random_crop_scale=0.3, horizontal_flip=True, rand_augment=True)
    assert Augmentation.of(options, 10.0) == ALL
    drawn = ALL.draws(KEYS)
    assert drawn["is_flipped"].float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn["angle"].min() < -9.9 and drawn["angle"].max() > 9.9 and drawn["angle"].abs().max() <= 10
    operations, signs = drawn["operations"].unbind(-1)
    shares = torch.bincount(operations.long().flatten(), minlength=len(OPERATIONS)) / operations.numel()
    assert len(shares) == len(OPERATIONS)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 13), rtol=0, atol=0.01)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0} and abs(signs.mean()) < 0.03


def test_no_draw_depends_on_the_recipes_others():
    noise = MaskDrawing((7, 7), 0.6).noise(KEYS[:4])
    assert noise.shape == (4, 49) and noise.dtype == torch.float32
    assert torch.equal(Augmentation(has_flip=True).draws(KEYS)["is_flipped"], ALL.draws(KEYS)["is_flipped"])
    part = ALL.draws(KEYS[10:20])
    for name, values in ALL.draws(KEYS).items():
        assert torch.equal(values[10:20], part[name])


def test_the_same_angle_is_drawn_for_either_interpolation():
    nearest = Augmentation.of(AugmentationArguments(), 30.0, True).draws(KEYS)
    assert list(nearest) == ["nearest_angle"]
    assert torch.equal(nearest["nearest_angle"], Augmentation(rotation_degrees=30.0).draws(KEYS)["angle"])
