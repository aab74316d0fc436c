"""What a build may be asked for.

Command line or Python → here → builder and every source's `list_images`.
"""

from dataclasses import dataclass
from typing import Literal

import datasets

from dataset_scripts.reading.grayscale import Compression
from dataset_scripts.splits import VALIDATION_FRACTION


@dataclass
class SourceConfig(datasets.BuilderConfig):
    """What a build may be asked for, and the manifest that names its source files.

    Args:
        stored_size: shrink the shorter side to this many pixels; 0 keeps the native size.
        slices_per_volume: axial slices of each MRI volume.
        validation_fraction: share of the official training patients held out, by patient.
        max_bad_fraction: stop when more than this share of the files (and more than ten) is unreadable.
        allow_leakage: keep training images that show held-out ones, as in the paper; they are reported.
        nih_mapping: a file that names the ChestX-ray14 image behind RSNA's identifiers; "" for none.
        compression: of the stored PNGs: "fast"; "none" (twice the bytes, read several times faster); "auto"
            is "none" for shrunk images, where it is a few gigabytes, and "fast" at native size.
        manifest: hash of the source files' names, sizes and times; set by the builder.
    """

    stored_size: int = 0
    slices_per_volume: int = 10
    validation_fraction: float = VALIDATION_FRACTION
    max_bad_fraction: float = 0.01
    allow_leakage: bool = False
    nih_mapping: str = ""
    compression: Compression | Literal["auto"] = "auto"
    manifest: str = ""

    def png_compression(self) -> Compression:
        """Return what `compression` comes to."""
        if self.compression == "auto":
            return "none" if self.stored_size else "fast"
        return self.compression
