import pytest
import torch

from modeling_hiera_mae.position_embeddings import resize_positions


def positions_of(rows, columns, channels=4):
    return torch.randn(1, rows * columns, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("interpolation", ["bicubic", "windowed"])
def test_the_same_grid_is_left_as_it_is(interpolation):
    positions = positions_of(16, 24)
    assert resize_positions(positions, (16, 24), (16, 24), (8, 8), interpolation) is positions


@pytest.mark.parametrize("interpolation", ["bicubic", "windowed"])
@pytest.mark.parametrize("target", [(32, 32), (16, 40), (40, 24), (8, 8)])
def test_any_grid_of_whole_units(interpolation, target):
    resized = resize_positions(positions_of(16, 16), (16, 16), target, (8, 8), interpolation)
    assert resized.shape == (1, target[0] * target[1], 4)
    assert resized.isfinite().all()


def test_windowed_tiles_what_repeats_exactly():
    unit = torch.randn(8, 8, 4)
    positions = unit.repeat(2, 3, 1).reshape(1, -1, 4)
    resized = resize_positions(positions, (16, 24), (40, 16), (8, 8), "windowed")
    assert torch.allclose(resized.reshape(40, 16, 4), unit.repeat(5, 2, 1), atol=1e-6)
    plain = resize_positions(positions, (16, 24), (40, 16), (8, 8), "bicubic")
    assert not torch.allclose(plain, resized, atol=0.1)


def test_windowed_stretches_what_does_not_repeat():
    ramp = torch.arange(4.0).repeat_interleave(8)  # one value a unit: nothing repeats
    positions = ramp[:, None].expand(32, 8).reshape(1, -1, 1)
    kinds = ("windowed", "bicubic")
    resized = [resize_positions(positions, (32, 8), (64, 8), (8, 8), kind) for kind in kinds]
    assert torch.allclose(*resized, atol=1e-5)


def test_half_precision_is_interpolated_in_full_and_returned_in_half():
    positions = positions_of(16, 16)
    half = resize_positions(positions.bfloat16(), (16, 16), (32, 32), (8, 8), "bicubic")
    full = resize_positions(positions.bfloat16().float(), (16, 16), (32, 32), (8, 8), "bicubic")
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())
