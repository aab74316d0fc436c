"""What the guards hand to each other: an image with its place, and one that shows another."""

from dataclasses import dataclass
from pathlib import Path

from dataset_scripts.build.records import ImageRecord


@dataclass(frozen=True, slots=True)
class Located:
    """A record with the folder it lies in and the split it stands in."""

    record: ImageRecord
    root: Path
    split: str

    @property
    def image_id(self) -> str:
        """The record's."""
        return self.record.image_id

    @property
    def source(self) -> str:
        """The record's."""
        return self.record.source


@dataclass(frozen=True, slots=True)
class Shown:
    """An image, the one that it shows, the guards that noticed, and what was changed.

    Attributes:
        image: what is trained on.
        partner: what it shows.
        guards: "identifier", "patient", "pixels".
        correlation: of the pixels; None where they did not notice.
        change: what was done to the image since; None as above.
    """

    image: Located
    partner: Located
    guards: tuple[str, ...]
    correlation: float | None = None
    change: str | None = None
