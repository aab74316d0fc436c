"""What an export will write, shard by shard: kept as JSON lines, so that a killed run need not list again.

Listings → `cut_into_shards` → `write_plan` → `read_plan` of the next run. A plan is believed only if it is of
the same build and undamaged, together with the files that were written while listing.
"""

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_scripts.build.atomic_files import write_atomically
from dataset_scripts.build.build_file import Key
from dataset_scripts.build.layout import SHARDS_FOLDER
from dataset_scripts.build.records import Box, ImageRecord, SourceListing

PLAN_FILE = "plan.jsonl"

_FORMAT = 1

_RECORDS_PER_SHARD = 2048

_SHARD_MULTIPLE = 8  # split_dataset_by_node gives whole shards to 1, 2, 4 or 8 ranks

_SHUFFLE_SEED = 0

_SHARD_PATH = re.compile(rf"{SHARDS_FOLDER}/\w+/\w+-\d{{5,}}-of-\d{{5,}}\.parquet")

_KINDS: dict[Any, Any] = {
    str: str,
    bool: bool,
    float: (int, float),
    tuple[float, ...]: list,
    tuple[int, int]: list,
    tuple[Box, ...]: list,
}


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One Parquet file to write. `path` is relative to the output folder."""

    path: str
    split: str
    root: str
    records: tuple[ImageRecord, ...]

    @property
    def name(self) -> str:
        """Return a name for the shard's log, unique in the build."""
        return self.path.replace("/", "-").removesuffix(".parquet")


@dataclass(frozen=True, slots=True)
class Plan:
    """All shards of a build; `digest` names the plan in the logs that belong to it."""

    tasks: tuple[ShardTask, ...]
    digest: str

    @property
    def files(self) -> int:
        """How many source files will be read."""
        return sum(len(task.records) for task in self.tasks)


def is_shard_path(path: str) -> bool:
    """Say whether an export may have written a file of this name."""
    return _SHARD_PATH.fullmatch(path) is not None


def cut_into_shards(listings: Iterable[SourceListing]) -> Iterator[ShardTask]:
    """Shuffle the records of each source and split, and cut them into shards of even size.

    Images of one study stay together, in their order.
    """
    for listing in listings:
        for split, records in listing.splits.items():
            if not records:
                continue
            studies: dict[str, list[ImageRecord]] = {}
            for record in records:
                studies.setdefault(record.study_id or record.image_id, []).append(record)
            shuffled = [studies[name] for name in sorted(studies)]
            random.Random(_SHUFFLE_SEED).shuffle(shuffled)
            wanted = -(-len(records) // (_RECORDS_PER_SHARD * _SHARD_MULTIPLE)) * _SHARD_MULTIPLE
            count = min(wanted, len(shuffled))
            for shard in range(count):
                yield ShardTask(
                    path=f"{SHARDS_FOLDER}/{listing.source.slug}/{split}-{shard:05d}-of-{count:05d}.parquet",
                    split=split,
                    root=str(listing.root),
                    records=tuple(record for study in shuffled[shard::count] for record in study),
                )


def write_plan(folder: Path, key: Key, tasks: Iterable[ShardTask]) -> Plan:
    """Write the plan of a build into its work folder, and vouch for the files that lie there already."""
    tasks = tuple(tasks)
    lines = [json.dumps([task.path, task.split, task.root, _to_json(task.records)]) for task in tasks]
    body = "".join(line + "\n" for line in lines)
    header = {"format": _FORMAT, "key": key, "found": _digests(folder), "sha256": _digest(body.encode())}
    head = json.dumps(header)
    write_atomically(folder / PLAN_FILE, f"{head}\n{body}")
    return Plan(tasks, _digest(head.encode()))


def read_plan(folder: Path, key: Key) -> Plan | None:
    """Read the plan in a work folder; None if it is absent, of another build, or damaged."""
    try:
        head, _, body = (folder / PLAN_FILE).read_text(encoding="utf-8").partition("\n")
        header = json.loads(head)
        if (header["format"], header["key"]) != (_FORMAT, key) or header["sha256"] != _digest(body.encode()):
            return None
        if any(_file_digest(folder / name) != digest for name, digest in header["found"].items()):
            return None
        tasks = tuple(_task(json.loads(line)) for line in body.splitlines())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Plan(tasks, _digest(head.encode())) if tasks else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    return _digest(path.read_bytes())


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: _file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _to_json(records: Iterable[ImageRecord]) -> list[list[Any]]:
    rows = []
    for record in records:
        row = [getattr(record, field.name) for field in dataclasses.fields(record)]
        rows.append([_boxes(value) if value and value is record.boxes else value for value in row])
    return rows


def _boxes(boxes: tuple[Box, ...]) -> list[list[float]]:
    return [[box.finding, box.x, box.y, box.width, box.height] for box in boxes]


def _task(line: Any) -> ShardTask:
    """Check and rebuild one shard of a plan.

    Raises:
        ValueError, TypeError: it is not one that an export writes.
    """
    path, split, root, rows = line
    if not all(isinstance(text, str) for text in (path, split, root)) or not is_shard_path(path):
        raise ValueError(f"{path!r} is no shard.")
    return ShardTask(path, split, root, tuple(_record(row) for row in rows))


def _record(row: list[Any]) -> ImageRecord:
    names = dataclasses.fields(ImageRecord)
    values = {field.name: value for field, value in zip(names, row, strict=True)}
    for field in names:
        if not isinstance(values[field.name], _KINDS.get(field.type, object)):
            raise ValueError(f"{field.name} of a record is {values[field.name]!r}.")
    numbers = [*values["labels"], *(number for box in values["boxes"] for number in box)]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"A label or box of a record is no number: {numbers}.")
    values["labels"] = tuple(float(value) for value in values["labels"])
    width, height = values["boxes_size"]
    values["boxes_size"] = (int(width), int(height))
    values["boxes"] = tuple(Box(int(box[0]), *map(float, box[1:])) for box in values["boxes"])
    return ImageRecord(**values)
