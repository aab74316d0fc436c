"""COVID-19 Radiography Database: chest X-rays in four classes, collected from public sets.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout: a folder a class, the images in `images/` or right in it (`masks/` are never images), and perhaps
`CLASS.metadata.xlsx` (FILE NAME, FORMAT, SIZE, URL).
"""

import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas
from openpyxl.utils.exceptions import InvalidFileException

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import no_labels

_SHEET_ERRORS = (
    *(OSError, zipfile.BadZipFile, zlib.error, EOFError, InvalidFileException),  # no workbook, or cut short
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError, RuntimeError),  # its XML
)

_CLASSES = ("COVID/", "Lung_Opacity/", "Normal/", "Viral Pneumonia/")

_NIH_NAME = re.compile(r"\b\d{8}_\d{3}\.png\b")


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a Radiography folder: all train.

    Raises:
        DataLayoutError: no class folder with images.
    """
    listing = SourceListing(SOURCE, scan.root)
    paths = [path for path in scan.images() if "/" in path and not _is_mask(path)]
    if not paths:
        raise DataLayoutError(
            f"{SOURCE.folder}: no image found. Wanted class folders (COVID, Lung_Opacity, Normal, Viral "
            f"Pneumonia) with images/; found {sorted({path.split('/', 1)[0] for path in scan.files})[:12]}. "
            f"Point data_dir at the folder that holds the class folders.{scan.links_advice()}"
        )
    nih_images = _read_metadata(scan, paths, listing)
    for path in paths:
        image_id = f"{SOURCE.name}/{path}"
        record = ImageRecord(
            image_id,
            SOURCE.name,
            image_id,
            path,
            no_labels(),
            nih_image=nih_images.get(path, ""),
            class_name=path.split("/", 1)[0] if path.startswith(_CLASSES) else "",
        )
        listing.splits.setdefault("train", []).append(record)
    listing.report_passed_over(scan)
    return listing


def _is_mask(path: str) -> bool:
    return any(part.lower() == "masks" for part in path.split("/")[:-1])


def _read_metadata(scan: FolderScan, paths: Sequence[str], listing: SourceListing) -> dict[str, str]:
    """Read which ChestX-ray14 image a picture shows, where a metadata sheet's URL column names one.

    Returns:
        A picture's path → the ChestX-ray14 file name. A picture for which two rows name two is reported and
        left out: its pixels still guard it.
    """
    shown: dict[str, str] = {}
    for sheet_path in (path for path in scan.files if path.lower().endswith(".xlsx")):
        rows = _read_sheet(scan.root / sheet_path, sheet_path, listing)
        # CLASS.metadata.xlsx names the files of its class; a file name stands in one class folder alone
        for name, file in match_names(rows, paths, scan).items():
            names = set(rows[name])
            if len(names) > 1:
                listing.report(
                    "duplicate_row", sheet_path, f"{name!r} is said to show {sorted(names)}; ignored"
                )
            elif isinstance(file, NoFile) and file.kind == "ambiguous_name":
                listing.report("bad_metadata", sheet_path, f"{file.detail}; ignored")
            elif isinstance(file, str):
                shown[file] = names.pop()
    return shown


def _read_sheet(path: Path, name: str, listing: SourceListing) -> dict[str, list[str]]:
    """Return the file names of a sheet whose URL names ChestX-ray14 images, with these; {} if unreadable."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # openpyxl warns of styles; only two columns' text matters here
            sheet = pandas.read_excel(file, dtype=str)
    except _SHEET_ERRORS as error:
        listing.report("bad_metadata", name, f"not a readable sheet ({type(error).__name__}); ignored")
        return {}
    columns = {re.sub(r"[^A-Z]", "", str(column).upper()): column for column in sheet.columns}
    if "FILENAME" not in columns or "URL" not in columns:
        found = sorted(map(str, sheet.columns))
        listing.report("bad_metadata", name, f"no FILE NAME and URL among {found}; ignored")
        return {}
    rows: dict[str, list[str]] = {}
    for file_name, url in zip(sheet[columns["FILENAME"]], sheet[columns["URL"]], strict=True):
        match = _NIH_NAME.search(str(url))
        if match is not None:
            rows.setdefault(str(file_name).strip(), []).append(match[0])
    return rows


SOURCE = Source(
    name="COVID-19 Radiography",
    folder="COVID-19_Radiography_Dataset",
    list_images=list_images,
    title="COVID-19 Radiography Database",
    description="Chest X-rays in four classes, collected from public sets: 21,165 PNG images of 299x299 "
    "(COVID 3,616, Lung_Opacity 6,012, Normal 10,192, Viral Pneumonia 1,345), patients unknown. Lung_Opacity "
    "and most Normal images come from RSNA, which took them from NIH ChestX-ray14. The classes are "
    "whole-image diagnoses from different sets, not readings for the 15 findings.",
    license="Its parts keep their own licences; the whole is for research.",
    homepage="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
    citation='Chowdhury et al., "Can AI Help in Screening Viral and COVID-19 Pneumonia?", IEEE Access 2020; '
    'Rahman et al., "Exploring the effect of image enhancement techniques on COVID-19 detection using chest '
    'X-ray images", Computers in Biology and Medicine 2021.',
    hub_tags=("chest-x-ray",),
)


class CovidRadiography(SourceBuilder):
    """Builder of the COVID-19 Radiography Database; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
