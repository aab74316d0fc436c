"""Drawings that the chest contour is trained on, and the training command."""

import numpy as np
import torch
from safetensors.torch import load_file

from dataset_scripts.build.contour_network import WEIGHTS, ContourNetwork
from dataset_scripts.phantom import contour_training
from dataset_scripts.phantom.varied_chest import SIZE, draw_varied_chest


def test_a_chest_is_a_picture_and_its_lungs():
    shares = []
    for index in range(40):
        picture, is_lung = draw_varied_chest(np.random.default_rng([5, index]))
        assert picture.shape == is_lung.shape == (SIZE, SIZE)
        assert picture.dtype == np.uint8 and is_lung.dtype == np.bool_
        assert np.ptp(picture) > 30
        shares.append(is_lung.mean())
    assert 0.02 < min(shares) and max(shares) < 0.8
    assert np.std(shares) > 0.05  # they are not one chest again and again


def test_the_same_generator_draws_the_same_chest():
    first, second, other = (draw_varied_chest(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != other[0]).any()


def test_lungs_are_darker_than_what_is_between_them():
    """True of most drawings; some are inverted, or their lungs white."""
    darker = []
    for index in range(40):
        picture, is_lung = draw_varied_chest(np.random.default_rng([6, index]))
        rows, columns = np.nonzero(is_lung)
        between = ~is_lung[rows.min() : rows.max(), columns.min() : columns.max()]
        box = picture[rows.min() : rows.max(), columns.min() : columns.max()]
        darker.append(picture[is_lung].mean() < box[between].mean())
    assert np.mean(darker) > 0.75


def test_the_command_writes_weights_that_the_contour_reads(tmp_path):
    file = tmp_path / "weights.safetensors"
    contour_training.main([str(file), "--pictures", "4", "--steps", "4"])
    trained, kept = load_file(file), load_file(WEIGHTS)
    assert {name: weight.shape for name, weight in trained.items()} == {
        name: weight.shape for name, weight in kept.items()
    }
    ContourNetwork().load_state_dict(trained)
    assert file.stat().st_size == WEIGHTS.stat().st_size < 400_000
    assert any((trained[name] != kept[name]).any() for name in trained)


def test_folding_the_normalization_changes_no_output():
    torch.manual_seed(0)
    network = ContourNetwork(normalize=True)
    context = torch.randn(4, 5, 64, 64)
    network(context)  # in training: statistics that are not 0 and 1
    network.eval()
    folded = ContourNetwork().eval()
    folded.load_state_dict({name: w.float() for name, w in contour_training.fold_batch_norm(network).items()})
    with torch.inference_mode():
        torch.testing.assert_close(folded(context), network(context), rtol=0, atol=0.02)  # float16
