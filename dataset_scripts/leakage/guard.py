"""No image that shows a held-out ChestX-ray14 image may be trained on.

Listings → `drop_leaks` → listings without leaks, `leakage_report.json` and a contact sheet. Two public sets
took their normal and opacity images from RSNA, which took them from NIH: pre-training on them has seen the
test set.

Three guards: the identifier (a source or the user's mapping names the ChestX-ray14 image), the patient (the
named image's patient is held out), and the pixels (near_duplicates.py). Volumes are not compared: a slice of
a brain shows no radiograph. Images that show a ChestX-ray14 *training* image are kept and reported.
"""

import csv
import io
import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets.utils import tqdm
from PIL import Image

from dataset_scripts.build.layout import LEAKAGE_REPORT_FILE, LEAKAGE_SHEET_FILE
from dataset_scripts.build.records import ImageRecord, Listing, read_text
from dataset_scripts.errors import BadImageError, LabelFileError
from dataset_scripts.leakage.contact_sheet import save_pairs
from dataset_scripts.leakage.near_duplicates import THUMBNAIL_SIDE, best_matches
from dataset_scripts.reading.images import read_image
from dataset_scripts.splits import HELD_OUT

THRESHOLD = 0.80  # of same_picture's correlation: see docs/data.md for both sides' measured values

_READ_AT_ONCE = 32  # images a task of a thread

Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """A training image that shows an image of the reference source, and the guards that noticed."""

    image_id: str
    shown_image_id: str
    shown_split: str
    guards: tuple[str, ...]
    correlation: float | None


@dataclass(frozen=True, slots=True)
class _Located:
    """A record with the folder it lies in and the split it stands in."""

    record: ImageRecord
    root: Path
    split: str


def drop_leaks(
    listings: list[Listing],
    reference: str,
    report_dir: Path | None,
    num_proc: int | None = None,
    allow_leakage: bool = False,
) -> list[Listing]:
    """Remove from every train split what shows a held-out image of the reference source.

    Args:
        listings: all sources.
        reference: the source whose held-out splits are protected.
        report_dir: where the report and the contact sheet go; None writes none.
        num_proc: threads that decode thumbnails.
        allow_leakage: look and report, but remove nothing, as in the paper.

    Returns:
        The same listings, changed in place; each leaking image is a problem of kind "leak", or
        "leak_allowed".
    """
    located = [
        _Located(record, listing.root, split)
        for listing in listings
        for split, records in listing.splits.items()
        for record in records
    ]
    held_out = [item for item in located if item.record.source == reference and item.split in HELD_OUT]
    trained = [item for item in located if item.record.source == reference and item.split == "train"]
    others = [
        item
        for item in located
        if item.record.source != reference and item.split == "train" and not item.record.is_volume
    ]
    pictures = read_thumbnails([item.root / item.record.path for item in others], num_proc)
    leaks, pairs = _find_shown(others, pictures, held_out, num_proc, "held-out")
    harmless = [row for row, item in enumerate(others) if item.record.image_id not in leaks]
    duplicates, _ = _find_shown(
        [others[row] for row in harmless], pictures[harmless], trained, num_proc, "training"
    )
    for listing in listings:
        kept = []
        for record in listing.splits.get("train", []):
            leak = leaks.get(record.image_id)
            if leak is not None:
                kind = "leak_allowed" if allow_leakage else "leak"
                listing.report(kind, record.path, f"shows {leak.shown_image_id}", "train")
            if leak is None or allow_leakage:
                kept.append(record)
        if "train" in listing.splits:
            listing.splits["train"] = kept
    if report_dir is not None:
        report = {
            "reference": reference,
            "allow_leakage": allow_leakage,
            "held_out_images": len(held_out),
            "compared_images": len(others),
            "threshold": THRESHOLD,
            "dropped": [] if allow_leakage else _as_rows(leaks, "held_out"),
            "allowed": _as_rows(leaks, "held_out") if allow_leakage else [],
            "training_duplicates": _as_rows(duplicates, "training"),
        }
        (report_dir / LEAKAGE_REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if pairs:
            save_pairs(report_dir / LEAKAGE_SHEET_FILE, pairs)
    return listings


def _find_shown(
    others: list[_Located],
    pictures: Thumbnails,
    references: list[_Located],
    num_proc: int | None,
    what: str,
) -> tuple[dict[str, Shown], list[tuple[str, Thumbnails, str, Thumbnails]]]:
    """Map each other image that shows a reference to what it shows, with the pairs to look at."""
    if not others or not references:
        return {}, []
    thumbnails = read_thumbnails([item.root / item.record.path for item in references], num_proc)
    with tqdm(total=len(others), desc=f"Comparing with {what} images", unit=" images") as bar:
        matches = best_matches(pictures, thumbnails, bar.update)
    by_name = {item.record.shows: index for index, item in enumerate(references)}
    by_patient = {_nih_patient(item.record.shows): index for index, item in enumerate(references)}
    shown: dict[str, Shown] = {}
    pairs = []
    for row, (item, match) in enumerate(zip(others, matches, strict=True)):
        guards, index = [], match.reference
        if item.record.shows in by_name:
            guards, index = ["identifier"], by_name[item.record.shows]
        elif _nih_patient(item.record.shows) in by_patient:
            guards, index = ["patient"], by_patient[_nih_patient(item.record.shows)]
        if match.correlation >= THRESHOLD:
            guards.append("pixels")
            index = match.reference
        if not guards:
            continue
        correlation = round(match.correlation, 4) if "pixels" in guards else None
        partner = references[index]
        shown[item.record.image_id] = Shown(
            item.record.image_id, partner.record.image_id, partner.split, tuple(guards), correlation
        )
        pairs.append((item.record.image_id, pictures[row], partner.record.image_id, thumbnails[index]))
    return shown, pairs


def _as_rows(shown: dict[str, Shown], what: str) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            f"{what}_image_id": item.shown_image_id,
            f"{what}_split": item.shown_split,
            "guards": list(item.guards),
            "correlation": item.correlation,
        }
        for image_id, item in sorted(shown.items())
    ]


def _nih_patient(file_name: str) -> str:
    """Return the patient of a ChestX-ray14 file name, which starts with it; no name is no patient."""
    return file_name.split("_", 1)[0] or "unknown"


def read_thumbnails(paths: Sequence[Path], num_proc: int | None = None) -> Thumbnails:
    """Read images as thumbnails; an unreadable image becomes black, which matches nothing.

    Args:
        paths: image files.
        num_proc: threads, not processes: decoders let go of Python's lock, and a process with threads (a
            progress bar's, Arrow's, PyTorch's) had better not be forked.

    Returns:
        (images, 64, 64), uint8, the whole picture squeezed into the square.
    """
    thumbnails = np.zeros((len(paths), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)

    def read_some(start: int) -> int:
        part = range(start, min(start + _READ_AT_ONCE, len(paths)))
        for row in part:
            thumbnails[row] = _thumbnail(paths[row])
        return len(part)

    with warnings.catch_warnings(), ThreadPoolExecutor(num_proc or 1) as pool:
        warnings.simplefilter("ignore")  # read_image does so too, but threads undo each other's filters
        with tqdm(total=len(paths), desc="Reading thumbnails", unit=" images") as bar:
            for done in pool.map(read_some, range(0, len(paths), _READ_AT_ONCE)):
                bar.update(done)
    return thumbnails


def _thumbnail(path: Path) -> Thumbnails:
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    try:
        image = Image.fromarray(read_image(path, THUMBNAIL_SIDE))
    except BadImageError:  # the build itself names it
        return np.zeros(side, np.uint8)
    return np.asarray(image.resize(side, Image.Resampling.BILINEAR))


def name_from_mapping(listings: list[Listing], path: Path) -> None:
    """Fill in which ChestX-ray14 image a file shows from a mapping the user has, by the file's stem.

    Args:
        listings: changed in place, where a record does not say what it shows yet.
        path: the RSNA challenge's mapping JSON (`subset_img_id`, `img_id`), or a CSV of two columns,
            identifier and ChestX-ray14 file name, with a header.

    Raises:
        LabelFileError: the file is neither.
    """
    try:
        text = read_text(path)
        if path.suffix.lower() == ".json":
            pairs = [(row["subset_img_id"], row["img_id"]) for row in json.loads(text)]
        else:
            pairs = [(row[0], row[1]) for row in list(csv.reader(io.StringIO(text)))[1:] if row]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise LabelFileError(
            f"{path.name} is no mapping to ChestX-ray14 ({type(error).__name__}: {error}). Wanted the RSNA "
            "mapping JSON with subset_img_id and img_id, or a CSV with a header and two columns: identifier "
            "and ChestX-ray14 file name."
        ) from error
    names = {str(identifier).strip(): str(name).strip() for identifier, name in pairs}
    for listing in listings:
        for split, records in listing.splits.items():
            listing.splits[split] = [
                record if record.shows else replace(record, shows=names.get(Path(record.path).stem, ""))
                for record in records
            ]


def read_leakage_report(folder: Path | str) -> dict[str, Any]:
    """Read `leakage_report.json` of a built cocktail's folder."""
    report: dict[str, Any] = json.loads((Path(folder) / LEAKAGE_REPORT_FILE).read_text(encoding="utf-8"))
    return report
