"""The merge: whichever of the four sources stand under one folder, as one dataset without a leak.

Four listings → leakage guard → builder → one dataset. Stage 1 pre-trains on all of it; stage 2 takes the rows
of ChestX-ray14. On the command line it writes Parquet that anyone can load:

    python -m dataset_scripts.cocktail --data_dir data/phantom --output_dir data/cocktail
    python -m dataset_scripts.cocktail --data_dir data/raw --output_dir data/native --image_size 0
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dataset_scripts import brats2020, chestxray14, covid_radiography, covidx_cxr, image_folder
from dataset_scripts.build_log import summary_lines
from dataset_scripts.builder import Lister, SourceBuilder
from dataset_scripts.errors import DataLayoutError, LabelFileError, TooManyBadFilesError
from dataset_scripts.leakage import drop_leaks, name_from_mapping
from dataset_scripts.listing import FolderScan, Listing, scan_folder
from dataset_scripts.parquet_export import export_parquet, push_to_hub

logger = logging.getLogger(__name__)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m dataset_scripts.cocktail", description=__doc__
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="the folder above the sources' folders")
    parser.add_argument("--output_dir", type=Path, required=True, help="where Parquet and card go")
    parser.add_argument("--config", default="official", choices=["official", "medtransformer"])
    parser.add_argument("--image_size", type=int, default=256, help="shorter side in pixels; 0 is native")
    parser.add_argument("--slices_per_volume", type=int, default=10)
    parser.add_argument("--num_proc", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--max_bad_fraction", type=float, default=0.01, help="unreadable files allowed")
    parser.add_argument("--nih_mapping", default="", help="RSNA's mapping to ChestX-ray14, JSON or CSV")
    parser.add_argument("--allow_leakage", action="store_true", help="keep leaking images, as in the paper")
    parser.add_argument(
        "--compression",
        default="auto",
        choices=["auto", "fast", "none"],
        help="of the stored PNGs: none is read several times faster than fast and takes twice the space; "
        "auto is fast at native size, else none",
    )
    parser.add_argument("--push_to_hub", metavar="ID", help="upload as a private dataset repository")
    options = parser.parse_args(arguments)
    if options.image_size < 0:
        parser.error(f"--image_size {options.image_size}: wanted a side in pixels, or 0 for the native size")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with tempfile.TemporaryDirectory() as unused_cache:
            builder = Cocktail(
                data_dir=options.data_dir,
                config_name=options.config,
                cache_dir=unused_cache,
                image_size=options.image_size,
                slices_per_volume=options.slices_per_volume,
                max_bad_fraction=options.max_bad_fraction,
                nih_mapping=options.nih_mapping,
                allow_leakage=options.allow_leakage,
                compression=options.compression,
            )
            export_parquet(builder, options.output_dir, options.num_proc)
        for line in summary_lines(options.output_dir):
            logger.info("%s", line)
        logger.info("Built: %s", options.output_dir)
        if options.push_to_hub:
            logger.info("Uploaded: %s", push_to_hub(options.output_dir, options.push_to_hub))
    except (DataLayoutError, LabelFileError, TooManyBadFilesError, OSError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    from dataset_scripts.cocktail import main as main_of_the_module

    sys.exit(main_of_the_module())  # a builder of __main__ could not be handed to worker processes
