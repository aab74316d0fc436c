"""Which dataset your own images come from: what names it, in the folder itself.

A dataset that was copied (own/dataset_rows.py) leaves a note; a folder may hold a dataset card, as those of
the Hub do; else there is the folder's name. → build_report.json → both kinds of card.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from dataset_scripts.build.atomic_files import read_json, write_json
from dataset_scripts.build.layout import CARD_FILE, ORIGIN_FILE


@dataclass(frozen=True)
class DatasetOrigin:
    """A dataset, by what is known of it.

    Attributes:
        folder: the name, not the path, of the folder that was read; "" of a dataset on the Hub.
        name: as the card in the folder has it (`pretty_name`); "" without one.
        license: the same (`license`).
        homepage: the same (`homepage`).
        hub_id: its id on the Hub; "" of a folder here.
        config: of its configurations there the one that was read; "" for the only or declared one.
        revision: the commit there; "" where it is not known.
        splits: those that it has itself; empty where nobody counted. Other splits were cut from its train.
    """

    folder: str = ""
    name: str = ""
    license: str = ""
    homepage: str = ""
    hub_id: str = ""
    config: str = ""
    revision: str = ""
    splits: tuple[str, ...] = ()

    @property
    def public_name(self) -> str:
        """By which others know it; "" of a folder without a card."""
        return self.name or self.hub_id

    @property
    def address(self) -> str:
        """Where it is to be had; "" where that is not known."""
        return f"https://huggingface.co/datasets/{self.hub_id}" if self.hub_id else self.homepage

    @property
    def terms(self) -> str:
        """Its licence in words; "" where nobody says."""
        return self.license or (f"as {self.address} states it." if self.hub_id else "")


def read_origin(folder: Path) -> DatasetOrigin:
    """Return what names the dataset in a folder; a card that cannot be read names nothing.

    Args:
        folder: of the images.
    """
    if known := origin_from_json(read_json(folder / ORIGIN_FILE)):
        return known
    try:
        card = metadata_load(folder / CARD_FILE) or {}
    except (OSError, ValueError, yaml.YAMLError):
        card = {}
    licences = card.get("license") or []
    return DatasetOrigin(
        folder=folder.resolve().name,
        name=_line(card.get("pretty_name")),
        license=", ".join(map(_line, licences if isinstance(licences, list) else [licences])),
        homepage=_line(card.get("homepage")),
    )


def write_origin(folder: Path, origin: DatasetOrigin) -> None:
    """Leave the note in a folder that a dataset was copied to."""
    write_json(folder / ORIGIN_FILE, asdict(origin), indent=1)


def origin_from_json(content: Any) -> DatasetOrigin | None:
    """Return what a note or a report says; None of anything else."""
    if not isinstance(content, dict) or content.keys() != asdict(DatasetOrigin()).keys():
        return None
    splits = content["splits"]
    texts = [value for key, value in content.items() if key != "splits"]
    if not isinstance(splits, list) or not all(isinstance(text, str) for text in (*texts, *splits)):
        return None
    return DatasetOrigin(**content | {"splits": tuple(splits)})


def _line(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
