"""NIH ChestX-ray14: frontal chest X-rays with 14 findings mined from reports.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout: `images/` or `images_001/images` … `images_012/images`, `Data_Entry_2017.csv` or
`Data_Entry_2017_v2020.csv`, `train_val_list.txt`, `test_list.txt`, and perhaps `BBox_List_2017.csv`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_scripts.build.boxes import BOXES_SIZE, parse_box
from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, fold, match_names
from dataset_scripts.build.label_rows import (
    LabelRow,
    merge_rows,
    patient_of_one_image,
    person_column,
    read_person,
)
from dataset_scripts.build.records import (
    Box,
    FolderScan,
    ImageRecord,
    Source,
    SourceListing,
    read_lines,
)
from dataset_scripts.build.source_files import index_images, missing_file
from dataset_scripts.build.tables import Row, read_cells, read_table
from dataset_scripts.findings import FINDINGS, label_vector, no_labels
from dataset_scripts.splits import HELD_OUT, MEDTRANSFORMER_PARTS, stratified_patients, thirds

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")

BOX_FILES = ("BBox_List_2017.csv", "BBox_List_2017_Official_NIH.csv")

LIST_FILES = ("train_val_list.txt", "test_list.txt")

REQUIRED_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


NO_FINDING = "No Finding"

_FINDING_INDEX = {name: index for index, name in enumerate(FINDINGS)}

_BOX_ALIASES = {"Infiltrate": "Infiltration"}  # the box file's own spelling

_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?", re.ASCII)  # of a patient, as the table or a spreadsheet writes it

_ADVICE = "Download the file again, or restore it if you changed it."


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a ChestX-ray14 folder by split.

    Raises:
        DataLayoutError: a list or the label file is missing, or there is no image.
        LabelFileError: the label file lacks a column.
    """
    listing = SourceListing(SOURCE, scan.root)
    label_file = _find_file(scan, LABEL_FILES)
    list_files = [_find_file(scan, (name,)) for name in LIST_FILES]
    paths = index_images(
        scan, listing, lambda path: path.rsplit("/", 1)[-1], _image_advice(scan), same="name"
    )
    entries = _read_entries(scan.root / label_file, listing)
    boxes = _read_boxes(scan, entries, listing)
    train_val, test = (_read_list(scan, name, entries, listing) for name in list_files)
    splits = _assign_splits(train_val, test, entries, config, listing)
    files = match_names(splits, paths, scan, where="a list")
    for name, split in splits.items():
        file = files[name]
        if isinstance(file, NoFile):
            listing.report(file.kind, file.path or name, file.detail, split)
            continue
        entry = entries[name]
        record = ImageRecord(
            image_id=f"{SOURCE.name}/{name}",
            source=SOURCE.name,
            patient_id=f"{SOURCE.name}/{entry.patient}",
            path=paths[file],
            labels=entry.labels,
            age_years=entry.age_years,
            sex=entry.sex,
            view=entry.view,
            boxes=tuple(boxes.get(name, ())),
            boxes_size=BOXES_SIZE,
            nih_image=name,
        )
        listing.splits.setdefault(split, []).append(record)
    listed = {file for file in files.values() if isinstance(file, str)}
    for name in sorted(paths.keys() - listed - set(train_val) - set(test)):
        listing.report("not_listed", paths[name], "in the folder, in neither list")
    for name in sorted(entries.keys() - paths.keys() - set(train_val) - set(test)):
        listing.report("not_listed", name, "in the label file, in neither list")
    listing.report_passed_over(scan)
    return listing


def patient_splits(folder: Path, config: SourceConfig) -> dict[str, str]:
    """Return the split of each patient by a folder's label file and lists, for sets of the same patients.

    No image is looked for. A patient with images in several splits is of test, then of validation.

    Args:
        folder: holds these files itself; {} is returned where one of them is not there.
        config: the split scheme and the share of validation.

    Raises:
        LabelFileError: one of the files cannot be read.
    """
    here = {name: (0, 0) for name in (*LABEL_FILES, *LIST_FILES) if (folder / name).is_file()}
    if not set(LIST_FILES) <= here.keys() or not here.keys() & set(LABEL_FILES):
        return {}
    scan, listing = FolderScan(folder, here), SourceListing(SOURCE, folder)  # its problems are told elsewhere
    entries = _read_entries(folder / _find_file(scan, LABEL_FILES), listing)
    train_val, test = (_read_list(scan, name, entries, listing) for name in LIST_FILES)
    of_patient: dict[str, set[str]] = {}
    for name, split in _assign_splits(train_val, test, entries, config, listing).items():
        of_patient.setdefault(entries[name].patient, set()).add(split)
    return {
        patient: "train" if splits == {"train"} else "validation" if splits == {"validation"} else "test"
        for patient, splits in of_patient.items()
    }


def _find_file(scan: FolderScan, names: tuple[str, ...]) -> str:
    by_name = {path.rsplit("/", 1)[-1]: path for path in reversed(scan.files)}
    for name in names:
        if name in by_name:
            return by_name[name]
    raise missing_file(SOURCE, scan.files, f"{' or '.join(names)} is missing", "it beside the images")


def _image_advice(scan: FolderScan) -> str:
    """What to do where no image is found: they are packed, or lie somewhere else."""
    packed = [path for path in scan.files if path.endswith((".tar.gz", ".tgz", ".zip"))]
    if not packed:
        return "Wanted PNG files in images/ or images_001/images … images_012/images."
    return (
        f"The images are still packed ({len(packed)} archives): unpack them with\n"
        "  for f in images_*.tar.gz; do mkdir -p ${f%.tar.gz} && tar -xzf $f -C ${f%.tar.gz}; done"
    )


def _read_list(
    scan: FolderScan, file_name: str, entries: Mapping[str, LabelRow], listing: SourceListing
) -> list[str]:
    """Return the images that a list names, each once, as the label file spells them where it has them."""
    counts = Counter(read_lines(scan.root / file_name, _ADVICE))
    for name, count in counts.items():
        for _ in range(count - 1):
            listing.report("duplicate_row", name, f"named {count} times in {file_name}: counted once")
    found = match_names(counts, entries, scan)
    spelled = {name: name if isinstance(entry := found[name], NoFile) else entry for name in counts}
    return list(dict.fromkeys(spelled.values()))


def _read_entries(path: Path, listing: SourceListing) -> dict[str, LabelRow]:
    """Read the label file: file name → what its rows say together, if they name one patient."""
    table = read_table(path, REQUIRED_COLUMNS, person_column, _ADVICE)
    rows: dict[str, list[LabelRow]] = {}
    spelled: dict[str, str] = {}
    for row in table.rows:
        name = row.get("Image Index").replace("\\", "/").rsplit("/", 1)[-1]
        name = spelled.setdefault(fold(name), name)
        if name:
            rows.setdefault(name, []).append(_parse_entry(name, row, listing))
        else:
            listing.report("bad_line", path.name, f"line {row.line} names no image")
    merged = ((name, merge_rows(name, several, listing)) for name, several in rows.items())
    return {name: entry for name, entry in merged if entry is not None}


def _parse_entry(name: str, row: Row, listing: SourceListing) -> LabelRow:
    found = [finding.strip() for finding in row.get("Finding Labels").split("|")]
    unknown = [finding for finding in found if finding not in _FINDING_INDEX]
    if unknown:
        listing.report("unknown_finding", name, f"{unknown}: the image counts as not annotated")
        labels = no_labels()
    elif NO_FINDING in found and len(set(found)) > 1:
        listing.report("conflicting_findings", name, f"{found}: the image counts as not annotated")
        labels = no_labels()
    else:
        labels = label_vector([_FINDING_INDEX[finding] for finding in found])
    patient = row.get("Patient ID")
    if not patient:
        listing.report("no_patient", name, "its row names no patient: it counts as one of its own")
        patient = patient_of_one_image(name)
    number = _NUMBER.fullmatch(patient)
    return LabelRow(
        row.line, number[1] if number else patient, labels, *read_person(row.cells, name, listing)
    )


def _read_boxes(
    scan: FolderScan, entries: Mapping[str, LabelRow], listing: SourceListing
) -> dict[str, list[Box]]:
    """Read the box file where there is one: image, finding, then x, y, width, height by position.

    Returns:
        Boxes by the image's name in the label file.
    """
    by_name = {path.rsplit("/", 1)[-1]: path for path in reversed(scan.files)}
    file_name = next((by_name[name] for name in BOX_FILES if name in by_name), None)
    rows = [] if file_name is None else read_cells(scan.root / file_name, _ADVICE)
    if rows and fold(rows[0][1][0]) == "image index":
        rows = rows[1:]
    names = {line: row[0].replace("\\", "/").rsplit("/", 1)[-1] for line, row in rows}
    found = match_names(names.values(), entries, scan)
    boxes: dict[str, list[Box]] = defaultdict(list)
    for line, row in rows:
        image = found[names[line]]
        box = _parse_box(row)
        if isinstance(box, Box) and isinstance(image, str):
            boxes[image].append(box)
        else:
            unknown = "names an image that is not in the label file" if row[0] else "names no image"
            fault = box if isinstance(box, str) else unknown
            listing.report("bad_box", row[0] or BOX_FILES[0], f"line {line}: {fault}")
    return boxes


def _parse_box(row: Sequence[str]) -> Box | str:
    """A row's box, or what is wrong with it."""
    finding = row[1] if len(row) > 1 else ""
    index = _FINDING_INDEX.get(_BOX_ALIASES.get(finding, finding))
    box = parse_box(0 if index is None else index, row[2:6])
    return box if isinstance(box, str) or index is not None else f"unknown finding {finding!r}"


def _assign_splits(
    train_val: list[str],
    test: list[str],
    entries: Mapping[str, LabelRow],
    config: SourceConfig,
    listing: SourceListing,
) -> dict[str, str]:
    """Map image name → split, for images that have a row in the label file."""
    left_out = {problem.name for problem in listing.problems if problem.kind == "conflicting_row"}
    for name in [*train_val, *test]:
        if name not in entries and name not in left_out:
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
    train_val: list[str], test: list[str], entries: Mapping[str, LabelRow], fraction: float
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
    train_val: list[str], test: list[str], entries: Mapping[str, LabelRow], listing: SourceListing
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
    hub_dataset="alkzar90/NIH-Chest-X-ray-dataset",
    hub_tags=("chest-x-ray",),
)


class ChestXray14(SourceBuilder):
    """Builder of NIH ChestX-ray14; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)


OFFICIAL_TEST_IMAGES = 25_596
"""In ChestX-ray14's own test_list.txt."""
