"""The example phantoms of the page, and which of them the model calls right: it opens with the first such.

Synthetic chests are ours to show; what was drawn on each is known, so that "right" needs no reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dataset_scripts.reading.grayscale import GrayImage
from medhiera.hub.operation import Finding
from medhiera.hub.widget_examples import draw_example
from medhiera.space.reader import ChestReader

DRAWN = ("", "Cardiomegaly", "Effusion", "Pneumothorax", "Mass", "Consolidation")
"""The finding that each example is drawn with."""
NO_FINDING = "No Finding"


@dataclass(frozen=True)
class Example:
    """A phantom chest.

    Attributes:
        image: 8-bit gray.
        finding: that it was drawn with; "" for none.
    """

    image: Image.Image
    finding: str

    @property
    def caption(self) -> str:
        """What stands below it."""
        return self.finding.lower() or "no finding"

    @property
    def gray(self) -> GrayImage:
        """(height, width), uint8."""
        return np.asarray(self.image)


@dataclass(frozen=True)
class Opening:
    """What the page is opened with.

    Attributes:
        example: one that the model calls right; None where there is none.
        note: how it was chosen, for the reader.
    """

    example: Example | None
    note: str


def draw_examples() -> list[Example]:
    """The same at every start."""
    return [Example(draw_example([name] if name else [], seed), name) for seed, name in enumerate(DRAWN)]


def is_called_right(drawn: str, findings: Sequence[Finding]) -> bool | None:
    """Whether a model says of a phantom what was drawn.

    Right is: the drawn finding is the most probable of all but No Finding, above its threshold where it has
    one, and No Finding is not called beside it; of a phantom without a finding, No Finding is the most
    probable of all, and above its own.

    Args:
        drawn: the finding; "" for none.
        findings: what the model says, in any order.

    Returns:
        None where the model does not know the finding.
    """
    wanted = drawn or NO_FINDING
    if not any(finding.name == wanted for finding in findings):
        return None
    rivals = [finding for finding in findings if not drawn or finding.name != NO_FINDING]
    likeliest = max(rivals, key=lambda finding: finding.probability)
    is_denied = any(finding.name == NO_FINDING and drawn and finding.is_above for finding in findings)
    is_called = likeliest.is_above is not False and likeliest.is_called is not False
    return likeliest.name == wanted and is_called and not is_denied


def choose_opening(reader: ChestReader, examples: Sequence[Example]) -> Opening:
    """Ask the model of every example; take the first that it calls right, rather one with a finding.

    Args:
        reader: the open folder.
        examples: in the order of the page.
    """
    answers = [is_called_right(example.finding, reader.findings(example.gray)) for example in examples]
    right = [example for example, answer in zip(examples, answers, strict=True) if answer]
    known = sum(answer is not None for answer in answers)
    if not known:
        return Opening(None, "")
    if not right:
        return Opening(None, f"This model calls none of the {known} phantoms right whose finding it knows.")
    first = min(right, key=lambda example: not example.finding)  # one with a finding, where there is one
    return Opening(
        first,
        f"The page opens with a phantom that this model calls right; it does so for {len(right)} of {known} "
        "whose finding it knows. Right is: the drawn finding is the most probable but for No Finding, above "
        "its threshold where it has one, and No Finding is below its own.",
    )
