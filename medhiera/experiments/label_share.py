"""What `reproduce.py labels` may be asked for.

Its parser reads this file, so nothing here takes time to import. Below labels.py.
"""

import argparse
from dataclasses import dataclass

SOURCES = ["RSNA Pneumonia"]
"""Whose labels are learned unless others are named."""


@dataclass(frozen=True)
class LabelShare:
    """A share of the labels, and with how many seeds it is trained."""

    fraction: float
    seeds: int

    @classmethod
    def parse(cls, text: str) -> "LabelShare":
        """From "0.01:5".

        Raises:
            argparse.ArgumentTypeError: it is nothing of the kind.
        """
        fraction, _, seeds = text.partition(":")
        try:
            share = cls(float(fraction), int(seeds))
        except ValueError:
            share = cls(0, 0)
        if not 0 < share.fraction <= 1 or share.seeds < 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}; wanted a share of the labels and a number of seeds, such as 0.01:5"
            )
        return share


DEFAULT_SHARES = (LabelShare(0.01, 5), LabelShare(0.1, 3), LabelShare(1.0, 1))
