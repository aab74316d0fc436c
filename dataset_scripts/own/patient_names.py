"""Whose image a file shows, by its name, where nothing else says it.

The pictures of a class folder → here → patients. A rule counts only where nearly all names follow it, and
what it came to is said, so that a user who knows better writes a table.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_KERMANY = re.compile(r"(?:(person\d+_(?:bacteria|virus))(?:_\d+)+|((?:NORMAL2-)?IM-\d+)(?:-\d+)+)", re.ASCII)
"""Kermany's chest X-rays of children: bacterial and viral pneumonia are numbered apart, and a normal film by
its study (Kermany et al. 2018, doi 10.17632/rscbjbr9sj)."""

_NUMBERED = re.compile(r"(.*\d.*)[-_]\d{1,6}", re.ASCII)
"""An identifier with a digit in it, then the number of the image: `00000013_005`, `CXR12-3`."""

_RULES = (
    (_KERMANY, "Kermany's: person1_virus_6 is of person1_virus, IM-0001-0002 of IM-0001"),
    (_NUMBERED, "all before the last number"),
)

_FEWEST_FOLLOW = 0.9  # of the names, or the rule is none

_MOST_OF_ALL = 0.05  # of the images: a larger "patient" is a set of images (COVID-19_0001, COVID-19_0002, …)

_ALWAYS_POSSIBLE = 10  # images of one patient, in however small a folder


@dataclass(frozen=True, slots=True)
class NamedPatients:
    """What the names of files say.

    Attributes:
        patients: by name of file, of those that follow the rule.
        rule: in words; "" where the names follow none.
    """

    patients: dict[str, str] = field(default_factory=dict)
    rule: str = ""


def patients_by_name(names: Sequence[str]) -> NamedPatients:
    """Return whose image each file is.

    Args:
        names: of the files, without their folders.
    """
    stems = {name: name.rpartition(".")[0] or name for name in names}
    for pattern, rule in _RULES:
        matches = {name: pattern.fullmatch(stem) for name, stem in stems.items()}
        patients = {
            name: next(group for group in match.groups() if group)
            for name, match in matches.items()
            if match is not None
        }
        if not patients or len(patients) < _FEWEST_FOLLOW * len(stems):
            continue
        largest = max(Counter(patients.values()).values())
        if pattern is _KERMANY or largest <= max(_ALWAYS_POSSIBLE, _MOST_OF_ALL * len(stems)):
            return NamedPatients(patients, rule)
    return NamedPatients()
