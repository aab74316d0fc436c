"""IU X-Ray, Indiana University's chest X-rays with their reports, in the three layouts that people have.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layouts, known by their files, wherever these lie in the folder; where several are there, the first whose
pictures are there names the pictures, and a section of a report that it lacks is taken from the next:

- Kaggle: `indiana_projections.csv` (uid, filename, projection), `indiana_reports.csv` (uid, findings,
  impression, indication …; either may be a .gz), pictures such as
  `images/images_normalized/1_IM-0001-4001.dcm.png`;
- OpenI: `ecgen-radiology/1.xml` …, pictures such as `NLMCXR_png/CXR1_1_IM-0001-4001.png`, or DICOM;
- R2Gen: `annotation.json` and `images/CXR2384_IM-0942/0.png`; two pictures a study, findings alone.

A study is `CXR` and its number (uid), the same in all layouts, and so are the ids of Kaggle's and OpenI's
pictures. `view` is FRONTAL or LATERAL by `indiana_projections.csv`, which may be copied into any layout;
without it, and for R2Gen's renumbered pictures, "" (unknown). The label No Finding is what IU's annotators
say, `normal` alone in Kaggle's column Problems or OpenI's MeSH, or not; no other finding is annotated. Of a
study that nobody indexed, or of whose pictures the quality alone is said, neither is known.

`official` holds out a fifth of the studies for test and `validation_fraction` of the others for validation,
by a hash of the study's number, so that every layout and every partial copy has the same split. As far as is
known each report is of another patient (its authors write of 3,996 reports and 3,996 patients); no file names
patients. `r2gen` is R2Gen's split of 2,955 studies, from `annotation.json`, with all pictures of a study.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.label_rows import parse_view, read_identifier
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing, read_text
from dataset_scripts.build.report_text import SECTIONS, ReportText, tidy
from dataset_scripts.build.source_files import index_images, missing_file, report_unlisted
from dataset_scripts.build.tables import Row, read_table
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS, no_labels
from dataset_scripts.splits import SEED

REPORTS_FILE = "indiana_reports.csv"

PROJECTIONS_FILE = "indiana_projections.csv"

ANNOTATION_FILE = "annotation.json"

TEST_FRACTION = 0.2

R2GEN_SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""The parts of `annotation.json`, and what they are here."""


_PICTURE = re.compile(r"(?:CXR)?0*(\d+)_(?:\1_)?(IM-[\w-]+)(?:\.dcm)?", re.IGNORECASE | re.ASCII)

_STUDY = re.compile(r"CXR0*(\d+)(?:_.*)?", re.IGNORECASE | re.ASCII)

_SPREADSHEET_ERROR = re.compile(r"#(?:NAME\?|REF!|VALUE!|N/A|NUM!|DIV/0!|NULL!)")

_SAYS_NOTHING = {"", "no indexing", "technical quality of image unsatisfactory"}
"""Of the annotators' words."""

_ADVICE = "Download the file again, or restore it if you changed it."


@dataclass(slots=True)
class _Layout:
    """What one layout's files say, by study: reports, whether normal, pictures in their order, splits."""

    reports: dict[str, ReportText] = field(default_factory=dict)
    normal: dict[str, bool] = field(default_factory=dict)
    pictures: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the pictures of an IU X-Ray folder by split: by study, then in the order of their layout.

    Raises:
        DataLayoutError: no layout's files are there, or no picture, or `r2gen` has no annotation.json.
        LabelFileError: a table or annotation.json cannot be read.
    """
    listing = SourceListing(SOURCE, scan.root)
    views: dict[str, str] = {}
    kaggle = _read_kaggle(scan, views, listing)
    r2gen = _read_annotation(scan, config, listing)
    layouts = [kaggle, _read_openi(scan, listing), r2gen]
    _check_layouts(scan, layouts, config)
    paths = index_images(scan, listing, picture_key, same="picture")
    chosen = next((layout for layout in layouts if _has_any(layout, paths)), None)
    if chosen is None:
        raise DataLayoutError(
            f"{SOURCE.folder}: none of the pictures that the reports name is among the {len(paths)} images "
            f"in the folder. Wanted the pictures of the same download: {_WANTED}.{scan.links_advice()}"
        )
    used: set[str] = set()
    for study in sorted(chosen.pictures, key=_study_order):
        split = r2gen.splits.get(study) if config.name == "r2gen" else _official_split(study, config)
        report = _merge_reports(study, layouts, listing)
        for name, file in _find_files(chosen.pictures[study], paths, scan).items():
            if isinstance(file, NoFile):
                listing.report(file.kind, file.path or name, file.detail, split or "")
                continue
            used.add(file)
            if split is None:
                listing.report("not_listed", file, f"its study {study} is not in {ANNOTATION_FILE}")
                continue
            record = ImageRecord(
                image_id=f"{SOURCE.name}/{picture_key(name)}",
                source=SOURCE.name,
                patient_id=f"{SOURCE.name}/{study}",
                path=file,
                labels=_label_normal(study, layouts),
                view=views.get(picture_key(name), ""),
                study_id=f"{SOURCE.slug}/{study}",
                report_findings=report.findings,
                report_impression=report.impression,
                report_indication=report.indication,
            )
            listing.splits.setdefault(split, []).append(record)
    for study in sorted(chosen.reports.keys() - chosen.pictures.keys(), key=_study_order):
        listing.report("no_image", study, "its report names no picture: left out")
    detail = "in the folder, named by no report's list of pictures"
    report_unlisted(listing, paths, used, detail, picture_key)
    listing.report_passed_over(scan)
    return listing


def _label_normal(study: str, layouts: Sequence[_Layout]) -> tuple[float, ...]:
    """No Finding by the annotators of IU's reports, from the first layout that says so; nothing else."""
    is_normal = next((layout.normal[study] for layout in layouts if study in layout.normal), None)
    if is_normal is None:
        return no_labels()
    return tuple(
        float(is_normal) if name == "No Finding" else label
        for name, label in zip(FINDINGS, no_labels(), strict=True)
    )


def picture_key(name: str) -> str:
    """Return a picture's name as all layouts have it: CXR1_IM-0001-4001, or R2Gen's CXR2384_IM-0942/0."""
    *folders, base = name.replace("\\", "/").split("/")
    stem = base.rpartition(".")[0] or base
    match = _PICTURE.fullmatch(stem)
    return f"CXR{match[1]}_{match[2].upper()}" if match else "/".join([*folders[-1:], stem])


def _check_layouts(scan: FolderScan, layouts: Sequence[_Layout], config: SourceConfig) -> None:
    if not any(layout.pictures for layout in layouts):
        wanted = f"one of three layouts: {_WANTED}"
        raise missing_file(SOURCE, scan.files, "no list of pictures is there", wanted)
    if config.name == "r2gen" and not layouts[-1].splits:
        raise DataLayoutError(
            f"{SOURCE.folder}: split_scheme r2gen needs {ANNOTATION_FILE}, which names the studies of "
            "R2Gen's split. It comes with R2Gen's pictures (iu_xray.zip): copy it into this folder, whatever "
            "the layout of the pictures, or use split_scheme official."
        )


def _has_any(layout: _Layout, paths: Mapping[str, str]) -> bool:
    return any(picture_key(name) in paths for names in layout.pictures.values() for name in names)


def _find_files(names: Sequence[str], paths: Mapping[str, str], scan: FolderScan) -> dict[str, str | NoFile]:
    found: dict[str, str | NoFile] = {name: paths.get(picture_key(name), "") for name in names}
    missing = [name for name, file in found.items() if not file]
    if missing:
        found |= match_names(missing, paths.values(), scan, where="a list")
    return found


def _study_order(study: str) -> tuple[int, str]:
    match = _STUDY.fullmatch(study)
    return (int(match[1]) if match else 0, study)


def _official_split(study: str, config: SourceConfig) -> str:
    """Split by a hash: the same for every layout, and whichever other studies are there."""
    digest = hashlib.sha256(f"{SEED} {study}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    if share < TEST_FRACTION:
        return "test"
    is_held_out = share < TEST_FRACTION + (1 - TEST_FRACTION) * config.validation_fraction
    return "validation" if is_held_out else "train"


def _merge_reports(study: str, layouts: Sequence[_Layout], listing: SourceListing) -> ReportText:
    """Return the report of a study: each section from the first layout that has it."""
    reports = [layout.reports[study] for layout in layouts if study in layout.reports]
    if not reports:
        listing.report("no_report", study, "its pictures are built without a report")
    texts = ((getattr(report, section) for report in reports) for section in SECTIONS)
    return ReportText(*(next(filter(None, several), "") for several in texts))


def _find_file(scan: FolderScan, name: str) -> Path | None:
    found = (path for path in sorted(scan.files) if path.rsplit("/", 1)[-1] in (name, f"{name}.gz"))
    path = next(found, None)
    return None if path is None else scan.root / path


def _read_kaggle(scan: FolderScan, views: dict[str, str], listing: SourceListing) -> _Layout:
    """Read Kaggle's two tables, either of which may be missing; fill in the view of each picture."""
    layout = _Layout()
    if (path := _find_file(scan, PROJECTIONS_FILE)) is not None:
        _read_projections(path, layout, views, listing)
    if (path := _find_file(scan, REPORTS_FILE)) is not None:
        rows: dict[str, list[Row]] = {}
        for row in read_table(path, ("uid", "findings", "impression"), str.lower, _ADVICE).rows:
            if row.get("uid"):
                rows.setdefault(f"CXR{read_identifier(row.get('uid'))}", []).append(row)
            else:
                listing.report("bad_line", path.name, f"line {row.line} names no study")
        layout.reports = {study: _merge_rows(study, several, listing) for study, several in rows.items()}
        for study, several in rows.items():
            words = (word for row in several for word in row.get("problems").split(";"))
            _note_normal(study, words, layout)
    return layout


def _read_projections(path: Path, layout: _Layout, views: dict[str, str], listing: SourceListing) -> None:
    first: dict[str, tuple[int, str, str]] = {}
    for row in read_table(path, ("uid", "filename"), str.lower, _ADVICE).rows:
        name, word = row.get("filename"), row.get("projection")
        if not name or not row.get("uid"):
            listing.report("bad_line", path.name, f"line {row.line} names no study or no file")
            continue
        study = f"CXR{read_identifier(row.get('uid'))}"
        view = "FRONTAL" if word.lower() == "frontal" else parse_view(word)
        if view is None:
            wanted = "wanted Frontal or Lateral; set to unknown"
            listing.report("unknown_view", name, f"line {row.line}: {word[:40]!r}: {wanted}")
        line, known_study, known_view = first.setdefault(name, (row.line, study, view or ""))
        if line == row.line:
            views[picture_key(name)] = view or ""
            layout.pictures.setdefault(study, []).append(name)
            continue
        at = f"lines {line} and {row.line}"
        if study != known_study:
            listing.report("conflicting_row", name, f"{at} name two studies: the picture is left out")
            if name in layout.pictures[known_study]:
                layout.pictures[known_study].remove(name)
        elif view != known_view:
            listing.report("duplicate_row", name, f"{at} disagree on the view: set to unknown")
            views[picture_key(name)] = ""
        else:
            listing.report("duplicate_row", name, f"{at} are equal: counted once")


def _merge_rows(study: str, rows: Sequence[Row], listing: SourceListing) -> ReportText:
    """What the rows of one study say together; a section on which they disagree is left out."""
    texts = [[tidy(row.get(section)) for section in SECTIONS] for row in rows]
    for row, cells in zip(rows, texts, strict=True):
        for index, cell in enumerate(cells):
            if _SPREADSHEET_ERROR.fullmatch(cell):
                detail = f"line {row.line}: {SECTIONS[index]} is {cell!r}, a spreadsheet's error: left out"
                listing.report("bad_metadata", study, detail)
                cells[index] = ""
    differing = [name for name, *cells in zip(SECTIONS, *texts, strict=True) if len(set(cells)) > 1]
    for row in rows[1:]:
        how = f"disagree on {differing}, which are left out" if differing else "are equal: counted once"
        listing.report("duplicate_row", study, f"lines {rows[0].line} and {row.line} {how}")
    return ReportText(
        *("" if name in differing else cell for name, cell in zip(SECTIONS, texts[0], strict=True))
    )


def _read_openi(scan: FolderScan, listing: SourceListing) -> _Layout:
    """Read OpenI's XML, one file a study."""
    layout = _Layout()
    for path in sorted(path for path in scan.files if path.lower().endswith(".xml")):
        try:
            citation = ElementTree.fromstring((scan.root / path).read_bytes())
        except (OSError, ElementTree.ParseError) as error:
            listing.report("bad_report", path, f"cannot be read ({error})")
            continue
        name = citation.find("uId")
        study = _study_of("" if name is None else name.get("id", ""))
        if not study:
            listing.report("bad_report", path, "is no report of OpenI: it has no uId")
        elif study in layout.reports:
            listing.report("duplicate_row", path, f"another report of {study}: the first is used")
        else:
            parts: dict[str, list[str]] = {}
            for text in citation.iter("AbstractText"):
                parts.setdefault(text.get("Label", "").lower(), []).append("".join(text.itertext()))
            layout.reports[study] = ReportText(*(tidy(" ".join(parts.get(part, []))) for part in SECTIONS))
            _note_normal(study, (major.text or "" for major in citation.iter("major")), layout)
            names = [image.get("id", "") for image in citation.iter("parentImage")]
            if names:
                layout.pictures[study] = list(dict.fromkeys(f"{name}.png" for name in names if name))
    return layout


def _note_normal(study: str, words: Iterable[str], layout: _Layout) -> None:
    """Note whether the annotators' words call a study normal, where they say anything of it."""
    said = {tidy(word.lower()) for word in words} - _SAYS_NOTHING
    if said:
        layout.normal[study] = said == {"normal"}


def _study_of(name: str) -> str:
    """Return CXR and the number of an id that begins so; any other id is a study of its own."""
    match = _STUDY.fullmatch(name)
    return f"CXR{match[1]}" if match else name


def _read_annotation(scan: FolderScan, config: SourceConfig, listing: SourceListing) -> _Layout:
    """Read R2Gen's annotation.json; a study in two of its parts has no split there."""
    layout = _Layout()
    if (path := _find_file(scan, ANNOTATION_FILE)) is None:
        return layout
    try:
        content = json.loads(read_text(path, _ADVICE))
        entries = [
            (
                split,
                _study_of(entry["id"]),
                tidy(entry["report"]),
                [str(name) for name in entry["image_path"]],
            )
            for part, split in R2GEN_SPLITS.items()
            for entry in content[part]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelFileError(
            f"{path.name} is not R2Gen's annotation.json ({error!r}). Wanted lists of studies under "
            f"{list(R2GEN_SPLITS)}, each study with id, report and image_path. {_ADVICE}"
        ) from error
    crossing = set()
    for split, study, text, names in entries:
        if layout.splits.setdefault(study, split) != split:
            crossing.add(study)
        elif study in layout.reports:
            listing.report("duplicate_row", study, f"stands twice in {path.name}: the first is used")
        else:
            layout.reports[study], layout.pictures[study] = ReportText(text), names
    for study in sorted(crossing, key=_study_order):
        del layout.splits[study]
        if config.name == "r2gen":
            listing.report("conflicting_row", study, f"stands in two splits of {path.name}: left out")
    return layout


_WANTED = (
    f"Kaggle's ({PROJECTIONS_FILE}, {REPORTS_FILE} and images_normalized/*.png), OpenI's "
    "(ecgen-radiology/*.xml and NLMCXR_png/*.png or DICOM) or R2Gen's "
    f"({ANNOTATION_FILE} and images/CXR…/0.png)"
)

SOURCE = Source(
    name="IU X-Ray",
    folder="iu_xray",
    list_images=list_images,
    title="IU X-Ray (Indiana University, Open-i)",
    description="Chest X-rays, mostly one frontal and one lateral view, with their reports: 7,470 "
    "images of 3,851 studies, from Indiana University's hospitals. Indication, findings and impression are "
    "the radiologists' own words, de-identified (XXXX stands for what was removed). Of the findings No "
    "Finding alone is annotated, where its tables say normal. 514 reports have no findings, and 31 no "
    "impression.",
    license="CC BY-NC-ND 4.0, as each report's file states.",
    homepage="https://openi.nlm.nih.gov/faq",
    citation='Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution '
    'and retrieval", Journal of the American Medical Informatics Association 2016.',
    label_names=(),
    held_out_splits=("validation", "test"),
    hub_tags=("chest-x-ray",),
    has_reports=True,
)


class IuXray(SourceBuilder):
    """Builder of IU X-Ray; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
