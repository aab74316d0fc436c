"""What the pointing game returns, and whether heat maps that scored so may be shown.

Below results.py, which holds a report of it, and localization.py, which plays it.
"""

from dataclasses import dataclass, field
from typing import Literal

from medhiera.evaluation.predictions import FEWEST_PATIENTS

Verdict = Literal["above chance", "not above chance", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class HitRate:
    """How often the highest point of a heat map lies in a box of its finding.

    Attributes:
        hit_rate: share of pairs.
        interval: of the hit rate.
        chance: what a random point would reach: the mean share of the model's input that boxes cover.
        above_chance_interval: of the hit rate minus chance, from the same resamples of patients; of a hit
            rate of 0 or 1 the exact binomial one minus chance. None where none was computed.
        center: what the middle of the image would reach.
        pairs: of image and finding.
        patients: that they come from.
    """

    hit_rate: float
    interval: list[float] | None
    chance: float
    above_chance_interval: list[float] | None = None
    center: float
    pairs: int
    patients: int = 0

    @property
    def verdict(self) -> Verdict:
        """Whether the maps find the boxes more often than a random point would."""
        return _verdict(self.above_chance_interval, self.patients)


@dataclass(frozen=True, kw_only=True)
class LocalizationReport:
    """The pointing game: HitRate's numbers over all pairs of image and finding, None where there is none.

    Attributes:
        method: how the maps were made; None in records from before it was written down (Grad-CAM).
        findings: the same of each finding with a box.
        reason: why it was not played.
    """

    hit_rate: float | None = None
    interval: list[float] | None = None
    chance: float | None = None
    above_chance_interval: list[float] | None = None
    center: float | None = None
    pairs: int = 0
    patients: int = 0
    method: str | None = None
    findings: dict[str, HitRate] = field(default_factory=dict)
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether the model's maps, all findings together, find the boxes more often than a random point."""
        return _verdict(self.above_chance_interval, self.patients)

    def verdict_on(self, finding: str) -> Verdict:
        """Whether a finding's map may be believed: the model's verdict, unless the finding has a worse one.

        A model above chance over all pairs may owe that to a few findings with many boxes. A finding without
        boxes, or with boxes of too few patients, is unchecked.
        """
        if self.verdict != "above chance":
            return self.verdict
        own = self.findings.get(finding)
        return "unchecked" if own is None else own.verdict


def _verdict(above_chance: list[float] | None, patients: int) -> Verdict:
    if above_chance is None or patients < FEWEST_PATIENTS:
        return "unchecked"
    return "above chance" if above_chance[0] > 0 else "not above chance"
