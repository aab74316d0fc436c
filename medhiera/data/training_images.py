"""Which images a model has seen, in `training_images.parquet` beside it: none may be held out for its scores.

Stands between a finished stage and the rows that the next stage or an evaluation reads; it is published with
the stage, so that others can leave the overlap out. An image can change sides between two builds: your own
folder's random hold-out is drawn anew when the folder grows, and public sets copied images from each other,
under new names. So it is compared by each name that a build knows: its own, ChestX-ray14's, RSNA's, its
study's.

Names of images that only their owners may pass on are digests (`_name`), here and in what is compared. Those
of a dataset are known by their content: rows move from one revision to the next.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import Dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
from pyarrow import parquet

from dataset_scripts import SOURCES
from dataset_scripts.build.atomic_files import whole_file
from dataset_scripts.findings import IS_PHANTOM, NIH_IMAGE, RSNA_IMAGE, STUDY_ID
from dataset_scripts.image_folder import SOURCE as OWN_SOURCE
from dataset_scripts.own.dataset_rows import content_name
from medhiera.data.columns import read_column
from medhiera.errors import UserError, one_line
from medhiera.layout import TRAINING_IMAGES_FILE, offline_reason

logger = logging.getLogger(__name__)

_NAMES = ("image_id", NIH_IMAGE, RSNA_IMAGE, STUDY_ID)
"""Columns by which an image is known again."""

_COLUMNS = ("source", "image_id", "split", NIH_IMAGE, RSNA_IMAGE, STUDY_ID)

_SCHEMA = pa.schema([(name, pa.string()) for name in _COLUMNS])

_OWN_NAMES = (
    ". Your own images are known by their paths in data_dir: where these are others of the same names, put "
    "them into a folder of another name there"
)

_EARLIER_FILE = "trained_images.txt"

_PUBLIC = {source.name for source in SOURCES if source.may_be_uploaded} - {OWN_SOURCE.name}


def names_are_public(source: str) -> bool:
    """Whether a source's images may be named: they are not yours, and its terms do not forbid it."""
    return source in _PUBLIC


def list_images(rows: Dataset, split: str) -> pd.DataFrame:
    """What the file says of some rows, in their order: a column for each of `_COLUMNS`, None where unknown.

    Args:
        rows: of built data.
        split: train, or validation for images that the checkpoint was chosen on.
    """
    given = {
        name: read_column(rows, name).to_pylist() if name in rows.column_names else [None] * len(rows)
        for name in ("source", *_NAMES, IS_PHANTOM)
    }
    is_drawn = [bool(value) for value in given[IS_PHANTOM]]
    is_public = [source in _PUBLIC for source in given["source"]]
    table: dict[str, Any] = {
        name: [
            _name(value, drawn, public or name in (NIH_IMAGE, RSNA_IMAGE))
            for value, drawn, public in zip(given[name], is_drawn, is_public, strict=True)
        ]
        for name in _NAMES
    }
    table["source"] = [
        _name(value, drawn, True) for value, drawn in zip(given["source"], is_drawn, strict=True)
    ]
    table["split"] = [split] * len(rows)
    return pd.DataFrame(table, columns=list(_COLUMNS), dtype=object)


def _name(value: str | None, is_drawn: bool, is_public: bool) -> str | None:
    """A name as it is published: drawn images bear the names of real ones, and are none of these."""
    if not value:
        return None
    if is_drawn:
        return f"phantom {value}"
    return value if is_public else digest(content_name(value))


def digest(name: str) -> str:
    """64 bits of a name. Who has the image finds it; who guesses the name can tell that it was right."""
    return "blake2b:" + hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def unite(lists: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Every image once, by source and image_id; what one stage trained on and another chose on is train."""
    together = pd.concat(lists).sort_values(["source", "image_id", "split"])
    first = together.groupby(["source", "image_id"], sort=False, as_index=False, dropna=False).first()
    return first[list(_COLUMNS)]


def write_training_images(folder: Path, images: pd.DataFrame) -> None:
    """Write the file, with what the stages before have seen."""
    table = pa.Table.from_pandas(images, _SCHEMA, preserve_index=False)
    # Sorted names begin as the ones before them do.
    encoding = {name: "DELTA_BYTE_ARRAY" for name in _NAMES}
    with whole_file(folder / TRAINING_IMAGES_FILE) as part:
        parquet.write_table(
            table, part, compression="zstd", use_dictionary=["source", "split"], column_encoding=encoding
        )


def read_training_images(source: str | Path | None) -> pd.DataFrame:
    """What a model and the stages before it have seen; no row where nothing is known of it.

    Args:
        source: a stage's folder, one of its checkpoints, or a Hub id whose list is fetched (or found in the
            cache).

    Raises:
        UserError: the list is damaged, or no list of ours.
    """
    file = None if source is None else _find(source)
    if file is None:
        return pd.DataFrame(columns=list(_COLUMNS), dtype=object)
    try:
        return parquet.read_table(file, columns=list(_COLUMNS)).cast(_SCHEMA).to_pandas()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(
            f"{TRAINING_IMAGES_FILE} of {source} cannot be read ({one_line(error)}), so nothing says which "
            "images it has seen: get the folder again, or train the stage again"
        ) from error


def _find(source: str | Path) -> Path | None:
    """The list of a folder or Hub id, or None; says so where there may be one that cannot be had."""
    folder = Path(source)
    if folder.exists():
        places = (folder, folder.resolve().parent)
        for file in (place / TRAINING_IMAGES_FILE for place in places):
            if file.is_file():
                return file
        if any((place / _EARLIER_FILE).is_file() for place in places):
            logger.warning(
                "%s was trained by an earlier version, whose %s is read no more: nothing says which images "
                "it has seen, until it is trained again", source, _EARLIER_FILE,
            )  # fmt: skip
        return None
    try:
        return Path(hf_hub_download(str(source), TRAINING_IMAGES_FILE))
    except (RemoteEntryNotFoundError, HFValidationError):
        return None  # the repository has no such file, or this names none
    except OSError as error:
        logger.warning(
            "whether %s has seen the images that are held out is not checked: its %s cannot be fetched (%s)",
            source, TRAINING_IMAGES_FILE, offline_reason(str(source)) or one_line(error),
        )  # fmt: skip
        return None


def trained_on(source: str | Path | None) -> pd.DataFrame:
    """The rows of `read_training_images` that a stage trained on, and not only chose its checkpoint by."""
    seen = read_training_images(source)
    return seen[seen["split"] == "train"]


def known_names(trained: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """By which of its names each image is among those that were trained on: (images, names), bool.

    Args:
        trained: from `trained_on`.
        asked: from `list_images`.
    """
    return pd.DataFrame(
        {name: asked[name].isin(trained[name].dropna()) & asked[name].notna() for name in _NAMES}
    )


def check_unseen(source: str | Path | None, seen: pd.DataFrame | None = None, /, **held_out: Dataset) -> None:
    """Refuse to score a model on images that it was trained on, by whichever name.

    Args:
        source: the model's folder or Hub id, or None.
        seen: what `read_training_images` gives of it; None to read it here.
        **held_out: rows by split.

    Raises:
        UserError: some were; with how many, and one by name.
    """
    seen = read_training_images(source) if seen is None else seen
    trained = seen[seen["split"] == "train"]
    for split, rows in held_out.items() if len(trained) else ():
        asked = list_images(rows, split)
        is_known = known_names(trained, asked)
        is_seen = is_known.any(axis=1)
        if is_seen.any():
            row = int(is_seen.to_numpy().argmax())
            image = read_column(rows, "image_id")[row].as_py()
            name = _NAMES[int(is_known.iloc[row].to_numpy().argmax())]
            raise UserError(
                f"{source} was trained on {is_seen.sum()} of the {len(rows)} {split} images, such as "
                f"{image!r}{_other_name(name, asked[name].iloc[row])}: its scores would be too good. The "
                "data was split otherwise when it was trained. Where the images came with another set then, "
                "put both sets under one data_dir (RSNA with nih_mapping) and train again: one split then "
                "holds for both. A folder of your own is split anew when it grows: give its CSV a column "
                "`split` with the split of then, or train again from the stage before"
                f"{_OWN_NAMES if image.startswith(f'{OWN_SOURCE.name}/') else ''}"
            )


def count_seen(
    before: Mapping[str | None, pd.DataFrame], *, is_allowed: bool, **held_out: Dataset
) -> dict[str, int]:
    """How many held-out images the models that training starts from were trained on, where allowed.

    Args:
        before: what `read_training_images` gives, by folder or Hub id.
        is_allowed: False refuses them.
        **held_out: rows by split.

    Returns:
        By split; a split of which none was seen is left out.

    Raises:
        UserError: see check_unseen.
    """
    if not is_allowed:
        for source, images in before.items():
            check_unseen(source, images, **held_out)
        return {}
    images = pd.concat(before.values())
    trained = images[images["split"] == "train"]
    seen = {
        split: int(known_names(trained, list_images(rows, split)).any(axis=1).sum())
        for split, rows in held_out.items()
    }
    seen = {split: count for split, count in seen.items() if count}
    for split, count in seen.items():
        logger.warning(
            "what training starts from was trained on %s of the %s %s images, as allowed (allow_leakage): "
            "scores on them are too high, and the card says so",
            f"{count:,}", f"{len(held_out[split]):,}", split,
        )  # fmt: skip
    return seen


def _other_name(column: str, value: str) -> str:
    """By which name an image was known again, where it is not its own."""
    owners = {NIH_IMAGE: "which is ChestX-ray14's", RSNA_IMAGE: "which is RSNA's", STUDY_ID: "of the study"}
    return f", {owners[column]} {value}" if column in owners else ""
