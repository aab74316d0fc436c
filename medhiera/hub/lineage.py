"""What the weights that a stage starts from have been through, by their own record, here or on the Hub.

Stands below run.py; the card renders what is said here.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

RANDOM: dict[str, Any] = {
    "started_from": "random weights",
    "new_weights": "all",
    "base_model": None,
    "license": "apache-2.0",
    "trained_before": [],
    "leakage_before": [],
}
"""The lineage of weights that come from nowhere."""


def stage_record(source: str | Path) -> dict[str, Any] | None:
    """The metrics.json of a stage's folder or Hub id; None where there is none or it is no stage's.

    Args:
        source: a folder, or a Hub id whose record is fetched (or found in the cache).
    """
    if Path(source).is_dir():
        file = Path(source) / "metrics.json"
    else:
        try:
            file = Path(hf_hub_download(str(source), "metrics.json"))
        except (EntryNotFoundError, OSError):
            return None
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    is_stage = isinstance(content, dict) and {"stage", "lineage"} <= content.keys()
    return content if is_stage else None


def lineage_of(source: str) -> dict[str, Any]:
    """Where the weights of a folder or Hub id come from; a local path never leaves the machine.

    Args:
        source: what training starts from.

    Returns:
        `started_from` in words, `base_model` and `license` for the card's metadata, `trained_before` (sources
        whose real images earlier stages trained on) and `leakage_before` (their leakage records, each with
        its `stage`; None where nothing is recorded of what the first weights had seen).
    """
    record = stage_record(source)
    is_here = Path(source).is_dir()
    if record is None:
        is_imagenet = not is_here and source.startswith(("facebook/hiera", "timm/hiera"))
        return {
            "started_from": f"the folder {Path(source).name}" if is_here else source,
            "base_model": None if is_here else source,
            "license": _licence_in_card(source) or ("cc-by-nc-4.0" if is_imagenet else None),
            "trained_before": [],
            "leakage_before": [] if is_imagenet else None,
        }
    before = record["lineage"]
    data = record.get("data", {"trained_on": {}, "is_phantom": False})  # stage 0 has none of its own
    seen = ", ".join(f"{name} {count:,}" for name, count in data["trained_on"].items())
    phantoms = "synthetic phantoms in the layouts of " if data["is_phantom"] else ""
    history = f"from {before['started_from']}" + (f"; {phantoms}{seen} images" if seen else "")
    trained = set(before.get("trained_before", ()))
    leakage = before.get("leakage_before", [])
    if "leakage" in data:
        leakage = None if leakage is None else [*leakage, {"stage": record["stage"]} | data["leakage"]]
        trained |= set() if data["is_phantom"] else data["trained_on"].keys()
    published = _published_name(Path(source)) if is_here else source
    return {
        "started_from": f"stage {record['stage']} ({history})",
        "base_model": published or before["base_model"],
        "license": before["license"],
        "trained_before": sorted(trained),
        "leakage_before": leakage,
    }


def _published_name(folder: Path) -> str | None:
    """The repository that publish.py has sent this folder to."""
    note = folder / "published.json"
    return str(json.loads(note.read_text(encoding="utf-8"))["repo_id"]) if note.is_file() else None


def _licence_in_card(source: str) -> str | None:
    """What the card of a folder or Hub id says; None where there is no card to be had."""
    card = Path(source) / "README.md" if Path(source).is_dir() else source
    try:
        licence: str | None = ModelCard.load(card).data.license
    except (EntryNotFoundError, OSError, ValueError):
        return None
    return licence
