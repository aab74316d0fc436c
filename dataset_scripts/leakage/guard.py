"""No image that shows a held-out image may be trained on, under whatever name.

Listings → `remove_leaks` → listings without leaks, `leakage_report.json` and a contact sheet. Public sets
take images from each other: COVIDx and the Radiography database hold images of RSNA, which took them from
NIH ChestX-ray14, so a model pre-trained on them has seen its test set. Held out is every image of a split
other than train, of any source, and what the user protects beside the data (protected.py).

Three guards: the identifier (a source or the user's mapping names the ChestX-ray14 image, or a source names
RSNA's), the patient (the ChestX-ray14 image's patient is held out), and the pixels (near_duplicates.py).
Volumes are not compared: a slice of a brain shows no radiograph. Images that show a *training* image of the
task's source are kept and reported.

Within one source pixels are asked where that is affordable: its own split keeps patients apart already, and
comparing ChestX-ray14's training images with its own held-out ones would cost more than all else together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from datasets.utils import tqdm

from dataset_scripts.build.atomic_files import write_json
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.layout import LEAKAGE_REPORT_FILE, LEAKAGE_SHEET_FILE, PROTECTED_PAIRS_FILE
from dataset_scripts.build.records import SourceListing
from dataset_scripts.leakage.contact_sheet import save_pairs
from dataset_scripts.leakage.identifiers import find_named
from dataset_scripts.leakage.near_duplicates import NO_MATCH, Match, best_matches, find_matches
from dataset_scripts.leakage.pairs import Located, Shown
from dataset_scripts.leakage.protected import PROTECTED, read_protected, write_pairs
from dataset_scripts.leakage.report import LeakageFindings, Pairs, make_report, shown_pairs
from dataset_scripts.leakage.thumbnails import Thumbnails, read_thumbnails

THRESHOLD = 0.60  # of near_duplicates' correlation: see docs/data.md for both sides' measured values

SAME_PICTURE = 0.70  # for what is left out though it leaks nothing: below lie other films of one patient

_MOST_COMPARISONS = 1_500_000_000  # within one source; some 30 minutes of one core

_EACH_TAKES = 8_000  # comparisons in whose time a picture is aligned with its candidates


@dataclass(slots=True)
class _ThumbnailReader:
    """Reads each image once, however often it is compared."""

    num_proc: int | None
    known: dict[str, Thumbnails] = field(default_factory=dict)

    def read(self, images: Sequence[Located]) -> Thumbnails:
        """Return (images, variants, 64, 64), uint8."""
        unread = [item for item in images if item.image_id not in self.known]
        if unread:
            pixels = read_thumbnails([item.root / item.record.path for item in unread], self.num_proc)
            self.known.update(zip((item.image_id for item in unread), pixels, strict=True))
        return np.stack([self.known[item.image_id] for item in images])


def remove_leaks(
    listings: list[SourceListing],
    report_dir: Path | None,
    num_proc: int | None,
    config: SourceConfig,
) -> list[SourceListing]:
    """Remove from every train split what shows a held-out image, and such copies from a drawn validation.

    Args:
        listings: all sources.
        report_dir: where the report and the contact sheet go; None writes none.
        num_proc: threads that decode thumbnails.
        config: `allow_leakage` looks and reports, but removes nothing, as in the paper; `protect` and
            `keep_duplicates` as said there.

    Returns:
        The same listings, changed in place; each leaking image is a problem of kind "leak", or
        "leak_allowed", each further near-duplicate one of kind "duplicate".

    Raises:
        UserError: `protect` names nothing that can be read.
    """
    images = [
        Located(record, listing.root, split)
        for listing in listings
        for split, records in listing.splits.items()
        for record in records
        if not record.is_volume
    ]
    found = LeakageFindings(
        trained=[item for item in images if item.split == "train"],
        held_out=[item for item in images if item.split != "train"],
        protected=None,
        tasks=[listing.source.name for listing in listings if listing.source.is_default_task],
        label_names={listing.source.name: listing.label_names for listing in listings},
        drawn=[listing.source.name for listing in listings if listing.is_split_drawn],
    )
    reader = _ThumbnailReader(num_proc)
    names: tuple[str, ...] = ()
    if config.protect:
        found.protected, pixels, names = read_protected(config.protect, num_proc)
        reader.known |= {item.image_id: row for item, row in zip(found.protected, pixels, strict=True)}
    _find_all(found, reader, config.keep_duplicates == "once")
    _take_out(
        listings, found.leaks | found.drawn_duplicates(), "leak_allowed" if config.allow_leakage else "leak"
    )
    _take_out(listings, found.source_duplicates or {}, "duplicate")
    if report_dir is not None:
        report = make_report(found, THRESHOLD, config.allow_leakage, config.phantoms)
        write_json(report_dir / LEAKAGE_REPORT_FILE, report, indent=1)
        if found.protected is not None:
            write_pairs(report_dir / PROTECTED_PAIRS_FILE, found.leaks.values(), names)
        if pairs := shown_pairs(found):
            whole = [reader.read([pair.image, pair.partner])[:, 0] for pair in pairs]
            shown = [
                (pair.image.image_id, left, pair.partner.image_id, right, pair.correlation)
                for pair, (left, right) in zip(pairs, whole, strict=True)
            ]
            save_pairs(report_dir / LEAKAGE_SHEET_FILE, shown)
    return listings


def _find_all(found: LeakageFindings, reader: _ThumbnailReader, wants_each_once: bool) -> None:
    """Fill in what shows what."""
    trained = found.trained
    found.leaks = _find_shown(trained, [*found.held_out, *(found.protected or [])], reader, "held-out")
    for source in _sources(found.held_out):
        held_out = _of(found.held_out, source)
        own = [item for item in _of(trained, source) if item.image_id not in found.leaks]
        if own and _is_affordable(len(own), len(held_out)):
            found.compared_within.append(source)
            found.leaks |= _find_pixels(own, held_out, reader, f"Comparing {source} with its held-out images")
        test = [item for item in held_out if item.split == "test"]
        rest = [item for item in held_out if item.split != "test"]
        if _is_affordable(len(rest), len(test)):
            title = f"Comparing {source}'s validation and test images"
            found.held_out_duplicates |= _find_pixels(rest, test, reader, title)
    kept = [item for item in trained if item.image_id not in found.leaks]
    others = [item for item in kept if item.source not in found.tasks]
    of_tasks = [item for item in trained if item.source in found.tasks]
    found.training_duplicates = _find_shown(others, of_tasks, reader, "training")
    if wants_each_once:
        found.source_duplicates = {}
        for source in _sources(kept):
            own = _of(kept, source)
            if _is_affordable(len(own), len(own)):
                found.source_duplicates |= _find_repeated(own, reader, f"Comparing {source} with itself")


def _find_shown(
    images: Sequence[Located], references: Sequence[Located], reader: _ThumbnailReader, what: str
) -> Pairs:
    """Map the id of each image that shows a reference of another source, or is named as one, to it."""
    shown = find_named(images, references)
    for source in _sources(images):
        others = [item for item in references if item.source != source]
        title = f"Comparing {source} with {what} images"
        for image_id, pair in _find_pixels(_of(images, source), others, reader, title).items():
            guards = shown[image_id].guards if image_id in shown else ()
            shown[image_id] = replace(pair, guards=(*guards, *pair.guards))
    return shown


def _find_pixels(
    images: Sequence[Located], references: Sequence[Located], reader: _ThumbnailReader, title: str
) -> Pairs:
    """Map the id of each image whose pixels show a reference to what it shows."""
    if not images or not references:
        return {}
    queries, pictures = reader.read(images), reader.read(references)
    with tqdm(total=len(images), desc=title, unit=" images") as bar:
        matches = best_matches(queries, pictures, bar.update)
    return {
        item.image_id: _shown(item, references, match)
        for item, match in zip(images, matches, strict=True)
        if match.correlation >= THRESHOLD
    }


def _find_repeated(images: Sequence[Located], reader: _ThumbnailReader, title: str) -> Pairs:
    """Map the id of each image that shows an earlier one, which itself shows none before it, to that one."""
    pixels = reader.read(images)
    kept_of: dict[int, int] = {}
    best: dict[int, Match] = {}
    with tqdm(total=len(images), desc=title, unit=" images") as bar:
        query = 0
        for part in find_matches(pixels, pixels, own=np.arange(len(images))):
            for several in part:
                same = [match for match in several if match.correlation >= SAME_PICTURE]
                group = {_first_of(kept_of, image) for image in (query, *(match.reference for match in same))}
                for image in group - {min(group)}:
                    kept_of[image] = min(group)
                for match in same:
                    for image in (query, match.reference):
                        if match.correlation > best.get(image, NO_MATCH).correlation:
                            best[image] = match
                query += 1
            bar.update(len(part))
    repeated: Pairs = {}
    for image in kept_of:
        # of several copies the correlation is the nearest one's, so nothing is said of the change
        kept, correlation = images[_first_of(kept_of, image)], round(best[image].correlation, 4)
        repeated[images[image].image_id] = Shown(images[image], kept, ("pixels",), correlation)
    return repeated


def _first_of(kept_of: dict[int, int], image: int) -> int:
    """Return the first image of the group that an image belongs to."""
    while image in kept_of:
        image = kept_of[image]
    return image


def _shown(item: Located, references: Sequence[Located], match: Match) -> Shown:
    return Shown(item, references[match.reference], ("pixels",), round(match.correlation, 4), match.change)


def _sources(images: Iterable[Located]) -> list[str]:
    """Return the sources of these images, each once, in their order."""
    return list(dict.fromkeys(item.source for item in images))


def _of(images: Iterable[Located], source: str) -> list[Located]:
    return [item for item in images if item.source == source]


def _is_affordable(images: int, references: int) -> bool:
    return images * (references + _EACH_TAKES) <= _MOST_COMPARISONS


def _take_out(listings: list[SourceListing], shown: Pairs, kind: str) -> None:
    """Report each of these images to its listing and, unless it is allowed, drop it.

    The study of one that leaks is dropped whole: its report tells of all its pictures.
    """
    for listing in listings:
        for split, records in listing.splits.items():
            kept = []
            leaking = {
                record.study_id: record.path
                for record in records
                if kind == "leak" and record.image_id in shown
            }
            for record in records:
                pair = shown.get(record.image_id)
                if pair is None and record.study_id and record.study_id in leaking:
                    listing.report(kind, record.path, f"of one study with {leaking[record.study_id]}", split)
                    continue
                if pair is not None:
                    is_ours = pair.partner.source == PROTECTED
                    partner = "a protected image" if is_ours else pair.partner.image_id
                    listing.report(kind, record.path, f"shows {partner}", split)
                if pair is None or kind == "leak_allowed":
                    kept.append(record)
            listing.splits[split] = kept
