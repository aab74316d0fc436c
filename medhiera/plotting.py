"""What every figure shares: colors that color-blind readers tell apart (Okabe-Ito), and how it is saved."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from dataset_scripts.build.atomic_files import whole_file

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"

OKABE_ITO = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")

HEAT_OPACITY = 0.6
"""Of a heat map where it is highest; the page's reader may change it."""

_MARK_INCHES = 0.24


def heat_colors(heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Colors of a heat map that lies on a gray image: the more heat, the brighter and the more opaque.

    Args:
        heat: (...) in 0…1.

    Returns:
        (..., 4) in 0…1, RGBA; drawn with HEAT_OPACITY.
    """
    rgba: npt.NDArray[np.float64] = matplotlib.colormaps["inferno"](0.25 + 0.7 * heat)
    rgba[..., 3] = heat
    return rgba


def heat_on_mid_gray() -> npt.NDArray[np.float64]:
    """(256, 3) in 0…1: what heat of 0…1 looks like on mid gray, the colors of a color bar."""
    rgba = heat_colors(np.linspace(0, 1, 256))
    opacity = HEAT_OPACITY * rgba[:, 3:]
    return opacity * rgba[:, :3] + (1 - opacity) * 0.5


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """As pyplot's, without its list of open figures: any thread may draw.

    Args:
        rows: of axes.
        columns: of axes.
        figsize: width, height in inches.
        options: of matplotlib's Figure.subplots.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def save(figure: Figure, path: Path, mark: str = "") -> None:
    """Write the PNG; a process that is killed meanwhile leaves the one before.

    Args:
        figure: whole.
        path: the PNG to write.
        mark: what must be known of the run, from formatting.mark_of: in a strip at the bottom, if not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    below = 0.0
    if mark:
        below = _MARK_INCHES
        figure.text(
            0.5, -below / 2 / height, mark, ha="center", va="center", fontsize=8, color=ORANGE, weight="bold"
        )
    # What lies below the figure's own edge is written too; no layout would leave the place free.
    with whole_file(path) as part:
        figure.savefig(
            part, format="png", dpi=120, metadata={"Software": None},
            bbox_inches=Bbox([[0, -below], [width, height]]),
        )  # fmt: skip
