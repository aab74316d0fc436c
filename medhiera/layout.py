"""What a stage's folder or Hub id is called, and its config.json, read before anything is loaded."""

import re
from pathlib import Path
from typing import Any

from medhiera.errors import UserError
from modeling_hiera_mae import HieraMAEConfig

REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""What a Hub id looks like."""


def read_config(source: str | Path) -> dict[str, Any]:
    """The config.json of a Hiera's folder or Hub id, as it was written.

    Raises:
        UserError: no such folder, no such model on the Hub (or none that can be reached), no Hiera.
    """
    is_there = Path(source).exists()
    if not is_there and not REPOSITORY.fullmatch(str(source)):
        raise UserError(f"{source}: there is no such folder, and it is no Hub id (name/model)")
    if is_there and not (Path(source) / "config.json").is_file():
        raise UserError(
            f"{source} has no config.json; name a stage's folder, or convert the checkpoint first: "
            "python -m modeling_hiera_mae.convert"
        )
    try:
        content: dict[str, Any] = HieraMAEConfig.get_config_dict(str(source))[0]
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        if not is_there:
            reason = f"there is no such folder, and the Hub gave no such model ({reason})"
        raise UserError(f"{source}: {reason}") from error
    if content.get("model_type") != HieraMAEConfig.model_type:
        raise UserError(
            f"{source} is a model of type {content.get('model_type')!r}; wanted {HieraMAEConfig.model_type!r}"
        )
    return content


def public_name(source: str | Path) -> str:
    """A folder's own name, or the Hub id: no path of this machine goes into a record."""
    return Path(source).resolve().name if Path(source).exists() else str(source)
