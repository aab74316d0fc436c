"""The user's mapping from identifiers of other sets, such as RSNA's, to ChestX-ray14 file names.

A file the user has → `read_nih_mapping` → the leakage guard, which keeps held-out images out of training, and
RSNA's source, which knows no patients otherwise.
"""

import json
import re
from pathlib import Path

from dataset_scripts.build.records import read_text
from dataset_scripts.build.tables import split_lines
from dataset_scripts.errors import LabelFileError

_NIH_NAME = re.compile(r"0*(\d+)_\d+(?:\.\w+)?", re.ASCII)


def read_nih_mapping(path: Path) -> dict[str, str]:
    """Return the ChestX-ray14 file name of each identifier.

    Args:
        path: the RSNA challenge's mapping JSON (`subset_img_id`, `img_id`), or a CSV with a header, whose
            first two columns are identifier and ChestX-ray14 file name.

    Raises:
        LabelFileError: the file is neither, its CSV has no header, or an identifier has two names.
    """
    try:
        text = read_text(path)
        if path.suffix.lower() == ".json":
            pairs = [(row["subset_img_id"], row["img_id"]) for row in json.loads(text)]
        else:
            lines = split_lines(path.name, text.split("\n"), ",", "Mend the mapping.")
            (_, header), *pairs = [(row[0], row[1]) for _, row in lines if any(row)]
            if nih_patient(header):
                raise ValueError(f"its first line names {header}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise LabelFileError(
            f"{path.name} is no mapping to ChestX-ray14 ({type(error).__name__}: {error}). Wanted the RSNA "
            "mapping JSON with subset_img_id and img_id, or a CSV with a header and two columns: identifier "
            "and ChestX-ray14 file name."
        ) from error
    names: dict[str, str] = {}
    for identifier, name in ((str(one).strip(), str(other).strip()) for one, other in pairs):
        if names.setdefault(identifier, name) != name:
            raise LabelFileError(
                f"{path.name} maps {identifier!r} to {names[identifier]!r} and to {name!r}; wanted one "
                "ChestX-ray14 file name of each identifier. Mend the mapping."
            )
    return names


def nih_patient(file_name: str) -> str:
    """Return the number of a ChestX-ray14 file's patient without leading zeros; "" for any other name."""
    match = _NIH_NAME.fullmatch(file_name)
    return "" if match is None else match[1]
