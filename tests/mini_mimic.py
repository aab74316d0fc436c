"""Writes MIMIC-CXR-JPG's folder as PhysioNet has it, of drawn pictures: no real report is known here."""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

METADATA = ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows")

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is a small left
 pleural effusion.  No pneumothorax.

 IMPRESSION:

 Small left pleural effusion.
"""


class MimicFolder:
    """A folder of the set; `add` draws one image of a study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata: list[Sequence[object]] = []
        self.splits: list[Sequence[object]] = []
        root.mkdir(parents=True)

    def study(self, patient: int, study: int) -> Path:
        """Where a study's images lie; its report lies beside, with .txt."""
        return self.root / "files" / f"p{str(patient)[:2]}" / f"p{patient}" / f"s{study}"

    def add(
        self, name: str, patient: int, study: int, view: str, split: str, picture: Image.Image | None = None
    ) -> None:
        place = self.study(patient, study) / f"{name}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if picture is None:
            place.touch()  # a listing opens none
        else:
            picture.save(place, quality=95)
        self.metadata.append((name, patient, study, "CHEST (PA AND LAT)", view, 64))
        self.splits.append((name, study, patient, split))

    def report(self, patient: int, study: int, text: str = REPORT) -> None:
        place = self.study(patient, study).with_suffix(".txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        (self.root / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))

    def finish(self) -> Path:
        """Write the two tables that every download has."""
        self.table("metadata", METADATA, self.metadata)
        self.table("split", ("dicom_id", "study_id", "subject_id", "split"), self.splits)
        return self.root
