"""Which image shows which by its name in ChestX-ray14 or RSNA: its source says it, or the user's mapping.

Listings → `name_from_mapping` → records that say what they show → `find_named`, which looks at no pixel.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataset_scripts.build.nih_mapping import nih_patient, read_nih_mapping
from dataset_scripts.build.records import ImageRecord, SourceListing
from dataset_scripts.findings import NIH_IMAGE, RSNA_IMAGE
from dataset_scripts.leakage.pairs import Located, Shown


def find_named(images: Sequence[Located], references: Sequence[Located]) -> dict[str, Shown]:
    """Map the id of each image whose name says which reference it shows to what it shows.

    An image named as a reference is found by its "identifier"; one named as a patient of another source's
    references by its "patient". Within a source the patient is not asked: its own split keeps them apart.
    """
    by_name: dict[tuple[str, str], Located] = {}
    by_patient: dict[str, dict[str, Located]] = {}  # patient → source → reference
    for item in reversed(references):  # of several, the first counts
        by_name |= dict.fromkeys(known_names(item.record), item)
        if item.record.nih_image:
            by_patient.setdefault(nih_patient(item.record.nih_image), {})[item.source] = item
    shown: dict[str, Shown] = {}
    for item in images:
        patient = nih_patient(item.record.nih_image)
        others = by_patient.get(patient, {}) if patient else {}
        same = next((by_name[name] for name in known_names(item.record) if name in by_name), None)
        if same is not None:
            shown[item.image_id] = Shown(item, same, ("identifier",))
        elif partner := next((others[name] for name in reversed(others) if name != item.source), None):
            shown[item.image_id] = Shown(item, partner, ("patient",))
    return shown


def known_names(record: ImageRecord) -> list[tuple[str, str]]:
    """Return (whose, name) of each name by which other sets may know an image: ChestX-ray14's and RSNA's."""
    names = ((NIH_IMAGE, record.nih_image), (RSNA_IMAGE, record.rsna_image))
    return [(whose, name) for whose, name in names if name]


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
