"""COVID-19 Radiography Database: chest X-rays in four classes, collected from public sets.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout: a folder a class, the images in `images/` or right in it (`masks/` are never images), and perhaps
`CLASS.metadata.xlsx` (FILE NAME, FORMAT, SIZE, URL).
"""

import re
import zipfile

import pandas

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import no_labels

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
            "Point data_dir at the folder that holds the class folders."
        )
    for link in scan.links_out:
        listing.report("link_out_of_folder", link, "its target lies outside the folder; not followed")
    nih_images = _read_metadata(scan, listing)
    for path in paths:
        image_id = f"{SOURCE.name}/{path}"
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
        record = ImageRecord(
            image_id, SOURCE.name, image_id, path, no_labels(), nih_image=nih_images.get(stem, "")
        )
        listing.splits.setdefault("train", []).append(record)
    return listing


def _is_mask(path: str) -> bool:
    return any(part.lower() == "masks" for part in path.split("/")[:-1])


def _read_metadata(scan: FolderScan, listing: SourceListing) -> dict[str, str]:
    """Read which ChestX-ray14 image a file shows, where a metadata sheet's URL column names one."""
    nih_images: dict[str, str] = {}
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
                nih_images[str(name).strip().lower().removesuffix(".png")] = match[0]
    return nih_images


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
    hub_dataset="covid-19-radiography",
    hub_tags=("chest-x-ray",),
)


class CovidRadiography(SourceBuilder):
    """Builder of the COVID-19 Radiography Database; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
