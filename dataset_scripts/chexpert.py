"""CheXpert, chest X-rays of Stanford Hospital, in its own layout: films for stage 1, and labels where wanted.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout, as downloaded, large or small, in the folder or one within it: `train.csv`, perhaps `valid.csv` and
`test.csv` (or `test_labels.csv`), and `train/patient00001/study1/view1_frontal.jpg` and so on. A table's Path
begins with the name of the release (`CheXpert-v1.0-small/train/…`); what counts is what follows it.

The splits are the release's: `valid` is validation, `test` is test, whatever the split scheme. `view` is PA,
AP, LATERAL, or FRONTAL where the table does not say which. The labels are CheXpert's, see chexpert_labels.py;
those of `train` were mined from reports, those of `valid` and `test` read by radiologists.
"""

import re
from collections.abc import Mapping

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.chexpert_labels import LABELS, read_labels
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.label_rows import read_person
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing
from dataset_scripts.build.source_files import index_images, missing_file
from dataset_scripts.build.tables import Row, read_table
from dataset_scripts.errors import LabelFileError

TABLES = {
    "train.csv": "train", "valid.csv": "validation", "test.csv": "test", "test_labels.csv": "test",
}  # fmt: skip
"""Each table's split."""

_PICTURE = re.compile(r"(?:.*/)?((?:train|valid|test)/(patient\d+)/study\d+/view\d+_(frontal|lateral))\.\w+")

_ADVICE = "Download the file again, or restore it if you changed it."

_WANTED = (
    "Wanted files such as train/patient00001/study1/view1_frontal.jpg; unpack the archive if it is packed."
)


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a CheXpert folder by its splits, as its tables have them.

    Raises:
        DataLayoutError: train.csv is missing, or there is no image.
        LabelFileError: a table cannot be read, or a patient stands in two splits.
    """
    del config  # one split under every scheme
    listing = SourceListing(SOURCE, scan.root)
    paths = index_images(scan, listing, _picture_key, _WANTED)
    used: set[str] = set()
    patients: dict[str, str] = {}
    for table, split in _find_tables(scan).items():
        for row in read_table(scan.root / table, ("Path",), advice=_ADVICE).rows:
            match = _PICTURE.fullmatch(row.get("Path"))
            if match is None:
                detail = f"line {row.line}: Path {row.get('Path')[:60]!r} names no picture of CheXpert"
                listing.report("bad_line", table, detail)
                continue
            key, patient = match[1], match[2]
            if key in used:
                listing.report("duplicate_row", key, f"again in {table}, line {row.line}: counted once")
                continue
            used.add(key)
            if patients.setdefault(patient, split) != split:
                raise LabelFileError(
                    f"{table}, line {row.line}: {patient} stands in {patients[patient]} and in {split}; the "
                    f"release keeps patients together. {_ADVICE}"
                )
            if key not in paths:
                listing.report("absent", key, f"named by {table}, line {row.line}; not in the folder", split)
                continue
            listing.splits.setdefault(split, []).append(_record(row, match, paths[key], listing))
    for key in sorted(paths.keys() - used):
        listing.report("not_listed", paths[key], "in the folder, in no table")
    listing.report_passed_over(scan)
    return listing


def _record(row: Row, match: re.Match[str], path: str, listing: SourceListing) -> ImageRecord:
    is_lateral = match[3] == "lateral"
    cells = {"age_years": row.get("Age"), "sex": row.get("Sex"), "view": row.get("AP/PA")}
    cells["view"] = "LATERAL" if is_lateral else cells["view"]
    age, sex, view = read_person(cells, match[1], listing)
    return ImageRecord(
        image_id=f"{SOURCE.name}/{match[1]}",
        source=SOURCE.name,
        patient_id=f"{SOURCE.name}/{match[2]}",
        path=path,
        labels=read_labels(row, match[1], listing),
        age_years=age,
        sex=sex,
        view=view or "FRONTAL",
    )


def _find_tables(scan: FolderScan) -> Mapping[str, str]:
    """Map each table's path to its split; of test.csv and test_labels.csv the second, which has labels."""
    found: dict[str, str] = {}
    for name in TABLES:
        path = next((path for path in sorted(scan.files) if path.rsplit("/", 1)[-1] == name), None)
        if path is not None:
            found[name] = path
    if "train.csv" not in found:
        raise missing_file(
            SOURCE, scan.files, "train.csv is missing", "it beside train/patient00001/…",
            f"Get CheXpert from {SOURCE.homepage}, or point data_dir at the folder that holds it.",
        )  # fmt: skip
    if "test_labels.csv" in found:
        found.pop("test.csv", None)
    return {path: TABLES[name] for name, path in found.items()}


def _picture_key(path: str) -> str | None:
    """A picture's path from train, valid or test on, without its suffix; None of what is no picture."""
    match = _PICTURE.fullmatch(path)
    return match and match[1]


SOURCE = Source(
    name="CheXpert",
    folder="chexpert",
    list_images=list_images,
    title="CheXpert",
    description="Chest X-rays of Stanford Hospital, 2002 to 2017, frontal and lateral: 224,316 images of "
    "65,240 patients. The training labels were mined from reports by CheXpert's software, not read from the "
    "images; for eight findings they are stored here.",
    license="Stanford University Dataset Research Use Agreement: for research, not to be passed on.",
    homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
    citation='Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert '
    'Comparison", AAAI 2019.',
    label_names=LABELS,
    held_out_splits=("validation", "test"),
    hub_tags=("chest-x-ray",),
    may_be_uploaded=False,
)


class Chexpert(SourceBuilder):
    """Builder of CheXpert; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
