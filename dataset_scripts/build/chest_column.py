"""Where the chest lies in each picture of a build with `contours`: the values of the column `chest_region`.

Listings → `add_contours`, which looks up the user's own → `chest_cells` in each worker, which asks the
network for all others.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataset_scripts.build.records import FolderScan, ImageRecord, SourceListing, scan_folder
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import REGION_SIDE
from dataset_scripts.reading.grayscale import GrayImage

if TYPE_CHECKING:
    from dataset_scripts.build.chest_region import ChestRegion

LEARNED = "learned"
"""The value of `contours` that asks the network for every picture."""


NO_CHEST = "no_chest_found"
"""The report's kind of a picture whose region is the rectangle."""

_FOLLOWED = "its masks follow the fixed rectangle"


def full_path(contours: str) -> str:
    """The option `contours` as it names a build: a path is resolved, whatever it was called from."""
    return contours if contours in ("", LEARNED) else str(Path(contours).resolve())


def scan_contours(contours: str) -> list[FolderScan]:
    """The user's own contours as files, for the hash that a build goes by; a table may be of gigabytes.

    Raises:
        DataLayoutError: there is no such file or folder.
    """
    if contours in ("", LEARNED):
        return []
    path = Path(contours)
    if path.is_dir():
        return [scan_folder(path)]
    if not path.is_file():
        raise DataLayoutError(
            f"contours is {contours}, which is not there; wanted `{LEARNED}` for the network's, a CSV of "
            "CheXmask or a folder of lung masks."
        )
    status = path.stat()
    return [FolderScan(path.parent, {path.name: (status.st_size, status.st_mtime_ns)})]


def add_contours(listings: Iterable[SourceListing], contours: str) -> None:
    """Say in each record what is known of its chest.

    Contours that are not used are reported, and those without lungs, whose region is the rectangle.

    Args:
        listings: of one build; their records are replaced.
        contours: LEARNED, or a file or folder as `read_contours` takes it.

    Raises:
        DataLayoutError: there is no such file or folder.
        LabelFileError: it cannot be read, or names none of the pictures.
    """
    listings = list(listings)
    for listing in listings:
        if not listing.source.shows_chest:
            for split, records in listing.splits.items():
                listing.splits[split] = [replace(record, chest_region=None) for record in records]
    with_chest = [listing for listing in listings if listing.source.shows_chest]
    if contours == LEARNED or not with_chest:
        return
    from dataset_scripts.build.contour_files import read_contours  # scipy, which no other build needs

    # All sources at once: a table names the pictures of one of them and may be of gigabytes.
    top = os.path.commonpath([str(listing.root) for listing in with_chest])
    parts = {id(listing): Path(os.path.relpath(listing.root, top)).as_posix() for listing in with_chest}

    def name_of(listing: SourceListing, record: ImageRecord) -> str:
        part = parts[id(listing)]
        return record.path if part == "." else f"{part}/{record.path}"

    pictures = [
        name_of(listing, record)
        for listing in with_chest
        for records in listing.splits.values()
        for record in records
    ]
    found = read_contours(Path(contours), Path(top), pictures)
    refused = dict(found.refused)
    cells = {picture: pack(region).hex() for picture, region in found.regions.items()}
    for listing in with_chest:
        for split, records in listing.splits.items():
            for record in records:
                name = name_of(listing, record)
                if why := refused.get(name):
                    listing.report("contour_refused", record.path, why, split)
                elif name in found.regions and found.regions[name].is_fallback:
                    listing.report(NO_CHEST, record.path, f"its contour holds no lungs: {_FOLLOWED}", split)
            listing.splits[split] = [
                replace(record, chest_region=cells.get(name_of(listing, record), "")) for record in records
            ]


def chest_cells(record: ImageRecord, image: GrayImage, note: Callable[[str, str], None]) -> bytes | None:
    """The value of the column for one picture; None where no chest is shown.

    Args:
        record: of `add_contours`.
        image: (height, width).
        note: is told where the chest was not found, and the region is the rectangle.
    """
    if record.chest_region is None:
        return None
    if record.chest_region:
        return bytes.fromhex(record.chest_region)
    from dataset_scripts.build.chest_contour import find_chest  # torch: seconds in each worker of any build

    region = find_chest(image)
    if region.is_fallback:
        note(NO_CHEST, _FOLLOWED)
    return pack(region)


def pack(region: "ChestRegion") -> bytes:
    """REGION_SIDE × REGION_SIDE bits of the whole picture, row after row."""
    return np.packbits(region.draw(REGION_SIDE, REGION_SIDE) > 127).tobytes()
