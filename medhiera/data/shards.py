"""Opens exported Parquet without a copy: the images stay in the shards, and are read there one by one.

Stands between an export and the opened data. `load_dataset` would write all of it again as Arrow, twice the
disk and hours. Here the small columns alone are copied, a few hundred bytes a row, and in the place of each
image stands where it lies (stored_images.py). The rows and their order are those of `load_dataset`.
"""

import hashlib
import itertools
import logging
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, NamedSplit, config
from datasets.arrow_writer import ArrowWriter
from pyarrow import parquet

from dataset_scripts.build.atomic_files import whole_file
from dataset_scripts.build.build_file import parquet_files
from dataset_scripts.build.layout import BUILD_FILE
from dataset_scripts.splits import SPLITS
from medhiera.data.parquet_pages import find_pages, first_value, map_file, places_of_known_lengths
from medhiera.data.stored_images import ENCODED_IN_SHARD, RAW_IN_SHARD

logger = logging.getLogger(__name__)

_FORMAT = "2"
"""Raised when what is written into the index changes."""


def open_in_place(folder: Path, cache_dir: str | None) -> DatasetDict | None:
    """The splits of an export, their images read from its shards.

    Args:
        folder: holds the complete export.
        cache_dir: where the index is kept, some 240 bytes a row; the datasets library's cache if None.

    Returns:
        The splits, or None where the images are stored in a way that only a copy can be read at random.
    """
    paths = parquet_files(folder)
    # A copy of the export may have other times, and its index is then written anew.
    times = " ".join(str(_modified(folder / path)) for path in paths)
    build = (folder / BUILD_FILE).read_text(encoding="utf-8")
    key = f"{_FORMAT}\x1f{folder.resolve()}\x1f{build}\x1f{times}"
    name = f"shards-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    index = Path(cache_dir or config.HF_DATASETS_CACHE) / name
    splits = {}
    for split in SPLITS:
        # In the order in which load_dataset reads them: every number of a run depends on it.
        of_split = [folder / path for path in paths if Path(path).name.startswith(f"{split}-")]
        if not of_split:
            continue
        file = index / f"{split}.arrow"
        try:
            if not file.is_file():
                _write_index(file, of_split)
        except ValueError as error:
            logger.warning(
                "%s is copied before it is read: %s. An export of today's `python -m dataset_scripts` into "
                "another folder is read in place",
                folder, error,
            )  # fmt: skip
            return None
        splits[split] = Dataset.from_file(str(file), split=NamedSplit(split))
    return DatasetDict(splits)


def _write_index(file: Path, shards: list[Path]) -> None:
    """Write the small columns of some shards, and where their images lie, as one Arrow file.

    Raises:
        ValueError: an image does not stand in its shard as it is; says which shard and why.
    """
    features = Features.from_arrow_schema(parquet.read_schema(shards[0]))
    is_raw = isinstance(features["image"], dict)
    features["image"] = RAW_IN_SHARD if is_raw else ENCODED_IN_SHARD
    tables = (_read_small_columns(shard.resolve(), features, is_raw) for shard in shards)
    first = next(tables)  # where it cannot be read in place, no folder is made
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(file, by_several=True) as part,
        ArrowWriter(path=str(part), features=features) as writer,
    ):
        for table in itertools.chain([first], tables):
            writer.write_table(table)
        writer.finalize()


def _read_small_columns(shard: Path, features: Features, is_raw: bool) -> pa.Table:
    """A shard's rows with the places of their images; see `_write_index`."""
    modified = _modified(shard)
    content = map_file(str(shard), modified)
    table = _read(shard, [name for name in features if name != "image"])
    schema = features.arrow_schema
    try:
        places = _places_of_raw(shard, content) if is_raw else _places_of_encoded(content)
    except (ValueError, KeyError, IndexError) as error:  # the last two: a struct that lacks what is read
        raise ValueError(f"{shard.name}: {error}") from error
    files = [pa.array([str(shard)] * len(table), pa.string()), pa.array([modified] * len(table), pa.int64())]
    values = [*files, *map(pa.array, places)]
    images = pa.StructArray.from_arrays(values, fields=list(schema.field("image").type))
    columns = [images if name == "image" else table.column(name) for name in schema.names]
    return pa.table(columns, names=schema.names).cast(schema)


def _read(shard: Path, columns: list[str]) -> pa.Table:
    with parquet.ParquetFile(shard) as file:
        return file.read(columns)


def _modified(shard: Path) -> int:
    """When a file was written, see map_file."""
    return shard.stat().st_mtime_ns


def _places_of_raw(shard: Path, content: mmap.mmap) -> list[npt.NDArray[np.integer]]:
    """Byte, height and width of each image."""
    sizes = _read(shard, ["image.height", "image.width"]).column("image").combine_chunks()
    height, width = (sizes.field(name).to_numpy() for name in ("height", "width"))
    pages = find_pages(content, "image.pixels")
    starts = places_of_known_lengths(pages, height.astype(np.int64) * width)
    if len(starts) and starts[0] != first_value(content, int(pages.starts[0])) + 4:
        raise ValueError("its pages do not end with their values")
    return [starts, height, width]


def _places_of_encoded(content: mmap.mmap) -> list[npt.NDArray[np.integer]]:
    """First byte of its page, and number within it, of each image."""
    pages = find_pages(content, "image.bytes")
    page = pages.of_rows
    index = np.arange(len(page)) - pages.first_rows[page]
    return [pages.starts[page], index.astype(np.int32)]
