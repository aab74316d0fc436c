"""The numbers of a row of a box file → a `Box`, or what is wrong with them.

ChestX-ray14's and RSNA's sources ask; both draw boxes in pixels of the published picture.
"""

import math
from collections.abc import Sequence

from dataset_scripts.build.records import Box

BOXES_SIZE = (1024, 1024)
"""Width and height of the published pictures, in which the boxes were drawn."""


def parse_box(finding: int, cells: Sequence[str]) -> Box | str:
    """Return the box, or what is wrong with it in words.

    Args:
        finding: its index in FINDINGS.
        cells: left, top, width and height as the file has them, in pixels.
    """
    try:
        x, y, width, height = (float(cell.replace(",", ".")) for cell in cells)
    except ValueError:
        return f"not four numbers: {list(cells)}"
    if not all(map(math.isfinite, (x, y, width, height))):
        return f"not four finite numbers: {list(cells)}"
    if min(width, height) <= 0:
        return f"width {width:g} and height {height:g}; wanted above 0"
    if min(x, y) < 0 or x + width > BOXES_SIZE[0] or y + height > BOXES_SIZE[1]:
        pixels = "×".join(map(str, BOXES_SIZE))
        return f"x {x:g}, y {y:g}, width {width:g}, height {height:g} leave the image of {pixels} pixels"
    return Box(finding, x, y, width, height)
