"""Masks that follow a region of the picture: how many are kept where; crop and flip move them along."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from dataset_scripts.findings import CHEST_REGION
from medhiera.data.masks import MaskDrawing, rectangle_region
from medhiera.errors import UserError

KEYS = np.arange(1, 129, dtype=np.uint64)
WHOLE = np.tile([0.0, 0.0, 1.0, 1.0], (len(KEYS), 1))
SEED = MaskDrawing((40, 40), 0.885, "rectangle", block=2)  # the paper's code at 1280 pixels


def kept_units(masks, noise):
    """(batch, rows, columns): what the model keeps."""
    units = noise.shape[1]
    kept = int(units * (1 - masks.mask_ratio) + 1e-9)
    return (noise.argsort(1).argsort(1) < kept).reshape(-1, *masks.grid)


def test_the_rectangle_keeps_the_papers_6_inside_and_40_outside():
    inside = SEED.blocks_inside([rectangle_region()] * len(KEYS), WHOLE)
    of_paper = np.zeros((20, 20), bool)
    of_paper[6:16, 3:16] = True
    assert (inside.reshape(-1, 20, 20) == of_paper).all()
    kept = kept_units(SEED, SEED.noise(KEYS, inside)).reshape(-1, 20, 2, 20, 2).float().mean((2, 4))
    assert set(kept.unique().tolist()) == {0, 1}, "blocks of two units are kept or hidden whole"
    assert (kept[:, of_paper].sum(1) == 6).all() and (kept[:, ~of_paper].sum(1) == 40).all()
    assert len(kept.unique(dim=0)) == len(KEYS)
    # Every block outside has the same chance, and so has every block inside.
    often = SEED.noise(np.arange(4000, dtype=np.uint64), np.tile(inside[:1], (4000, 1)))
    share = kept_units(SEED, often).reshape(-1, 20, 2, 20, 2).float().mean((0, 2, 4))
    assert (
        share[of_paper].sub(6 / 130).abs().max() < 0.015
        and share[~of_paper].sub(40 / 270).abs().max() < 0.025
    )


@pytest.mark.parametrize(
    ("grid", "ratio", "block", "odds", "n_in"),
    [
        ((7, 7), 0.6, 1, 3.0, 20),
        ((7, 7), 0.6, 2, 3.0, 16),
        ((16, 16), 0.75, 2, 1.0, 30),
        ((4, 6), 0.5, 1, 1e6, 20),
    ],
)
def test_any_grid_keeps_as_many_units_as_the_ratio_says(grid, ratio, block, odds, n_in):
    masks = MaskDrawing(grid, ratio, "contour", block, odds)
    blocks = masks.blocks[0] * masks.blocks[1]
    inside = np.zeros((len(KEYS), blocks), bool)
    inside[:, :n_in] = True
    noise = masks.noise(KEYS, inside)
    units = grid[0] * grid[1]
    assert noise.shape == (len(KEYS), units) and noise.dtype == torch.float32
    assert all(len(row.unique()) == units for row in noise), "no ties: sorting it has one answer"
    kept = kept_units(masks, noise).flatten(1).float()
    assert (kept.sum(1) == int(units * (1 - ratio))).all()
    if block == 1:
        wanted = round(int(units * (1 - ratio)) * n_in / (n_in + odds * (units - n_in)))
        wanted = max(wanted, int(units * (1 - ratio)) - (units - n_in))
        assert (kept[:, :n_in].sum(1) == wanted).all()


@pytest.mark.parametrize("with_region", [False, True])
def test_of_a_block_that_the_ratio_cuts_any_units_may_stay(with_region):
    """3 of 8 × 8 units stay, in blocks of two: one block is cut, and each of its units stays as often."""
    masks = MaskDrawing((8, 8), 0.95, "contour", block=2)
    keys = np.arange(4000, dtype=np.uint64)
    inside = np.tile(np.arange(16) % 2 == 0, (len(keys), 1)) if with_region else None
    kept = kept_units(masks, masks.noise(keys, inside))
    assert (kept.flatten(1).sum(1) == 3).all()
    by_block = kept.reshape(-1, 4, 2, 4, 2).transpose(2, 3)
    assert ((by_block.flatten(3).sum(3) == 3).flatten(1).sum(1) == 1).all(), "they are of one block"
    share = by_block.flatten(3).float().mean((0, 1, 2)) * 16 / 3
    assert (share - 1 / 4).abs().max() < 0.02


def test_pictures_without_a_region_are_masked_evenly():
    masks = MaskDrawing((8, 8), 0.6, "contour", block=1)
    nothing, everything = np.zeros((128, 64), bool), np.ones((128, 64), bool)
    assert torch.equal(masks.noise(KEYS, nothing).argsort(1), masks.noise(KEYS, everything).argsort(1))
    even = MaskDrawing((8, 8), 0.6)
    assert (kept_units(masks, masks.noise(KEYS, nothing)) == kept_units(even, even.noise(KEYS))).all()


def test_a_mask_is_a_function_of_the_pictures_key_alone():
    inside = SEED.blocks_inside([rectangle_region()] * len(KEYS), WHOLE)
    noise = SEED.noise(KEYS, inside)
    order = np.random.default_rng(0).permutation(len(KEYS))
    assert torch.equal(SEED.noise(KEYS[order], inside[order]), noise[torch.from_numpy(order)])


def test_the_region_is_cut_and_mirrored_as_the_picture_is():
    rng = np.random.default_rng(1)
    region = np.kron(rng.random((8, 8)) > 0.5, np.ones((8, 8))).astype(bool)
    masks = MaskDrawing((4, 4), 0.5, "contour", block=1)
    views = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0.25, 0.5, 0.75, 1], [-0.5, 0, 0, 0.5]])
    flips = torch.tensor([False, False, True, False])
    found = masks.blocks_inside([region] * 4, views, flips).reshape(4, 4, 4)
    cells = region[::8, ::8]
    assert (found[0] == cells[:4, :4]).all() and (found[1] == cells[4:, :4]).all()
    assert (found[2] == cells[2:6, 4:][:, ::-1]).all()
    assert not found[3].any(), "beyond the picture is outside of the region"
    assert not masks.blocks_inside([None], views[:1]).any()


def test_regions_come_from_the_source_or_from_the_built_column():
    sources = Dataset.from_dict({"source": ["ChestX-ray14", "BraTS 2020"]})
    assert MaskDrawing((8, 8), 0.6).regions(sources) is None
    rectangle, none = SEED.regions(sources).read([0, 1])
    assert (rectangle == rectangle_region()).all() and none is None
    contour = MaskDrawing((40, 40), 0.885, "contour")
    region = np.random.default_rng(2).random((64, 64)) > 0.5
    rows = Dataset.from_dict({CHEST_REGION: [np.packbits(region).tobytes(), None]})
    found, none = contour.regions(rows).read([0, 1])
    assert (found == region).all() and none is None
    with pytest.raises(UserError, match="--contours learned"):
        contour.regions(sources)
