"""No image that shows a held-out image of another source may be trained on.

Listings → `remove_leaks` → listings without leaks, `leakage_report.json` and a contact sheet. Public sets
take images from each other: COVIDx and the Radiography database hold images of RSNA, which took them from
NIH ChestX-ray14, so a model pre-trained on them has seen its test set. Held out is every image of a split
other than train, of any source.

Three guards: the identifier (a source or the user's mapping names the ChestX-ray14 image), the patient (the
named image's patient is held out), and the pixels (near_duplicates.py). Volumes are not compared: a slice of
a brain shows no radiograph. Images that show a *training* image of the task's source are kept and reported.

Within one source only the identifier is asked. Its own split keeps patients apart already; comparing
ChestX-ray14's training images with its own held-out ones would cost more than all other comparisons together,
and two films of one patient in the same pose can reach the threshold.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets.utils import tqdm

from dataset_scripts.build.atomic_files import write_json
from dataset_scripts.build.layout import LEAKAGE_REPORT_FILE, LEAKAGE_SHEET_FILE
from dataset_scripts.build.nih_mapping import read_nih_mapping
from dataset_scripts.build.records import ImageRecord, SourceListing
from dataset_scripts.leakage.contact_sheet import save_pairs
from dataset_scripts.leakage.near_duplicates import Match, best_matches
from dataset_scripts.leakage.thumbnails import Thumbnails, read_thumbnails

THRESHOLD = 0.60  # of near_duplicates' correlation: see docs/data.md for both sides' measured values

_NO_MATCH = Match(0, 0.0)


@dataclass(frozen=True, slots=True)
class _Located:
    """A record with the folder it lies in and the split it stands in."""

    record: ImageRecord
    root: Path
    split: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A training image, the image that it shows, the guards that noticed, and what was changed."""

    image: _Located
    partner: _Located
    guards: tuple[str, ...]
    correlation: float | None
    change: str | None


@dataclass(slots=True)
class _ThumbnailReader:
    """Reads each image once, however often it is compared."""

    num_proc: int | None
    known: dict[str, Thumbnails] = field(default_factory=dict)

    def read(self, images: Sequence[_Located]) -> Thumbnails:
        """Return (images, variants, 64, 64), uint8."""
        unread = [item for item in images if item.record.image_id not in self.known]
        if unread:
            pixels = read_thumbnails([item.root / item.record.path for item in unread], self.num_proc)
            self.known.update(zip((item.record.image_id for item in unread), pixels, strict=True))
        return np.stack([self.known[item.record.image_id] for item in images])


def remove_leaks(
    listings: list[SourceListing],
    report_dir: Path | None,
    num_proc: int | None = None,
    allow_leakage: bool = False,
) -> list[SourceListing]:
    """Remove from every train split what shows a held-out image of another source.

    Args:
        listings: all sources.
        report_dir: where the report and the contact sheet go; None writes none.
        num_proc: threads that decode thumbnails.
        allow_leakage: look and report, but remove nothing, as in the paper.

    Returns:
        The same listings, changed in place; each leaking image is a problem of kind "leak", or
        "leak_allowed".
    """
    images = [
        _Located(record, listing.root, split)
        for listing in listings
        for split, records in listing.splits.items()
        for record in records
        if not record.is_volume
    ]
    trained = [item for item in images if item.split == "train"]
    held_out = [item for item in images if item.split != "train"]
    tasks = [listing.source.name for listing in listings if listing.source.is_default_task]
    reader = _ThumbnailReader(num_proc)
    leaks = _find_shown(trained, held_out, reader, "held-out")
    harmless = [item for item in trained if item.record.image_id not in leaks]
    duplicates = _find_shown(
        [item for item in harmless if item.record.source not in tasks],
        [item for item in trained if item.record.source in tasks],
        reader,
        "training",
    )
    _take_out(listings, leaks, allow_leakage)
    if report_dir is not None:
        report = _report(trained, held_out, leaks, duplicates, tasks, allow_leakage)
        write_json(report_dir / LEAKAGE_REPORT_FILE, report, indent=1)
        if leaks:
            shown = [side for leak in leaks.values() for side in (leak.image, leak.partner)]
            names, pictures = [item.record.image_id for item in shown], reader.read(shown)
            whole = pictures[:, 0]
            pairs = zip(names[::2], whole[::2], names[1::2], whole[1::2], strict=True)
            save_pairs(report_dir / LEAKAGE_SHEET_FILE, list(pairs))
    return listings


def _find_shown(
    images: Sequence[_Located], references: Sequence[_Located], reader: _ThumbnailReader, what: str
) -> dict[str, Shown]:
    """Map the id of each image that shows a reference to what it shows."""
    named = [item for item in reversed(references) if item.record.nih_image]  # of several, the first counts
    by_name = {item.record.nih_image: item for item in named}
    shown: dict[str, Shown] = {}
    for source in _sources(images):
        own = [item for item in images if item.record.source == source]
        others = [item for item in references if item.record.source != source]
        by_patient = {
            _nih_patient(item.record.nih_image): item for item in named if item.record.source != source
        }
        matches = _match_pixels(own, others, reader, f"Comparing {source} with {what} images")
        for item, match in zip(own, matches, strict=True):
            name = item.record.nih_image
            guards, partner = [], None
            if name in by_name:
                guards, partner = ["identifier"], by_name[name]
            elif _nih_patient(name) in by_patient:
                guards, partner = ["patient"], by_patient[_nih_patient(name)]
            if match.correlation >= THRESHOLD:
                guards.append("pixels")
                partner = others[match.reference]
            if partner is not None:
                by_pixels = "pixels" in guards
                correlation = round(match.correlation, 4) if by_pixels else None
                change = match.change if by_pixels else None
                shown[item.record.image_id] = Shown(item, partner, tuple(guards), correlation, change)
    return shown


def _sources(images: Iterable[_Located]) -> list[str]:
    """Return the sources of these images, each once, in their order."""
    return list(dict.fromkeys(item.record.source for item in images))


def _match_pixels(
    images: Sequence[_Located], references: Sequence[_Located], reader: _ThumbnailReader, title: str
) -> list[Match]:
    if not images or not references:
        return [_NO_MATCH] * len(images)
    queries, pictures = reader.read(images), reader.read(references)
    with tqdm(total=len(images), desc=title, unit=" images") as bar:
        return best_matches(queries, pictures, bar.update)


def _take_out(listings: list[SourceListing], leaks: dict[str, Shown], allow_leakage: bool) -> None:
    """Report each leak to its listing and, unless allowed, drop it."""
    for listing in listings:
        kept = []
        for record in listing.splits.get("train", []):
            leak = leaks.get(record.image_id)
            if leak is not None:
                kind = "leak_allowed" if allow_leakage else "leak"
                listing.report(kind, record.path, f"shows {leak.partner.record.image_id}", "train")
            if leak is None or allow_leakage:
                kept.append(record)
        if "train" in listing.splits:
            listing.splits["train"] = kept


def _report(
    trained: Sequence[_Located],
    held_out: Sequence[_Located],
    leaks: dict[str, Shown],
    duplicates: dict[str, Shown],
    tasks: Sequence[str],
    allow_leakage: bool,
) -> dict[str, Any]:
    """Return the content of leakage_report.json; an image counts as compared if its pixels were."""
    trained_by = Counter(item.record.source for item in trained)
    held_out_by = Counter(item.record.source for item in held_out)
    shown_of = Counter(leak.partner.record.source for leak in leaks.values())
    return {
        "reference": list(held_out_by),
        "allow_leakage": allow_leakage,
        "held_out_images": len(held_out),
        "compared_images": sum(
            count for source, count in trained_by.items() if held_out_by.keys() - {source}
        ),
        "threshold": THRESHOLD,
        "held_out": {
            source: {
                "images": count,
                "compared": trained_by.total() - trained_by[source],
                "shown": shown_of[source],
            }
            for source, count in held_out_by.items()
        },
        "dropped": [] if allow_leakage else _as_rows(leaks, "held_out"),
        "allowed": _as_rows(leaks, "held_out") if allow_leakage else [],
        "training_reference": [source for source in tasks if trained_by[source]],
        "training_duplicates": _as_rows(duplicates, "training"),
    }


def _as_rows(shown: dict[str, Shown], what: str) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            f"{what}_image_id": item.partner.record.image_id,
            f"{what}_source": item.partner.record.source,
            f"{what}_split": item.partner.split,
            "guards": list(item.guards),
            "correlation": item.correlation,
            "change": item.change,
        }
        for image_id, item in sorted(shown.items())
    ]


def _nih_patient(file_name: str) -> str:
    """Return the patient of a ChestX-ray14 file name, which starts with it; no name is no patient."""
    return file_name.split("_", 1)[0] or "unknown"


def name_from_mapping(listings: list[SourceListing], path: Path) -> None:
    """Fill in which ChestX-ray14 image a file shows from a mapping the user has, by the file's stem.

    Args:
        listings: changed in place, where a record does not say what it shows yet.
        path: see read_nih_mapping.

    Raises:
        LabelFileError: the file is no mapping.
    """
    names = read_nih_mapping(path)
    for listing in listings:
        for split, records in listing.splits.items():
            listing.splits[split] = [
                record
                if record.nih_image
                else replace(record, nih_image=names.get(Path(record.path).stem, ""))
                for record in records
            ]
