"""The merge: whichever of the four sources stand under one folder, as one dataset without a leak.

Four listings → leakage guard → builder → one dataset. Stage 1 pre-trains on all of it; stage 2 takes the rows
of ChestX-ray14. On the command line it writes Parquet that anyone can load:

    python -m dataset_scripts --data_dir data/phantom --output_dir data/cocktail
    python -m dataset_scripts --data_dir data/raw --output_dir data/native --image_size 0
"""

from pathlib import Path
from typing import ClassVar

from dataset_scripts import brats2020, chestxray14, covid_radiography, covidx_cxr, image_folder
from dataset_scripts.build.builder import Lister, SourceBuilder
from dataset_scripts.build.records import FolderScan, Listing, scan_folder
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.leakage.guard import drop_leaks, name_from_mapping


class Cocktail(SourceBuilder):
    """ChestX-ray14, COVIDx CXR-3, COVID-19 Radiography, BraTS 2020 and own images in one dataset."""

    LISTERS: ClassVar[dict[str, Lister]] = {
        chestxray14.FOLDER: chestxray14.list_images,
        covid_radiography.FOLDER: covid_radiography.list_images,
        covidx_cxr.FOLDER: covidx_cxr.list_images,
        brats2020.FOLDER: brats2020.list_images,
        image_folder.FOLDER: image_folder.list_for_cocktail,
    }

    def _scan(self, data_dir: Path) -> dict[str, FolderScan]:
        present = [folder for folder in self.LISTERS if (data_dir / folder).is_dir()]
        if not present:
            found = (
                sorted(path.name for path in data_dir.iterdir())[:12]
                if data_dir.is_dir()
                else "no such folder"
            )
            raise DataLayoutError(
                f"{data_dir} holds none of the four sources. Wanted at least one of the folders "
                f"{list(self.LISTERS)}; found {found}. Point data_dir at the folder above them; for one "
                "source alone use its own builder, for example ChestXray14. Your own images/ and CSV are "
                f"built by ImageFolder, or here from a folder named {image_folder.FOLDER}."
            )
        return {folder: scan_folder(data_dir / folder) for folder in present}

    def _drop_leaks(
        self, listings: list[Listing], log_dir: Path | None, num_proc: int | None
    ) -> list[Listing]:
        if self.config.nih_mapping:
            name_from_mapping(listings, Path(self.config.nih_mapping))
        return drop_leaks(listings, chestxray14.SOURCE, log_dir, num_proc, self.config.allow_leakage)
