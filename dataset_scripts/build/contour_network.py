"""The network behind the chest contour: a gray picture of any size → how likely each of 64×64 cells is lung.

`dataset_scripts.phantom.contour_training` trains it on drawings and writes `chest_contour.safetensors`, which
lies beside this file; `chest_contour` makes a region of what it says.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

GRID = 64
"""Height and width of what the network sees and says, whatever the picture's size and shape."""

WEIGHTS = Path(__file__).with_name("chest_contour.safetensors")

WIDTHS = (12, 20, 32, 48, 48)
"""Channels from full size to a sixteenth of it."""

_INPUTS = 5

_NEIGHBORHOOD = 15  # cells, for local contrast

_SHRINK_FIRST = 4 * GRID

Probabilities = npt.NDArray[np.float32]


def shrink(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Average a picture to 64×64 in float32, for a pale film may hold ten of the 256 values.

    Args:
        gray: (height, width) of any size; the aspect is lost.
    """
    picture = Image.fromarray(gray)
    if min(picture.size) >= 2 * _SHRINK_FIRST:  # bytes are averaged faster than floats
        picture = picture.resize((_SHRINK_FIRST, _SHRINK_FIRST), Image.Resampling.BOX, reducing_gap=2.0)
    is_smaller = min(picture.size) < GRID
    method = Image.Resampling.BILINEAR if is_smaller else Image.Resampling.BOX
    return np.asarray(picture.convert("F").resize((GRID, GRID), method))


def equalize(small: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Tell each cell by its brightness: as rank, and linearly between two percentiles.

    Ranks are the same whatever the exposure, the window and the gamma.

    Args:
        small: (64, 64).

    Returns:
        (2, 64, 64), values in 0..1.
    """
    ordered = np.sort(small, axis=None)
    below, above = (np.searchsorted(ordered, small, side) for side in ("left", "right"))  # equal stay equal
    low, high = np.percentile(ordered, (1, 99))
    linear = np.clip((small - low) / max(high - low, 1e-3), 0, 1)
    return np.stack([(below + above) / (2 * small.size), linear]).astype(np.float32)


def add_context(equalized: torch.Tensor) -> torch.Tensor:
    """What the network sees: rank, brightness, local contrast, and where the cell is.

    Args:
        equalized: (batch, 2, 64, 64) of `equalize`.

    Returns:
        (batch, 5, 64, 64).
    """
    rank = equalized[:, :1]

    def around(values: torch.Tensor) -> torch.Tensor:
        for kernel in (
            (_NEIGHBORHOOD, 1),
            (1, _NEIGHBORHOOD),
        ):  # by columns, then by rows: a tenth of the work
            margin = (kernel[0] // 2, kernel[1] // 2)
            values = functional.avg_pool2d(values, kernel, 1, margin, count_include_pad=False)
        return values

    mean = around(rank)
    deviation = (around(rank * rank) - mean * mean).clamp_min(0).sqrt()
    steps = torch.linspace(-1, 1, GRID, device=rank.device)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).expand(len(rank), -1, -1, -1)
    return torch.cat([equalized * 2 - 1, 0.7 * (rank - mean) / (deviation + 0.05), places], dim=1)


class ContourNetwork(nn.Module):
    """A small U-Net (Ronneberger et al. 2015, arXiv:1505.04597).

    Args:
        normalize: with batch normalization, for training; the stored weights have it folded in.
    """

    def __init__(self, normalize: bool = False) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            norm = [nn.BatchNorm2d(outputs)] if normalize else []
            return nn.Sequential(convolution, *norm, nn.ReLU())

        inputs = (_INPUTS, *WIDTHS)
        self.down = nn.ModuleList(
            nn.Sequential(layer(inputs[level], width), layer(width, width))
            for level, width in enumerate(WIDTHS)
        )
        self.up = nn.ModuleList(
            layer(WIDTHS[level + 1] + WIDTHS[level], WIDTHS[level])
            for level in reversed(range(len(WIDTHS) - 1))
        )
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """Logits of "lung".

        Args:
            context: (batch, 5, 64, 64) of `add_context`.

        Returns:
            (batch, 64, 64).
        """
        passed: list[torch.Tensor] = []
        hidden = context
        for level, block in enumerate(self.down):
            hidden = block(functional.max_pool2d(hidden, 2) if level else hidden)
            passed.append(hidden)
        passed.pop()
        for block in self.up:
            grown = functional.interpolate(hidden, scale_factor=2.0, mode="bilinear", align_corners=False)
            hidden = block(torch.cat([grown, passed.pop()], dim=1))
        return self.head(hidden)[:, 0]


@functools.cache
def load_network(path: Path = WEIGHTS) -> ContourNetwork:
    """The trained network, read once a process; stored as float16, computed in float32."""
    with torch.device("meta"):  # no weights are drawn: training after a build has the same random numbers
        network = ContourNetwork()
    network.load_state_dict({name: weight.float() for name, weight in load_file(path).items()}, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # half the time


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """64×64 cells gain nothing from more, and a forked worker would wait for threads of its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def lung_probabilities(network: ContourNetwork, gray: npt.NDArray[np.uint8]) -> Probabilities:
    """How likely each cell shows lung: the mean over the picture and its mirror image.

    Args:
        network: of `load_network`.
        gray: (height, width).

    Returns:
        (64, 64), values in 0..1; 0 where the picture is of one brightness.
    """
    small = shrink(gray)
    if small.min() == small.max():  # the network would answer with the mean chest
        return np.zeros_like(small)
    equalized = torch.from_numpy(equalize(small))
    with _one_thread(), torch.inference_mode():
        context = add_context(torch.stack([equalized, equalized.flip(-1)]))
        logits = network(context.contiguous(memory_format=torch.channels_last))
        straight, mirrored = logits.sigmoid()
        mean: Probabilities = ((straight + mirrored.flip(-1)) / 2).numpy()
    return mean
