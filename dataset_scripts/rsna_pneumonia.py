"""RSNA Pneumonia Detection Challenge: images of ChestX-ray14 that radiologists read for lung opacity.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout, as downloaded from Kaggle: `stage_2_train_images/ID.dcm` (or ID.png), `stage_2_train_labels.csv`
(patientId, x, y, width, height, Target; a row a box), perhaps `stage_2_detailed_class_info.csv`
(patientId, class). What RSNA calls patientId names one image; only the mapping to ChestX-ray14
(`nih_mapping`) tells patients. Where ChestX-ray14's label file and lists stand beside, or in a folder
`ChestXray-NIHCC` in this one, its split of each patient holds here too.
"""

from collections.abc import Mapping
from pathlib import Path

from dataset_scripts import chestxray14
from dataset_scripts.build.boxes import BOXES_SIZE, parse_box
from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.label_rows import parse_label, patient_of_one_image
from dataset_scripts.build.nih_mapping import nih_patient, read_nih_mapping
from dataset_scripts.build.records import (
    Box,
    FolderScan,
    ImageRecord,
    Source,
    SourceListing,
    read_lines,
)
from dataset_scripts.build.source_files import index_images, missing_file
from dataset_scripts.build.tables import Row, read_table
from dataset_scripts.findings import FINDINGS, NOT_ANNOTATED
from dataset_scripts.splits import stratified_patients

LABEL_FILE = "stage_2_train_labels.csv"

CLASS_FILE = "stage_2_detailed_class_info.csv"

CLASSES = {"Lung Opacity": 1.0, "No Lung Opacity / Not Normal": 0.0, "Normal": 0.0}

BOX_COLUMNS = ("x", "y", "width", "height")


MRM_LISTS = {"test": "test_list.txt", "validation": "val_list.txt", "train": "train_list.txt"}
"""The lists of `split_scheme: mrm`; a line is a path that ends in ID.dcm, and 0 or 1."""

_PNEUMONIA = FINDINGS.index("Pneumonia")

_NIH = chestxray14.SOURCE

_ADVICE = "Download the file again, or restore it if you changed it."

_WANTED = "Wanted DICOM or PNG files in stage_2_train_images/; unpack Kaggle's archive if it is packed."

Labels = dict[str, tuple[float, tuple[Box, ...]]]
"""By image: Target (NaN: not annotated) and boxes."""


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of the challenge's folder by split.

    Raises:
        DataLayoutError: the label file is missing, or there is no image, or a list of `mrm`.
        LabelFileError: a table or the mapping cannot be read.
    """
    listing = SourceListing(SOURCE, scan.root)
    label_file = _find_file(scan, LABEL_FILE)
    paths = index_images(scan, listing, lambda path: Path(path).stem, _WANTED)
    labels = _read_labels(scan.root / label_file, listing)
    _check_classes(scan, labels, listing)
    shown = read_nih_mapping(Path(config.nih_mapping)) if config.nih_mapping else {}
    patients = {name: number for name, image in shown.items() if (number := nih_patient(image))}
    if config.name == "mrm":
        splits = _mrm_splits(scan, labels, listing)
    else:
        nih_splits = _nih_splits(scan, config)
        splits = _official_splits(labels, patients, nih_splits, config.validation_fraction)
        if patients and not nih_splits:
            detail = (
                f"no {_NIH.folder} with its label file and two lists is beside: patients of its test list"
            )
            listing.report("nih_split_unknown", LABEL_FILE, f"{detail} may be trained on")
    _report_patients(splits, patients, listing)
    files = match_names(splits, paths, scan, where="the labels")
    for name, split in splits.items():
        file = files[name]
        if isinstance(file, NoFile):
            listing.report(file.kind, file.path or name, file.detail, split)
            continue
        target, boxes = labels[name]
        if name in patients:
            patient = f"{_NIH.name}/{patients[name]}"
        else:
            patient = f"{SOURCE.name}/{patient_of_one_image(name)}"
        record = ImageRecord(
            image_id=f"{SOURCE.name}/{name}",
            source=SOURCE.name,
            patient_id=patient,
            path=paths[file],
            labels=tuple(target if index == _PNEUMONIA else NOT_ANNOTATED for index in range(len(FINDINGS))),
            boxes=boxes,
            boxes_size=BOXES_SIZE,
            nih_image=shown.get(name, ""),
            rsna_image=name,
        )
        listing.splits.setdefault(split, []).append(record)
    listed = {file for file in files.values() if isinstance(file, str)}
    for name in sorted(paths.keys() - listed):
        listing.report("not_listed", paths[name], "in the folder, without a label or in no list")
    listing.report_passed_over(scan)
    return listing


def _find_file(scan: FolderScan, name: str) -> str:
    """Return the path of a file of the challenge; the folder may hold ChestX-ray14's lists in one below."""
    own = [path for path in scan.files if not path.startswith(f"{_NIH.folder}/")]
    for path in own:
        if path.rsplit("/", 1)[-1] == name:
            return path
    advice = (
        "It is one of the three lists of split_scheme mrm, which come with the code of that model: copy them "
        "here, or use split_scheme official."
        if name in MRM_LISTS.values()
        else ""
    )
    raise missing_file(SOURCE, own, f"{name} is missing", "it beside the folder of images", advice)


def _read_labels(path: Path, listing: SourceListing) -> Labels:
    """Read the label file; what rows of one image contradict leaves it not annotated."""
    rows: dict[str, list[Row]] = {}
    for row in read_table(path, ("patientId", "Target", *BOX_COLUMNS), advice=_ADVICE).rows:
        if row.get("patientId"):
            rows.setdefault(row.get("patientId"), []).append(row)
        else:
            listing.report("bad_line", path.name, f"line {row.line} names no image")
    return {name: _merge(name, several, listing) for name, several in rows.items()}


def _merge(name: str, rows: list[Row], listing: SourceListing) -> tuple[float, tuple[Box, ...]]:
    """What the rows of one image say together: each of a lung opacity gives one box."""
    first: dict[tuple[str, ...], int] = {}
    targets: dict[str, float] = {}
    boxes = []
    for row in rows:
        cells = tuple(row.get(column) for column in BOX_COLUMNS)
        line = first.setdefault((row.get("Target"), *cells), row.line)
        if line != row.line:
            listing.report("duplicate_row", name, f"lines {line} and {row.line} are equal: counted once")
            continue
        target = parse_label(row.get("Target"))
        if target is None:
            detail = f"line {row.line}: Target {row.get('Target')!r}: the image counts as not annotated"
            listing.report("unknown_finding", name, detail)
            target = NOT_ANNOTATED
        targets[str(target)] = target
        if target == 1.0 or any(cells):
            box = parse_box(_PNEUMONIA, cells)
            if isinstance(box, Box):
                boxes.append(box)
            else:
                listing.report("bad_box", name, f"line {row.line}: {box}")
    label = next(iter(targets.values())) if len(targets) == 1 else NOT_ANNOTATED
    if len(targets) > 1 or (label == 0.0 and boxes):
        said = f"Target {sorted(targets)}" + (f" and {len(boxes)} boxes" if boxes else "")
        listing.report("conflicting_findings", name, f"{said}: the image counts as not annotated")
        label = NOT_ANNOTATED
    return label, tuple(boxes) if label == 1.0 else ()


def _check_classes(scan: FolderScan, labels: Labels, listing: SourceListing) -> None:
    """Take back a label that the class file, where there is one, contradicts."""
    path = next((path for path in scan.files if path.rsplit("/", 1)[-1] == CLASS_FILE), None)
    if path is None:
        return
    for row in read_table(scan.root / path, ("patientId", "class"), advice=_ADVICE).rows:
        name, found = row.get("patientId"), row.get("class")
        if name not in labels:
            listing.report(
                "no_label_row", name or CLASS_FILE, f"{CLASS_FILE}, line {row.line}: no such label"
            )
        elif found not in CLASSES:
            detail = f"line {row.line}: class {found!r}; wanted one of {sorted(CLASSES)}; ignored"
            listing.report("bad_metadata", name, detail)
        elif labels[name][0] == 1.0 - CLASSES[found]:
            detail = f"Target {labels[name][0]:g} and class {found!r}: the image counts as not annotated"
            listing.report("conflicting_findings", name, detail)
            labels[name] = (NOT_ANNOTATED, ())


def _nih_splits(scan: FolderScan, config: SourceConfig) -> dict[str, str]:
    """Return the split of each patient in ChestX-ray14, where its small files are at hand."""
    folders = (scan.root / _NIH.folder, scan.parent / _NIH.folder)
    found = (chestxray14.patient_splits(folder, config) for folder in folders)
    return next((splits for splits in found if splits), {})


def _official_splits(
    labels: Labels, patients: Mapping[str, str], nih_splits: Mapping[str, str], fraction: float
) -> dict[str, str]:
    """Split by patient: as ChestX-ray14 does where that is known, the others stratified by label."""
    counts: dict[str, list[float]] = {}
    for name in labels:
        if patients.get(name) not in nih_splits:
            sums = counts.setdefault(patients.get(name, name), [0.0, 0.0])
            sums[0] += labels[name][0] == 1.0
            sums[1] += 1  # images without an opacity are shared out too
    test = stratified_patients(counts, fraction)
    rest = {patient: sums for patient, sums in counts.items() if patient not in test}
    validation = stratified_patients(rest, fraction / (1 - fraction))
    shared_out = dict.fromkeys(counts, "train") | dict.fromkeys(validation, "validation")
    of_patient = shared_out | dict.fromkeys(test, "test") | dict(nih_splits)
    return {name: of_patient[patients.get(name, name)] for name in sorted(labels)}


def _mrm_splits(scan: FolderScan, labels: Labels, listing: SourceListing) -> dict[str, str]:
    """Split by the three lists, which also label the images of the challenge's test: they have no row."""
    splits: dict[str, str] = {}
    for split, file_name in MRM_LISTS.items():
        path = _find_file(scan, file_name)
        for number, line in enumerate(read_lines(scan.root / path, _ADVICE), start=1):
            file, _, word = line.rpartition(" ")
            name, target = Path(file.strip()).stem, parse_label(word)
            if not name or target is None:
                listing.report("bad_line", path, f"entry {number} is {line[:60]!r}; wanted a file and 0 or 1")
            elif name in splits:
                listing.report("duplicate_row", name, f"again in {path}: it stays in {splits[name]}", split)
            else:
                splits[name] = split
                given, _ = labels.setdefault(name, (target, ()))
                if given == 1.0 - target:
                    said = f"Target {given:g} in {LABEL_FILE}, which counts, and {word} in {path}"
                    listing.report("bad_metadata", name, said, split)
    return splits


def _report_patients(splits: Mapping[str, str], patients: Mapping[str, str], listing: SourceListing) -> None:
    """Say whose patient is not known, and which patients stand in several splits."""
    if not patients:
        detail = f"no nih_mapping names the patients of its {len(splits)} images: the split is by image"
        listing.report("patients_unknown", LABEL_FILE, f"{detail}, and patients may straddle")
        return
    parts_of: dict[str, set[str]] = {}
    for name, split in splits.items():
        if name in patients:
            parts_of.setdefault(patients[name], set()).add(split)
        else:
            listing.report("no_patient", name, "not in the mapping: it counts as a patient of its own", split)
    for patient, parts in sorted(parts_of.items()):
        if len(parts) > 1:
            listing.report("straddling_patient", patient, f"has images in {sorted(parts)}, by the lists")


SOURCE = Source(
    name="RSNA Pneumonia",
    folder="rsna-pneumonia-detection-challenge",
    list_images=list_images,
    title="RSNA Pneumonia Detection Challenge",
    description="Frontal chest X-rays of NIH ChestX-ray14, DICOM of 1024x1024, read by radiologists: 26,684 "
    "labeled images, 6,012 of them with lung opacities that suggest pneumonia, each with a box. The opacity "
    "is stored as Pneumonia, and no other finding is annotated. Its patientId names an image: 11,439 "
    "patients are known by the mapping to ChestX-ray14 alone.",
    license="The terms of the challenge, for research; its images are ChestX-ray14's.",
    homepage="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    citation='Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset with '
    'Expert Annotations of Possible Pneumonia", Radiology: Artificial Intelligence 2019.',
    label_names=("Pneumonia",),
    held_out_splits=("validation", "test"),
    hub_tags=("chest-x-ray",),
    beside=tuple(f"{_NIH.folder}/{name}" for name in (*chestxray14.LABEL_FILES, *chestxray14.LIST_FILES)),
)


class RsnaPneumonia(SourceBuilder):
    """Builder of the RSNA Pneumonia Detection Challenge; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
