"""The mark of drawn data: `phantom_files.json` in a source's folder names every file that was drawn there.

`dataset_scripts.phantom` → here → builder → the column `is_phantom`. A source counts as drawn as long as its
folder holds nothing else: where a film or a report is added later, or takes a drawn file's place, the whole
source counts as real, so that no card shows a real report or calls a patient's film a phantom.
"""

from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.build.atomic_files import read_json, write_json
from dataset_scripts.build.layout import PHANTOM_FILES
from dataset_scripts.build.records import FolderScan, Source, SourceListing, scan_folder


def mark_as_drawn(folder: Path) -> None:
    """Name all files that a folder holds, with their sizes in bytes, as drawn."""
    files = scan_folder(folder).files
    sizes = {path: size for path, (size, _) in files.items() if path != PHANTOM_FILES}
    write_json(folder / PHANTOM_FILES, sizes, indent=0)


def find_foreign(scan: FolderScan) -> list[str] | None:
    """Return the files that are not as the mark has them, or None of a folder without a mark.

    Drawn files that are gone are no fault: what is left is drawn. A table to which rows were added is known
    by its size; times do not count, as a copy has others.

    Args:
        scan: of a source's folder.
    """
    if PHANTOM_FILES not in scan.files:
        return None
    sizes = read_json(scan.root / PHANTOM_FILES)
    if not isinstance(sizes, dict):  # damaged
        sizes = {}
    return [
        path for path, (size, _) in scan.files.items() if path != PHANTOM_FILES and sizes.get(path) != size
    ]


def drawn_sources(found: Sequence[tuple[Source, FolderScan]]) -> tuple[str, ...]:
    """Return the names of the sources whose folders hold drawn files alone."""
    return tuple(source.name for source, scan in found if find_foreign(scan) == [])


def report_foreign_files(listing: SourceListing, scan: FolderScan) -> None:
    """Report that a folder with a mark holds other files, which makes the whole source count as real."""
    if foreign := find_foreign(scan):
        detail = f"{len(foreign)} files are none of those that {PHANTOM_FILES} names as drawn"
        listing.report("not_drawn", foreign[0], f"{detail}: all of the source counts as real")
