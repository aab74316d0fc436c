"""The merge: whichever of the sources stand under one folder, as one dataset without a leak.

Listings → leakage guard → builder → one dataset. Stage 1 pre-trains on all of it; stage 2 takes the rows of
the sources that are its task. `python -m dataset_scripts` writes it as Parquet that anyone can load.

A new source is a file beside this one that holds a `SOURCE`, and its line in `_SOURCE_FILES`.
"""

from importlib import import_module
from pathlib import Path

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.origin import DatasetOrigin, read_origin
from dataset_scripts.build.records import FolderScan, Source, SourceListing, scan_folder
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.leakage.guard import remove_leaks
from dataset_scripts.leakage.identifiers import name_from_mapping

_SOURCE_FILES = (
    "chestxray14",
    "covid_radiography",
    "covidx_cxr",
    "brats2020",
    "rsna_pneumonia",
    "iu_xray",
    "mimic_cxr",
    "chexpert",
    "image_folder",
)

SOURCES: tuple[Source, ...] = tuple(import_module(f"dataset_scripts.{name}").SOURCE for name in _SOURCE_FILES)
"""Every source that is known, in the order in which listings and citations name them."""


class Cocktail(SourceBuilder):
    """The sources that stand under one folder, in one dataset."""

    SOURCES = SOURCES

    def _scan(self, data_dir: Path) -> list[tuple[Source, FolderScan]]:
        present = [source for source in self.SOURCES if (data_dir / source.folder).is_dir()]
        if not present:
            wanted = [source.folder for source in self.SOURCES]
            there = sorted(path.name for path in data_dir.iterdir())[:12] if data_dir.is_dir() else None
            found = "no such folder" if there is None else f"found {there}" if there else "it is empty"
            raise DataLayoutError(
                f"{data_dir} holds none of the sources: {found}. Wanted is a folder that holds one or more "
                f"of {wanted}; or your own images: in class folders, alone, or with a CSV that has a column "
                "image (docs/data.md)."
            )
        return [(source, scan_folder(data_dir / source.folder)) for source in present]

    def find_origin(self) -> DatasetOrigin | None:
        """What the card in `own_images` says; that folder's name says nothing."""
        own = next(source for source in self.SOURCES if source.label_names is None)
        origin = read_origin(Path(self.config.data_dir) / own.folder)
        return origin if origin.public_name else None

    def _remove_leaks(
        self, listings: list[SourceListing], log_dir: Path | None, num_proc: int | None
    ) -> list[SourceListing]:
        if self.config.nih_mapping:
            name_from_mapping(listings, Path(self.config.nih_mapping))
        return remove_leaks(listings, log_dir, num_proc, self.config)
