"""Pictures of one name that lie in several classes or splits: are they one file?

A class folder's pictures → here → those that are left out. Only files of one name and size are read. Copies
under other names are the leakage guard's to find (dataset_scripts/leakage), and it compares sources.
"""

import hashlib
from collections.abc import Mapping

from dataset_scripts.build.records import FolderScan, SourceListing

_HELD_OUT_FIRST = ("test", "validation", "train", "")


def report_same_files(
    scan: FolderScan, places: Mapping[str, tuple[str, str]], listing: SourceListing
) -> frozenset[str]:
    """Return the pictures to leave out: one file in two classes, or in train and in a split that is held out.

    Args:
        scan: of the folder.
        places: the split and the class of each picture, by its path.
        listing: takes a report of each.
    """
    alike: dict[tuple[str, int], list[str]] = {}
    for path in places:
        alike.setdefault((path.rsplit("/", 1)[-1].lower(), scan.files[path][0]), []).append(path)
    left_out: set[str] = set()
    for paths in alike.values():
        if len(paths) < 2:
            continue
        by_content: dict[bytes, list[str]] = {}
        for path in paths:
            if (digest := _digest(scan, path)) is not None:
                by_content.setdefault(digest, []).append(path)
        for same in by_content.values():
            left_out |= _leave_out(same, places, listing)
    return frozenset(left_out)


def _leave_out(same: list[str], places: Mapping[str, tuple[str, str]], listing: SourceListing) -> set[str]:
    """Return those of several paths of one file that are left out.

    The one in the test folder stays, whatever class the others have; where one split gives it two classes,
    none can be believed.
    """
    if len(same) < 2:
        return set()
    first, *copies = sorted(same, key=lambda path: (_HELD_OUT_FIRST.index(places[path][0]), path))
    split, label = places[first]
    if any(places[path][0] == split and places[path][1] != label for path in copies):
        copies = [first, *copies]
    for path in copies:
        others = [other for other in same if other != path]
        is_conflict = any(places[other][1] != places[path][1] for other in others)
        kind = "conflicting_class" if is_conflict else "same_file"
        listing.report(kind, path, f"the same file as {others}", places[path][0])
    return set(copies)


def _digest(scan: FolderScan, path: str) -> bytes | None:
    try:
        with (scan.root / path).open("rb") as file:
            return hashlib.file_digest(file, hashlib.sha256).digest()
    except OSError:
        return None  # the build says why it cannot be read
