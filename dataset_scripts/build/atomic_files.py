"""Files that appear whole or not at all, wherever the process is killed and whenever the disk fills.

What marks progress (a build's plan, logs, shards, reports and `build.json`; a checkpoint's `complete.json`)
is written here and nowhere else, as is what stands in the place of an older file: aside, flushed to the
disk, then renamed into place, and the rename flushed too.
"""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what some network file systems answer for a folder


def part_of(path: Path) -> Path:
    """Return where a file lies while it is being written: hidden, beside its final place."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def whole_file(path: Path, *, by_several: bool = False) -> Iterator[Path]:
    """Yield where to write a file, then move it into place; after an error nothing of it stays.

    It is always flushed to the disk, before the move and after it, though few files need it and it takes a
    moment: so whatever is written later, such as a mark that says that this file is done, survives a power
    cut only with this one.

    Args:
        path: where it will lie, in a folder that is there.
        by_several: processes that do not wait for each other may write it; each writes a part of its own,
            and the last one's stays.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}.part") if by_several else part_of(path)
    try:
        yield part
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file, UTF-8 if it is text, or leave the one that is there.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    with whole_file(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON atomically; NaN stays NaN."""
    write_atomically(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; None where there is no file, or one that is damaged and so marks nothing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no UTF-8, no JSON
        return None


def publish(part: Path, final: Path) -> None:
    """Move a finished file into place; after a return it survives even a power cut."""
    sync_file(part)
    os.replace(part, final)
    sync_folder(final.parent)


def sync_file(path: Path) -> None:
    """Have the system write a file's content to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the system write a folder's names to the disk, where it can: Windows opens no folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
