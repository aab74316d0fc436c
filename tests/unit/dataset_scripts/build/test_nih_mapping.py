"""The user's mapping to ChestX-ray14: its two forms, and what it cannot be taken for."""

import json
from pathlib import Path

import pytest

from dataset_scripts.build.nih_mapping import read_nih_mapping
from dataset_scripts.errors import LabelFileError

ROWS = [("a", "00000001_000.png"), ("b", "00000002_000.png"), ("a", "00000001_000.png")]


def write(folder: Path, rows: list[tuple[str, str]], kind: str, header: str = "id,image\n") -> Path:
    file = folder / f"mapping.{kind}"
    if kind == "json":
        file.write_text(json.dumps([{"subset_img_id": one, "img_id": other} for one, other in rows]))
    else:
        file.write_text(header + "".join(f"{one}, {other}\n" for one, other in rows))
    return file


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_each_identifier_has_one_name(kind: str, tmp_path: Path) -> None:
    assert read_nih_mapping(write(tmp_path, ROWS, kind)) == dict(ROWS)
    other = [*ROWS, ("b", "00000003_000.png")]
    with pytest.raises(LabelFileError, match="maps 'b' to '00000002_000.png' and to '00000003_000.png'"):
        read_nih_mapping(write(tmp_path, other, kind))


def test_a_csv_has_a_header_so_that_no_image_is_lost(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match="its first line names 00000001_000.png.*a CSV with a header"):
        read_nih_mapping(write(tmp_path, ROWS, "csv", header=""))
