import torch
from transformers.models.hiera.modeling_hiera import unroll as stock_unroll

from modeling_hiera_mae.windowing import (
    cut_units,
    pool_queries,
    reroll,
    take_units,
    to_stock_order,
    undo_windowing,
    unroll,
)


def test_unroll_is_that_of_transformers_in_another_layout():
    tokens = torch.randn(2, 16, 24, 5)
    wanted = stock_unroll(tokens.flatten(1, 2), (64, 96), (4, 4), [[2, 2]] * 3)
    assert torch.equal(to_stock_order(unroll(tokens, (2, 2), 3)), wanted)


def test_reroll_and_undo_windowing_undo_unroll():
    for stride, levels in (((2, 2), 3), ((2, 3), 2), ((3, 1), 1), ((2, 2), 0)):
        height, width = 2 * stride[0] ** levels, 3 * stride[1] ** levels
        tokens = torch.arange(2 * height * width * 4.0).reshape(2, height, width, 4)
        units = reroll(unroll(tokens, stride, levels), stride, levels)
        assert torch.equal(undo_windowing(units, (2, 3)), tokens)


def test_pooling_unrolled_tokens_is_max_pooling():
    tokens = torch.randn(2, 16, 8, 5)
    pooled = reroll(pool_queries(unroll(tokens, (2, 2), 3), (2, 2)), (2, 2), 2)
    wanted = torch.nn.functional.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(undo_windowing(pooled, (2, 1)), wanted)


def test_pooling_takes_groups_of_any_number():
    tokens = torch.randn(1, 1, 6, 2)
    assert torch.equal(pool_queries(tokens, (3, 1)), tokens.unflatten(2, (3, 2)).amax(2))
    assert pool_queries(tokens.to("meta"), (3, 1)).shape == (1, 1, 2, 2)


def test_cut_units_cuts_where_units_are():
    images = torch.arange(2 * 3 * 64 * 96.0).reshape(2, 3, 64, 96)
    chosen = torch.tensor([[0, 5], [4, 1]])
    cut = cut_units(images, (32, 32), chosen)
    assert torch.equal(cut[0, 1], images[0, :, 32:, 64:])
    assert torch.equal(cut[1, 0], images[1, :, 32:, 32:64])
    padded = torch.nn.functional.pad(images, (0, 3, 0, 2))
    with_reach = cut_units(padded, (32, 32), chosen, reach=(2, 3))
    assert torch.equal(with_reach[0, 0], images[0, :, :34, :35])


def test_take_units_takes_them_of_each_sample():
    values = torch.arange(12).reshape(2, 3, 2)
    assert take_units(values, torch.tensor([[2], [0]])).tolist() == [[[4, 5]], [[6, 7]]]
