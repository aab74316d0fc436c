"""How tokens are laid out: mask unit after mask unit, each in the order that makes pooling a reshape.

Stands below every other file of the model; torch only. Three layouts appear in it:

- *spatial*: (batch, height, width, channels), rows of pixels or tokens.
- *units*: (batch, units, tokens, channels). A unit's tokens are *unrolled*: the lowest bits of their row and
  column come first, so that the `stride` tokens which pool into one lie `tokens / stride` apart, at every
  level.
- *stock*: (batch, tokens × units, channels), transformers' and Meta's own order, tokens outside, units
  inside. Only outputs that must match theirs are brought into it.

Source: Ryali et al. 2023, arXiv:2306.00989, appendix ("unroll").
"""

import math
from collections.abc import Sequence

import torch


def unroll(tokens: torch.Tensor, stride: Sequence[int], levels: int) -> torch.Tensor:
    """Cut a map into units and unroll each.

    Args:
        tokens: (batch, height, width, ...), spatial; a unit is stride ** levels tokens high and wide.
        stride: (rows, columns) that one pooling merges.
        levels: poolings that merge a whole unit into one token.

    Returns:
        (batch, units, tokens, ...); a view where torch can make one before the last reshape.
    """
    batch, height, width = tokens.shape[:3]
    rest = tokens.shape[3:]
    side_y, side_x = stride[0] ** levels, stride[1] ** levels
    rows, columns = height // side_y, width // side_x
    split = tokens.reshape(batch, rows, *[stride[0]] * levels, columns, *[stride[1]] * levels, *rest)
    # Dimensions now: batch, row, y high … y low, column, x high … x low, rest.
    first_y, first_x = 2, 3 + levels
    order = [0, 1, 2 + levels]
    for level in reversed(range(levels)):
        order += [first_y + level, first_x + level]
    order += range(3 + 2 * levels, split.dim())
    return split.permute(order).reshape(batch, rows * columns, side_y * side_x, *rest)


def reroll(tokens: torch.Tensor, stride: Sequence[int], levels: int) -> torch.Tensor:
    """Give the tokens of each unit their rows and columns back.

    Args:
        tokens: (batch, units, tokens, channels), unrolled over `levels` levels.
        stride: (rows, columns) that one pooling merges.
        levels: poolings left before a unit is one token.

    Returns:
        (batch, units, unit height, unit width, channels).
    """
    batch, units, _, channels = tokens.shape
    split = tokens.reshape(batch, units, *[*stride] * levels, channels)
    # Dimensions now: batch, unit, y low, x low, …, y high, x high, channels.
    rows = [2 + 2 * level for level in reversed(range(levels))]
    columns = [3 + 2 * level for level in reversed(range(levels))]
    split = split.permute(0, 1, *rows, *columns, 2 + 2 * levels)
    return split.reshape(batch, units, stride[0] ** levels, stride[1] ** levels, channels)


def undo_windowing(units: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Put units side by side again.

    Args:
        units: (batch, units, unit height, unit width, channels), all units of the image, row by row.
        grid: (rows, columns) of units.

    Returns:
        (batch, height, width, channels), spatial.
    """
    batch, _, unit_height, unit_width, channels = units.shape
    split = units.reshape(batch, grid[0], grid[1], unit_height, unit_width, channels)
    return split.transpose(2, 3).reshape(batch, grid[0] * unit_height, grid[1] * unit_width, channels)


def to_stock_order(tokens: torch.Tensor) -> torch.Tensor:
    """(batch, units, tokens, channels) → (batch, tokens × units, channels), transformers' order."""
    return tokens.transpose(1, 2).flatten(1, 2)


def pool_queries(tokens: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """Largest value of each group of tokens that merge.

    On a CPU pairwise maxima: measured faster than `max(dim)`, whose backward scatters through indices (facts:
    +2–8 %). Elsewhere `amax`: fewer kernels, fewer bytes. Equal largest values share the gradient; which
    share each of three equal ones gets differs.

    Args:
        tokens: (batch, units, tokens, channels), unrolled.
        stride: (rows, columns) that merge.

    Returns:
        (batch, units, tokens / (rows × columns), channels).
    """
    merging = math.prod(stride)
    if tokens.device.type != "cpu":
        return tokens.unflatten(2, (merging, -1)).amax(dim=2)
    groups = list(tokens.chunk(merging, dim=2))
    while len(groups) > 1:
        pairs = [torch.maximum(a, b) for a, b in zip(groups[::2], groups[1::2], strict=False)]
        groups = pairs + groups[len(pairs) * 2 :]
    return groups[0]


def take_units(values: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """Choose units of each sample, static in shape.

    Args:
        values: (batch, units, ...).
        units: (batch, chosen) indices.

    Returns:
        (batch, chosen, ...).
    """
    samples = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[samples, units]


def cut_units(
    images: torch.Tensor,
    unit: Sequence[int],
    units: torch.Tensor | None = None,
    *,
    reach: Sequence[int] = (0, 0),
) -> torch.Tensor:
    """Cut images into units, or only the chosen ones, each with the pixels it needs of its neighbours.

    Args:
        images: (batch, channels, height + reach[0], width + reach[1]).
        unit: (height, width) of a unit in pixels.
        units: (batch, chosen) indices of units, row by row; None takes all.
        reach: pixels by which a unit's window overlaps the next one, below and to the right.

    Returns:
        (batch, chosen, channels, unit height + reach[0], unit width + reach[1]).
    """
    windows = images.unfold(2, unit[0] + reach[0], unit[0]).unfold(3, unit[1] + reach[1], unit[1])
    windows = windows.permute(0, 2, 3, 1, 4, 5)  # batch, row, column, channels, height, width: still a view
    if units is None:
        return windows.flatten(1, 2)
    columns = windows.shape[2]
    samples = torch.arange(images.shape[0], device=images.device)[:, None]
    return windows[samples, units // columns, units % columns]
