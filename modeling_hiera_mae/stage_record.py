"""What a stage's folder says of its weights goes along where they are converted; without it they are refused.

Below convert.py, and like it does not ship to the Hub. What lies in such a folder is medhiera/layout.py's.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from .weight_files import read_json, read_json_value

CARD = "README.md"
PROCESSOR = "preprocessor_config.json"
RECORD = "metrics.json"
"""What a stage's training wrote; it goes along, so that a converted stage still says what it has seen."""

FILES_OF_RECORD = (RECORD, "training_images.parquet")
"""Of a stage that timm opens: where its weights come from, and which images they have seen."""

FILES_OF_STAGE = (
    *FILES_OF_RECORD, CARD, PROCESSOR, "published.json", "figures/*.png", "examples/*.png",
)  # fmt: skip
"""The rest of a stage that its record and card speak of."""

_RUN = "run.json"
_COMPLETE = "complete.json"
_PARTS = ("checkpoint-*", "raw")


def stage_of(folder: Path, label: str, license_name: str | None) -> Path | None:
    """The folder where it is a stage's; None where nothing says that its weights were trained here.

    Args:
        folder: of the weights.
        label: what to call it.
        license_name: of the weights, as the user says.

    Raises:
        ValueError: they were trained here, and their record is elsewhere: they would pass as anybody's. Or a
            licence is given beside a record.
    """
    if not _is_stage(folder):
        _refuse_part_of_run(folder)
        return None
    if license_name is not None:
        raise ValueError(f"{label} is a stage, whose record says its licence; leave --license out.")
    return folder


def _is_stage(folder: Path) -> bool:
    """Whether a folder holds a stage's record, and not the metrics.json of something else."""
    file = folder / RECORD
    content = read_json_value(file) if file.is_file() else None
    return isinstance(content, dict) and {"stage", "lineage"} <= content.keys()


def _refuse_part_of_run(folder: Path) -> None:
    """Refuse a checkpoint, a stage's `raw`, what a run has not finished, a published stage without record."""
    if (folder / _RUN).is_file():
        raise ValueError(
            f"{folder} is of a run that has not ended, so no {RECORD} says what its weights have seen. "
            "Resume it (--resume_from_checkpoint true), and convert the finished stage."
        )
    place = folder.resolve()
    run = place.parent
    is_part = any(place.match(pattern) for pattern in _PARTS)
    if (folder / _COMPLETE).is_file() or (is_part and ((run / _RUN).is_file() or _is_stage(run))):
        raise ValueError(
            f"{folder} is a part of a training run, and what its weights have seen stands in the folder of "
            f"that run: convert the finished stage, {run}."
        )
    config = folder / "config.json"
    if config.is_file() and "modeling_hiera_mae." in str(read_json(config).get("auto_map")):  # see publish.py
        raise ValueError(
            f"{folder} was published by this project, and its {RECORD}, which says what its weights have "
            "seen, is not there: download the whole repository (hf download NAME/REPOSITORY)."
        )


def copy_files(source: Path, patterns: Sequence[str], folder: Path) -> None:
    """Copy those files of a stage that are there.

    Args:
        source: the stage's folder.
        patterns: names below it, with wildcards.
        folder: where they go.
    """
    for pattern in patterns:
        for file in sorted(source.glob(pattern)):
            place = folder / file.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, place)
