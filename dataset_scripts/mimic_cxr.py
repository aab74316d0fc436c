"""MIMIC-CXR-JPG with the reports of MIMIC-CXR: credentialed data of PhysioNet, read in their own layout.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout, as downloaded: `files/p10/p10000032/s50414267/DICOM_ID.jpg`, `mimic-cxr-2.0.0-metadata.csv.gz`,
`mimic-cxr-2.0.0-split.csv.gz`, perhaps `mimic-cxr-2.0.0-chexpert.csv.gz`; and the reports,
`files/p10/p10000032/s50414267.txt`, unpacked from MIMIC-CXR's mimic-cxr-reports.zip into the same folder or
one within it. Tables may be decompressed, and their version may be another.

A study is s50414267, a patient p10000032; a study's rows are in the order of the metadata. `view` is PA, AP
or LATERAL by ViewPosition, "" where it is another. The split is the official one under every split scheme.
Sections are cut out of the reports by `report_text.cut_sections`. The labels are CheXpert's of the reports,
for the findings that have the same name here, and Pleural Effusion as Effusion: 1 present, 0 absent;
uncertain (-1) and not mentioned are not annotated.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.chexpert_labels import LABELS, read_labels
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.label_rows import parse_view
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing, read_text
from dataset_scripts.build.report_text import ReportText, cut_sections
from dataset_scripts.build.source_files import index_images, missing_file, report_unlisted
from dataset_scripts.build.tables import Row, read_table
from dataset_scripts.errors import LabelFileError
from dataset_scripts.findings import no_labels

SPLITS = {"train": "train", "validate": "validation", "test": "test"}
"""The official split's words, and what they are here."""

_TABLE = r"mimic-cxr-[\d.]+-{}\.csv(?:\.gz)?"

_REPORT = re.compile(r"(?:.*/)?s(\d+)\.txt")

_ADVICE = "Download the file again, or restore it if you changed it."

_WANTED = "Wanted files/p10/p10000032/s50414267/DICOM_ID.jpg and so on, from MIMIC-CXR-JPG."


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a MIMIC-CXR-JPG folder by its split: by study, then as the metadata has them.

    Raises:
        DataLayoutError: the metadata or the split is missing, or there is no image.
        LabelFileError: a table cannot be read.
    """
    del config  # one split under every scheme
    listing = SourceListing(SOURCE, scan.root)
    metadata = _read_table(scan, "metadata", ("dicom_id", "subject_id", "study_id", "ViewPosition"))
    splits = _read_splits(scan, listing)
    labels = _read_labels(scan, listing)
    paths = index_images(scan, listing, lambda path: Path(path).stem, _WANTED)
    images = _by_image(metadata, listing)
    wanted = {name: f"{name}.jpg" for name in images if name not in paths}
    lacking = match_names(wanted.values(), paths.values(), scan, where="the metadata") if wanted else {}
    reports = _index_reports(scan, listing)
    texts: dict[str, ReportText] = {}
    used = set()
    for name, row in sorted(images.items(), key=lambda item: _study_order(item[1])):
        split = splits.get(name)
        file = paths[name] if name in paths else lacking[wanted[name]]
        if isinstance(file, NoFile):
            listing.report(file.kind, file.path or wanted[name], file.detail, split or "")
            continue
        used.add(file)
        if split is None:
            listing.report("not_listed", file, "named in the metadata, not in the official split")
            continue
        study = row.get("study_id")
        if study not in texts:
            texts[study] = _read_report(study, reports, scan, listing)
        listing.splits.setdefault(split, []).append(
            ImageRecord(
                image_id=f"{SOURCE.name}/{name}",
                source=SOURCE.name,
                patient_id=f"{SOURCE.name}/p{row.get('subject_id')}",
                path=file,
                labels=labels.get(study, no_labels()),
                view=_view(row, listing),
                study_id=f"{SOURCE.slug}/s{study}",
                report_findings=texts[study].findings,
                report_impression=texts[study].impression,
                report_indication=texts[study].indication,
            )
        )
    report_unlisted(listing, paths, used, "in the folder, not in the metadata")
    listing.report_passed_over(scan)
    return listing


def _find_table(scan: FolderScan, name: str) -> Path | None:
    pattern = re.compile(_TABLE.format(name))
    found = (path for path in sorted(scan.files) if pattern.fullmatch(path.rsplit("/", 1)[-1]))
    path = next(found, None)
    return None if path is None else scan.root / path


def _read_table(scan: FolderScan, name: str, columns: Sequence[str]) -> tuple[Row, ...]:
    path = _find_table(scan, name)
    if path is None:
        fault = f"mimic-cxr-2.0.0-{name}.csv.gz is missing"
        raise missing_file(SOURCE, scan.files, fault, "it beside files/")
    return read_table(path, columns, advice=_ADVICE).rows


def _read_splits(scan: FolderScan, listing: SourceListing) -> dict[str, str]:
    """Map image → split; a patient in two splits, which the official table has none of, stops the build.

    Raises:
        LabelFileError: a split has another name, or a patient has two.
    """
    splits: dict[str, str] = {}
    of_patient: dict[str, str] = {}
    for row in _read_table(scan, "split", ("dicom_id", "subject_id", "split")):
        name, patient, split = row.get("dicom_id"), row.get("subject_id"), SPLITS.get(row.get("split"))
        if split is None or not name:
            raise LabelFileError(
                f"the table of the split, line {row.line}: dicom_id {name!r}, split {row.get('split')!r}; "
                f"wanted an image and one of {list(SPLITS)}. {_ADVICE}"
            )
        if of_patient.setdefault(patient, split) != split:
            raise LabelFileError(
                f"the table of the split, line {row.line}: patient {patient} stands in {of_patient[patient]} "
                f"and in {split}; the official split keeps patients together. {_ADVICE}"
            )
        if name in splits:
            listing.report("duplicate_row", name, f"again in the split's line {row.line}: counted once")
        splits[name] = split
    return splits


def _index_reports(scan: FolderScan, listing: SourceListing) -> dict[str, str]:
    """Map study → relative path of its report; of two files of one study that differ neither is used.

    What one of several files says where it cannot be read is not known, so the study has none.
    """
    files: dict[str, list[str]] = {}
    for path in sorted(scan.files):
        if match := _REPORT.fullmatch(path):
            files.setdefault(match[1], []).append(path)
    reports = {}
    for study, (first, *others) in files.items():
        try:
            is_one = not others or len({read_text(scan.root / path) for path in (first, *others)}) == 1
        except LabelFileError as error:
            listing.report("bad_report", f"s{study}", f"one of its {len(others) + 1} files: {error}")
            continue
        if is_one:
            reports[study] = first
        for path in others:
            detail = (
                f"the report of s{study} as {first} is: {'that is used' if is_one else 'neither is used'}"
            )
            listing.report("same_name", path, detail)
    return reports


def _by_image(rows: Sequence[Row], listing: SourceListing) -> dict[str, Row]:
    """Map image → its row of the metadata; of several the first counts, if they name one study."""
    images: dict[str, Row] = {}
    crossing = set()
    keys = ("subject_id", "study_id")
    for row in rows:
        name = row.get("dicom_id")
        if not all((name, *(row.get(key) for key in keys))):
            listing.report("bad_line", "metadata", f"line {row.line} names no image, patient or study")
            continue
        first = images.setdefault(name, row)
        if first is row:
            continue
        if any(first.get(key) != row.get(key) for key in keys):
            crossing.add(name)
            detail = f"lines {first.line} and {row.line} name two patients or studies: left out"
            listing.report("conflicting_row", name, detail)
        else:
            detail = f"lines {first.line} and {row.line} name one image: the first counts"
            listing.report("duplicate_row", name, detail)
    return {name: row for name, row in images.items() if name not in crossing}


def _study_order(row: Row) -> tuple[str, str, int]:
    return row.get("subject_id"), row.get("study_id"), row.line


def _view(row: Row, listing: SourceListing) -> str:
    view = parse_view(row.get("ViewPosition"))
    if view is None:
        detail = f"{row.get('ViewPosition')[:40]!r}: wanted PA, AP or LATERAL; set to unknown"
        listing.report("unknown_view", row.get("dicom_id"), detail)
    return view or ""


def _read_report(
    study: str, reports: Mapping[str, str], scan: FolderScan, listing: SourceListing
) -> ReportText:
    """Read a study's report; one that is not there or is no text is named, and the study has none."""
    if study not in reports:
        listing.report("no_report", f"s{study}", "its images are built without a report")
        return ReportText()
    try:
        report = cut_sections(read_text(scan.root / reports[study]))
    except LabelFileError as error:
        listing.report("bad_report", reports[study], str(error))
        return ReportText()
    if not report.findings and not report.impression:
        listing.report("no_section", reports[study], "neither findings nor impression are found in it")
    if report.left_out:
        named = ", ".join(report.left_out)
        listing.report("unknown_section", reports[study], f"text below other headings is left out: {named}")
    return report


def _read_labels(scan: FolderScan, listing: SourceListing) -> dict[str, tuple[float, ...]]:
    """Read CheXpert's table where it is there: study → labels."""
    path = _find_table(scan, "chexpert")
    labels: dict[str, tuple[float, ...]] = {}
    if path is None:
        return labels
    for row in read_table(path, ("study_id",), advice=_ADVICE).rows:
        study = row.get("study_id")
        if study in labels:
            listing.report("duplicate_row", f"s{study}", f"again in {path.name}: the first counts")
            continue
        labels[study] = read_labels(row, f"s{study}", listing)
    return labels


SOURCE = Source(
    name="MIMIC-CXR",
    folder="mimic-cxr-jpg",
    list_images=list_images,
    title="MIMIC-CXR-JPG",
    description="Chest X-rays of Beth Israel Deaconess Medical Center, 2011 to 2016, in JPG, with their "
    "free-text reports: 377,110 images of 227,835 studies of 65,379 patients. Labels were mined from the "
    "reports by CheXpert's software, not read from the images; for eight findings they are stored here.",
    license="PhysioNet Credentialed Health Data License: it asks for training and a data use agreement, and "
    "neither images nor reports may be passed on.",
    homepage="https://physionet.org/content/mimic-cxr-jpg/",
    citation='Johnson et al., "MIMIC-CXR, a de-identified publicly available database of chest radiographs '
    'with free-text reports", Scientific Data 2019; Johnson et al., "MIMIC-CXR-JPG", arXiv:1901.07042.',
    label_names=LABELS,
    held_out_splits=("validation", "test"),
    hub_tags=("chest-x-ray",),
    has_reports=True,
    may_be_uploaded=False,
)


class MimicCxr(SourceBuilder):
    """Builder of MIMIC-CXR-JPG; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
