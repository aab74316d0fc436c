"""Position embeddings for another image size than the one they were trained at.

Stands beside the embeddings and the decoder, which both use it, on load and in forward. Torch only.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional


def resize_positions(
    positions: torch.Tensor,
    source: Sequence[int],
    target: Sequence[int],
    unit: Sequence[int],
    interpolation: str,
) -> torch.Tensor:
    """Stretch position embeddings over another grid of tokens.

    Args:
        positions: (1, source tokens, channels), row by row.
        source: (rows, columns) of tokens they were trained for.
        target: (rows, columns) of tokens wanted.
        unit: (rows, columns) of tokens in one mask unit; divides source and target.
        interpolation: "bicubic" stretches everything, as stock transformers does; "windowed" tiles what
            repeats in every mask unit and stretches only the rest.

    Returns:
        (1, target tokens, channels); `positions` itself where the grids are equal.
    Source: Bolya et al. 2023, arXiv:2311.05613, for "windowed": stretching the part that repeats with the
    mask units shifts it against them.
    """
    if tuple(source) == tuple(target):
        return positions
    channels = positions.shape[-1]
    # Half precision would round the interpolation's weights.
    dtype = torch.promote_types(positions.dtype, torch.float32)
    grid = positions.to(dtype).reshape(1, source[0], source[1], channels).permute(0, 3, 1, 2)
    repeated = None
    if interpolation == "windowed":
        in_units = grid.reshape(channels, source[0] // unit[0], unit[0], source[1] // unit[1], unit[1])
        repeated = in_units.mean(dim=(1, 3))[None]
        grid = grid - repeated.repeat(1, 1, source[0] // unit[0], source[1] // unit[1])
    grid = functional.interpolate(grid, size=tuple(target), mode="bicubic", align_corners=False)
    if repeated is not None:
        grid = grid + repeated.repeat(1, 1, target[0] // unit[0], target[1] // unit[1])
    return grid.permute(0, 2, 3, 1).reshape(1, -1, channels).to(positions.dtype)
