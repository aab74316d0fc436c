"""Images that are compared though no build lists them: a folder, Parquet, or a dataset of the Hub.

What the user names → `open_images` → `ImageSet`, whose images are read in blocks. The command
(`__main__.py`) takes two of them; a build takes one as the list that it protects (`guard.py`).
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
from pyarrow import parquet

from dataset_scripts.build.build_file import check_complete, parquet_files
from dataset_scripts.build.layout import BUILD_FILE
from dataset_scripts.errors import DataLayoutError, UserError
from dataset_scripts.mistyped import folder_fault, no_folder
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.image_files import is_picture, walk_folder

logger = logging.getLogger(__name__)

_NAME_COLUMN = "image_id"

_ROWS_AT_ONCE = 64

ImageCell = Path | bytes | GrayImage


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one place.

    Attributes:
        place: as the user named it.
        names: of each image, relative to the place; in tables an `image_id`, or file or split and row, after
            the configuration where a dataset has several, before the column where images stand in several.
        keys: of each image; what two sets hold under one key is one file or row, no copy.
        digest: changes when an image is added, removed or changed.
        others: number of files in the folder that are no pictures.
        cells: the images in order, to be read from any of them on.
    """

    place: str
    names: tuple[str, ...]
    keys: tuple[str, ...]
    digest: str
    others: int
    cells: "_Folder | _Parquet | _Rows"


@dataclass(frozen=True, slots=True)
class _Folder:
    paths: tuple[Path, ...]

    def read(self, start: int) -> Iterator[ImageCell]:
        yield from self.paths[start:]


@dataclass(frozen=True, slots=True)
class _Parquet:
    files: tuple[tuple[Path, tuple[str, ...]], ...]  # with the columns that hold images

    def read(self, start: int) -> Iterator[ImageCell]:
        for file, columns in self.files:
            with parquet.ParquetFile(file) as opened:
                count = opened.metadata.num_rows * len(columns)
                if start >= count:
                    start -= count
                    continue
                for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    rows = zip(*(batch.column(column) for column in columns), strict=True)
                    cells = [cell for row in rows for cell in row]
                    yield from (_cell(cell.as_py()) for cell in cells[start:])
                    start = max(0, start - len(cells))


@dataclass(frozen=True, slots=True)
class _Rows:
    splits: tuple[tuple[datasets.Dataset, tuple[str, ...]], ...]  # with the columns that hold images

    def read(self, start: int) -> Iterator[ImageCell]:
        for rows, columns in self.splits:
            count = len(rows) * len(columns)
            for number in range(min(start, count), count):
                row, column = divmod(number, len(columns))
                yield _cell(rows[row][columns[column]])
            start = max(0, start - count)


def _cell(value: dict[str, Any] | None) -> ImageCell:
    """Return an image as tables store it: bytes of a file, its path, or pixels (findings.RAW_IMAGE)."""
    if value is None:
        return b""
    if "pixels" in value:
        return np.frombuffer(value["pixels"], np.uint8).reshape(value["height"], value["width"])
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    return Path(value.get("path") or os.devnull)


def open_images(place: str) -> ImageSet:
    """Open what the user names: no image is read yet.

    Args:
        place: a folder of images; what `python -m dataset_scripts` wrote; another folder with Parquet, or a
            Parquet file, with a column of images; or whatever `datasets.load_dataset` opens by this name.

    Raises:
        UserError: there is nothing of this name, or no image in it.
        DataLayoutError: it holds a build that is not complete.
    """
    path = Path(place).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return _open_parquet(place, path.parent, (path.name,))
        raise UserError(f"{place} is a file. Wanted a folder of images, a .parquet file or a dataset.")
    if not path.is_dir():
        if folder_fault(place):
            found = no_folder(Path(place), or_file=True)
            raise UserError(f"{place}: {found}. Wanted a folder of images, a .parquet file or a dataset.")
        return _open_dataset(place, "is no folder or file here, and")
    if (path / BUILD_FILE).is_file():
        check_complete(path)
        return _open_parquet(place, path, tuple(parquet_files(path)))
    walk = walk_folder(path, follow_links_out=True)
    top = os.path.realpath(path)
    pictures = [file for file in walk.files if is_picture(f"{top}/{file}")]
    tables = [file for file in walk.files if file.lower().endswith(".parquet")]
    if pictures and (with_images := [file for file in tables if _has_images(f"{top}/{file}")]):
        raise UserError(
            f"{place} holds {len(pictures):,} pictures ({pictures[0]}) and {len(with_images):,} Parquet "
            f"files with images ({with_images[0]}). Name the folder of one of them, or run it for each."
        )
    if pictures:
        return ImageSet(
            place,
            names=tuple(pictures),
            keys=tuple(os.path.realpath(f"{top}/{file}") for file in pictures),
            digest=_digest([top, *((file, *walk.files[file]) for file in pictures)]),
            others=len(walk.files) - len(pictures),
            cells=_Folder(tuple(Path(top) / file for file in pictures)),
        )
    if tables:
        return _open_parquet(place, Path(top), tuple(tables))
    if walk.files:
        return _open_dataset(place, "holds no picture and no Parquet, and")
    raise UserError(f"{place} is empty. Wanted a folder of images, a .parquet file or a dataset.")


def _open_parquet(place: str, top: Path, files: tuple[str, ...]) -> ImageSet:
    """Open files below `top`, which their names are relative to."""
    names: list[str] = []
    keys: list[str] = []
    opened_files = []
    for name in files:
        file = top / name
        try:
            with parquet.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                columns = _image_columns(_struct_features(schema))
                if not columns:
                    raise UserError(
                        f"{file} has no column of images, but {schema.names}. Wanted Parquet as "
                        "`python -m dataset_scripts` or `push_to_hub` writes it."
                    )
                count = opened.metadata.num_rows
                has_names = _NAME_COLUMN in schema.names
                listed = opened.read([_NAME_COLUMN])[_NAME_COLUMN].to_pylist() if has_names else []
        except (pyarrow.ArrowException, OSError) as error:
            raise DataLayoutError(f"{file} cannot be read as Parquet ({error}). Is it damaged?") from error
        rows = [str(name) for name in listed] or [f"{name}/{row}" for row in range(count)]
        names += _in_columns(rows, columns)
        keys += [f"{file.resolve()}/{row}/{column}" for row in range(count) for column in columns]
        opened_files.append((file, columns))
    if not names:
        raise UserError(f"{place} holds no row. Wanted at least one image.")
    stats = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns, columns)
        for file, columns in opened_files
    ]
    return ImageSet(place, tuple(names), tuple(keys), _digest(stats), 0, _Parquet(tuple(opened_files)))


def _open_dataset(place: str, why: str) -> ImageSet:
    configurations = _load(place, why)
    names: list[str] = []
    keys: list[str] = []
    splits, facts = [], []
    without = []
    for configuration, loaded in configurations.items():
        features = next(iter(loaded.values())).features
        columns = _image_columns(features)
        if not columns:
            without.append(f"{configuration} ({list(features)})")
            continue
        before = f"{configuration}/" if len(configurations) > 1 else ""
        for split, rows in loaded.items():
            has_names = _NAME_COLUMN in features
            listed = rows[_NAME_COLUMN][:] if has_names else [f"{split}/{row}" for row in range(len(rows))]
            names += _in_columns([f"{before}{name}" for name in listed], columns)
            cells = [f"{row}/{column}" for row in range(len(rows)) for column in columns]
            keys += [f"{place}/{configuration}/{split}/{cell}" for cell in cells]
            cached = [file["filename"] for file in rows.cache_files]
            facts.append((configuration, split, len(rows), columns, cached))
            images = rows.select_columns(list(columns))
            for column in columns:
                if isinstance(features[column], datasets.Image):
                    images = images.cast_column(column, datasets.Image(decode=False))
            splits.append((images, columns))
    if not splits:
        raise UserError(f"{place} has no column of images, but {', '.join(without)}.")
    if without:
        logger.warning("%s: not compared, as no column holds images: %s", place, ", ".join(without))
    return ImageSet(place, tuple(names), tuple(keys), _digest(facts), 0, _Rows(tuple(splits)))


def _load(place: str, why: str) -> dict[str, datasets.DatasetDict]:
    """Load every configuration of a dataset.

    Raises:
        UserError: one of them cannot be loaded; `why` it was tried is said.
    """
    try:
        names = datasets.get_dataset_config_names(place)
        if len(names) == 1:  # in the cache alone it may have another name
            return {names[0]: datasets.load_dataset(place)}
        return {name: datasets.load_dataset(place, name) for name in names}
    except Exception as error:  # whatever a name that means nothing makes the library and its readers raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} {why} cannot be opened as a dataset ({type(error).__name__}: {reason}). Wanted a "
            "folder of images, a .parquet file, or a dataset that is on the Hub or in its cache."
        ) from error


def _image_columns(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that hold images, whatever their names: encoded ones, or pixels."""
    return tuple(
        name
        for name, kind in features.items()
        if isinstance(kind, datasets.Image) or (isinstance(kind, dict) and {"bytes", "pixels"} & kind.keys())
    )


def _struct_features(schema: pyarrow.Schema) -> datasets.Features:
    """Return what a Parquet file's structs are: images, sounds, ... where the file says so."""
    structs = [field for field in schema if pyarrow.types.is_struct(field.type)]
    return datasets.Features.from_arrow_schema(pyarrow.schema(structs, metadata=schema.metadata))


def _in_columns(rows: list[str], columns: tuple[str, ...]) -> list[str]:
    """Return the names of the images in rows, with their columns where these are several."""
    return rows if len(columns) == 1 else [f"{row}/{column}" for row in rows for column in columns]


def _digest(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:16]


def _has_images(file: str) -> bool:
    """Whether a Parquet file has a column of images, whatever its name; a damaged one may have."""
    try:
        schema = parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError):
        return True
    return bool(_image_columns(_struct_features(schema))) or any(
        pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) for kind in schema.types
    )
