"""Which files a stage's record is about: a digest of each by what it means, kept in the record.

Below lineage.py and publish.py. Written anew with the same content, by `convert` or a download from the Hub,
a file keeps its digest; the card, the record and the pictures beside them may change.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from medhiera.errors import UserError, one_line
from medhiera.hub.record import AnyRecord
from medhiera.inference.classifier import digest_tensors
from medhiera.layout import CONFIG_FILE, METRICS_FILE, PROCESSOR_FILE, WEIGHTS_FILE, WRITER_FILES
from modeling_hiera_mae.weight_files import read_weights

logger = logging.getLogger(__name__)

_WITHOUT_MEANING = {
    "transformers_version", "auto_map", "_name_or_path", "dtype", "torch_dtype", "use_cache",
}  # fmt: skip
"""Keys that libraries (use_cache: transformers' Trainer) and publish.py write beside what a file says."""


def contents_of(folder: Path) -> dict[str, str]:
    """Twelve hexadecimal digits of each file that the numbers of a stage depend on, by its name.

    Args:
        folder: of a finished stage.

    Raises:
        UserError: a file is damaged.
    """
    names = (CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE, *WRITER_FILES)
    return {name: content_of(folder / name) for name in names if (folder / name).is_file()}


def content_of(file: Path) -> str:
    """Of weights: names and values of the tensors. Of JSON: the values, in whatever order.

    Raises:
        UserError: the file is damaged or gone.
    """
    try:
        if file.suffix == ".safetensors":
            return digest_tensors(sorted(read_weights([file]).items()), "")
        content = json.loads(file.read_text(encoding="utf-8"), object_hook=_with_meaning)
    except (ValueError, OSError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _with_meaning(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in _WITHOUT_MEANING}


def changed_files(folder: Path, record: AnyRecord) -> list[str]:
    """The files that a stage's record is not about any more; an earlier version's record names none.

    Args:
        folder: of a finished stage.
        record: its own.

    Raises:
        UserError: a file is damaged.
    """
    now = contents_of(folder) if record.contents else {}
    return [name for name, digest in record.contents.items() if now.get(name) != digest]


def is_of_these_files(source: str | Path, record: AnyRecord) -> bool:
    """Whether a record's thresholds and calibration are of what lies beside it; a warning says if not.

    Args:
        source: a stage's folder; or a Hub id, whose files came with its record.
        record: of the stage.

    Raises:
        UserError: a file is damaged.
    """
    changed = changed_files(Path(source), record) if Path(source).is_dir() else []
    if changed:
        logger.warning(
            "%s: %s changed after training, so thresholds and calibration of its %s are not used",
            source, " and ".join(changed), METRICS_FILE,
        )  # fmt: skip
    return not changed


def refuse_changed(folder: Path, record: AnyRecord) -> None:
    """Refuse a stage whose record is about other files than those beside it.

    Args:
        folder: of a finished stage.
        record: its own.

    Raises:
        UserError: as said, with the names; or a file is damaged.
    """
    if changed := changed_files(folder, record):
        raise UserError(
            f"{folder}: {' and '.join(changed)} changed after the stage was finished (by hand, from a "
            f"checkpoint, by another program), and {METRICS_FILE} and the card speak of what was there "
            "before. Put back what training wrote; or train a stage from this folder, which gets a record "
            "and scores of its own"
        )
