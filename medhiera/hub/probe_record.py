"""What a stage's record says of a linear probe of its encoder: numbers that probe.py measured.

Below record.py, whose stage 1 holds one; the card shows it.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from pydantic import ConfigDict

from medhiera.evaluation.probe_results import ProbeFit
from medhiera.evaluation.results import RankingReport


@dataclass(kw_only=True)
class ProbeRecord:
    """A probe on one split.

    Attributes:
        split: that was scored.
        split_scheme: how the data was split.
        is_phantom: the images are synthetic.
        tested_on: images by source.
        fit: how it was fitted, and what fewer labels give.
        ranking: of each finding, with intervals.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    split: str
    split_scheme: str
    is_phantom: bool
    tested_on: dict[str, int]
    fit: ProbeFit
    ranking: RankingReport


def ranking_of(report: RankingReport) -> RankingReport:
    """The part of a classifier's report that ranks, without thresholds, calibration and subgroups."""
    return RankingReport(**{each.name: getattr(report, each.name) for each in fields(RankingReport)})
