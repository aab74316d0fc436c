"""The user's own held-out list: images that a build protects though they are no part of its data.

`SourceConfig.protect` → `read_protected` → references of the guard. Nothing of what a build publishes holds a
name or a pixel of them: the pairs stand in a hidden file beside the report, which no upload takes.
"""

import csv
import io
import itertools
import logging
from collections.abc import Iterable
from pathlib import Path

from dataset_scripts.build.atomic_files import write_atomically
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.errors import BadImageError, DataLayoutError
from dataset_scripts.leakage.image_sets import open_images
from dataset_scripts.leakage.pairs import Located, Shown
from dataset_scripts.leakage.thumbnails import Thumbnails, read_thumbnails

logger = logging.getLogger(__name__)

PROTECTED = "protected"
"""The source and the split of the protected images, in reports."""

_READ_AT_ONCE = 4096


def read_protected(
    place: str, num_proc: int | None
) -> tuple[list[Located], list[Thumbnails], tuple[str, ...]]:
    """Read the images of the user's own held-out list.

    Returns:
        References that bear numbers in place of names, their thumbnails, and the names. The log says how many
        there are; an image that cannot be read protects nothing and is named there.

    Raises:
        UserError: there is nothing of this name, or no image in it.
        DataLayoutError: not one image can be read.
    """
    images = open_images(place)
    thumbnails, names = [], []
    bad: list[str] = []
    for start in range(0, len(images.names), _READ_AT_ONCE):
        cells = list(itertools.islice(images.cells.read(start), _READ_AT_ONCE))
        faults: dict[int, BadImageError] = {}
        read = read_thumbnails(cells, num_proc, faults.__setitem__)
        for row, pixels in enumerate(read):
            name = images.names[start + row]
            if row in faults:
                bad.append(f"{name} ({faults[row]})")
            else:
                thumbnails.append(pixels)
                names.append(name)
    if bad:
        logger.warning(
            "protect: %s of the %s images of %s cannot be read, so they are not protected: %s%s",
            f"{len(bad):,}",
            f"{len(images.names):,}",
            place,
            ", ".join(bad[:5]),
            ", ..." if len(bad) > 5 else "",
        )
    if not names:
        raise DataLayoutError(
            f"protect is {place}, of which no image can be read. Wanted the images to hold out."
        )
    passed_over = f"; {images.others:,} files are no pictures" if images.others else ""
    logger.info("protect: %s images of %s are protected%s", f"{len(names):,}", place, passed_over)
    located = [
        Located(ImageRecord(f"{PROTECTED}/{number}", PROTECTED, "", "", ()), Path(), PROTECTED)
        for number in range(len(names))
    ]
    return located, thumbnails, tuple(names)


def write_pairs(path: Path, leaks: Iterable[Shown], names: tuple[str, ...]) -> None:
    """Write which training image shows which protected one, for the user alone."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image_id", "protected", "score", "change"))
    for leak in leaks:
        if leak.partner.source == PROTECTED:
            name = names[int(leak.partner.image_id.rpartition("/")[2])]
            writer.writerow((leak.image.image_id, name, leak.correlation, leak.change))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
