"""A stage's folder: the names of its files, and its config.json, read before anything is loaded.

    config.json  model.safetensors  preprocessor_config.json  README.md  metrics.json  figures/*.png

On the floor of medhiera, as training, inference, hub, experiments and the page all look into such folders.
"""

import copy
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from dataset_scripts.mistyped import folder_fault
from medhiera.errors import UserError, one_line
from modeling_hiera_mae.checkpoint_config import read_config_file
from modeling_hiera_mae.configuration_hiera_mae import HieraMAEConfig
from modeling_hiera_mae.modeling_report import VIEWS_FILE
from modeling_hiera_mae.weight_files import find_file, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "preprocessor_config.json"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
STAGE_FILES = (CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE, CARD_FILE, METRICS_FILE)
"""What a finished stage holds."""

WRITER_FILES = (
    "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", VIEWS_FILE,
)  # fmt: skip
"""What a model that writes reports has beside them; the last where studies have several views."""

FIGURES_FOLDER = "figures"
EXAMPLES_FOLDER = "examples"
RAW_FOLDER = "raw"
"""The weights themselves, where the stage's are their moving average."""
LOG_FILE = "training_log.csv"
NONFINITE_FILE = "nonfinite_batch.json"
"""The images of the batch whose loss was NaN or infinite."""
TRAINING_IMAGES_FILE = "training_images.parquet"
"""The images that a stage and those before it have seen, by name; published with it."""
REPORTS_FILE = "reports.csv"
"""Texts of the scored studies: references and what was written; stays in the folder."""
PUBLISHED_FILE = "published.json"
"""The repository that a folder was published in; stays in the folder."""
RUN_FILE = "run.json"
"""What is known of a run when it begins, which its checkpoints are not without; stays in the folder."""
COMPLETE_FILE = "complete.json"
"""In a checkpoint-N folder, the list of its files and sizes in bytes; written when all of them are."""


RUN_OUTPUT = (
    *STAGE_FILES, *WRITER_FILES, FIGURES_FOLDER, EXAMPLES_FOLDER, NONFINITE_FILE, TRAINING_IMAGES_FILE,
    REPORTS_FILE, f"{RAW_FOLDER}/{CONFIG_FILE}", f"{RAW_FOLDER}/{WEIGHTS_FILE}",
)  # fmt: skip
"""What a training run may write into its folder, beside RUN_FILE, LOG_FILE and checkpoint-N/.

A folder `raw` may hold data as well, as the demo's does."""


def present(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of some names that a folder holds; an empty file or folder counts as none.

    Args:
        folder: there or not.
        names: of files and of folders.
    """
    places = {name: folder / name for name in names if (folder / name).exists()}
    return [
        name
        for name, place in places.items()
        if (any(place.iterdir()) if place.is_dir() else place.stat().st_size)
    ]


def is_finished(folder: Path) -> bool:
    """Whether a stage came to its end: the card is written last."""
    return (folder / METRICS_FILE).is_file() and (folder / CARD_FILE).is_file()


def is_checkpoint(source: str | Path) -> bool:
    """Whether a folder is a checkpoint of a run of ours, complete or not, or its raw weights; no Hub id is.

    What they have been through stands in the run's folder.
    """
    folder = Path(source)
    if (folder / COMPLETE_FILE).is_file():
        return True
    place = folder.resolve()
    is_raw = place.name == RAW_FOLDER
    is_part = folder.is_dir() and (is_raw or place.name.startswith("checkpoint-"))
    # Earlier versions wrote no RUN_FILE, and each checkpoint has its own mark.
    of_run = (RUN_FILE, METRICS_FILE) if is_raw else (RUN_FILE,)
    return is_part and any((place.parent / name).is_file() for name in of_run)


def share_weights(folder: Path) -> None:
    """Give weights the permissions of the other files: safetensors lets their owner alone read them.

    Args:
        folder: a stage's or a checkpoint's, config.json and all.
    """
    if (folder / CONFIG_FILE).is_file():
        for file in folder.glob("*.safetensors"):
            shutil.copymode(folder / CONFIG_FILE, file)


def refuse_mistyped(source: str | Path) -> None:
    """Refuse at once what can be no Hub id and is no folder here: the Hub would be asked for a minute.

    Raises:
        UserError: with the nearest folder.
    """
    if fault := folder_fault(str(source)):
        raise UserError(f"{source}: {fault}")


def read_config(source: str | Path) -> dict[str, Any]:
    """The config.json of a Hiera's folder or Hub id, as it was written.

    Raises:
        UserError: no such folder, no such model on the Hub (or none that can be reached), no Hiera, or a
            config.json that cannot be used.
    """
    try:
        is_there = Path(source).exists()
    except OSError as error:  # a folder above it without permission
        raise UserError(f"{source} cannot be opened: {error.strerror}") from error
    refuse_mistyped(source)
    if is_there and not os.access(source, os.R_OK | os.X_OK):
        raise UserError(f"{source} cannot be opened: permission denied")
    if is_there and not (Path(source) / CONFIG_FILE).is_file():
        raise UserError(
            f"{source} has no config.json; name a stage's folder, or convert the checkpoint first: "
            "python -m modeling_hiera_mae.convert"
        )
    try:
        content = read_config_file(str(source), {})
        HieraMAEConfig.from_dict(copy.deepcopy(content))
    except (ValueError, OSError) as error:
        reason = one_line(error).removeprefix(f"{source}: ")
        if not is_there:
            reason = offline_reason(str(source)) or reason
            reason = (
                "there is no such folder (a stage of yours is trained first), and the Hub gave no such model "
                f"({reason})"
            )
        raise UserError(f"{source}: {reason}") from error
    return content


def read_model_type(source: str | Path) -> str | None:
    """The model_type of a folder's or Hub id's config.json, "timm_wrapper" of timm's; None without either.

    Args:
        source: a folder or Hub id; what opens it says what is wrong with it.

    Raises:
        UserError: see refuse_mistyped.
    """
    refuse_mistyped(source)
    try:
        path = find_file(str(source), CONFIG_FILE, {})
        content = {} if path is None else read_json(path)
    except (ValueError, OSError):
        return None
    if "pretrained_cfg" in content and "model_type" not in content:
        return "timm_wrapper"
    kind = content.get("model_type")
    return kind if isinstance(kind, str) else None


def writes_reports(source: str | Path) -> bool:
    """Whether a folder or Hub id holds a model that writes reports; False of what cannot be read.

    Args:
        source: a folder or Hub id; what opens it says what is wrong with it.

    Raises:
        UserError: see refuse_mistyped.
    """
    return read_model_type(source) == "vision-encoder-decoder"


def offline_reason(repository: str, kind: str = "model") -> str:
    """Why the Hub was not asked, and what to do; empty where it was.

    Args:
        repository: the Hub id.
        kind: model or dataset.
    """
    if not constants.HF_HUB_OFFLINE:
        return ""
    option = "" if kind == "model" else f" --repo-type {kind}"
    return (
        "HF_HUB_OFFLINE is set, so only what was downloaded before is found: unset it, or run "
        f"`hf download {repository}{option}` first, without it"
    )


def read_json_file(file: Path) -> dict[str, Any]:
    """An object of a JSON file of a stage.

    Raises:
        UserError: it cannot be opened, is damaged, or holds something else than an object.
    """
    try:
        return read_json(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{file.parent}: {error}") from error


def public_name(source: str | Path) -> str:
    """A folder's own name, or the Hub id: no path of this machine goes into a record."""
    return Path(source).resolve().name if Path(source).exists() else str(source)


def public_file_name(file: Path) -> str:
    """A file's own name behind its folder's, `other/predictions.parquet`, as public_name."""
    return f"{file.resolve().parent.name}/{file.name}".lstrip("/")
