"""Writes IU X-Ray in each of its three layouts: given or real texts beside drawn pictures."""

import csv
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from raw_folders import gray

from dataset_scripts.iu_xray import SOURCE

KAGGLE_REPORTS = ("uid", "indication", "findings", "impression")


class IuFolder:
    """A folder of IU X-Ray; what a method writes is one file of a layout, and pictures are drawn by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)

    def kaggle(self, reports: Iterable[Sequence[object]], projections: Iterable[Sequence[object]]) -> None:
        """Rows as in KAGGLE_REPORTS, and (uid, filename, projection)."""
        self.table("indiana_reports.csv", KAGGLE_REPORTS, reports)
        self.table("indiana_projections.csv", ("uid", "filename", "projection"), projections)

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        (self.root / name).write_text(text.getvalue(), encoding="utf-8")

    def xml(self, number: int, sections: dict[str, str], pictures: Sequence[str]) -> None:
        """A report of OpenI with the elements that are read."""
        texts = "".join(
            f'<AbstractText Label="{label}">{text}</AbstractText>' for label, text in sections.items()
        )
        images = "".join(f'<parentImage id="{name}"><caption/></parentImage>' for name in pictures)
        content = (
            f'<?xml version="1.0"?>\n<eCitation><uId id="CXR{number}"/><Abstract>{texts}</Abstract>{images}'
        )
        path = self.root / "ecgen-radiology" / f"{number}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{content}</eCitation>\n", encoding="utf-8")

    def annotation(self, **parts: list[dict[str, object]]) -> None:
        """R2Gen's file; a part that is not given is empty."""
        content = {"train": [], "val": [], "test": []} | parts
        (self.root / "annotation.json").write_text(json.dumps(content), encoding="utf-8")

    def draw(self, *paths: str) -> None:
        for number, path in enumerate(paths):
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            gray(5000 + number).save(place)


def real_texts(root: Path) -> Path:
    """The folder of the real reports, where it stands beside the clone."""
    shared = Path(os.environ.get("MEDHIERA_REALDATA", root.parent / "shared" / "mini_cocktail")).parent
    if not (shared / "reports").is_dir():
        pytest.skip("no real reports: ../shared/reports is absent")
    return shared / "reports"


def write_real(layout: str, texts: Path, folder: Path) -> Path:
    """The real texts of a layout, with an empty file in the place of each picture: a listing opens none."""
    folder.mkdir(parents=True)
    names: list[str] = []
    if layout == "kaggle":
        for name in ("indiana_reports.csv.gz", "indiana_projections.csv"):
            (folder / name).write_bytes((texts / name).read_bytes())
        with (texts / "indiana_projections.csv").open(newline="") as file:
            names = [f"images/images_normalized/{row['filename']}" for row in csv.DictReader(file)]
    elif layout == "openi":
        with tarfile.open(texts / "NLMCXR_reports.tgz") as archive:
            archive.extractall(folder, filter="data")
        for path in (folder / "ecgen-radiology").iterdir():
            text = path.read_text(encoding="utf-8")
            names += [
                f"NLMCXR_png/{part.split(chr(34))[0]}.png" for part in text.split('<parentImage id="')[1:]
            ]
    else:
        content = (texts / "annotation.json").read_text(encoding="utf-8")
        (folder / "annotation.json").write_text(content, encoding="utf-8")
        entries = [entry for part in json.loads(content).values() for entry in part]
        names = [f"images/{name}" for entry in entries for name in entry["image_path"]]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def real_rows(texts: Path) -> dict[str, dict[str, str]]:
    """Kaggle's reports by uid, read with the standard library."""
    with gzip.open(texts / "indiana_reports.csv.gz", "rt", newline="", encoding="utf-8") as file:
        return {row["uid"]: row for row in csv.DictReader(file)}


FOLDER = SOURCE.folder
