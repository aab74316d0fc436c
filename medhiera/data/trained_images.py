"""Which images a model was trained on, kept beside it: none of them may be held out for its scores.

Stands between a finished stage and the rows that the next stage or an evaluation reads. Your own folder's
random hold-out is drawn anew when the folder grows, so an image can change sides between two builds.
"""

import hashlib
from pathlib import Path

from datasets import Dataset

from medhiera.data.columns import read_column
from medhiera.errors import UserError
from medhiera.layout import TRAINED_IMAGES_FILE


def digests(rows: Dataset) -> list[str]:
    """64 bits of each image_id, as hex: a list of names would tell whose images they are."""
    names = read_column(rows, "image_id").to_pylist()
    return [
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest() for name in names
    ]


def read_trained_images(source: str | Path | None) -> set[str]:
    """Digests of what a model and the stages before it were trained on; empty where no list lies beside it.

    Args:
        source: a stage's folder, or one of its checkpoints; a Hub id has none, as the list is not published.
    """
    places = () if source is None else (Path(source), Path(source).resolve().parent)
    for file in (place / TRAINED_IMAGES_FILE for place in places):
        if file.is_file():
            return set(file.read_text(encoding="ascii").split())
    return set()


def write_trained_images(folder: Path, trained: set[str]) -> None:
    """Write the list, with that of the stages before."""
    (folder / TRAINED_IMAGES_FILE).write_text("\n".join(sorted(trained)) + "\n", encoding="ascii")


def check_unseen(source: str | Path | None, **held_out: Dataset) -> None:
    """Refuse to score a model on images that it was trained on.

    Args:
        source: the model's folder or Hub id, or None.
        **held_out: rows by split.

    Raises:
        UserError: some were; with how many, and one by name.
    """
    trained = read_trained_images(source)
    for split, rows in held_out.items() if trained else ():
        seen = [row for row, digest in enumerate(digests(rows)) if digest in trained]
        if seen:
            name = read_column(rows, "image_id")[seen[0]].as_py()
            raise UserError(
                f"{source} was trained on {len(seen)} of the {len(rows)} {split} images, such as {name!r}: "
                "its scores would be too good. The data was split otherwise when it was trained; a folder of "
                "your own is split anew when it grows. Give its CSV a column `split` with the split of then, "
                "or train again from the stage before"
            )
