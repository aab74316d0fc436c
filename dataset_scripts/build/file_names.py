r"""The names in a table or list → the files that they mean.

A source's list → `match_names` → the paths of its records. What one system writes, another stores in another
way: macOS parts an accent from its letter, Windows takes `\` and any case, a conversion changes the suffix.
A name is matched where only one file can be meant; else the build report says what stands in the way.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_scripts.build.records import FolderScan
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES, OTHER_PICTURE_SUFFIXES, is_hidden

_DRIVE = re.compile(r"[A-Za-z]:/")

_NAMED_AT_MOST = 5

_SUFFIXES = frozenset((*IMAGE_SUFFIXES, *OTHER_PICTURE_SUFFIXES))

IMAGES_FOLDER = "images/"
"""Where the user's own pictures lie, and a prefix that a table may give every name."""


@dataclass(frozen=True, slots=True)
class NoFile:
    """Why a name has no file: a kind for the build report, what to say of it, and the path it has if any."""

    kind: str
    detail: str
    path: str = ""


def match_names(
    names: Iterable[str],
    pictures: Iterable[str],
    scan: FolderScan,
    others: Iterable[str] = (),
    where: str = "a list",
) -> dict[str, str | NoFile]:
    r"""Map each name to the file it means, or to the reason that there is none.

    In this order: the name as it is; in another spelling (Unicode form, letter case, kinds and number of
    spaces, `\` for `/`, a leading `./` or `images/`, or the whole path up to `images/`); with another or no
    suffix of a picture; a bare file name for a file in a folder below. The last two never take a file that
    another name means exactly.

    Args:
        names: as a table or list has them.
        pictures: paths of pictures with `/`, as the source names them.
        scan: the source's folder, to tell a link that was not followed from a file that is not there.
        others: paths of files that are no pictures: no other suffix than their own means them.
        where: what names them, for the report.
    """
    names, pictures = list(names), list(pictures)
    exact = dict.fromkeys([*pictures, *others])
    found: dict[str, str | NoFile] = {name: name for name in names if name in exact}
    rest = [name for name in dict.fromkeys(names) if name not in found]
    if not rest:
        return found
    spellings = _index(exact, fold)
    for name in rest:
        if candidates := next((spellings[key] for key in _keys(name, scan.root) if key in spellings), None):
            found[name] = _one_of(name, candidates, "differ only in letter case, spaces or Unicode form")
    taken = {path for path in found.values() if isinstance(path, str)}
    alike = _index(pictures, _base_stem)
    looser = ((_index(pictures, _base), fold), (_index(pictures, _stem), _stem), (alike, _stem))
    links = {_base(link): link for link in reversed(scan.links_out)}
    loose = [name for name in rest if name not in found]
    for name in loose:
        keys = list(_keys(name, scan.root))
        hits = (index[make(key)] for index, make in looser for key in keys if make(key) in index)
        candidates = next(hits, [])
        if set(candidates) - taken:
            found[name] = _one_of(name, candidates, "are alike without folder and suffix")
        elif reason := _find_unread(name, scan.root, links):
            found[name] = reason
        elif candidates:
            found[name] = NoFile(
                "unmatched_name", f"only {candidates[0]} is like it, and another row names that one"
            )
        elif similar := alike.get(_base_stem(name)):
            found[name] = NoFile("unmatched_name", f"not there, but {similar[:3]} is: write its path")
        else:
            found[name] = _absent(name, where)
    meant = Counter(found[name] for name in loose)
    for name in loose:
        if isinstance(file := found[name], str) and meant[file] > 1:
            found[name] = NoFile(
                "ambiguous_name", f"{meant[file]} names without a file of their own mean {file}"
            )
    return found


def _absent(name: str, where: str) -> NoFile:
    advice = ", in or below which images lie and are named from there" if _is_whole_path(_tidy(name)) else ""
    return NoFile("absent", f"named in {where}, not in the folder{advice}")


def find_other_folder(names: Iterable[str], files: Iterable[str]) -> str:
    """Return the folder of another machine that a table's whole paths start with; "" where that is not sure.

    It is what stands before the longest end of a path that is a file here, or all but the files' names where
    none is. Every name has to start with it.

    Args:
        names: as a table has them.
        files: paths below the folder, with `/`; every way in which they may be named.
    """
    paths = [_tidy(name) for name in names]
    if not paths or not all(map(_is_whole_path, paths)):
        return ""
    known = {fold(file) for file in files}
    parts = [path.split("/") for path in paths]
    for count in range(1, max(map(len, parts))):
        if first := next((each for each in parts if fold("/".join(each[count:])) in known), None):
            folder = "/".join(first[:count]) + "/"
            return folder if all(path.startswith(folder) for path in paths) else ""
    folders = {path.rpartition("/")[0] for path in paths}
    return f"{folders.pop()}/" if len(folders) == 1 else ""  # the bare names may be found in a folder below


def without_folder(name: str, folder: str) -> str:
    """Return what stands behind `find_other_folder` in a whole path."""
    return _tidy(name).removeprefix(folder)


def _is_whole_path(path: str) -> bool:
    """Whether a path with `/` starts at the top of some machine."""
    return path.startswith(("/", "~/")) or _DRIVE.match(path) is not None


def fold(name: str) -> str:
    """Return the spelling that all spellings of a name share."""
    # A table's cells have lost their outer spaces, and spreadsheets write no-break ones.
    name = " ".join(name.split())
    if name.isascii():
        return _tidy(name.lower())
    return _tidy(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()))


def _tidy(name: str) -> str:
    if "//" not in name and "/." not in name and "\\" not in name and not name.startswith("."):
        return name
    first, *rest = name.replace("\\", "/").split("/")
    return "/".join([*([] if first == "." else [first]), *(part for part in rest if part not in ("", "."))])


def _stem(name: str) -> str:
    folded = fold(name)
    head = folded.removesuffix(".gz").rpartition(".")[0]
    return head if folded[len(head) :] in _SUFFIXES else folded


def _base(name: str) -> str:
    return fold(name).rsplit("/", 1)[-1].lstrip()


def _base_stem(name: str) -> str:
    return _stem(name).rsplit("/", 1)[-1].lstrip()


def _index(paths: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for path in paths:
        index.setdefault(key(path), []).append(path)
    return index


def _keys(name: str, folder: Path) -> Iterator[str]:
    """Yield what a name may mean below the folder, folded: as it is, or without a path to it."""
    key = fold(name)
    yield key
    yield key.removeprefix(IMAGES_FOLDER)
    _, is_below, rest = f"/{key}".rpartition(f"/{fold(folder.name)}/")
    if is_below:
        yield rest.removeprefix(IMAGES_FOLDER)


def _one_of(name: str, candidates: list[str], how: str) -> str | NoFile:
    if len(candidates) == 1:
        return candidates[0]
    return NoFile(
        "ambiguous_name", f"{name!r} may mean {candidates[:_NAMED_AT_MOST]}, which {how}: write one of these"
    )


def _find_unread(name: str, root: Path, links: Mapping[str, str]) -> NoFile | None:
    """Return why a file that is there was not read: a hidden name, or a link; None if it is not there."""
    spellings = [_tidy(name), _tidy(unicodedata.normalize("NFC", name)).removeprefix(IMAGES_FOLDER)]
    if _is_whole_path(spellings[0]) or ".." in spellings[0].split("/"):
        return None  # it leads out of the folder
    places = [top + spelling for top in (IMAGES_FOLDER, "") for spelling in spellings]
    path = next((place for place in places if os.path.isfile(root / place)), links.get(_base(name)))
    if path is None:
        return None
    if any(is_hidden(part) for part in path.split("/")):
        return NoFile("hidden_file", "named in a row, but hidden and system files are not read", path)
    return NoFile(
        "link_out_of_folder", "leads out of the folder, itself or by a link above it; not followed", path
    )
