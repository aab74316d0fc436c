"""What a build may be asked for.

Command line or Python → here → builder and every source's `list_images`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import datasets

from dataset_scripts.errors import UserError
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
        protect: a folder of images, or Parquet with a column `image`, that is held out though no part of the
            data: what shows one of them is not trained on; "" for none. The builder makes the path whole.
        keep_duplicates: "all" keeps each of several near-duplicates in one source's training images; "once"
            keeps the first.
        nih_mapping: a file that names the ChestX-ray14 image behind RSNA's identifiers; "" for none.
        compression: of the stored PNGs: "fast"; "none" (twice the bytes, read several times faster); "auto"
            is "none" for shrunk images, where it is a few gigabytes, and "fast" at native size. "raw": no
            PNGs but their pixels, as many bytes as "none", which training reads in place.
        contours: also store where each chest lies: "learned" by the network of chest_contour, or a file or
            folder of your own (`contour_files.read_contours`), whose gaps it fills; "" for no such column.
        image_column: of the table of your own folder: the file names; "" to find it.
        label_column: of the same: each image's one class; "" to find it.
        patient_column: of the same: the patient; "" to find it.
        is_exclusive: each image has at most one label, its class; set by the builder.
        has_reports: a source of the build has reports, so the data has their columns; set by the builder.
        phantoms: sources whose files are drawn (phantom_mark.py); set by the builder.
        manifest: hash of the source files' names, sizes and times; set by the builder.
    """

    stored_size: int = 0
    slices_per_volume: int = 10
    validation_fraction: float = VALIDATION_FRACTION
    max_bad_fraction: float = 0.01
    allow_leakage: bool = False
    protect: str = ""
    keep_duplicates: Literal["all", "once"] = "all"
    nih_mapping: str = ""
    compression: Compression | Literal["auto", "raw"] = "auto"
    contours: str = ""
    image_column: str = ""
    label_column: str = ""
    patient_column: str = ""
    is_exclusive: bool = False
    has_reports: bool = False
    phantoms: tuple[str, ...] = ()
    manifest: str = ""

    @property
    def is_raw(self) -> bool:
        """Whether images are stored as pixels (findings.RAW_IMAGE), not as PNGs."""
        return self.compression == "raw"

    def png_compression(self) -> Compression:
        """Return what `compression` comes to, where images are stored as PNGs."""
        assert self.compression != "raw", "is_raw is asked first"
        if self.compression == "auto":
            return "none" if self.stored_size else "fast"
        return self.compression


_WHOLE_NUMBERS = {"stored_size": (0, 65_535), "slices_per_volume": (1, 10_000), "num_proc": (1, 4096)}

_SHARES = {"validation_fraction": "between 0 and 1", "max_bad_fraction": "from 0 to 1"}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what no build can be made with, before any file is looked for.

    Args:
        options: of a build or its command, by name.

    Raises:
        UserError: names each number that is out of its range, and the range; or options that contradict
            each other.
    """
    faults = []
    for name, (least, most) in _WHOLE_NUMBERS.items():
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            faults.append(f"{name} is {value}; wanted a whole number from {least} to {most}")
    for name, ends in _SHARES.items():
        value = options.get(name, 0.5)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_inside = is_number and (0 < value < 1 or (ends == "from 0 to 1" and value in (0, 1)))
        if not is_inside:  # NaN too
            faults.append(f"{name} is {value}; wanted a share {ends}")
    if options.get("protect") and options.get("allow_leakage"):
        faults.append(
            "protect leaves out what shows a protected image, and allow_leakage keeps what shows any held-out "
            "one; name one of the two"
        )
    if faults:
        raise UserError("this build cannot be made: " + "; ".join(faults))
