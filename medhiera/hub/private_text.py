"""Refuses to publish a file that names a folder of this machine or its user, or lies in another one.

Stands below publish.py, and below medhiera/space/bundle.py, which writes a whole Space.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from pyarrow import parquet

from medhiera.errors import UserError
from medhiera.layout import CARD_FILE, METRICS_FILE, TRAINING_IMAGES_FILE
from medhiera.shipped_files import PACKAGE

_HOME_FOLDER = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[\w.-]+")


def check_links(paths: Iterable[Path], folder: Path) -> None:
    """Refuse a link that leads out of the folder: what is there was not meant to become public.

    Args:
        paths: files below the folder.
        folder: what is published; it may itself be reached by a link.

    Raises:
        UserError: with the first such file.
    """
    root = folder.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise UserError(
                f"{path} is a link out of {folder}, and only what lies in a stage's folder is published; put "
                "a copy in its place if it belongs there."
            )


def check_private_text(files: dict[str, bytes | str], folder: Path, repo_id: str) -> None:
    """Refuse a file that names a folder of this machine or its user."""
    places = {
        str(path) for path in (Path.home(), PACKAGE.parent, folder.resolve().parent) if len(path.parts) > 1
    }
    private = re.compile("|".join(rf"{re.escape(place)}(?![\w-])" for place in sorted(places, reverse=True)))
    for name, content in files.items():
        data = content if isinstance(content, bytes) else _readable_part(Path(content))
        text = data.decode("utf-8", errors="replace")
        found = private.search(text) or _HOME_FOLDER.search(text)
        told = found[0] if found else None
        if told is None and name.endswith(".json"):
            told = next(_absolute_paths(json.loads(text)), None)
        if told is None and name in {METRICS_FILE, CARD_FILE, TRAINING_IMAGES_FILE}:
            told = _user_name_in(text, repo_id)
        if told is not None:
            raise UserError(
                f"{name} in {folder} names {told!r}, which belongs to this machine or its user and would "
                "become public; remove it there and publish again."
            )


def _readable_part(path: Path) -> bytes:
    """The file, of weights the header, where metadata stands, and of a table its cells."""
    if path.suffix == ".parquet":
        columns = parquet.read_table(path).to_pydict().values()
        return "\n".join(str(cell) for cells in columns for cell in cells if cell is not None).encode()
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            return file.read(int.from_bytes(file.read(8), "little"))
        return file.read()


def _absolute_paths(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _absolute_paths(key)
            yield from _absolute_paths(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _absolute_paths(entry)
    elif isinstance(value, str):
        is_windows = PureWindowsPath(value).is_absolute() and re.match(r"[A-Za-z]:[\\/]", value)
        if is_windows or (PurePosixPath(value).is_absolute() and len(PurePosixPath(value).parts) > 2):
            yield value


def _user_name_in(text: str, repo_id: str) -> str | None:
    """Find the user's name, taken from the home folder, unless it is public anyway or means nothing."""
    name = Path.home().name
    if len(name) < 4 or name in {"root", "user", "home", "ubuntu", "runner"} or name in repo_id.split("/"):
        return None
    return name if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) else None
