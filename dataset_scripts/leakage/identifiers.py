"""Which image shows which by its name: a source, or a mapping of the user's, says the ChestX-ray14 file.

Listings → `name_from_mapping` → records that say what they show → `find_named`, which looks at no pixel.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataset_scripts.build.nih_mapping import nih_patient, read_nih_mapping
from dataset_scripts.build.records import SourceListing
from dataset_scripts.leakage.pairs import Located, Shown


def find_named(images: Sequence[Located], references: Sequence[Located]) -> dict[str, Shown]:
    """Map the id of each image whose name says which reference it shows to what it shows.

    An image named as a reference is found by its "identifier"; one named as a patient of another source's
    references by its "patient". Within a source the patient is not asked: its own split keeps them apart.
    """
    named = [item for item in reversed(references) if item.record.nih_image]  # of several, the first counts
    by_name = {item.record.nih_image: item for item in named}
    by_patient: dict[str, dict[str, Located]] = {}  # patient → source → reference
    for item in named:
        by_patient.setdefault(nih_patient(item.record.nih_image), {})[item.source] = item
    shown: dict[str, Shown] = {}
    for item in images:
        name = item.record.nih_image
        others = by_patient.get(nih_patient(name), {}) if nih_patient(name) else {}
        if name in by_name:
            shown[item.image_id] = Shown(item, by_name[name], ("identifier",))
        elif partner := next((others[name] for name in reversed(others) if name != item.source), None):
            shown[item.image_id] = Shown(item, partner, ("patient",))
    return shown


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
