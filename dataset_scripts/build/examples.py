"""One record → the rows of the built data: its file is read, shrunk and encoded.

`builder.py` and `parquet_export.py` call it, in their worker processes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataset_scripts.build.build_log import BuildLog
from dataset_scripts.build.chest_column import chest_cells
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import ImageRecord, Problem
from dataset_scripts.errors import BadImageError
from dataset_scripts.findings import CHEST_REGION, REPORT_COLUMNS
from dataset_scripts.reading.grayscale import GrayImage, encode_png, resize_shorter_side
from dataset_scripts.reading.images import read_image
from dataset_scripts.reading.nifti import axial_slices, read_volume


def build_examples(
    record: ImageRecord, root: str, split: str, config: SourceConfig, log: BuildLog
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one record; a file that cannot be read is reported to the log and yields none."""

    def note(kind: str, detail: str) -> None:
        log.report(Problem(record.source, kind, record.path, detail, split))

    try:
        for suffix, image in _read(record, root, config, note):
            stored = resize_shorter_side(image, config.stored_size)
            log.count(record.source, split, stored)
            example = _example(record, suffix, stored, config)
            if config.contours:
                example[CHEST_REGION] = chest_cells(record, stored, note)
            if config.has_reports:
                example |= {column: getattr(record, column) for column in REPORT_COLUMNS}
            yield example
    except BadImageError as error:
        log.report(Problem(record.source, error.kind, record.path, error.detail, split), is_bad=True)


def _read(
    record: ImageRecord, root: str, config: SourceConfig, note: Callable[[str, str], None]
) -> Iterator[tuple[str, GrayImage]]:
    """Yield (suffix of the image id, image) for one record."""
    path = Path(root) / record.path
    if not record.is_volume:
        yield "", read_image(path, config.stored_size, note)
        return
    volume = read_volume(path)
    if volume.bad_voxels:
        note("bad_voxels", f"{volume.bad_voxels} NaN or infinite voxels count as background")
    for index, image in axial_slices(volume, config.slices_per_volume, note):
        yield f"/{index:03d}", image


def _example(record: ImageRecord, suffix: str, stored: GrayImage, config: SourceConfig) -> dict[str, Any]:
    height, width = stored.shape
    present = [index for index, value in enumerate(record.labels) if value == 1.0]
    image: dict[str, Any]
    if config.is_raw:
        image = {"pixels": stored.tobytes(), "height": height, "width": width}
    else:
        image = {"bytes": encode_png(stored, config.png_compression()), "path": None}
    x_scale, y_scale = width / record.boxes_size[0], height / record.boxes_size[1]
    return {
        "image": image,
        "image_id": record.image_id + suffix,
        "source": record.source,
        "patient_id": record.patient_id,
        "labels": record.labels,
        "findings": present or ([None] if config.is_exclusive else []),  # its length is then 1
        "age_years": record.age_years,
        "sex": record.sex,
        "view": record.view,
        "nih_image": record.nih_image,
        "rsna_image": record.rsna_image,
        "is_phantom": record.source in config.phantoms,
        "boxes": [
            {
                "finding": box.finding,
                "x": box.x * x_scale,
                "y": box.y * y_scale,
                "width": box.width * x_scale,
                "height": box.height * y_scale,
            }
            for box in record.boxes
        ],
    }
