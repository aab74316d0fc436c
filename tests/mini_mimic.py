"""Writes MIMIC-CXR-JPG's folder as PhysioNet has it, of drawn pictures: no real report is known here."""

import csv
import gzip
import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from dataset_scripts.mimic_cxr import SOURCE
from dataset_scripts.phantom.reports import write_phantom_reports

FOLDER = SOURCE.folder

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


def write_phantom_mimic(data_dir: Path, *, studies: int, image_size: int) -> Path:
    """Phantom studies in MIMIC-CXR-JPG's layout: their pictures and reports, as its files have them.

    Nothing marks the folder as phantoms, so that its texts are handled as those of patients.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        write_phantom_reports(Path(elsewhere), studies=studies, image_size=image_size)
        iu = Path(elsewhere) / "iu_xray"
        with (iu / "indiana_reports.csv").open(newline="") as file:
            reports = list(csv.DictReader(file))
        views: dict[str, list[dict[str, str]]] = {}
        with (iu / "indiana_projections.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                views.setdefault(row["uid"], []).append(row)
        found = {path.name: path for path in iu.rglob("*.png")}
        mimic = MimicFolder(data_dir / FOLDER)
        for number, report in enumerate(reports):
            patient, study = 10_000_000 + number, 50_000_000 + number
            split = ("train", "train", "train", "validate", "test")[number % 5]
            for row in views[report["uid"]]:
                view = "PA" if row["projection"] == "Frontal" else "LATERAL"
                with Image.open(found[row["filename"]]) as picture:
                    mimic.add(Path(row["filename"]).name.split(".")[0], patient, study, view, split, picture)
            findings = report["findings"].replace(". ", ".  ").replace("XXXX", "___")
            text = f" INDICATION:  {report['indication']}\n\n FINDINGS:\n\n {findings}\n\n"
            mimic.report(
                patient, study, f"{'FINAL REPORT':>45}\n{text} IMPRESSION:\n\n {report['impression']}\n"
            )
        return mimic.finish()
