"""Where a command writes: one process at a time, and what keeps it from writing, in words.

On the floor of medhiera; the scripts and run.py ask it before they load a model or read data.
"""

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from medhiera.errors import UserError

_NEXT_STEPS = {
    errno.ENOSPC: "make room on the disk, or name a place on another one",
    errno.EDQUOT: "make room on the disk, or name a place on another one",
    errno.EFBIG: "the system limits the size of files (ulimit -f); raise the limit",
    errno.EACCES: "you have no write permission there; name another place, or ask its owner for it",
    errno.EPERM: "you have no write permission there; name another place, or ask its owner for it",
    errno.EROFS: "it cannot be written to at all; name another place",
    errno.ENOTDIR: "a part of the path is a file; name another place",
    errno.EEXIST: "a file of this name is there; name another place, or move the file",
}


def lock_file(place: Path) -> Path:
    """The file whose lock stands for a folder (inside it) or for a file (beside it)."""
    return place / ".lock" if place.is_dir() else place.with_name(f".{place.name}.lock")


def check_output_file(file: Path) -> None:
    """Refuse an --output that cannot be written, so far as it can be known without writing to it.

    Raises:
        UserError: it is a folder or a device, or its permissions forbid it.
    """
    if file.is_dir():
        raise UserError(f"--output {file} is a folder; name the file to write in it")
    if file.exists() and not file.is_file():
        raise UserError(f"--output {file} is no ordinary file (a device or a pipe); name a file")
    ids = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    if file.exists() and not os.access(file, os.R_OK | os.W_OK, **ids):
        raise write_error("--output", file, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def make_folder(folder: Path, option: str) -> bool:
    """Make a folder that a command writes into, with those above it; return whether it was not there before.

    Raises:
        UserError: it cannot be made.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(option, folder, error) from error
    return is_new


@contextlib.contextmanager
def one_writer(place: Path, option: str, is_new: bool = False) -> Iterator[None]:
    """Write to a file or folder alone: whoever else asks for it meanwhile is refused.

    The lock is the system's, which lets go of it however the process ends; the file it needs is removed at
    a regular end and means nothing without a process that holds it.

    Args:
        place: a folder that is there, or a file in one.
        option: of the command line, for messages.
        is_new: this process made the folder: it goes again if nothing was written into it.

    Raises:
        UserError: another process holds it, or its folder cannot be written to.
    """
    file = lock_file(place)
    # Those who wait or come later may be other users: the lock of one who was killed must not stop them.
    lock = FileLock(file, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _held_error(place, file, option) from None
    except OSError as error:
        raise write_error(option, place, error) from error
    try:
        try:
            file.write_text(_own_name(), encoding="utf-8")
        except OSError as error:
            raise write_error(option, place, error) from error
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # while it is held: nobody can have locked it in the meantime
        lock.release()
        if is_new:
            with contextlib.suppress(OSError):
                place.rmdir()  # which an empty folder alone allows


def other_writer(folder: Path) -> str | None:
    """What to tell a user if another process writes to output_dir just now; None where none does."""
    file = lock_file(folder)
    if not file.is_file():
        return None
    try:
        with FileLock(file, timeout=0, mode=0o666):
            return None
    except Timeout:
        return str(_held_error(folder, file, "output_dir"))
    except OSError:
        return None  # whoever wants to write is told why it cannot


def write_error(option: str, place: Path, error: OSError) -> UserError:
    """What keeps a command from writing, and what to do."""
    reason = error.strerror or str(error)
    step = _NEXT_STEPS.get(error.errno or 0, "name another place")
    return UserError(f"{option} {place} cannot be written ({reason}): {step}")


def _own_name() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    script = Path(sys.argv[0]).name
    return f"process {os.getpid()} on {socket.gethostname()} ({script}, since {since})"


def _held_error(place: Path, file: Path, option: str) -> UserError:
    try:
        holder = file.read_text(encoding="utf-8").strip()
    except OSError:
        holder = ""
    return UserError(
        f"{option} {place}: {holder or 'another process'} is writing there. Wait for its end, or end it with "
        "kill, and repeat the command; or name another place"
    )
