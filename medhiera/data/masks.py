"""Which mask units stay visible, drawn by a picture's key: evenly, or rarer inside a region of the picture.

Workers draw here, as all else (seeding.py), and hand the model `noise` alone: the units with the smallest
stay visible. A region is a map of the whole picture; where the model's input lies in it is arithmetic.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor

from dataset_scripts import SOURCES
from dataset_scripts.findings import CHEST_REGION, REGION_SIDE
from medhiera.config.stage_arguments import MAEArguments
from medhiera.data.columns import ColumnReader
from medhiera.data.seeding import uniform
from medhiera.errors import UserError
from modeling_hiera_mae.masking import count_kept

MASK_PLACE = 64
"""First place of a mask's numbers in the sequence of a picture's key."""

RECTANGLE = (6 / 20, 3 / 20, 16 / 20, 16 / 20)
"""Top, left, bottom and right of the fixed region, as shares of the picture.

Source: the code of "Pre-training on High Definition X-ray Images": rows 6–15 and columns 3–15 of 20 × 20.
"""

_CHESTLESS = {source.name for source in SOURCES if not source.shows_chest}

_PROBES = 4  # places looked at along each side of a block

Region = npt.NDArray[np.bool_]
"""(REGION_SIDE, REGION_SIDE): the part of a picture that the mask prefers to hide."""


RegionKind = Literal["none", "rectangle", "contour"]
"""What the mask follows: nothing, RECTANGLE, or the contour of each chest, a column of the built data."""


@dataclass(frozen=True)
class MaskDrawing:
    """How the masks of a recipe are drawn.

    Args:
        grid: rows and columns of mask units in the model's input.
        mask_ratio: share of units hidden; the number kept is the same for every picture.
        region: what is hidden more often than the rest.
        block: side, in units, of the squares that are kept or hidden together.
        odds: how many times likelier a block outside the region is kept than one inside.
    """

    grid: tuple[int, int]
    mask_ratio: float
    region: RegionKind = "none"
    block: int = 1
    odds: float = 3.0

    @classmethod
    def of(cls, options: MAEArguments, grid: tuple[int, int]) -> "MaskDrawing":
        """The masks that a config asks for.

        Args:
            options: of stage 1.
            grid: rows and columns of mask units in the model's input.
        """
        return cls(grid, options.mask_ratio, options.mask_region, options.block_side, options.mask_odds)

    def noise(self, keys: npt.NDArray[np.uint64], inside: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """(batch, units), float32: which units the masked autoencoder keeps, by their order.

        Args:
            keys: (batch,), of the pictures.
            inside: (batch, blocks), which blocks lie in the region, as `blocks_inside` says; a picture
                without any, or with nothing else, is masked evenly. None: all pictures are.
        """
        if self.block == 1 and inside is None:
            return torch.from_numpy(uniform(keys, MASK_PLACE, self.grid[0] * self.grid[1]))
        rows, columns = self.blocks
        drawn = uniform(keys, MASK_PLACE, rows * columns)
        order = drawn if inside is None else drawn + ~self._is_chosen(drawn, inside)
        rank = order.argsort(1, kind="stable").argsort(1).reshape(-1, rows, columns)
        # Units of a block follow each other, so that at most one kept block is cut by the ratio; which of
        # its units stay is drawn too.
        by_unit = rank.repeat(self.block, 1).repeat(self.block, 2)[:, : self.grid[0], : self.grid[1]]
        within = uniform(keys, MASK_PLACE + rows * columns, self.grid[0] * self.grid[1])
        units = (
            (by_unit.reshape(len(keys), -1) + within.astype(np.float64)).argsort(1, kind="stable").argsort(1)
        )
        return torch.from_numpy((units / units.shape[1]).astype(np.float32))

    def regions(self, rows: Dataset) -> "ColumnReader[Region | None] | None":
        """What reads the region of each row: None for a picture without a chest, which is masked evenly.

        Args:
            rows: of built data.

        Returns:
            None where masks follow nothing.

        Raises:
            UserError: the rows have no contours.
        """
        if self.region == "none":
            return None
        if self.region == "rectangle":
            return ColumnReader(rows, "source", _open_rectangles)
        if CHEST_REGION not in rows.column_names:
            raise UserError(
                f"mask_region: contour reads the column {CHEST_REGION}, which this built data lacks. Build "
                "it with `--contours learned` (`python -m dataset_scripts`), or give data_dir the folder of "
                "the sources"
            )
        return ColumnReader(rows, CHEST_REGION, _open_contours)

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks; those at the lower and right edge may be cut."""
        return -(-self.grid[0] // self.block), -(-self.grid[1] // self.block)

    def blocks_inside(
        self,
        regions: Sequence[Region | None],
        views: npt.NDArray[np.float64],
        is_flipped: Tensor | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Which blocks of the model's input lie in each picture's region, by most of what is looked at.

        Args:
            regions: of the whole pictures; None for a picture that has none.
            views: (batch, 4): top, left, bottom and right of the model's input, as shares of the picture;
                beyond 0 and 1 where it is padded.
            is_flipped: (batch,), bool: whose input is mirrored.

        Returns:
            (batch, blocks).
        """
        rows, columns = self.blocks
        inside = np.zeros((len(regions), rows * columns), np.bool_)
        # A cut block is looked at as far as it reaches.
        ends = [np.minimum(np.arange(count + 1) * self.block, units) / units
                for count, units in zip((rows, columns), self.grid, strict=True)]  # fmt: skip
        down, across = (
            (end[:-1, None] + np.diff(end)[:, None] * (np.arange(_PROBES) + 0.5) / _PROBES).ravel()
            for end in ends
        )
        for row, (region, (top, left, bottom, right)) in enumerate(zip(regions, views.tolist(), strict=True)):
            if region is None:
                continue
            mirrored = is_flipped is not None and bool(is_flipped[row])
            seen = _look(region, top + down * (bottom - top),
                         left + (1 - across if mirrored else across) * (right - left))  # fmt: skip
            share = seen.reshape(rows, _PROBES, columns, _PROBES).mean((1, 3))
            inside[row] = (share > 0.5).ravel()
        return inside

    def _is_chosen(
        self, drawn: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """(batch, blocks): those to keep, the share inside fixed by the odds."""
        units = self.grid[0] * self.grid[1]
        blocks = inside.shape[1]
        in_units = count_kept(units, self.mask_ratio)
        kept = in_units * blocks / units  # in blocks, maybe with a fraction
        wanted = -(-in_units * blocks // units)
        n_in = inside.sum(1)
        n_out = blocks - n_in
        kept_in = np.rint(kept * n_in / np.maximum(n_in + self.odds * n_out, 1e-9)).astype(np.int64)
        kept_in = np.clip(kept_in, np.maximum(wanted - n_out, 0), np.minimum(n_in, wanted))
        place_in = np.where(inside, drawn, np.float32(2)).argsort(1, kind="stable").argsort(1)
        place_out = np.where(inside, np.float32(2), drawn).argsort(1, kind="stable").argsort(1)
        chosen: npt.NDArray[np.bool_] = np.where(
            inside, place_in < kept_in[:, None], place_out < (wanted - kept_in)[:, None]
        )
        return chosen


@functools.cache
def rectangle_region() -> Region:
    """The fixed rectangle as a map, which may not be written to."""
    middle = (np.arange(REGION_SIDE) + 0.5) / REGION_SIDE
    top, left, bottom, right = RECTANGLE
    region: Region = ((middle > top) & (middle < bottom))[:, None] & ((middle > left) & (middle < right))
    region.flags.writeable = False
    return region


def _open_rectangles(sources: pa.Array) -> Callable[[int], Region | None]:
    rectangle = rectangle_region()
    return lambda place: None if sources[place].as_py() in _CHESTLESS else rectangle


def _open_contours(packed: pa.Array) -> Callable[[int], Region | None]:
    def read(place: int) -> Region | None:
        value = packed[place].as_py()
        return None if value is None else _unpack(value)

    return read


def _unpack(packed: bytes) -> Region:
    """A value of the column CHEST_REGION as a map."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    region: Region = bits.astype(np.bool_).reshape(REGION_SIDE, REGION_SIDE)
    return region


def _look(region: Region, down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]) -> Region:
    """The region at all crossings of these places, shares of its sides; what lies beyond is outside."""
    places, is_within = [], []
    for share in (down, across):
        cell = np.floor(share * REGION_SIDE).astype(np.int64)
        is_within.append((cell >= 0) & (cell < REGION_SIDE))
        places.append(cell.clip(0, REGION_SIDE - 1))
    looked: Region = region[np.ix_(*places)] & is_within[0][:, None] & is_within[1]
    return looked
