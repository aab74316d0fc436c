"""The range of every number of a record: one rule over its fields, asked where metrics.json is read.

Below record.py. Whole numbers are counts and others shares, but for the fields that are named here.
"""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from medhiera.config.ranges import Range

_COUNT = Range(most=math.inf)
_SHARE = Range(most=1)
_SIZE = Range(1, math.inf)
_AMOUNT = Range(most=math.inf)
_ANY = Range(-math.inf, math.inf)
_DIFFERENCE = Range(-1, 1)
_CIDER = Range(most=10)
_CIDER_DIFFERENCE = Range(-10, 10)

_RANGES = {
    "PreprocessingRecord.image_size": _SIZE,
    "PreprocessingRecord.resize_size": _SIZE,
    "PreprocessingRecord.channels": _SIZE,
    "PreprocessingRecord.std": Range(most=1, above=True),
    "TrainingRecord.epochs": _AMOUNT,
    "TrainingRecord.seconds": _AMOUNT,
    "TrainingRecord.images_per_second": _AMOUNT,
    "TrainingRecord.best_validation": _ANY,  # of whatever metric the recipe chose by
    "ReconstructionReport.masked_loss_before": _AMOUNT,
    "ReconstructionReport.masked_loss": _AMOUNT,
    "ReconstructionReport.recipe_masked_loss": _AMOUNT,
    "ReconstructionReport.pixel_losses": _AMOUNT,
    "ReconstructionReport.feature_losses": _AMOUNT,
    "ProbeFit.penalty": _AMOUNT,
    "FewLabels.penalties": _AMOUNT,
    "Rescaling.slope": Range(most=math.inf, above=True),
    "Rescaling.intercept": _ANY,
    "HitRate.above_chance_interval": _DIFFERENCE,
    "LocalizationReport.above_chance_interval": _DIFFERENCE,
    "Difference.difference": _DIFFERENCE,
    "Difference.interval": _DIFFERENCE,
    "CaptionDifference.difference": _CIDER_DIFFERENCE,
    "CaptionDifference.interval": _CIDER_DIFFERENCE,
    "CaptionScores.cider": _CIDER,
    "CaptionScores.cider_interval": _CIDER,
    "ConstantReport.validation": _CIDER,
}
"""By class and field; a list's or table's range is that of each of its numbers."""

_DECIMALS = 9
"""Beyond them a number is rounding: the threshold that no probability reaches is a hair above 1."""


def out_of_range(record: Any) -> list[str]:
    """The numbers of a record that no run can have written, each with its place and what is wanted.

    Args:
        record: a dataclass of record.py. Its `recipe` is left alone: the numbers of a recipe have ranges of
            their own, and a record only repeats them.
    """
    return [
        f"{place} is {number}; wanted {wanted.in_words(isinstance(number, int))}"
        for place, number, wanted in _numbers(record, "", None)
        if number not in wanted and round(number, _DECIMALS) not in wanted
    ]


def _numbers(value: Any, place: str, wanted: Range | None) -> Iterator[tuple[str, float, Range]]:
    """Yield each number with its place and range."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name != "recipe":
                inside = f"{place}.{field.name}".lstrip(".")
                named = _RANGES.get(f"{type(value).__name__}.{field.name}")
                yield from _numbers(getattr(value, field.name), inside, named)
    elif isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            yield from _numbers(entry, f"{place}.{key}", wanted)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value, wanted or (_COUNT if isinstance(value, int) else _SHARE)
