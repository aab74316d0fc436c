"""What the guard is least sure of comes first on the sheet, and is counted in the report and the log."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.build.build_log import note_lines
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.leakage.contact_sheet import save_pairs
from dataset_scripts.leakage.pairs import Located, Shown
from dataset_scripts.leakage.report import LeakageFindings, make_report


def located(name: str, split: str, source: str) -> Located:
    return Located(ImageRecord(f"{source}/{name}", source, name, name, {}), Path(), split)


def findings() -> LeakageFindings:
    """Three leaks by pixels, two of them near the threshold, and one by its name."""
    held_out = [located("held", "test", "A")]
    trained = [located(str(number), "train", source) for number, source in enumerate("BBCB")]
    shown = [
        Shown(trained[0], held_out[0], ("pixels",), 0.61, ""),
        Shown(trained[1], held_out[0], ("pixels",), 0.92, ""),
        Shown(trained[2], held_out[0], ("pixels",), 0.69, ""),
        Shown(trained[3], held_out[0], ("identifier",)),
    ]
    return LeakageFindings(
        trained, held_out, None, ["A"], {}, leaks={one.image.image_id: one for one in shown}
    )


@pytest.mark.parametrize(("phantoms", "drawn"), [((), 0), (("C",), 1), (("A", "B", "C"), 2)])
def test_leaks_near_the_threshold_are_counted_and_said(
    tmp_path: Path, phantoms: tuple[str, ...], drawn: int
) -> None:
    report = make_report(findings(), 0.6, False, phantoms)
    assert report["near_threshold"] == {"below": 0.7, "images": 2, "drawn": drawn}
    (tmp_path / "leakage_report.json").write_text(json.dumps(report))
    (tmp_path / "build_report.json").write_text(
        json.dumps({"images": {}, "problems": [], "problem_counts": {}})
    )
    alike = ", and drawn chests are alike" if drawn else ""
    assert "; ".join(note_lines(tmp_path)).startswith(
        "4 of 4 training images show a held-out one, 2 of them by a score below 0.70, near the threshold of "
        f"0.60{alike}: look at them in leakage_pairs.png; no file left out"
    )


def test_the_sheet_shows_the_least_sure_first(tmp_path: Path) -> None:
    def flat(value: int) -> np.ndarray:
        return np.full((8, 8), value, np.uint8)

    scores = {40: 0.9, 80: None, 120: 0.61}
    save_pairs(
        tmp_path / "sheet.png",
        [("a", flat(value), "b", flat(value), score) for value, score in scores.items()],
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert [int(pixels[64, 264 * column + 64]) for column in range(3)] == [120, 40, 80]
    save_pairs(tmp_path / "other.png", [("a", flat(120), "b", flat(120), 0.62)])
    with Image.open(tmp_path / "other.png") as other:
        assert not np.array_equal(np.asarray(other), pixels[:, :264]), "the score is written below"
