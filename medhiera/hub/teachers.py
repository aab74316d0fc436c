"""What a record says of a teacher: a model whose features stage 1 predicted, so that its data count too.

Below record.py; lineage.py fills it in.
"""

import re
from dataclasses import dataclass

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "unlicense")
"""Licences that ask no more of what is made with a model than to name it."""

_HAS_SEEN_TEST = re.compile(r"rad[-_ ]?dino", re.IGNORECASE)
"""Models that are believed to have seen all of ChestX-ray14, its test list included."""

_CHESTXRAY14 = re.compile(
    r"chestx[-_ ]?ray|chest[-_ ]x[-_ ]?ray[-_ ]?(8|14)|cxr[-_ ]?(8|14)(?!\d)"
    r"|nih[-_ ]?c|(?<![a-z])nih(?![a-z])",
    re.IGNORECASE,
)
_HOLDS_TEST_IMAGES = re.compile(r"rsna|covid[-_ ]?x(?![-_ ]?ray)|radiography", re.IGNORECASE)
"""Sets with images of ChestX-ray14 in their own training parts, those of its test list too (docs/data.md)."""

_TRAINING_PART = re.compile(
    r"(nih )?[^\s,;+&()]+[-_ ,(]+(official )?train(ing)?( (set|split|list|part))?\)?", re.IGNORECASE
)
_MORE_THAN_TRAINING = re.compile(r"test|(?<![a-z])all(?![a-z])|val|pre[-_ ]?train", re.IGNORECASE)


@dataclass
class TeacherRecord:
    """A teacher of this stage, or of one before it.

    Attributes:
        name: a folder's own name or a Hub id.
        model_type: transformers' name of its kind.
        fingerprint: of its weights and its input.
        license: an SPDX or Hub name; None where unknown.
        datasets: that it was trained on; None where unknown.
        saw_test: it has seen test images of ChestX-ray14, as far as is known.
    """

    name: str
    model_type: str
    fingerprint: str
    license: str | None
    datasets: list[str] | None
    saw_test: bool = False


def has_seen_test(name: str, datasets: list[str] | None) -> bool:
    """Whether a model counts as one that has seen ChestX-ray14's test images.

    Args:
        name: its folder or Hub id.
        datasets: as its card or the user names them; None where unknown, which counts as not seen (the card
            says that it is unknown). ChestX-ray14 counts as all of it, unless its name is followed by the
            word for its training part and nothing else ("ChestX-ray14 train"); RSNA Pneumonia, COVIDx
            and the Radiography database always count, as they hold images of its test list.
    """
    names = datasets or ()
    if any(_HAS_SEEN_TEST.search(one) or _HOLDS_TEST_IMAGES.search(one) for one in names):
        return True
    return bool(_HAS_SEEN_TEST.search(name)) or any(
        _CHESTXRAY14.search(one) and not _is_training_part(one) for one in names
    )


def _is_training_part(name: str) -> bool:
    """Whether a dataset's name claims its training part and nothing beside it."""
    return bool(_TRAINING_PART.fullmatch(name.strip())) and not _MORE_THAN_TRAINING.search(name)


def license_with(of_weights: str | None, of_teacher: str | None) -> str | None:
    """The licence of weights that started from some and learned from others; None where nobody can say.

    Args:
        of_weights: of those that training started from.
        of_teacher: of the model whose features they predict.
    """
    if of_teacher in (*PERMISSIVE, of_weights):
        return of_weights
    return of_teacher if of_weights in PERMISSIVE else None
