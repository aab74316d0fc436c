"""How a classifier's probabilities are to be read: calibration and thresholds, by its folder's record.

record.py → here → predict.py, the ONNX export, the card's examples and the page, so that all of them give the
same numbers: `probability` is the model's own, `calibrated` the same rescaled on validation, and `threshold`
belongs to the model's own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medhiera.evaluation.calibration import rescale
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport, Verdict
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.results import (
    CalibrationReport,
    ChosenThresholds,
    FindingOperatingPoints,
    ModelChoice,
    Rescaling,
)
from medhiera.evaluation.thresholds import RULES
from medhiera.formatting import percent
from medhiera.hub.contents import is_of_these_files
from medhiera.hub.lineage import find_record
from medhiera.hub.record import AnyRecord, ClassificationRecord, read_record
from medhiera.inference.heat_maps import METHOD

_NO_BOXES = "this map was compared with no boxes"


@dataclass(frozen=True)
class Finding:
    """What is said of one finding in one image.

    Attributes:
        name: of the finding.
        probability: the model's own, as the stock pipeline gives it.
        calibrated: the probability rescaled as validation showed; None where validation allowed nothing.
        threshold: of `probability`, by Youden's index on validation; None where none was chosen.
        is_called: of labels that exclude each other, whether this one is the most probable; else None.
    """

    name: str
    probability: float
    calibrated: float | None = None
    threshold: float | None = None
    is_called: bool | None = None

    @property
    def is_above(self) -> bool | None:
        """Whether the probability reaches the threshold; None without one."""
        return None if self.threshold is None else self.probability >= self.threshold

    @property
    def is_marked(self) -> bool:
        """Whether the page prints it in bold: it is above its threshold, or the label that is called."""
        return bool(self.is_above or self.is_called)


def choice_of(source: str | Path, record: AnyRecord | None, names: Mapping[str, str]) -> ModelChoice | None:
    """The thresholds and rescaling of a model's record; None where it holds none of its own probabilities.

    Args:
        source: the model's folder or Hub id.
        record: the model's.
        names: the model's name of a finding, by the name that is wanted.
    """
    if not isinstance(record, ClassificationRecord) or not _is_of_own_probabilities(record):
        return None
    evaluation = record.evaluation
    points = evaluation.operating_points
    if not points.findings or not is_of_these_files(source, record):
        return None

    def chosen(point: FindingOperatingPoints) -> ChosenThresholds:
        thresholds = {rule: getattr(point, rule) and getattr(point, rule).threshold for rule in RULES}
        return ChosenThresholds(
            **thresholds, positives=point.positives, positive_patients=point.positive_patients,
            reason=point.reason,
        )  # fmt: skip

    there = {name: own for name, own in names.items() if own in points.findings}
    return ModelChoice(
        thresholds={name: chosen(points.findings[own]) for name, own in there.items()},
        rescaling={name: evaluation.rescaling.get(own) for name, own in names.items()},
        validation_images=points.validation_images,
    )


def _is_of_own_probabilities(record: ClassificationRecord) -> bool:
    """Whether a record's thresholds and rescaling are of the probabilities that the stock pipeline gives.

    Not where they were chosen for sigmoid(softmax(logits)), which nothing but a comparison computes; nor of
    labels that exclude each other, for which none are chosen.
    """
    return not record.has_legacy_scores and record.evaluation.exclusive is None


@dataclass(frozen=True)
class Operation:
    """How probabilities are to be read, from a record.

    Attributes:
        thresholds: of the model's own probabilities, by finding; empty where the record holds none.
        rescaling: of probabilities, by finding, as calibration.rescale takes it; None where it has none.
        is_demo: a smoke run, or one on phantoms.
        pointing_game: how often the model's heat maps hit boxes; None where there is no record.
        calibration: of the scored split, with and without the rescaling; None where there is no record.
        split: which one that is.
    """

    thresholds: dict[str, float]
    rescaling: dict[str, Rescaling | None]
    is_demo: bool
    pointing_game: LocalizationReport | None = None
    calibration: CalibrationReport | None = None
    split: str = ""

    @classmethod
    def none(cls) -> "Operation":
        """Of a model of which nothing is recorded, or of several whose probabilities are averaged."""
        return cls({}, {}, is_demo=False)

    @classmethod
    def read(cls, folder: Path) -> "Operation":
        """Of a folder: thresholds by Youden's index and rescaling, both chosen on validation.

        Raises:
            UserError: its record is damaged, or one that this version cannot read.
        """
        return cls._of(folder, read_record(folder))

    @classmethod
    def find(cls, source: str | Path, *, is_kept: bool = False) -> "Operation":
        """The same of a folder or a Hub id, whose record is fetched (or found in the cache).

        Args:
            source: the folder or Hub id.
            is_kept: what is found goes into a file that is handed on; see find_record.

        Raises:
            UserError: see `read` and find_record.
        """
        return cls._of(source, find_record(source, is_kept=is_kept))

    @classmethod
    def _of(cls, source: str | Path, record: AnyRecord | None) -> "Operation":
        is_demo = record is not None and (record.kind == "smoke" or record.is_phantom)
        if not isinstance(record, ClassificationRecord) or not is_of_these_files(source, record):
            return cls({}, {}, is_demo)
        evaluation = record.evaluation
        if not _is_of_own_probabilities(record):
            return cls({}, {}, is_demo, evaluation.pointing_game)
        points = evaluation.operating_points.findings
        return cls(
            {name: point.youden.threshold for name, point in points.items() if point.youden},
            evaluation.rescaling,
            is_demo,
            evaluation.pointing_game,
            evaluation.calibration,
            evaluation.split,
        )

    def findings(
        self, names: Sequence[str], probabilities: Sequence[float], is_exclusive: bool = False
    ) -> list[Finding]:
        """What is said of one image, in the order of `names`.

        Args:
            names: of the findings.
            probabilities: the model's own.
            is_exclusive: each image has exactly one of the labels: no calibration and no threshold applies.
        """
        if is_exclusive:
            largest = probabilities.index(max(probabilities))  # of several the first: one label is called
            return [
                Finding(name, probability, is_called=number == largest)
                for number, (name, probability) in enumerate(zip(names, probabilities, strict=True))
            ]
        calibrated = rescale(np.array([probabilities]), self.rescaling, names)[0].tolist()
        return [
            Finding(
                name,
                probability,
                scaled if self.rescaling.get(name) is not None else None,
                self.thresholds.get(name),
            )
            for name, probability, scaled in zip(names, probabilities, calibrated, strict=True)
        ]

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that depend on thresholds and rescaling; "" where there is neither."""
        fits = {name: asdict(fit) for name, fit in self.rescaling.items() if fit is not None}
        if not fits and not self.thresholds:
            return ""
        text = json.dumps([self.thresholds, fits], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def notes(self, names: Sequence[str], is_exclusive: bool = False) -> list[str]:
        """Say how thresholds and calibrated probabilities came about.

        Args:
            names: of the labels.
            is_exclusive: each image has exactly one of them.
        """
        if is_exclusive:
            return [
                "Each image has exactly one of these labels: probabilities sum to 1, and the largest is "
                "called. They are uncalibrated."
            ]
        calibrated = sum(self.rescaling.get(name) is not None for name in names)
        with_threshold = sum(name in self.thresholds for name in names)
        first = "Probability is the model's own."
        if calibrated:
            of = "" if calibrated == len(names) else f" ({calibrated} of {len(names)} findings)"
            first += f" Calibrated is the same, rescaled as validation images showed{of}."
            if worse := self.worse_calibrated():
                first += f" {worse}."
        else:
            first += " It is uncalibrated: the model's folder holds no calibration."
        if not with_threshold:
            return [first, "There is no threshold: the model's folder holds none."]
        second = "Thresholds are of the model's own probability and have the largest sum of sensitivity and "
        second += "specificity on validation images"
        if with_threshold < len(names):
            second += f"; {len(names) - with_threshold} findings have none"
        return [first, f"{second}."]

    def worse_calibrated(self) -> str:
        """Say so where rescaling made the scored split's calibration error larger, else nothing."""
        own = self.calibration
        if own is None or own.rescaled is None:
            return ""
        before, after = own.mean_ece, own.rescaled.mean_ece
        if before is None or after is None or not after > before:
            return ""
        return (
            f"On the {self.split} split the rescaling did not help: the calibration error is {before:.3f} "
            f"without and {after:.3f} with it"
        )

    def has_heat_maps(self, names: Sequence[str]) -> bool:
        """Whether the heat map of any of these findings may be shown, see `heat_verdict`."""
        return any(self.heat_verdict(name)[0] != "not above chance" for name in names)

    def heat_verdict(self, name: str) -> tuple[Verdict, str]:
        """Whether a finding's heat map may be shown, and a sentence to stand beside it or in its place."""
        game, label = self.pointing_game, name.replace("_", " ")
        if game is None or game.method != METHOD:  # what another method's maps scored says nothing of these
            return "unchecked", f"Unchecked for {label}: {_NO_BOXES}, and may point to the wrong place."
        verdict = game.verdict_on(name)
        is_own = game.verdict == "above chance"
        scored, of = (game.findings.get(name), f" of {label}") if is_own else (game, "")
        if verdict == "unchecked" or scored is None:
            few = _why_unchecked(scored, of)
            return verdict, f"Unchecked for {label}: {few}, and may point to the wrong place."
        numbers = _hits(scored, of)
        if verdict == "not above chance":
            return verdict, f"No heat map: those of this model are not better than chance ({numbers})."
        return verdict, f"How far to believe it: {numbers}."


def _why_unchecked(scored: HitRate | LocalizationReport | None, of: str) -> str:
    """Say of how many cases a map was compared with boxes, where they are too few to tell.

    Args:
        scored: of these cases; None where no box was there.
        of: whose cases, " of Mass", or "".
    """
    if scored is None or not scored.pairs:
        return _NO_BOXES
    if scored.patients < FEWEST_PATIENTS:
        cases = f"{scored.pairs} cases" if scored.pairs > 1 else "1 case"
        return (
            f"this map was compared with boxes in {cases}{of} alone, of fewer than {FEWEST_PATIENTS} patients"
        )
    return f"this map was compared with boxes in {scored.pairs} cases{of}, but no interval was computed"


def _hits(scored: HitRate | LocalizationReport, of: str) -> str:
    """Say how often the highest point lay in a box, beside a random point where the two can be told apart.

    Args:
        scored: of at least one case.
        of: whose cases, " of Mass", or "".
    """
    rate, chance = scored.hit_rate or 0.0, scored.chance or 0.0
    cases = f"{scored.pairs} cases{of} with a box"
    in_percent = f"in {percent(rate)} %, a random point would in {percent(chance)} %"
    return f"in the {cases}, its highest point lay in the box {in_percent}"
