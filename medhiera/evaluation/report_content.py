"""What overlap measures hide of written reports: how many differ, which are copies, whether sides are right.

Stands beside caption_metrics.py; captions.py calls both. Texts count as equal when their words are.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.caption_results import Laterality
from medhiera.evaluation.shares import share_interval

SIDES = frozenset({"left", "right"})

NOTHING_THERE = frozenset({"no", "not", "without", "free", "negative", "clear", "normal", "unremarkable"})
"""A sentence with one of these words is taken to say that something is absent."""


def count_distinct(reports: Iterable[str]) -> int:
    """How many different reports there are."""
    return len({_words(report) for report in reports})


def share_verbatim(reports: Sequence[str], training: Iterable[str]) -> float:
    """The share of reports that are one of the training reports word for word; at least one report."""
    known = {_words(report) for report in training}
    return float(np.mean([_words(report) in known for report in reports]))


def _words(report: str) -> tuple[str, ...]:
    return tuple(report.split())


def named_sides(report: str) -> frozenset[str]:
    """The sides that a report names: none, left, right or both.

    A side is the word left or right, alone or before a hyphen ("right-sided"), in a sentence that holds none
    of `NOTHING_THERE`: "no right effusion" and "the left lung is clear" name none. What lies on that side is
    not looked at, and "bilateral" is no side, for it mostly stands in sentences about clear lungs.

    Args:
        report: cleaned or not; a sentence ends at a period or semicolon before white space.
    """
    found: set[str] = set()
    for sentence in re.split(r"[.;](?=\s|$)", report.lower()):
        words = set(re.findall(r"[a-z]+", sentence))
        if not words & NOTHING_THERE:
            found |= words & SIDES
    return frozenset(found)


def score_laterality(
    references: Sequence[str], predictions: Sequence[str], bootstrap: Bootstrap
) -> Laterality:
    """Compare the sides of each prediction with those of its reference.

    Args:
        references: (studies,).
        predictions: (studies,), in the same order.
        bootstrap: over all studies, behind the interval of the share.
    """
    pairs = [
        (named_sides(true), named_sides(said)) for true, said in zip(references, predictions, strict=True)
    ]
    has_side = np.array([bool(true) for true, _ in pairs], dtype=float)
    is_written = np.array([bool(said) for _, said in pairs], dtype=float)
    is_correct = np.array([bool(true) and said == true for true, said in pairs], dtype=float)
    studies, correct, written = int(has_side.sum()), int(is_correct.sum()), int(is_written.sum())
    missing = sum(bool(true) and not said for true, said in pairs)
    return Laterality(
        studies=studies,
        correct=correct,
        wrong=studies - correct - missing,
        missing=missing,
        share_correct=correct / studies if studies else None,
        share_correct_interval=_share_interval(is_correct, has_side, bootstrap),
        written=written,
        share_written_correct=correct / written if written else None,
        share_written_correct_interval=_share_interval(is_correct, is_written, bootstrap),
    )


def _share_interval(part: Floats, whole: Floats, bootstrap: Bootstrap) -> list[float] | None:
    """Of part over whole, each (studies,); None without resamples. See share_interval."""
    shares = []
    for weights in bootstrap.weights(len(whole)):
        count = whole @ weights  # a resample may hold nothing of the whole
        shares.append(np.divide(part @ weights, count, out=np.full_like(count, np.nan), where=count > 0))
    return share_interval(np.concatenate(shares), part, whole) if shares else None
