"""What the guard leaves beside a build: leakage_report.json, and the pairs on a contact sheet.

guard.py → `LeakageFindings` → here. Of protected images (`protected.py`) neither holds a name or a pixel.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset_scripts.leakage.identifiers import known_names
from dataset_scripts.leakage.label_conflicts import LabelNames, find_conflicts
from dataset_scripts.leakage.pairs import Located, Shown
from dataset_scripts.leakage.protected import PROTECTED

UNSURE_BELOW = 0.70
"""A pair found by pixels alone with a lower correlation is to be looked at: an identical picture has more."""

Pairs = dict[str, Shown]
"""Image id → what the image shows."""


@dataclass(slots=True)
class LeakageFindings:
    """What the guard compared and found.

    Attributes:
        trained: the training images.
        held_out: the held-out images of the data.
        protected: those of the user's own list; None where there is no list.
        tasks: the sources of stage 2.
        leaks: training images that show one of the held-out or protected.
        training_duplicates: images of other sources that show a training image of the tasks.
        source_duplicates: training images that show an earlier one of their own source; None where that was
            not asked for.
        held_out_duplicates: validation images that show a test image of their own source.
        label_names: of the records' labels, by source.
        drawn: sources of which validation or test, or both, were drawn here.
        compared_within: the sources whose training images were compared with their own held-out ones.
    """

    trained: list[Located]
    held_out: list[Located]
    protected: list[Located] | None
    tasks: list[str]
    label_names: LabelNames
    leaks: Pairs = field(default_factory=dict)
    training_duplicates: Pairs = field(default_factory=dict)
    source_duplicates: Pairs | None = None
    held_out_duplicates: Pairs = field(default_factory=dict)
    drawn: Sequence[str] = ()
    compared_within: list[str] = field(default_factory=list)

    def kinds(self) -> dict[str, Pairs]:
        """Return all pairs by what they are called in the report."""
        return {
            "leaks": self.leaks,
            "training_duplicates": self.training_duplicates,
            "source_duplicates": self.source_duplicates or {},
            "held_out_duplicates": self.held_out_duplicates,
        }

    def drawn_duplicates(self) -> Pairs:
        """Return those of `held_out_duplicates` whose split was drawn here, so that they need not stay."""
        return {
            image_id: pair
            for image_id, pair in self.held_out_duplicates.items()
            if pair.image.source in self.drawn
        }


def make_report(
    found: LeakageFindings, threshold: float, allow_leakage: bool, phantoms: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of leakage_report.json; an image counts as compared if its pixels were.

    Args:
        found: by the guards.
        threshold: that a correlation must reach.
        allow_leakage: the leaks were kept.
        phantoms: sources whose images are drawn.
    """
    trained_by = Counter(item.source for item in found.trained)
    held_out_by = Counter(item.source for item in found.held_out)
    shown_of = Counter(leak.partner.source for leak in found.leaks.values())
    compared = {
        source: trained_by.total() - (0 if source in found.compared_within else trained_by[source])
        for source in held_out_by
    }
    leaks = _as_rows(found.leaks.values(), "held_out")
    repeated = None if found.source_duplicates is None else _as_rows(found.source_duplicates.values(), "kept")
    kinds = found.kinds()
    protected = None
    if found.protected is not None:
        shown = shown_of[PROTECTED]
        protected = {"images": len(found.protected), "compared": trained_by.total(), "shown": shown}
    return {
        "reference": list(held_out_by),
        "allow_leakage": allow_leakage,
        "held_out_images": len(found.held_out),
        "compared_images": sum(
            count
            for source, count in trained_by.items()
            if protected or source in found.compared_within or held_out_by.keys() - {source}
        ),
        "threshold": threshold,
        "near_threshold": _near_threshold(found, phantoms),
        "held_out": {
            source: {"images": count, "compared": compared[source], "shown": shown_of[source]}
            for source, count in held_out_by.items()
        },
        "protected": protected,
        "compared_within": found.compared_within,
        "named_images": dict(Counter(item.source for item in found.trained if known_names(item.record))),
        "found_by": {
            kind: dict(Counter(guard for pair in pairs.values() for guard in pair.guards))
            for kind, pairs in kinds.items()
        },
        "dropped": [] if allow_leakage else leaks,
        "allowed": leaks if allow_leakage else [],
        "training_reference": [source for source in found.tasks if trained_by[source]],
        "training_duplicates": _as_rows(found.training_duplicates.values(), "training"),
        "source_duplicates": repeated,
        "held_out_duplicates": _as_rows(found.held_out_duplicates.values(), "test"),
        "dropped_validation_images": 0 if allow_leakage else len(found.drawn_duplicates()),
        "label_conflicts": find_conflicts(
            (pair for pairs in kinds.values() for pair in pairs.values()), found.label_names
        ),
    }


def _near_threshold(found: LeakageFindings, phantoms: Sequence[str]) -> dict[str, Any]:
    """Say how many leaks pixels alone found and only just."""
    near = [
        pair
        for pair in shown_pairs(found)
        if pair.guards == ("pixels",) and (pair.correlation or 0.0) < UNSURE_BELOW
    ]
    drawn = sum(pair.image.source in phantoms for pair in near)
    return {"below": UNSURE_BELOW, "images": len(near), "drawn": drawn}


def shown_pairs(found: LeakageFindings) -> Sequence[Shown]:
    """Return the leaks that the contact sheet may show: none with a protected image."""
    return [leak for leak in found.leaks.values() if leak.partner.source != PROTECTED]


def _as_rows(pairs: Iterable[Shown], what: str) -> list[dict[str, Any]]:
    return [
        {
            "image_id": item.image.image_id,
            f"{what}_image_id": "" if item.partner.source == PROTECTED else item.partner.image_id,
            f"{what}_source": item.partner.source,
            f"{what}_split": item.partner.split,
            "guards": list(item.guards),
            "correlation": item.correlation,
            "change": item.change,
        }
        for item in sorted(pairs, key=lambda pair: pair.image.image_id)
    ]
