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
from medhiera.space.reader import ChestReader, Reader

DRAWN = ("", "Cardiomegaly", "Effusion", "Pneumothorax", "Mass", "Consolidation")
"""The finding that each example is drawn with."""
NO_FINDING = "No Finding"
WHAT_IS_RIGHT = (
    "Right means: of all findings the drawn one is the most probable and reaches its threshold, if it has "
    "one, and No Finding does not reach its own."
)
"""`is_called_right` for the reader, of a phantom with a finding."""


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
    def label(self) -> str:
        """What a model calls it that is right."""
        return self.finding or NO_FINDING

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


def draw_examples(reader: Reader) -> list[Example]:
    """The phantoms that a model can say something of, the same at every start.

    Args:
        reader: the open folder; of a classifier, a phantom is left out whose finding is none of its labels.
    """
    examples = [Example(draw_example([name] if name else [], seed), name) for seed, name in enumerate(DRAWN)]
    if isinstance(reader, ChestReader):
        return [example for example in examples if example.label in reader.classifier.names]
    return examples


def is_called_right(example: Example, findings: Sequence[Finding]) -> bool:
    """Whether a model says of a phantom what was drawn.

    Right is: the drawn finding is the most probable of all but No Finding, above its threshold where it has
    one, and No Finding is not called beside it; of a phantom without a finding, No Finding is the most
    probable of all, and above its own.

    Args:
        example: whose finding the model knows.
        findings: what the model says, in any order.
    """
    drawn = example.finding
    rivals = [finding for finding in findings if not drawn or finding.name != NO_FINDING]
    likeliest = max(rivals, key=lambda finding: finding.probability)
    is_denied = any(finding.name == NO_FINDING and drawn and finding.is_above for finding in findings)
    is_called = likeliest.is_above is not False and likeliest.is_called is not False
    return likeliest.name == example.label and is_called and not is_denied


def choose_opening(reader: ChestReader, examples: Sequence[Example]) -> Opening:
    """Ask the model of every example; take the first that it calls right, rather one with a finding.

    Args:
        reader: the open folder.
        examples: of `draw_examples`, in the order of the page.
    """
    right = [example for example in examples if is_called_right(example, reader.findings(example.gray))]
    if not examples:
        return Opening(None, "")
    if not right:
        return Opening(None, f"This model calls none of the {len(examples)} example phantoms right.")
    first = min(right, key=lambda example: not example.finding)  # one with a finding, where there is one
    return Opening(
        first,
        f"This model calls {len(right)} of the {len(examples)} example phantoms right, and the page opens "
        f"with one of these. {WHAT_IS_RIGHT}",
    )
