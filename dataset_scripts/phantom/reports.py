"""Write synthetic studies with reports, as a folder of IU X-Ray in Kaggle's layout.

`report_sentences` writes the texts of what `findings` drew, so that pictures and texts can be learned
together and a written side can be checked. The folder is read by `iu_xray` as the real one is.

    python -m dataset_scripts.phantom data/reports --reports 400 --image_size 128
"""

import csv
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts import iu_xray
from dataset_scripts.build.layout import PHANTOM_FILES
from dataset_scripts.build.phantom_mark import mark_as_drawn
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.films import keyed_generator
from dataset_scripts.phantom.findings import draw_radiograph
from dataset_scripts.phantom.report_sentences import DRAWN, Sign, read_signs, write_report

logger = logging.getLogger(__name__)

IU_XRAY = iu_xray.SOURCE.folder

TRUTH_FILE = "phantom_reports.json"
"""In the folder: the settings, and of each study the findings that are drawn, with side and grade."""

_NEVER_TOGETHER = (
    {"Pneumothorax", "Effusion"}, {"Pneumothorax", "Consolidation"}, {"Pneumothorax", "Pneumonia"},
    {"Pneumothorax", "Edema"}, {"Pneumothorax", "Mass"}, {"Effusion", "Pneumonia"},
    {"Consolidation", "Pneumonia"}, {"Consolidation", "Mass"}, {"Mass", "Pneumonia"},
)  # fmt: skip
"""Signs that could hide each other, or that share a place."""

_FINDINGS_PER_STUDY = (0, 0, 0, 1, 1, 1, 1, 1, 1, 2)

_IMAGES_PER_STUDY = (1, 1, 2, 2, 2, 2, 2, 2, 2, 3)  # a frontal view, then laterals

_WITHOUT_FINDINGS = 25  # each such study has an impression alone, as one in eight of the real ones

_REPORT_COLUMNS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")


class ReportsSummary(TypedDict):
    """What stands in `phantom_reports.json`.

    `studies` holds by study id (`CXR1`) the findings that are drawn, each with the patient's `side` and its
    `grade`, "" where it has none.
    """

    settings: dict[str, int]
    files: int
    studies: dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class _Study:
    pictures: list[tuple[str, str, npt.NDArray[np.uint8]]]
    """(file name, projection, pixels), in the order of the projections."""
    row: list[object]
    signs: dict[str, Sign]


def write_phantom_reports(
    root: str | Path, *, studies: int, image_size: int = 128, seed: int = 0
) -> ReportsSummary:
    """Write `iu_xray/` under a folder, or reuse the one that stands there.

    Each study is one patient with a frontal view; most have a lateral view, some two. A lateral view is the
    frontal one with its mirror image, narrowed: like a real one it does not tell sides. Other sources may
    stand beside it, drawn or real; a phantom cohort is written first.

    Args:
        root: where `iu_xray/` goes; that is absent, unfinished (started afresh) or of the same settings.
        studies: how many, at least 8.
        image_size: side of the frontal images in pixels, at least 32.
        seed: everything random follows from it.

    Raises:
        ValueError: `studies`, `image_size` or `seed` is out of its range.
        FileExistsError: `iu_xray/` holds anything else.
    """
    if not 8 <= studies <= 1_000_000 or not 32 <= image_size <= 4096 or not 0 <= seed < 2**32:
        raise ValueError(
            f"reports={studies}, image_size={image_size}, seed={seed}: give at least 8 reports and 32 "
            "pixels, at most 1000000 and 4096, and a seed from 0 to 4294967295."
        )
    folder = Path(root) / IU_XRAY
    settings = {"version": 1, "reports": studies, "image_size": image_size, "seed": seed}
    found = _existing(folder, settings)
    if found is not None:
        logger.info("Reusing the phantom reports in %s (%d files).", folder, found["files"])
        return found
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was cut off
    images = folder / "images" / "images_normalized"
    images.mkdir(parents=True)
    (folder / f"{TRUTH_FILE}.unfinished").write_text(json.dumps(settings))
    rows, projections = [], []
    truth: dict[str, dict[str, dict[str, str]]] = {}
    for number in range(1, studies + 1):
        if number % 500 == 1:
            logger.info("Drawing studies with reports: %d of %d.", number, studies)
        study = _draw_study(number, image_size, seed)
        for name, projection, pixels in study.pictures:
            Image.fromarray(pixels).save(images / name, compress_level=1)
            projections.append([number, name, projection])
        rows.append(study.row)
        truth[f"CXR{number}"] = {finding: asdict(sign) for finding, sign in study.signs.items()}
    _write_table(folder / iu_xray.REPORTS_FILE, _REPORT_COLUMNS, rows)
    _write_table(folder / iu_xray.PROJECTIONS_FILE, ("uid", "filename", "projection"), projections)
    summary: ReportsSummary = {"settings": settings, "files": len(projections) + 2, "studies": truth}
    (folder / TRUTH_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    (folder / f"{TRUTH_FILE}.unfinished").unlink()
    mark_as_drawn(folder)
    logger.info("Wrote %d images of %d studies to %s.", len(projections), studies, folder)
    return summary


def _existing(folder: Path, settings: dict[str, int]) -> ReportsSummary | None:
    if not folder.exists() or (folder / f"{TRUTH_FILE}.unfinished").is_file():
        return None
    if not (folder / TRUTH_FILE).is_file():
        raise FileExistsError(f"{folder} holds no {TRUTH_FILE}: it is no phantom; name another folder.")
    found: ReportsSummary = json.loads((folder / TRUTH_FILE).read_text())
    files = sum(path.suffix in (".png", ".csv") for path in folder.rglob("*"))
    if found["settings"] != settings or files != found["files"]:
        raise FileExistsError(
            f"{folder} holds phantom reports with {found['settings']} ({files} of {found['files']} files), "
            f"not {settings}; delete it or name another folder."
        )
    if not (folder / PHANTOM_FILES).is_file():  # drawn by an earlier version
        mark_as_drawn(folder)
    return found


def _draw_study(number: int, image_size: int, seed: int) -> _Study:
    """Draw one study and write its report: the same whatever the number of studies is."""
    rng = keyed_generator(seed, 8, number)
    body = draw_body(rng, is_female=bool(rng.random() < 0.45))
    findings = _deal(rng)
    drawn = draw_radiograph(body, findings, image_size, rng, is_ap=bool(rng.random() < 0.2))
    laterals = int(rng.choice(_IMAGES_PER_STUDY)) - 1
    stem = f"{number}_IM-{number:04d}"
    pictures = [(f"{stem}-1001.dcm.png", "Frontal", drawn.pixels)]
    for index in range(1, laterals + 1):
        pictures.append((f"{stem}-200{index}.dcm.png", "Lateral", _draw_lateral(drawn.pixels, rng)))
    signs = read_signs(drawn)
    report = write_report(signs, keyed_generator(seed, 9, number), is_female=body.is_female)
    terms = ["/".join(filter(None, (name, sign.side, sign.grade))) for name, sign in signs.items()]
    row: list[object] = [
        number,
        ";".join(terms) or "normal",
        ";".join(signs) or "normal",
        "Xray Chest PA and Lateral" if laterals else "Chest, single view, frontal",
        report.indication,
        "None.",
        "" if number % _WITHOUT_FINDINGS == 0 else report.findings,
        report.impression,
    ]
    return _Study(pictures, row, signs)


def _deal(rng: np.random.Generator) -> tuple[str, ...]:
    """Draw the findings of one study."""
    hand: list[str] = []
    for _ in range(int(rng.choice(_FINDINGS_PER_STUDY))):
        fitting = [
            name
            for name in DRAWN
            if name not in hand and not any({name, other} in _NEVER_TOGETHER for other in hand)
        ]
        hand.append(str(rng.choice(fitting)))
    return tuple(sorted(hand))


def _draw_lateral(frontal: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Make a plain stand-in for a lateral view: no real projection, and neither side can be told from it."""
    both = (frontal.astype(np.uint16) + frontal[:, ::-1]) // 2
    height, width = frontal.shape
    size = (round(width * rng.uniform(0.7, 0.85)), height)
    picture = Image.fromarray(both.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
