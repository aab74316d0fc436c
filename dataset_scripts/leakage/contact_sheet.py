"""Pairs of thumbnails on one PNG, so that a person can see what the leakage guard caught."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

_SIDE = 128

_LONGEST_NAME = 46

_CAPTION = 26

_PAIRS_A_ROW = 4

_MOST_PAIRS = 200

Pair = tuple[str, npt.NDArray[np.uint8], str, npt.NDArray[np.uint8], float | None]
"""Name, picture, name, picture, and the score; None where names alone found the pair."""


def save_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs side by side with their scores: 200 of them, those first that are least sure."""
    pairs = sorted(pairs, key=lambda pair: math.inf if pair[4] is None else pair[4])[:_MOST_PAIRS]
    columns = min(_PAIRS_A_ROW, len(pairs))
    rows = -(-len(pairs) // columns)
    cell = (2 * _SIDE + 8, _SIDE + _CAPTION + 6)
    sheet = Image.new("L", (columns * cell[0], rows * cell[1]), 255)
    draw = ImageDraw.Draw(sheet)
    for number, (left_name, left, right_name, right, score) in enumerate(pairs):
        found = "by name" if score is None else f"{score:.2f}"
        x, y = number % columns * cell[0], number // columns * cell[1]
        for offset, picture in ((0, left), (_SIDE, right)):
            sheet.paste(Image.fromarray(picture).resize((_SIDE, _SIDE)), (x + offset, y))
        for line, name in enumerate((left_name, f"{found} {right_name}")):
            draw.text((x + 2, y + _SIDE + 1 + line * _CAPTION // 2), _short(name), fill=0, font_size=10)
    sheet.save(path)


def _short(name: str) -> str:
    """`source/…/file.png` where the whole name would run into the next pair, with bytes that are no text."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    if len(name) <= _LONGEST_NAME:
        return name
    source, _, file = name.partition("/")
    return f"{source}/.../{file.rsplit('/', 1)[-1]}"[:_LONGEST_NAME]
