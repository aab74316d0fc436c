"""No image that shows a held-out ChestX-ray14 image may be trained on.

Listings → `drop_leaks` → listings without leaks, and `leakage_report.json`. Two public sets took their
normal and opacity images from RSNA, which took them from NIH: pre-training on them has seen the test set.

Guards: the same patient or image where a source names it, and pixels (correlation of z-scored thumbnails).
Volumes are not compared: a slice of a brain shows no radiograph.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets.utils import tqdm
from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.images import read_image
from dataset_scripts.listing import ImageRecord, Listing
from dataset_scripts.splits import HELD_OUT

REPORT_FILE = "leakage_report.json"
THUMBNAIL_SIDE = 64
THRESHOLD = 0.96  # measured: true pairs correlate at .998 and more, all others at .925 and less
_ROWS_PER_PRODUCT = 2048

Thumbnails = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Leak:
    """A training image that shows a held-out image; `guards` are those that noticed, sorted."""

    image_id: str
    held_out_image_id: str
    held_out_split: str
    guards: tuple[str, ...]
    correlation: float | None


@dataclass(frozen=True, slots=True)
class _Located:
    """A record with the folder it lies in and the split it stands in."""

    record: ImageRecord
    root: Path
    split: str


def drop_leaks(
    listings: list[Listing], reference: str, report_dir: Path | None, num_proc: int | None = None
) -> list[Listing]:
    """Remove from every train split what shows a held-out image of the reference source.

    Args:
        listings: all sources.
        reference: the source whose validation and test splits are protected.
        report_dir: where `leakage_report.json` goes; None writes none.
        num_proc: processes that decode thumbnails.

    Returns:
        The same listings, changed in place; each dropped image is a problem of kind "leak".
    """
    located = [
        _Located(record, listing.root, split)
        for listing in listings
        for split, records in listing.splits.items()
        for record in records
    ]
    held_out = [item for item in located if item.record.source == reference and item.split in HELD_OUT]
    others = [
        item
        for item in located
        if item.record.source != reference and item.split == "train" and not item.record.is_volume
    ]
    leaks = _find_leaks(held_out, others, num_proc) if held_out and others else {}
    for listing in listings:
        if "train" not in listing.splits:
            continue
        kept = []
        for record in listing.splits["train"]:
            leak = leaks.get(record.image_id)
            if leak is None:
                kept.append(record)
            else:
                listing.report("leak", record.path, f"shows {leak.held_out_image_id}", "train")
        listing.splits["train"] = kept
    if report_dir is not None:
        report = {
            "reference": reference,
            "held_out_images": len(held_out),
            "compared_images": len(others),
            "threshold": THRESHOLD,
            "dropped": [asdict(leaks[image_id]) for image_id in sorted(leaks)],
        }
        (report_dir / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return listings


def _find_leaks(held_out: list[_Located], others: list[_Located], num_proc: int | None) -> dict[str, Leak]:
    """Map the image id of each leaking image to what it shows."""
    by_name = {item.record.shows: item for item in held_out if item.record.shows}
    guards: dict[str, list[str]] = {}
    shown: dict[str, tuple[_Located, float | None]] = {}
    for item in others:
        named = by_name.get(item.record.shows)
        if named is not None:
            guards.setdefault(item.record.image_id, []).append("identifier")
            shown[item.record.image_id] = (named, None)
    partner, correlation = best_matches(
        read_thumbnails([item.root / item.record.path for item in others], num_proc),
        read_thumbnails([item.root / item.record.path for item in held_out], num_proc),
    )
    for item, index, value in zip(others, partner, correlation, strict=True):
        if value >= THRESHOLD:
            guards.setdefault(item.record.image_id, []).append("pixels")
            shown[item.record.image_id] = (held_out[index], round(float(value), 4))
    return {
        image_id: Leak(image_id, item.record.image_id, item.split, tuple(guards[image_id]), value)
        for image_id, (item, value) in shown.items()
    }


def read_thumbnails(paths: Sequence[Path], num_proc: int | None = None) -> Thumbnails:
    """Read images as z-scored thumbnails; an unreadable image becomes zeros, which match nothing.

    Returns:
        (images, 64 x 64), float32, each row of mean 0 and length 1.
    """
    thumbnails = np.zeros((len(paths), THUMBNAIL_SIDE**2), np.float32)
    with tqdm(total=len(paths), desc="Reading thumbnails", unit=" images") as bar:
        if num_proc is None or num_proc <= 1:
            for row, path in enumerate(paths):
                thumbnails[row] = _thumbnail(path)
                bar.update(1)
        else:
            with ProcessPoolExecutor(num_proc) as pool:
                for row, thumbnail in enumerate(pool.map(_thumbnail, paths, chunksize=32)):
                    thumbnails[row] = thumbnail
                    bar.update(1)
    return thumbnails


def _thumbnail(path: Path) -> Thumbnails:
    try:
        image = Image.fromarray(read_image(path, THUMBNAIL_SIDE))
    except BadImageError:  # the build itself names it
        return np.zeros(THUMBNAIL_SIDE**2, np.float32)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    values = np.asarray(image.resize(side, Image.Resampling.BILINEAR), np.float32).reshape(-1)
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values


def best_matches(queries: Thumbnails, references: Thumbnails) -> tuple[npt.NDArray[np.intp], Thumbnails]:
    """Find for each query the reference it correlates with most, in bounded memory.

    Args:
        queries: (queries, pixels), rows of mean 0 and length 1.
        references: (references, pixels), the same.

    Returns:
        (queries,) index of the best reference and (queries,) its correlation.
    """
    best = np.zeros(len(queries), np.intp)
    correlation = np.full(len(queries), -1.0, np.float32)
    for start in range(0, len(queries), _ROWS_PER_PRODUCT):
        rows = slice(start, start + _ROWS_PER_PRODUCT)
        for first in range(0, len(references), _ROWS_PER_PRODUCT):
            product = queries[rows] @ references[first : first + _ROWS_PER_PRODUCT].T
            index = product.argmax(axis=1)
            value = np.take_along_axis(product, index[:, None], axis=1)[:, 0]
            is_better = value > correlation[rows]
            best[rows] = np.where(is_better, first + index, best[rows])
            correlation[rows] = np.where(is_better, value, correlation[rows])
    return best, correlation


def read_leakage_report(folder: Path | str) -> dict[str, Any]:
    """Read `leakage_report.json` of a built cocktail's folder."""
    report: dict[str, Any] = json.loads((Path(folder) / REPORT_FILE).read_text(encoding="utf-8"))
    return report
