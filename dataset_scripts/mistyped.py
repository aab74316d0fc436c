"""What a mistyped name may have meant: the known word or the existing folder that is nearest to it.

Stands below everything, beside errors.py: both the builders and `medhiera` refuse names with it.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""What a Hub id looks like."""

_LIKE = 0.6
"""Likeness (difflib's ratio) from which a folder is suggested."""

_TYPO = 2
"""Letters by which what may be a Hub id differs at most from a folder here that it is taken for."""


def is_repository(name: str) -> bool:
    """Whether a name is written as NAME/REPOSITORY of the Hub, and no file or folder here has it."""
    return "/" in name and bool(REPOSITORY.fullmatch(name)) and not os.path.exists(name)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'predict'?` where a known word, or up to four, are like it, else nothing."""
    known = sorted(known)
    longer = [each for each in known if word and each.startswith(word)]
    if 1 < len(longer) <= 4:
        return f"; did you mean {', '.join(map(repr, longer[:-1]))} or {longer[-1]!r}?"
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or longer
    return f"; did you mean {near[0]!r}?" if near else ""


def folder_fault(name: str) -> str | None:
    """Why a name is neither a folder here nor a Hub id, with the nearest folder; None where it may be.

    A name that can only be a path, or that is a letter or two from one of a folder here, is not asked of the
    Hub, which can take a minute to say no. Another number or word is another repository of the same kind.

    Args:
        name: as the user typed it.
    """
    if "://" in name:
        return address_fault(name)
    try:
        os.stat(name)
        return None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):  # there may be one: whoever opens it says why it cannot
        return None
    path = Path(name)
    if REPOSITORY.fullmatch(name):
        near = nearest_path(path)
        if near is None or not _is_typo(name, near.as_posix()):
            return None
    return no_folder(path)


def address_fault(address: str) -> str:
    """Why an address is not taken, with the Hub id that it may hold."""
    scheme, _, rest = address.partition("://")
    parts = [part for part in rest.split("/") if part]
    if scheme in ("http", "https"):
        del parts[:1]  # the host
    if parts[:1] in (["datasets"], ["models"]):
        del parts[:1]
    named = f": give {'/'.join(parts[:2])}" if len(parts) >= 2 else ""
    return f"is an address; wanted a folder or an id on the Hub, NAME/REPOSITORY{named}"


def _is_typo(name: str, other: str) -> bool:
    name, other = name.lower(), other.lower()
    matcher = difflib.SequenceMatcher(None, name, other)
    changed = "".join(name[a:b] + other[c:d] for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")
    return len(changed) <= _TYPO and changed.isalpha()


def no_folder(path: Path, *, or_file: bool = False) -> str:
    """`there is no such folder; did you mean …?`, or which part of the path exists.

    Args:
        path: where nothing is.
        or_file: a file was wanted as well as a folder.
    """
    path = path.expanduser()
    near = nearest_path(path, or_file=or_file)
    what = "there is no such file or folder" if or_file else "there is no such folder"
    if near is None or near == Path("."):
        return f"{what} in {Path.cwd()}"
    if near in path.parents:
        return f"{what}; the nearest that exists is {near}"
    return f"{what}; did you mean {near}?"


def nearest_path(path: Path, *, or_file: bool = False) -> Path | None:
    """The existing folder whose path is most like one that does not exist; None where nothing can be listed.

    Each part is looked for in the folder that was found for those before it, in any letter case; where no
    folder there is like it, that one is the nearest.

    Args:
        path: absolute or from the current folder.
        or_file: the last part may be a file's.
    """
    if os.path.isdir(path):
        return path
    if path == path.parent:
        return None
    above = nearest_path(path.parent)
    if above is None or above in path.parent.parents:  # a part before this one has no like
        return above
    try:
        with os.scandir(above) as entries:
            there = {entry.name.lower(): entry.name for entry in entries if or_file or entry.is_dir()}
    except OSError:  # it may not be listed
        return above
    near = difflib.get_close_matches(path.name.lower(), there, n=1, cutoff=_LIKE)
    return above / there[near[0]] if near else above
