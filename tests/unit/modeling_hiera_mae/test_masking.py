import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_hiera_mae import noise_from_scores
from modeling_hiera_mae.masking import count_kept, mask_from_noise


def test_the_smallest_noise_stays():
    mask = mask_from_noise(torch.tensor([[0.3, 0.1, 0.9, 0.2]]), 2)
    assert mask.kept.tolist() == [[1, 3]]
    assert mask.masked.tolist() == [[0, 2]]
    assert mask.is_kept.tolist() == [[False, True, False, True]]
    assert mask.ids_restore.tolist() == [[2, 0, 3, 1]]


@given(st.integers(1, 6), st.integers(2, 80), st.data())
def test_kept_and_masked_are_all_units_once(batch, units, data):
    kept = data.draw(st.integers(1, units - 1))
    mask = mask_from_noise(torch.rand(batch, units), kept)
    assert mask.kept.shape == (batch, kept)
    both = torch.cat([mask.kept, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(units).expand(batch, units))
    assert torch.equal(mask.is_kept.sum(1), torch.full((batch,), kept))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_ratios_outside_the_open_interval_are_refused(ratio):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        count_kept(49, ratio)


def test_ratios_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="keeps 0 of 4 mask units"):
        count_kept(4, 0.9)
    assert count_kept(49, 0.6) == 19


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("inf")]), min_size=2, max_size=30), st.integers(0, 9)
)
def test_the_highest_scores_are_kept(scores, seed):
    scores = torch.tensor([scores])
    tie_break = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))
    noise = noise_from_scores(scores, tie_break)
    assert noise.unique().numel() == scores.numel()
    for kept in range(1, scores.numel()):
        mask = mask_from_noise(noise, kept)
        assert scores[mask.is_kept].min() >= scores[~mask.is_kept].max()


def test_ties_go_by_the_tie_break_or_by_index():
    scores = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert noise_from_scores(scores).tolist() == [[0, 0.25, 0.5, 0.75]]
    tie_break = torch.tensor([[0.9, 0.5, 0.1, 0.3]])
    assert noise_from_scores(scores, tie_break).tolist() == [[0, 0.75, 0.25, 0.5]]


def test_scores_of_any_type_and_no_side_effects():
    scores = torch.tensor([[3, 7, 5]])
    before = scores.clone()
    assert noise_from_scores(scores).argsort(1).tolist() == [[1, 2, 0]]
    assert torch.equal(scores, before)


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match=r"scores have shape \(4,\)"):
        noise_from_scores(torch.zeros(4))
    with pytest.raises(ValueError, match="NaN"):
        noise_from_scores(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match=r"tie_break has shape \(1, 3\); wanted \(1, 2\)"):
        noise_from_scores(torch.zeros(1, 2), torch.zeros(1, 3))
