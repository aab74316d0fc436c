"""Several classifiers of the same findings, whose probabilities are averaged; one alone is an ensemble too.

Stands on classifier.py; evaluate_cls.py and predict.py open what `--model` names here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from medhiera.data.finding_names import find_name, plain_name
from medhiera.device import CPU
from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier


@dataclass(frozen=True)
class Ensemble:
    """Classifiers, each with its own preprocessing: sizes and normalizations may differ.

    Attributes:
        classifiers: one or more.
        columns: for each, which of its outputs is each of the first one's findings.
    """

    classifiers: list[Classifier]
    columns: list[list[int]]

    @classmethod
    def open(cls, sources: Sequence[str | Path], device: torch.device = CPU) -> "Ensemble":
        """Load all of them.

        Args:
            sources: folders or Hub ids.
            device: where they are to run.

        Raises:
            UserError: see Classifier.from_pretrained; or two are the same model, or they name other findings.
        """
        opened = [Classifier.from_pretrained(source, device) for source in sources]
        _check_activations(sources, opened)
        seen: dict[str, int] = {}
        for number, classifier in enumerate(opened):
            twin = seen.setdefault(classifier.fingerprint(), number)
            if twin != number:
                raise UserError(
                    f"--model {sources[twin]} and {sources[number]} are the same model, which the mean would "
                    "count twice; leave one of them out"
                )
        return cls(opened, [_columns(sources, opened, number) for number in range(len(opened))])

    @property
    def names(self) -> list[str]:
        """Of the findings, in the first model's order and spelling."""
        return self.classifiers[0].names

    @property
    def resize_size(self) -> int:
        """The largest shorter side that one of them resizes to, in pixels."""
        return max(classifier.preprocessing.resize_size for classifier in self.classifiers)

    def fingerprint(self) -> str:
        """Of one model its own; of several all of theirs, the same in any order."""
        return "+".join(sorted(classifier.fingerprint() for classifier in self.classifiers))

    def pixels(self, image: Image.Image) -> list[Tensor]:
        """An image as each of them is given it."""
        return [classifier.preprocessing.pixels(image) for classifier in self.classifiers]

    def score(self, pixels: Sequence[list[Tensor]]) -> Tensor:
        """The mean of their probabilities.

        Args:
            pixels: of each image, from the method of this name.

        Returns:
            (images, findings), float64, on the CPU; a single model's are its own.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        scores = [
            classifier.score(classifier.pixel_values([each[number] for each in pixels]))[:, columns]
            for number, (classifier, columns) in enumerate(zip(self.classifiers, self.columns, strict=True))
        ]
        return torch.stack(scores).mean(dim=0)


def _columns(sources: Sequence[str | Path], opened: Sequence[Classifier], number: int) -> list[int]:
    """Which output of a model is each finding of the first one; spaces, underscores and case do not count.

    Raises:
        UserError: one of the two names a finding that the other does not.
    """
    first, own = opened[0].names, opened[number].names
    columns = [find_name(name, own) for name in first]
    alone = [name for name, column in zip(first, columns, strict=True) if column is None]
    alone += [name for column, name in enumerate(own) if column not in columns]
    alone = sorted({plain_name(name) for name in alone})
    if alone:
        raise UserError(
            f"--model {sources[0]} and {sources[number]} name other findings: {', '.join(alone[:5])} "
            f"{'are' if len(alone) > 1 else 'is'} known to one of them alone, so there is no mean; average "
            "models of the same findings"
        )
    return [column for column in columns if column is not None]


def _check_activations(sources: Sequence[str | Path], opened: Sequence[Classifier]) -> None:
    """Refuse to average probabilities that sum to 1 with such that do not.

    Raises:
        UserError: as said.
    """
    for source, classifier in zip(sources, opened, strict=True):
        if classifier.is_exclusive != opened[0].is_exclusive:
            single = source if classifier.is_exclusive else sources[0]
            raise UserError(
                f"--model {sources[0]} and {source}: {single} gives each image exactly one label, the other "
                "any number of them; average models of one kind"
            )
