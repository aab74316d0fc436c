"""Images that are compared though no build lists them: a folder, Parquet, or a dataset of the Hub.

What the user names → `open_images` → `ImageSet`, whose images are read in blocks. The command
(`__main__.py`) takes two of them; a build takes one as the list that it protects (`guard.py`).
"""

import hashlib
import os
import re
from collections.abc import Iterator
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
from dataset_scripts.reading.grayscale import GrayImage
from dataset_scripts.reading.image_files import is_picture, walk_folder

_IMAGE_COLUMN, _NAME_COLUMN = "image", "image_id"

_ROWS_AT_ONCE = 64

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

ImageCell = Path | bytes | GrayImage


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one place.

    Attributes:
        place: as the user named it.
        names: of each image, relative to the place; an `image_id`, or split and row, in tables.
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
    files: tuple[Path, ...]

    def read(self, start: int) -> Iterator[ImageCell]:
        for file in self.files:
            with parquet.ParquetFile(file) as opened:
                if start >= opened.metadata.num_rows:
                    start -= opened.metadata.num_rows
                    continue
                for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[_IMAGE_COLUMN]):
                    column = batch.column(_IMAGE_COLUMN)
                    yield from (_cell(cell.as_py()) for cell in column[start:])
                    start = max(0, start - len(column))


@dataclass(frozen=True, slots=True)
class _Rows:
    splits: tuple[datasets.Dataset, ...]
    column: str

    def read(self, start: int) -> Iterator[ImageCell]:
        for rows in self.splits:
            for number in range(min(start, len(rows)), len(rows)):
                yield _cell(rows[number][self.column])
            start = max(0, start - len(rows))


def _cell(value: dict[str, Any] | None) -> ImageCell:
    """Return an image as tables store it: bytes of a file, its path, or pixels (findings.RAW_IMAGE)."""
    if value is None:
        return b""
    if "pixels" in value:
        return np.frombuffer(value["pixels"], np.uint8).reshape(value["height"], value["width"])
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    return Path(value["path"] or os.devnull)


def open_images(place: str) -> ImageSet:
    """Open what the user names: no image is read yet.

    Args:
        place: a folder of images; what `python -m dataset_scripts` wrote; another folder with Parquet, or a
            Parquet file, with a column `image`; or whatever `datasets.load_dataset` opens by this name.

    Raises:
        UserError: there is nothing of this name, or no image in it.
        DataLayoutError: it holds a build that is not complete.
    """
    path = Path(place).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return _open_parquet(place, (path,))
        raise UserError(f"{place} is a file. Wanted a folder of images, a .parquet file or a dataset.")
    if not path.is_dir():
        if _HUB_ID.fullmatch(place) is None:
            raise UserError(f"{place} is not there. Wanted a folder of images, a .parquet file or a dataset.")
        return _open_dataset(place, "is no folder or file here, and")
    if (path / BUILD_FILE).is_file():
        check_complete(path)
        return _open_parquet(place, tuple(path / file for file in parquet_files(path)))
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
        return _open_parquet(place, tuple(Path(top) / file for file in tables))
    if walk.files:
        return _open_dataset(place, "holds no picture and no Parquet, and")
    raise UserError(f"{place} is empty. Wanted a folder of images, a .parquet file or a dataset.")


def _open_parquet(place: str, files: tuple[Path, ...]) -> ImageSet:
    names: list[str] = []
    keys: list[str] = []
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                kind = opened.schema_arrow
                if _IMAGE_COLUMN not in kind.names or not pyarrow.types.is_struct(
                    kind.field(_IMAGE_COLUMN).type
                ):
                    raise UserError(
                        f"{file} has no column `{_IMAGE_COLUMN}` of images, but {kind.names}. Wanted Parquet "
                        "as `python -m dataset_scripts` or `push_to_hub` writes it."
                    )
                count = opened.metadata.num_rows
                has_names = _NAME_COLUMN in kind.names
                listed = opened.read([_NAME_COLUMN])[_NAME_COLUMN].to_pylist() if has_names else []
        except (pyarrow.ArrowException, OSError) as error:
            raise DataLayoutError(f"{file} cannot be read as Parquet ({error}). Is it damaged?") from error
        names += [str(name) for name in listed] or [f"{file.name}/{row}" for row in range(count)]
        keys += [f"{file.resolve()}/{row}" for row in range(count)]
    if not names:
        raise UserError(f"{place} holds no row. Wanted at least one image.")
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return ImageSet(place, tuple(names), tuple(keys), _digest(stats), 0, _Parquet(files))


def _open_dataset(place: str, why: str) -> ImageSet:
    try:
        loaded = datasets.load_dataset(place)
    except Exception as error:  # whatever a name that means nothing makes the library and its readers raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} {why} cannot be opened as a dataset ({type(error).__name__}: {reason}). Wanted a "
            "folder of images, a .parquet file, or a dataset that is on the Hub or in its cache."
        ) from error
    features = next(iter(loaded.values())).features
    columns = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise UserError(f"{place} has no column of images, but {list(features)}.")
    splits = {
        name: rows.cast_column(columns[0], datasets.Image(decode=False)) for name, rows in loaded.items()
    }
    names: list[str] = []
    for split, rows in splits.items():
        listed = rows[_NAME_COLUMN][:] if _NAME_COLUMN in features else range(len(rows))
        names += [str(name) if _NAME_COLUMN in features else f"{split}/{name}" for name in listed]
    files = [
        (name, len(rows), [file["filename"] for file in rows.cache_files]) for name, rows in splits.items()
    ]
    keys = tuple(f"{place}/{split}/{row}" for split, rows in splits.items() for row in range(len(rows)))
    return ImageSet(place, tuple(names), keys, _digest(files), 0, _Rows(tuple(splits.values()), columns[0]))


def _digest(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:16]


def _has_images(file: str) -> bool:
    """Whether a Parquet file has a column of images, whatever its name; a damaged one may have."""
    try:
        kinds = parquet.read_schema(file).types
    except (pyarrow.ArrowException, OSError):
        return True
    return any(
        pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_binary(kind)
        or (pyarrow.types.is_struct(kind) and {"bytes", "pixels"} & {field.name for field in kind})
        for kind in kinds
    )
