"""What the labels of two copies of one picture say against each other; nothing is changed because of it."""

import math
from collections.abc import Iterable
from typing import Any

from dataset_scripts.build.records import ImageRecord
from dataset_scripts.findings import FINDINGS
from dataset_scripts.leakage.pairs import Shown

_NORMAL_LABEL, _NORMAL_CLASS = "No Finding", "Normal"

_DISEASES = {
    *(name.casefold() for name in FINDINGS if name != _NORMAL_LABEL),
    *("covid", "lung_opacity", "viral pneumonia"),  # the Radiography database's classes
}


def find_conflicts(pairs: Iterable[Shown]) -> list[dict[str, Any]]:
    """Return the pairs whose labels contradict each other, as the leakage report lists them."""
    conflicts: list[dict[str, Any]] = []
    for pair in pairs:
        record, other = pair.image.record, pair.partner.record
        if words := describe_conflict(record, other):
            conflicts.append(
                {
                    "image_id": record.image_id,
                    "says": words[0],
                    "other_image_id": other.image_id,
                    "other_says": words[1],
                    "guards": list(pair.guards),
                }
            )
    return conflicts


def describe_conflict(record: ImageRecord, other: ImageRecord) -> tuple[str, str] | None:
    """Return what each of two records says where both cannot be true; None where they agree or are silent.

    A finding that one affirms and the other denies is a contradiction, and so is a normal picture (No
    Finding, or the source's class Normal) against a disease (any finding, or another class of the source). A
    finding that only one of them annotates is none.
    """
    if record.source == other.source and len(record.labels) != len(FINDINGS):
        return _own_conflict(record, other)
    mine, theirs = _findings(record), _findings(other)
    against = sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])
    normal = _is_normal(record), _is_normal(other)
    if None not in normal and normal[0] != normal[1]:
        return _words(record, mine), _words(other, theirs)
    if against:
        return _words_on(against, mine), _words_on(against, theirs)
    return None


def _own_conflict(record: ImageRecord, other: ImageRecord) -> tuple[str, str] | None:
    """Return the same of two images of a user's own folder, whose labels are the same ones in one order."""
    against = [
        number
        for number, pair in enumerate(zip(record.labels, other.labels, strict=True), start=1)
        if not any(map(math.isnan, pair)) and pair[0] != pair[1]
    ]
    if not against:
        return None
    if record.class_name and other.class_name:
        return record.class_name, other.class_name
    mine, theirs = (
        {number: each.labels[number - 1] == 1.0 for number in against} for each in (record, other)
    )
    return _own_words(mine), _own_words(theirs)


def _own_words(labels: dict[int, bool]) -> str:
    return ", ".join(f"{'' if is_present else 'no '}label {number}" for number, is_present in labels.items())


def _findings(record: ImageRecord) -> dict[str, bool]:
    """Return which findings are annotated, and how; the labels of a user's own folder alone are others."""
    if len(record.labels) != len(FINDINGS):
        return {}
    annotated = zip(FINDINGS, record.labels, strict=True)
    return {
        name: value == 1.0 for name, value in annotated if not math.isnan(value) and name != _NORMAL_LABEL
    }


def _is_normal(record: ImageRecord) -> bool | None:
    if record.class_name:
        if (name := record.class_name.casefold()) == _NORMAL_CLASS.casefold():
            return True
        return False if name in _DISEASES else None  # a user's own classes may be anything
    if len(record.labels) != len(FINDINGS):
        return None
    if any(_findings(record).values()):
        return False
    return True if record.labels[FINDINGS.index(_NORMAL_LABEL)] == 1.0 else None


def _words(record: ImageRecord, findings: dict[str, bool]) -> str:
    present = ", ".join(name for name, is_present in findings.items() if is_present)
    return record.class_name or present or _NORMAL_LABEL


def _words_on(names: list[str], findings: dict[str, bool]) -> str:
    return ", ".join(name if findings[name] else f"no {name}" for name in names)
