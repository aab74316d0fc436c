"""NIH ChestX-ray14: frontal chest X-rays with 14 findings mined from reports.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout: `images/` or `images_001/images` … `images_012/images`, `Data_Entry_2017.csv` or
`Data_Entry_2017_v2020.csv`, `train_val_list.txt`, `test_list.txt`, and perhaps `BBox_List_2017.csv`.
"""

import csv
import io
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import (
    Box,
    FolderScan,
    ImageRecord,
    Source,
    SourceListing,
    read_lines,
    read_text,
)
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS, label_vector, no_labels
from dataset_scripts.splits import HELD_OUT, MEDTRANSFORMER_PARTS, stratified_patients, thirds

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")

BOX_FILES = ("BBox_List_2017.csv", "BBox_List_2017_Official_NIH.csv")

LIST_FILES = ("train_val_list.txt", "test_list.txt")

REQUIRED_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")

BOXES_SIZE = (1024, 1024)  # the published images' size, in which the boxes were drawn

OLDEST_AGE_YEARS = 120  # the table holds ages up to 414

_FINDING_INDEX = {name: index for index, name in enumerate(FINDINGS)}

_BOX_ALIASES = {"Infiltrate": "Infiltration"}  # the box file's own spelling

_AGE = re.compile(r"(\d+)([YMD]?)")

_AGE_UNITS_PER_YEAR = {"": 1, "Y": 1, "M": 12, "D": 365.25}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of the label file, parsed."""

    patient: str
    labels: tuple[float, ...]
    age_years: float
    sex: str
    view: str


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a ChestX-ray14 folder by split.

    Raises:
        DataLayoutError: a list or the label file is missing, or there is no image.
        LabelFileError: the label file lacks a column.
    """
    listing = SourceListing(SOURCE, scan.root)
    label_file = _find_file(scan, LABEL_FILES)
    list_files = [_find_file(scan, (name,)) for name in LIST_FILES]
    paths = _index_images(scan, listing)
    entries = _read_entries(scan.root / label_file, listing)
    boxes = _read_boxes(scan, listing)
    train_val, test = (read_lines(scan.root / name) for name in list_files)
    for name, split in _assign_splits(train_val, test, entries, config, listing).items():
        if name not in paths:
            listing.report("absent", name, "named in a list, not in the folder", split)
            continue
        entry = entries[name]
        record = ImageRecord(
            image_id=f"{SOURCE.name}/{name}",
            source=SOURCE.name,
            patient_id=f"{SOURCE.name}/{entry.patient}",
            path=paths[name],
            labels=entry.labels,
            age_years=entry.age_years,
            sex=entry.sex,
            view=entry.view,
            boxes=tuple(boxes.get(name, ())),
            boxes_size=BOXES_SIZE,
            nih_image=name,
        )
        listing.splits.setdefault(split, []).append(record)
    for name in sorted(paths.keys() - set(train_val) - set(test)):
        listing.report("not_listed", paths[name], "in the folder, in neither list")
    return listing


def _find_file(scan: FolderScan, names: tuple[str, ...]) -> str:
    by_name = {path.rsplit("/", 1)[-1]: path for path in reversed(scan.files)}
    for name in names:
        if name in by_name:
            return by_name[name]
    found = sorted({path.split("/", 1)[0] for path in scan.files})[:12]
    raise DataLayoutError(
        f"{SOURCE.folder}: {' or '.join(names)} is missing. Wanted it beside the images; found {found}. "
        f"Get it from {SOURCE.homepage}, or point data_dir at the folder that holds it."
    )


def _index_images(scan: FolderScan, listing: SourceListing) -> dict[str, str]:
    """Map file name → relative path; the second of two files with one name is reported."""
    paths: dict[str, str] = {}
    for path in scan.images():
        name = path.rsplit("/", 1)[-1]
        if name in paths:
            listing.report("same_name", path, f"the same name as {paths[name]}, which is used")
        else:
            paths[name] = path
    for link in scan.links_out:
        listing.report("link_out_of_folder", link, "its target lies outside the folder; not followed")
    if not paths:
        packed = [path for path in scan.files if path.endswith((".tar.gz", ".tgz", ".zip"))]
        advice = (
            f"The images are still packed ({len(packed)} archives): unpack them with\n"
            "  for f in images_*.tar.gz; do mkdir -p ${f%.tar.gz} && tar -xzf $f -C ${f%.tar.gz}; done"
            if packed
            else "Wanted PNG files in images/ or images_001/images … images_012/images."
        )
        raise DataLayoutError(f"{SOURCE.folder}: no image found among {len(scan.files)} files. {advice}")
    return paths


def _read_entries(path: Path, listing: SourceListing) -> dict[str, _Entry]:
    rows = csv.reader(io.StringIO(read_text(path)))
    header = [column.strip() for column in next(rows, [])]
    missing = [column for column in REQUIRED_COLUMNS if column not in header]
    if missing:
        raise LabelFileError(
            f"{path.name}: column {missing} is missing. Wanted {list(REQUIRED_COLUMNS)}, found {header}. "
            "Download the file again, or restore its first line."
        )
    entries: dict[str, _Entry] = {}
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        name = cells["Image Index"]
        entry = _parse_entry(name, cells, listing)
        known = entries.get(name)
        if known is None:
            entries[name] = entry
            continue
        is_same = known.patient == entry.patient and known.labels == entry.labels
        detail = "an equal row" if is_same else "rows that disagree: the image counts as not annotated"
        listing.report("duplicate_row", name, detail)
        if not is_same:
            entries[name] = _Entry(known.patient, no_labels(), known.age_years, known.sex, known.view)
    return entries


def _parse_entry(name: str, cells: dict[str, str], listing: SourceListing) -> _Entry:
    found = [finding.strip() for finding in cells.get("Finding Labels", "").split("|")]
    unknown = [finding for finding in found if finding not in _FINDING_INDEX]
    if unknown:
        listing.report("unknown_finding", name, f"{unknown}: the image counts as not annotated")
        labels = no_labels()
    else:
        labels = label_vector([_FINDING_INDEX[finding] for finding in found])
    patient = cells.get("Patient ID", "")
    sex, view = cells.get("Patient Gender", ""), cells.get("View Position", "")
    return _Entry(
        patient=str(int(patient)) if patient.isdigit() else patient,
        labels=labels,
        age_years=_parse_age(name, cells.get("Patient Age", ""), listing),
        sex=sex if sex in ("M", "F") else "",
        view=view if view in ("PA", "AP") else "",
    )


def _parse_age(name: str, text: str, listing: SourceListing) -> float:
    """Read "58", "058Y", "013M" or "011D" in years; NaN where absent or implausible."""
    match = _AGE.fullmatch(text)
    if match is None:
        return math.nan
    years = int(match[1]) / _AGE_UNITS_PER_YEAR[match[2]]
    if years > OLDEST_AGE_YEARS:
        listing.report("implausible_age", name, f"{text}: set to unknown")
        return math.nan
    return years


def _read_boxes(scan: FolderScan, listing: SourceListing) -> dict[str, list[Box]]:
    """Read the box file where there is one: image, finding, then x, y, width, height by position."""
    by_name = {path.rsplit("/", 1)[-1]: path for path in reversed(scan.files)}
    file_name = next((by_name[name] for name in BOX_FILES if name in by_name), None)
    boxes: dict[str, list[Box]] = defaultdict(list)
    if file_name is None:
        return boxes
    rows = csv.reader(io.StringIO(read_text(scan.root / file_name)))
    next(rows, None)
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        name, finding = row[0].strip(), row[1].strip() if len(row) > 1 else ""
        index = _FINDING_INDEX.get(_BOX_ALIASES.get(finding, finding))
        try:
            x, y, width, height = (float(cell) for cell in row[2:6])
        except ValueError:
            listing.report("bad_box", name, f"not four numbers: {row[2:6]}")
            continue
        if index is None:
            listing.report("bad_box", name, f"unknown finding {finding!r}")
        else:
            boxes[name].append(Box(index, x, y, width, height))
    return boxes


def _assign_splits(
    train_val: list[str],
    test: list[str],
    entries: dict[str, _Entry],
    config: SourceConfig,
    listing: SourceListing,
) -> dict[str, str]:
    """Map image name → split, for images that have a row in the label file."""
    for name in [*train_val, *test]:
        if name not in entries:
            listing.report("no_label_row", name, "named in a list, not in the label file")
    test = [name for name in test if name in entries]
    train_val = [name for name in train_val if name in entries]
    test_patients = {entries[name].patient for name in test}
    for name in [name for name in train_val if entries[name].patient in test_patients]:
        listing.report("patient_in_test", name, "named in train_val_list, its patient is in test_list")
        train_val.remove(name)
    if config.name == "medtransformer":
        return _medtransformer_splits(train_val, test, entries, listing)
    return _official_splits(train_val, test, entries, config.validation_fraction)


def _official_splits(
    train_val: list[str], test: list[str], entries: dict[str, _Entry], fraction: float
) -> dict[str, str]:
    """Hold out the test list, and patients of the other list for validation."""
    counts: dict[str, list[float]] = {}
    for name in train_val:
        sums = counts.setdefault(entries[name].patient, [0.0] * len(FINDINGS))
        for index, value in enumerate(entries[name].labels):
            sums[index] += value == 1.0
    held_out = stratified_patients(counts, fraction)
    splits = {}
    for name in sorted(train_val):
        splits[name] = "validation" if entries[name].patient in held_out else "train"
    splits.update(dict.fromkeys(sorted(test), "test"))
    return splits


def _medtransformer_splits(
    train_val: list[str], test: list[str], entries: dict[str, _Entry], listing: SourceListing
) -> dict[str, str]:
    """Cut the test list as the MedTransformer paper does; a patient in two parts is named, not moved."""
    splits = dict.fromkeys(sorted(train_val), "train")
    parts_of: dict[str, set[str]] = {}
    for split, names in zip(MEDTRANSFORMER_PARTS, thirds(test), strict=True):
        for name in names:
            splits[name] = split
            parts_of.setdefault(entries[name].patient, set()).add(split)
    for patient, parts in sorted(parts_of.items()):
        if len(parts) > 1:
            listing.report("straddling_patient", patient, f"has images in {sorted(parts)}, as in the paper")
    return splits


SOURCE = Source(
    name="ChestX-ray14",
    folder="ChestXray-NIHCC",
    list_images=list_images,
    title="NIH ChestX-ray14",
    description="Frontal chest X-rays (PA and AP) with 14 findings: 112,120 images of 30,805 patients, PNG "
    "of 1024x1024 (8-bit gray, some RGBA). The labels were mined from reports by software, not read from the "
    "images, and are partly wrong.",
    license="No restriction of use is stated; the NIH asks for a link to its page and a citation.",
    homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    citation='Wang, Peng, Lu, Lu, Bagheri, Summers, "ChestX-ray8: Hospital-scale Chest X-ray Database and '
    'Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017.',
    label_names=FINDINGS,
    held_out_splits=HELD_OUT,
    is_default_task=True,
    hub_dataset="chestxray14",
    hub_tags=("chest-x-ray",),
)


class ChestXray14(SourceBuilder):
    """Builder of NIH ChestX-ray14; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)


OFFICIAL_TEST_IMAGES = 25_596
"""In ChestX-ray14's own test_list.txt."""
