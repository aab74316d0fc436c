"""Pictures → an encoder → the rows of a features file: the user's own files, or the rows of built data.

`embed.py` → here → features_writer.py. A batch holds the same pictures whether or not an earlier run was
killed, so that its features are the same to the last bit.
"""

import contextlib
import hashlib
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from dataset_scripts.build.layout import BUILD_FILE
from medhiera.data.cocktail import BuiltDataset
from medhiera.data.columns import read_column
from medhiera.data.stored_images import as_picture
from medhiera.data.training_images import known_names, list_images
from medhiera.errors import UserError
from medhiera.fitting_batch import run_or_name_batch
from medhiera.inference.encoder import Encoder
from medhiera.inference.features_file import Header, file_key, row_key, text_of
from medhiera.inference.features_writer import FeaturesWriter
from medhiera.inference.picture_files import canonical_path, changed_files, read_file
from medhiera.inference.predictions_csv import list_beside, name_in_csv, warn_of_moved_files
from medhiera.inference.read_ahead import read_ahead
from medhiera.layout import public_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One image that is to be embedded.

    Attributes:
        position: among all that were asked for; the batch depends on it.
        pixels: prepared for the encoder; None where it could not be read.
        content: a digest of the file's bytes; empty of a dataset's row.
        fault: why it could not be read.
        remarks: what a user should know of a picture that was read.
    """

    position: int
    pixels: Tensor | None
    content: str = ""
    fault: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass
class Pace:
    """How many images were embedded in how long."""

    images: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        a_second = self.images / self.seconds if self.seconds else 0.0
        return f"{self.images:,} images in {self.seconds:.1f} s: {a_second:.1f} images/s"


def header_of_encoder(source: str, encoder: Encoder, with_tokens: bool, **fields: Any) -> Header:
    """What the rows of an encoder have in common.

    Args:
        source: the folder or Hub id that it came from.
        encoder: opened from it.
        with_tokens: grids of tokens are written too.
        **fields: of built data.
    """
    grid = list(encoder.embed_tokens(encoder.blank()).shape[1:]) if with_tokens else []
    return Header(
        model=public_name(source), model_type=encoder.model.config.model_type,
        fingerprint=encoder.fingerprint(), pooling=encoder.pooling, preprocessing=str(encoder.preprocessing),
        size=encoder.size, tokens=grid, **fields,
    )  # fmt: skip


def embed_files(
    encoder: Encoder, files: dict[Path, Path], writer: FeaturesWriter, batch_size: int
) -> tuple[int, Pace]:
    """Append a row for each file that has none yet, and write the Parquet file; list the unreadable ones.

    Args:
        encoder: that is asked.
        files: what to read, as it was named, by canonical path.
        writer: of a file whose header has no data.
        batch_size: images at a time.

    Returns:
        How many could not be read, and the pace.

    Raises:
        UserError: see `embed_pictures`; finished rows stay.
    """
    output = writer.output
    keys = {file_key(path): place for place, path in files.items()}
    before = {keys[key]: content for key, content in writer.done.items() if key in keys}
    if writer.done:
        logger.info("%s already holds %d images: resuming", output, len(writer.done))
        warn_of_moved_files({Path(key) for key in writer.done}, output)
    changed = changed_files(before, files)
    if changed:
        logger.warning("%d images changed since they were embedded, and are embedded again", len(changed))
    writer.forget([file_key(path) for path in changed])
    places = list(files)
    bad: list[tuple[Path, str]] = []
    remarks: list[tuple[Path, str]] = []
    read_now: set[Path] = set()

    def read(position: int) -> Picture:
        found = read_file(files[places[position]], encoder.preprocessing.pixels)
        return Picture(position, found.pixels, found.content, found.fault, found.remarks)

    def columns(pictures: Sequence[Picture]) -> dict[str, Any]:
        names = [name_in_csv(files[places[each.position]], output.parent) for each in pictures]
        return {"path": [text_of(name) for name in names], "content": [each.content for each in pictures]}

    def note(pictures: Sequence[Picture]) -> None:
        for each in pictures:
            path = files[places[each.position]]
            read_now.add(canonical_path(path))
            bad.extend([(path, each.fault)] if each.pixels is None else [])
            remarks.extend((path, remark) for remark in each.remarks)

    remaining = [position for position, place in enumerate(places) if place not in before or place in changed]
    try:
        pace = embed_pictures(encoder, remaining, read, columns, note, writer, batch_size)
    finally:  # Ctrl-C too: what is known of the files so far is kept, as their rows are
        list_beside(output, "unreadable", bad, read_now | (before.keys() - changed), "could not be read")
        list_beside(output, "remarks", remarks, read_now, "read in another way than the header says")
    writer.finish([file_key(path) for path in files.values()])
    return len(bad), pace


def embed_rows(
    encoder: Encoder,
    splits: dict[str, Dataset],
    trained: pd.DataFrame,
    writer: FeaturesWriter,
    batch_size: int,
) -> Pace:
    """Append a row for each image of built data that has none yet, and write the Parquet file.

    Args:
        encoder: that is asked.
        splits: name → the rows that are embedded.
        trained: images that the encoder was trained on, see training_images.trained_on; no row where unknown.
        writer: of a file whose header has these data.
        batch_size: images at a time.

    Raises:
        UserError: see `embed_pictures`; finished rows stay.
    """
    if writer.done:
        logger.info("%s already holds %d images: resuming", writer.output, len(writer.done))
    order: list[str] = []
    total = Pace()
    for split, rows in splits.items():
        keys = [row_key(split, image_id) for image_id in read_column(rows, "image_id").to_pylist()]
        order += keys
        remaining = [position for position, key in enumerate(keys) if key not in writer.done]
        read, columns = _row_readers(encoder, split, rows, trained, writer.header.columns)
        pace = embed_pictures(
            encoder, remaining, read, columns, lambda pictures: None, writer, batch_size, split
        )
        total.images += pace.images
        total.seconds += pace.seconds
    writer.finish(order)
    return total


def _row_readers(
    encoder: Encoder, split: str, rows: Dataset, trained: pd.DataFrame | None, names: Sequence[str]
) -> tuple[Callable[[int], Picture], Callable[[Sequence[Picture]], dict[str, Any]]]:
    """What reads an image of built data, and what gives the columns of some."""
    images = rows.select_columns("image")
    there = {name: read_column(rows, name) for name in names if name in rows.column_names}

    def read(position: int) -> Picture:
        return Picture(position, encoder.preprocessing.pixels(as_picture(images[position]["image"])))

    def columns(pictures: Sequence[Picture]) -> dict[str, Any]:
        places = [each.position for each in pictures]
        absent: dict[str, Any] = {name: [split if name == "split" else None] * len(places) for name in names}
        if trained is not None and len(trained):
            known = known_names(trained, list_images(rows.select(places), split))
            absent["is_trained_on"] = known.any(axis=1).tolist()
        return absent | {name: column.take(places) for name, column in there.items()}

    return read, columns


def embed_pictures(
    encoder: Encoder,
    positions: Sequence[int],
    read: Callable[[int], Picture],
    columns: Callable[[Sequence[Picture]], dict[str, Any]],
    note: Callable[[Sequence[Picture]], None],
    writer: FeaturesWriter,
    batch_size: int,
    what: str | None = None,
) -> Pace:
    """Embed what has no row yet, threads reading ahead of the encoder.

    Args:
        encoder: that is asked.
        positions: what to read, ascending; a batch holds those of `batch_size` positions in a row.
        read: called in threads.
        columns: of pictures that could be read.
        note: is told of each batch, unreadable ones too.
        writer: gets the rows.
        batch_size: images at a time, at most.
        what: is embedded, for the progress bar.

    Raises:
        UserError: features are not finite, memory runs out, or the disk is full.
    """
    begin, images = time.perf_counter(), 0
    with (
        warnings.catch_warnings(),
        contextlib.closing(read_ahead(read, positions, batch_size)) as parts,
        tqdm(total=len(positions), unit="image", desc=what) as bar,
    ):
        warnings.simplefilter("ignore")  # decoders', whose filter is shared by all threads
        pictures = itertools.chain.from_iterable(parts)
        for _, group in itertools.groupby(pictures, key=lambda each: each.position // batch_size):
            batch = list(group)
            shown = [each for each in batch if each.pixels is not None]
            if shown:
                pixels = [each.pixels for each in shown if each.pixels is not None]
                features, tokens = _embed_batch(encoder, pixels, bool(writer.header.tokens))
                writer.append(columns(shown), features, tokens)
            note(batch)
            images += len(shown)
            bar.update(len(batch))
    return Pace(images, time.perf_counter() - begin)


def _embed_batch(encoder: Encoder, pixels: list[Tensor], with_tokens: bool) -> tuple[Tensor, Tensor | None]:
    """Features, and grids of tokens where they are asked for.

    Raises:
        UserError: the batch does not fit into memory.
    """

    def first(count: int) -> tuple[Tensor, Tensor | None]:
        some = pixels[:count]
        return encoder.embed(some), encoder.embed_tokens(some) if with_tokens else None

    return run_or_name_batch(lambda: first(len(pixels)), first, len(pixels))


def embed_in_memory(encoder: Encoder, rows: Dataset, batch_size: int) -> Tensor:
    """The features of some rows, which no file keeps: (images, size), float32.

    Raises:
        UserError: see `embed_pictures`.
    """
    read, _ = _row_readers(encoder, "", rows, None, ())
    found = []
    with (
        contextlib.closing(read_ahead(read, range(len(rows)), batch_size)) as batches,
        tqdm(total=len(rows), unit="image", desc=f"{rows.split}") as bar,
    ):
        for batch in batches:
            pixels = [each.pixels for each in batch if each.pixels is not None]
            found.append(_embed_batch(encoder, pixels, with_tokens=False)[0])
            bar.update(len(batch))
    return torch.cat(found)


def data_fingerprint(data: BuiltDataset) -> str:
    """Twelve hexadecimal digits of built data: another build of it, at another size say, has others."""
    build = data.folder / BUILD_FILE
    # Built from raw files: VERSION below a folder that is named by the build's options and source files.
    text = build.read_text(encoding="utf-8") if build.is_file() else "/".join(data.folder.parts[-2:])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def check_splits(wanted: Sequence[str], data: BuiltDataset) -> None:
    """Refuse splits that the data does not have.

    Raises:
        UserError: it lacks one.
    """
    absent = [name for name in wanted if name not in data.rows]
    if absent:
        raise UserError(f"--splits {' '.join(absent)}: the data has {' '.join(sorted(data.rows))}")
