"""Whether data that was built before may be read again: it is whole, and no file could be read by now.

builder.py asks it of the datasets library's cache, parquet_export.py of an exported folder.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import datasets
import pyarrow
from datasets.config import DATASET_INFO_FILENAME

from dataset_scripts.build.atomic_files import read_json
from dataset_scripts.build.layout import BUILD_REPORT_FILE, STATISTICS_FILE
from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.images import read_image

logger = logging.getLogger(__name__)

_MAY_PASS = ("no_permission", "unsupported_compression", "needs_pydicom")
"""Kinds of unreadable files that another package or permission makes readable; the files do not change."""


def drop_damaged_info(folder: Path, features: datasets.Features) -> None:
    """Remove a dataset_info.json that is damaged: without it the folder counts as not built.

    Args:
        folder: of the cache; need not be there.
        features: the columns that the builder gives its data.
    """
    file = folder / DATASET_INFO_FILENAME
    if not file.is_file():
        return
    try:
        info = datasets.DatasetInfo.from_directory(str(folder))
        is_whole = bool(info.splits) and info.features == features
    except Exception:  # whatever damage makes the library raise
        is_whole = False
    if not is_whole:
        logger.warning("%s is damaged, so the data is built again", file)
        file.unlink()


def find_cache_damage(builder: datasets.DatasetBuilder) -> str:
    """Say in one line what of a builder's cache is damaged or gone; "" where it is whole."""
    folder = Path(builder.cache_dir)
    reports = {path.name for path in folder.glob("*.json")} | {BUILD_REPORT_FILE}
    reports |= {STATISTICS_FILE} if "train" in builder.info.splits else set()
    for name in sorted(reports):
        if not isinstance(read_json(folder / name), dict):
            return f"{name} is damaged or gone"
    for name, split in builder.info.splits.items():
        shards = f"{builder.dataset_name}-{name}"
        try:
            found = len(builder.as_dataset(split=name))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())
            return f"{shards} cannot be opened ({reason})"
        if found != split.num_examples:
            return f"{shards} holds {found:,} of {split.num_examples:,} images"
    return ""


def find_readable(folder: Path, roots: Mapping[str, Path]) -> str:
    """Say which file a build left out and could read by now; "" where there is none.

    Args:
        folder: where the build_report.json lies.
        roots: the folder of each source, by its name.
    """
    report = read_json(folder / BUILD_REPORT_FILE)
    for problem in report["problems"] if isinstance(report, dict) else ():
        if problem["kind"] in _MAY_PASS and problem["source"] in roots:
            path = roots[problem["source"]] / problem["name"]
            if _can_be_read(path, problem["kind"]):
                return f"{problem['name']}, left out as {problem['kind']}, can be read now"
    return ""


def _can_be_read(path: Path, kind: str) -> bool:
    """Whether what kept a file from being read is gone; it may still be unreadable for another reason."""
    if kind == "no_permission":
        return os.access(path, os.R_OK)
    try:
        read_image(path)
    except BadImageError as error:
        return error.kind != kind
    return True
