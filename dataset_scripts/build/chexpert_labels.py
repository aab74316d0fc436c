"""The labels that CheXpert's software mines from reports, as its tables write them, in our findings.

Beside label_rows.py; chexpert.py and mimic_cxr.py read their tables with it.
"""

import re

from dataset_scripts.build.label_rows import parse_label
from dataset_scripts.build.records import SourceListing
from dataset_scripts.build.tables import Row
from dataset_scripts.findings import FINDINGS, NOT_ANNOTATED

_COLUMNS = {name: name for name in FINDINGS} | {"Effusion": "Pleural Effusion"}
"""The column that a finding may have."""

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "No Finding", "Pneumonia",
          "Pneumothorax")  # fmt: skip
"""The findings that these tables have."""

_CONDITIONS = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture".split(",")
)
"""All columns of a finding; the tables' other two are No Finding and Support Devices."""

_UNCERTAIN = re.compile(r"-1(?:\.0*)?")


def read_labels(row: Row, name: str, listing: SourceListing) -> tuple[float, ...]:
    """Return the labels of a row: 1 present, 0 absent, NaN uncertain (-1), not mentioned or no column.

    The software writes 1 or nothing for No Finding: where that is empty and a condition is present, it is 0.

    Args:
        row: of a table in CheXpert's form.
        name: of the image or study, for the report.
        listing: what is no label is reported there, and not annotated.
    """
    return tuple(_label(row, finding, name, listing) for finding in FINDINGS)


def _label(row: Row, finding: str, name: str, listing: SourceListing) -> float:
    word = row.get(_COLUMNS[finding])
    is_left_empty = finding == "No Finding" and row.cells.get(finding) == ""
    if is_left_empty and any(parse_label(row.get(name)) == 1 for name in _CONDITIONS):
        return 0.0
    if _UNCERTAIN.fullmatch(word):
        return NOT_ANNOTATED
    label = parse_label(word)
    if label is None:
        detail = f"line {row.line}: {finding} is {word!r}: not annotated"
        listing.report("unknown_finding", name, detail)
        return NOT_ANNOTATED
    return label
