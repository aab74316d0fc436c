"""What the labels of two copies of one picture say against each other; nothing is changed because of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dataset_scripts.build.label_rows import spelling
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.findings import FINDINGS
from dataset_scripts.leakage.pairs import Shown

_NORMAL_LABEL = "No Finding"

_COVID = "COVID-19"

_COVID_CLASSES = {"covid": True, "covid-19 positive": True, "covid-19 negative": False}
"""What the classes of the Radiography database and of COVIDx say of COVID-19."""


_NORMAL_CLASSES = {"normal", spelling(_NORMAL_LABEL)}

_DISEASES = {
    *(spelling(name) for name in FINDINGS if name != _NORMAL_LABEL),
    *(name for name, is_present in _COVID_CLASSES.items() if is_present),
    *("lung opacity", "viral pneumonia"),  # the Radiography database's other classes
}

LabelNames = Mapping[str, Sequence[str]]
"""Source → the names of its records' labels, in order; FINDINGS of a source that is not named."""

_ALL_FINDINGS: LabelNames = MappingProxyType({})


def find_conflicts(pairs: Iterable[Shown], label_names: LabelNames) -> list[dict[str, Any]]:
    """Return the pairs whose labels contradict each other, as the leakage report lists them."""
    conflicts: list[dict[str, Any]] = []
    for pair in pairs:
        record, other = pair.image.record, pair.partner.record
        if words := describe_conflict(record, other, label_names):
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


def describe_conflict(
    record: ImageRecord, other: ImageRecord, label_names: LabelNames = _ALL_FINDINGS
) -> tuple[str, str] | None:
    """Return what each of two records says where both cannot be true; None where they agree or are silent.

    Two classes of one source contradict each other, as an image has one. A finding that one affirms and the
    other denies is a contradiction, and so is a normal picture (No Finding, or the class Normal) against a
    disease: any finding, or a class that is known for one. A finding that only one of them annotates is none.
    """
    is_one_source = record.source == other.source
    if is_one_source and record.class_name and other.class_name:
        is_same = record.class_name == other.class_name
        return None if is_same else (record.class_name, other.class_name)
    mine, theirs = _annotated(record, label_names), _annotated(other, label_names)
    normal = _is_normal(record, mine), _is_normal(other, theirs)
    if None not in normal and normal[0] != normal[1]:
        return _words(record, mine), _words(other, theirs)
    against = sorted(
        name
        for name in mine.keys() & theirs.keys()
        if mine[name] != theirs[name] and (is_one_source or name != _NORMAL_LABEL)
    )
    return (_words_on(against, mine), _words_on(against, theirs)) if against else None


def _annotated(record: ImageRecord, label_names: LabelNames) -> dict[str, bool]:
    """Return which labels are annotated, and how; COVID-19 too, where the class says it."""
    names = label_names.get(record.source, FINDINGS) if record.labels else ()  # a protected image has none
    annotated = {
        name: value == 1.0 for name, value in zip(names, record.labels, strict=True) if not math.isnan(value)
    }
    covid = _COVID_CLASSES.get(spelling(record.class_name))
    return annotated if covid is None else {**annotated, _COVID: covid}


def _is_normal(record: ImageRecord, annotated: Mapping[str, bool]) -> bool | None:
    if record.class_name:
        if (name := spelling(record.class_name)) in _NORMAL_CLASSES:
            return True
        return False if name in _DISEASES else None  # a user's own class may be anything
    if _present(annotated):
        return False
    return True if annotated.get(_NORMAL_LABEL) else None


def _present(annotated: Mapping[str, bool]) -> list[str]:
    return [name for name, is_present in annotated.items() if is_present and name != _NORMAL_LABEL]


def _words(record: ImageRecord, annotated: Mapping[str, bool]) -> str:
    return record.class_name or ", ".join(_present(annotated)) or _NORMAL_LABEL


def _words_on(names: Iterable[str], annotated: Mapping[str, bool]) -> str:
    return ", ".join(name if annotated[name] else f"no {name}" for name in names)
