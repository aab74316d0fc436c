"""COVID-19 Radiography Database: chest X-rays in four classes, collected from public sets.

Raw folder → `list_images` → builder. 21,165 PNG images of 299x299: COVID 3,616, Lung_Opacity 6,012, Normal
10,192, Viral Pneumonia 1,345; patients unknown. Lung_Opacity and most Normal images come from RSNA, which
took them from NIH ChestX-ray14: see leakage/guard.py. Its parts keep their own licences; the whole is for
research. Get it from https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database.

Cite: Chowdhury et al., "Can AI Help in Screening Viral and COVID-19 Pneumonia?", IEEE Access 2020;
Rahman et al., "Exploring the effect of image enhancement techniques on COVID-19 detection using chest X-ray
images", Computers in Biology and Medicine 2021.

Layout: a folder a class, the images in `images/` or right in it (`masks/` are never images), and perhaps
`CLASS.metadata.xlsx` (FILE NAME, FORMAT, SIZE, URL). The classes are whole-image diagnoses from
different sets, not readings for the 15 findings, so every label is NaN (not annotated).
"""

import re
import zipfile
from typing import ClassVar

import pandas

from dataset_scripts.build.builder import Lister, SourceBuilder, SourceConfig
from dataset_scripts.build.records import FolderScan, ImageRecord, Listing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import no_labels

SOURCE = "COVID-19 Radiography"

FOLDER = "COVID-19_Radiography_Dataset"

_NIH_NAME = re.compile(r"\b\d{8}_\d{3}\.png\b")


def list_images(scan: FolderScan, config: SourceConfig) -> Listing:
    """List the images of a Radiography folder: all train.

    Raises:
        DataLayoutError: no class folder with images.
    """
    listing = Listing(SOURCE, scan.root)
    paths = [path for path in scan.images() if "/" in path and not _is_mask(path)]
    if not paths:
        raise DataLayoutError(
            f"{FOLDER}: no image found. Wanted class folders (COVID, Lung_Opacity, Normal, Viral Pneumonia) "
            f"with images/; found {sorted({path.split('/', 1)[0] for path in scan.files})[:12]}. "
            "Point data_dir at the folder that holds the class folders."
        )
    for link in scan.links_out:
        listing.report("link_out_of_folder", link, "its target lies outside the folder; not followed")
    shows = _read_metadata(scan, listing)
    for path in paths:
        image_id = f"{SOURCE}/{path}"
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
        record = ImageRecord(image_id, SOURCE, image_id, path, no_labels(), shows=shows.get(stem, ""))
        listing.splits.setdefault("train", []).append(record)
    return listing


def _is_mask(path: str) -> bool:
    return any(part.lower() == "masks" for part in path.split("/")[:-1])


def _read_metadata(scan: FolderScan, listing: Listing) -> dict[str, str]:
    """Read which ChestX-ray14 image a file shows, where a metadata sheet's URL column names one."""
    shows: dict[str, str] = {}
    for path in scan.files:
        if not path.lower().endswith(".xlsx"):
            continue
        try:
            with (scan.root / path).open("rb") as file:
                sheet = pandas.read_excel(file, dtype=str)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            listing.report("bad_metadata", path, f"not a readable sheet ({type(error).__name__}); ignored")
            continue
        columns = {str(column).strip().upper(): column for column in sheet.columns}
        if "FILE NAME" not in columns or "URL" not in columns:
            listing.report("bad_metadata", path, f"no FILE NAME and URL among {sorted(columns)}; ignored")
            continue
        pairs = zip(sheet[columns["FILE NAME"]], sheet[columns["URL"]], strict=True)
        for name, url in pairs:
            match = _NIH_NAME.search(str(url))
            if match is not None:
                shows[str(name).strip().lower().removesuffix(".png")] = match[0]
    return shows


class CovidRadiography(SourceBuilder):
    """Builder of the COVID-19 Radiography Database; `data_dir` is the folder described above."""

    LISTERS: ClassVar[dict[str, Lister]] = {".": list_images}
