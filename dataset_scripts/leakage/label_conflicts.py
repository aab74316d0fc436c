"""What the labels of two copies of one picture say against each other; nothing is changed because of it."""

import math
from collections.abc import Iterable
from typing import Any

from dataset_scripts.build.records import ImageRecord
from dataset_scripts.findings import FINDINGS
from dataset_scripts.leakage.pairs import Shown

_NORMAL_LABEL, _NORMAL_CLASS = "No Finding", "Normal"


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
    mine, theirs = _findings(record), _findings(other)
    against = sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])
    normal = _is_normal(record), _is_normal(other)
    if None not in normal and normal[0] != normal[1]:
        return _words(record, mine), _words(other, theirs)
    if against:
        return _words_on(against, mine), _words_on(against, theirs)
    return None


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
        return record.class_name == _NORMAL_CLASS
    if any(_findings(record).values()):
        return False
    says_so = len(record.labels) == len(FINDINGS) and record.labels[FINDINGS.index(_NORMAL_LABEL)] == 1.0
    return True if says_so else None


def _words(record: ImageRecord, findings: dict[str, bool]) -> str:
    present = ", ".join(name for name, is_present in findings.items() if is_present)
    return record.class_name or present or _NORMAL_LABEL


def _words_on(names: list[str], findings: dict[str, bool]) -> str:
    return ", ".join(name if findings[name] else f"no {name}" for name in names)
