"""How well the chest contour fits hand-drawn lungs, beside a fixed rectangle and the body's outline.

    python -m benchmarks.chest_contour --shared ../shared
    python -m benchmarks.chest_contour --shared ../shared --figure /tmp/contours.png

Two sets with lungs drawn by hand, which trained nothing: 98 pictures of COVIDx (`lung_masks`, the pictures in
`mini_cocktail`) and 186 of JSRT. Both were looked at while the drawings were made, and the threshold was
chosen with both in view (docs/high_definition.md). Truth is the convex hull of both lungs, compared at
256×256. Intervals are 95 % of a bootstrap over pictures. Time is that of one core, from the decoded picture
to the outline.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from dataset_scripts.build.chest_contour import find_chest
from dataset_scripts.build.chest_region import RECTANGLE, ChestRegion, region_of_mask
from dataset_scripts.reading.images import read_image

SIDE = 256

RESAMPLES = 2000

_TIMED = 30

Gray = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A picture, its lungs as drawn by hand, and the region of them; the last two at 256×256."""

    name: str
    gray: Gray
    is_lung: npt.NDArray[np.bool_]
    is_chest: npt.NDArray[np.bool_]


def make_example(picture: Path, masks: list[Path]) -> Example:
    """Read a picture and the masks of its lungs."""
    is_lung = np.zeros((SIDE, SIDE), dtype=np.bool_)
    for mask in masks:
        with Image.open(mask) as drawn:
            is_lung |= np.asarray(drawn.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)) > 127
    gray = read_image(picture, needs_contrast=False)  # two of JSRT are nearly white
    return Example(picture.name, gray, is_lung, region_of_mask(is_lung).draw(SIDE, SIDE) > 0)


def read_lung_masks(shared: Path) -> Iterator[Example]:
    """The 98 pictures of COVIDx. Two masks (ciaa199) were drawn on another crop of their picture."""
    pictures = {path.name: path for path in (shared / "mini_cocktail" / "COVIDx_CXR").rglob("*.*")}
    for mask in sorted((shared / "lung_masks").iterdir()):
        yield make_example(pictures[mask.name], [mask])


def read_jsrt(shared: Path) -> Iterator[Example]:
    """The 186 pictures of JSRT."""
    for picture in sorted((shared / "jsrt" / "images").iterdir()):
        sides = [shared / "jsrt" / "masks" / side for side in ("left_lung", "right_lung")]
        yield make_example(picture, [side / f"{picture.stem}.gif" for side in sides])


def find_body(gray: Gray) -> ChestRegion:
    """The convex hull of what is brighter than Otsu's threshold (Otsu 1979)."""
    counts = np.bincount(gray.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    is_body = gray > np.nanargmax(np.where(np.isfinite(between), between, np.nan))
    return region_of_mask(is_body, largest_share=1)


METHODS: dict[str, Callable[[Gray], ChestRegion]] = {
    "ours": find_chest,
    "rectangle of the seed": lambda gray: ChestRegion(RECTANGLE.outline),
    "Otsu's body outline": find_body,
}


@dataclass(frozen=True)
class Fit:
    """Of each picture: hull IoU, share of the lungs' pixels inside, share of the picture."""

    iou: Values
    coverage: Values
    share: Values
    fallbacks: int


def measure(examples: list[Example], method: Callable[[Gray], ChestRegion]) -> Fit:
    """Compare a method's regions with the hand-drawn ones."""
    regions = [method(example.gray) for example in examples]
    rows = []
    for example, region in zip(examples, regions, strict=True):
        inside = region.draw(SIDE, SIDE) > 0
        both, either = (inside & example.is_chest).sum(), (inside | example.is_chest).sum()
        covered = (inside & example.is_lung).sum() / example.is_lung.sum()
        rows.append((both / either, covered, inside.mean()))
    iou, coverage, share = np.array(rows).T
    return Fit(iou, coverage, share, sum(region.is_fallback for region in regions))


def interval(values: Values, statistic: Callable[..., Values]) -> str:
    """A statistic with the 2.5th and 97.5th percentile of its bootstrap."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[drawn], axis=1), (2.5, 97.5))
    return f"{statistic(values, axis=0):.3f} ({low:.3f} to {high:.3f})"


def tenth_percentile(values: Values, axis: int) -> Values:
    """What nine of ten pictures reach."""
    return np.percentile(values, 10, axis=axis)


def milliseconds(examples: list[Example], method: Callable[[Gray], ChestRegion]) -> Values:
    """CPU time of each of up to thirty pictures, after one that is not counted."""
    method(examples[0].gray)
    spent = []
    for example in examples[:_TIMED]:
        start = time.process_time()
        method(example.gray)
        spent.append(1000 * (time.process_time() - start))
    return np.array(spent)


def table(sets: dict[str, list[Example]]) -> Iterator[str]:
    """The Markdown table."""
    titles = ("set", "region", "hull IoU", "coverage", "its 10th percentile", "share", "fallback", "ms")
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for name, examples in sets.items():
        for title, method in METHODS.items():
            fit, spent = measure(examples, method), milliseconds(examples, method)
            low, middle, high = np.percentile(spent, (10, 50, 90))
            cells = (
                *(name, title, interval(fit.iou, np.mean), interval(fit.coverage, np.mean)),
                *(interval(fit.coverage, tenth_percentile), interval(fit.share, np.mean)),
                *(str(fit.fallbacks), f"{middle:.1f} ({low:.1f} to {high:.1f})"),
            )
            yield f"| {' | '.join(cells)} |"


def draw_figure(sets: dict[str, list[Example]], path: Path, each: int = 15) -> None:
    """Draw every n-th picture of each set, what was drawn by hand in green, what was found in red."""
    tiles = []
    for examples in sets.values():
        for example in examples[:: max(1, len(examples) // each)][:each]:
            tile = Image.fromarray(example.gray).resize((SIDE, SIDE)).convert("RGB")
            pen = ImageDraw.Draw(tile)
            region = find_chest(example.gray)
            for outline, color in (
                (region_of_mask(example.is_lung).outline, (0, 255, 0)),
                (region.outline, (255, 0, 0)),
            ):
                corners = [tuple(corner) for corner in (outline * SIDE).tolist()]
                pen.polygon(corners, outline=color, width=2)
            tiles.append(np.asarray(tile))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
    rows = [np.hstack(tiles[start : start + 6]) for start in range(0, len(tiles), 6)]
    Image.fromarray(np.vstack(rows)).save(path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shared", type=Path, required=True, help="the folder of the real pictures")
    parser.add_argument("--figure", type=Path, help="also draw thirty pictures with both regions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "COVIDx, 98": list(read_lung_masks(options.shared)),
        "JSRT, 186": list(read_jsrt(options.shared)),
    }
    for line in table(sets):
        print(line, flush=True)
    if options.figure:
        draw_figure(sets, options.figure)


if __name__ == "__main__":
    main()
