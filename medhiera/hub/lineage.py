"""What the weights that a stage starts from have been through, by their own record, here or on the Hub.

Stands below run.py; the card renders it.
"""

from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from medhiera.errors import UserError
from medhiera.hub.record import AnyRecord, Lineage, StageLeakage, read_record
from medhiera.layout import CARD_FILE, METRICS_FILE, PUBLISHED_FILE, REPOSITORY, read_json_file


def find_record(source: str | Path) -> AnyRecord | None:
    """The record of a stage's folder or Hub id; None where there is none or it is no stage's.

    Args:
        source: a folder, or a Hub id whose record is fetched (or found in the cache).

    Raises:
        UserError: a stage's record that cannot be read.
    """
    if Path(source).is_dir():
        return read_record(Path(source))
    try:
        return read_record(Path(hf_hub_download(str(source), METRICS_FILE)))
    except (EntryNotFoundError, HFValidationError, OSError):
        return None


def lineage_of(source: str, new_weights: list[str] | Literal["all"]) -> Lineage:
    """Where the weights of a folder or Hub id come from; a local path never leaves the machine.

    Args:
        source: what training starts from.
        new_weights: parameters that it did not hold.
    """
    record = find_record(source)
    is_here = Path(source).is_dir()
    if record is None:
        is_imagenet = not is_here and source.startswith(("facebook/hiera", "timm/hiera"))
        return Lineage(
            started_from=f"the folder {Path(source).name}" if is_here else source,
            license=_licence_in_card(source) or ("cc-by-nc-4.0" if is_imagenet else None),
            base_model=None if is_here else source,
            new_weights=new_weights,
            earlier_sources=[],
            leakage_before=[] if is_imagenet else None,
        )
    before = record.lineage
    seen = ", ".join(f"{name} {count:,}" for name, count in record.trained_on.items())
    phantoms = "synthetic phantoms in the layouts of " if record.is_phantom else ""
    history = f"from {before.started_from}" + (f"; {phantoms}{seen} images" if seen else "")
    leakage = before.leakage_before
    if record.leakage is not None and leakage is not None:
        leakage = [*leakage, StageLeakage(**vars(record.leakage), stage=record.stage)]
    published = _published_name(Path(source)) if is_here else source
    return Lineage(
        started_from=f"stage {record.stage} ({history})",
        license=before.license,
        base_model=published or before.base_model,
        new_weights=new_weights,
        earlier_sources=sorted(record.real_sources),
        leakage_before=leakage,
    )


def card_metadata(source: str | Path) -> ModelCardData:
    """The metadata of the card of a folder or Hub id.

    Args:
        source: a folder, or a Hub id whose card is fetched (or found in the cache).

    Raises:
        UserError: there is no card to be had, or its metadata are damaged.
    """
    card = Path(source) / CARD_FILE if Path(source).is_dir() else str(source)
    try:
        data = ModelCard.load(card, ignore_metadata_errors=False).data
    except (EntryNotFoundError, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the card of {source} cannot be read ({reason}); write it anew") from error
    if not isinstance(data.license, str | None):
        raise UserError(f"the card of {source} says the license is {data.license!r}; wanted a name")
    return data


def _published_name(folder: Path) -> str | None:
    """The repository that publish.py has sent this folder to.

    Raises:
        UserError: the note is damaged.
    """
    note = folder / PUBLISHED_FILE
    if not note.is_file():
        return None
    name = read_json_file(note).get("repo_id")
    if not isinstance(name, str) or not REPOSITORY.fullmatch(name):
        raise UserError(f"{note} names no repository ({name!r}); remove it, or publish the folder again")
    return name


def _licence_in_card(source: str) -> str | None:
    """What the card of a folder or Hub id says; None where there is no card to be had."""
    try:
        return card_metadata(source).license
    except UserError:
        return None
