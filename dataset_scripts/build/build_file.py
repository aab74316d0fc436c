"""`build.json`: what an exported folder holds, and whether all of it is still there.

Written before the first shard (`complete: false`) and after everything else (`complete: true`, with the list
of shards). Who reads the data checks the list against the folder: sizes and Parquet footers, not pixels.
"""

import hashlib
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from dataset_scripts.build.atomic_files import part_of, read_json, write_json
from dataset_scripts.build.layout import (
    BUILD_FILE,
    BUILD_REPORT_FILE,
    CARD_FILE,
    LEAKAGE_REPORT_FILE,
    LEAKAGE_SHEET_FILE,
    LOCK_FILE,
    PROTECTED_PAIRS_FILE,
    SHARDS_FOLDER,
    STATISTICS_FILE,
    WORK_FOLDER,
)
from dataset_scripts.errors import DataLayoutError

logger = logging.getLogger(__name__)

_REPORTS = (BUILD_REPORT_FILE, STATISTICS_FILE, LEAKAGE_REPORT_FILE)

_OWN_FILES = (BUILD_FILE, CARD_FILE, LEAKAGE_SHEET_FILE, PROTECTED_PAIRS_FILE, *_REPORTS)

_MAGIC = b"PAR1"

Key = dict[str, str]
"""What a build is of: dataset, config (a hash of every option and source file) and version."""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One Parquet file as it was written. `path` is relative to the exported folder, with "/"."""

    path: str
    bytes: int
    rows: int
    footer_sha256: str


@dataclass(frozen=True, slots=True)
class BuildFile:
    """The content of `build.json`; `shards` is None where an earlier version wrote it, without a list."""

    key: Key
    is_complete: bool
    shards: tuple[ShardFile, ...] | None = None
    reports: tuple[str, ...] = ()


def read_build(folder: Path) -> BuildFile | None:
    """Read `build.json`; None where it is absent, damaged or another program's."""
    content = read_json(folder / BUILD_FILE)
    names = ("dataset", "config", "version")
    if not isinstance(content, dict) or not isinstance(content.get("complete"), bool):
        return None
    if not all(isinstance(content.get(name), str) for name in names):
        return None
    key = {name: content[name] for name in names}
    shards, reports = content.get("shards"), content.get("reports", [])
    try:
        listed = None if shards is None else tuple(shard_from_json(shard) for shard in shards)
        return BuildFile(key, content["complete"], listed, tuple(str(name) for name in reports))
    except (TypeError, ValueError):
        return None


def write_build(folder: Path, key: Key, shards: list[ShardFile] | None = None) -> None:
    """Write `build.json`: of a complete build if its shards are given, else of one that has begun."""
    content: dict[str, Any] = {**key, "complete": shards is not None}
    if shards is not None:
        content["reports"] = [name for name in _REPORTS if (folder / name).is_file()]
        content["shards"] = [asdict(shard) for shard in shards]
    write_json(folder / BUILD_FILE, content, indent=1)


def shard_from_json(content: Any) -> ShardFile:
    """Check what a JSON file says of a shard.

    Raises:
        ValueError: it is no shard.
    """
    names = {field.name: field.type for field in fields(ShardFile)}
    if not isinstance(content, dict) or content.keys() != names.keys():
        raise ValueError(f"{content!r} is no shard. Wanted the fields {sorted(names)}.")
    for name, kind in names.items():
        if type(content[name]) is not kind:
            raise ValueError(f"A shard's {name} is {content[name]!r}. Wanted {kind}.")
    return ShardFile(**content)


def describe_shard(path: str, place: Path) -> ShardFile:
    """Describe a Parquet file by its size and its footer, which names every column chunk and its range.

    Args:
        path: the shard's place in the exported folder.
        place: where it lies.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or no Parquet.
    """
    with place.open("rb") as file:
        size = file.seek(0, 2)
        tail = _read_from(file, max(0, size - 8))
        length = int.from_bytes(tail[:4], "little") + 8
        if tail[4:] != _MAGIC or length > size:
            raise ValueError(f"{path} ends without a Parquet footer, so it is truncated or no Parquet.")
        footer = _read_from(file, size - length)
    try:
        rows = parquet.read_metadata(place).num_rows
    except (pyarrow.ArrowException, OSError) as error:  # OSError: thrift that cannot be read
        raise ValueError(f"{path} has a damaged Parquet footer ({error}).") from error
    return ShardFile(path, size, rows, hashlib.sha256(footer).hexdigest())


def _read_from(file: Any, start: int) -> bytes:
    file.seek(start)
    content: bytes = file.read()
    return content


def find_damage(folder: Path, build: BuildFile) -> str:
    """Say in words what of a complete build is missing or changed; "" if nothing is.

    Raises:
        DataLayoutError: there are Parquet files beside its own.
    """
    if build.shards is None:
        return f"{BUILD_FILE} is of an earlier version, which recorded no list of the shards"
    for name in build.reports:
        if read_json(folder / name) is None:
            return f"{name} is missing or damaged"
    for shard in build.shards:
        damage = shard_damage(folder, shard)
        if damage:
            return damage
    own = {shard.path for shard in build.shards}
    foreign = [path for path in parquet_files(folder) if path not in own]
    if foreign:
        raise DataLayoutError(
            f"{folder / foreign[0]} is none of the shards that {BUILD_FILE} lists, and would be read with "
            f"them ({len(foreign)} such files). Move them away, or delete {folder} and build again."
        )
    return ""


def shard_damage(folder: Path, wanted: ShardFile) -> str:
    """Say in words how a shard differs from what was written; "" if it does not."""
    try:
        found = describe_shard(wanted.path, folder / wanted.path)
    except FileNotFoundError:
        return f"{wanted.path} is missing"
    except ValueError as error:
        return str(error).rstrip(".")
    if found == wanted:
        return ""
    return (
        f"{wanted.path} is not the file that was written: it has {found.bytes} bytes and {found.rows} rows, "
        f"wanted {wanted.bytes} and {wanted.rows} with the footer recorded"
    )


def parquet_files(folder: Path) -> list[str]:
    """Return the Parquet files that `load_dataset` would read, relative to the exported folder, sorted."""
    found = folder.glob(f"{SHARDS_FOLDER}/*/*.parquet")
    return sorted(path.relative_to(folder).as_posix() for path in found if not path.name.startswith("."))


def check_complete(folder: Path) -> None:
    """Check that an exported folder holds the complete build that `build.json` says.

    Raises:
        DataLayoutError: it does not; the message says what is missing and what to do.
    """
    build = read_build(folder)
    if build is None or not build.is_complete:
        found = "is absent or damaged" if build is None else "says that the build was not finished"
        raise DataLayoutError(
            f"{folder} holds no complete build: {BUILD_FILE} {found}. Run `python -m dataset_scripts` with "
            "this --output_dir again; it goes on where it was."
        )
    if build.shards is None:
        logger.warning(
            "%s was built by an earlier version that kept no list of its shards, so nothing says whether all "
            "are there; to have them checked, run `python -m dataset_scripts` again.",
            folder,
        )
        return
    damage = find_damage(folder, build)
    if damage:
        raise DataLayoutError(
            f"{folder} holds no complete build: {damage}. Run `python -m dataset_scripts` with this "
            "--output_dir again, which builds it anew."
        )


def is_own_folder(folder: Path) -> bool:
    """Say whether a folder that is not empty was written by an export, however far it came."""
    names = {path.name for path in folder.iterdir()}
    begun = {WORK_FOLDER, LOCK_FILE, part_of(folder / BUILD_FILE).name}
    if names <= begun or read_build(folder) is not None:
        return True
    if not (folder / BUILD_FILE).is_file() or read_json(folder / BUILD_FILE) is not None:
        return False  # another program's build.json
    parts = {part_of(folder / name).name for name in _OWN_FILES}
    is_familiar = names <= {*_OWN_FILES, *parts, *begun, SHARDS_FOLDER}
    report = read_json(folder / BUILD_REPORT_FILE)
    has_report = isinstance(report, dict) and "manifest" in report
    return is_familiar and (has_report or (folder / WORK_FOLDER).is_dir())
