"""The column of patients of a table by its usual names, and what is said of one with another name."""

from pathlib import Path

import pytest
from raw_folders import gray

from dataset_scripts import ImageFolder
from dataset_scripts.build.build_log import note_lines
from dataset_scripts.errors import LabelFileError

COUNT = 60


def table(root: Path, who: str, patient: str = "p{:04d}", **more: str) -> Path:
    """Sixty images of twenty patients, and the column that says so."""
    root.mkdir()
    rows = [",".join(["image", who, *more, "label"])]
    for n in range(COUNT):
        gray(n, 24).save(root / f"{n}.png")
        cells = [f"{n}.png", patient.format(n // 3), *more.values(), "ab"[n % 2]]
        rows.append(",".join(cells))
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def patients(root: Path, **options: str) -> set[str]:
    builder = ImageFolder(data_dir=root, build_dir=root.parent / "cache", **options)
    (listing,) = builder.list_records(None)
    return {record.patient_id for part in listing.splits.values() for record in part}


@pytest.mark.parametrize(
    "who", ["subject_id", "MRN", "Subject ID", "subject", "person_id", "participant-id", "PatientID"]
)
def test_what_can_only_mean_the_patient_is_read_as_it(tmp_path: Path, who: str) -> None:
    assert len(patients(table(tmp_path / "own", who))) == 20


@pytest.mark.parametrize(
    ("who", "patient"),
    [("case_no", "x{}"), ("Person", "{}"), ("code", "A-{:03d}"), ("research_id", "{:05d}")],
)
def test_a_column_that_may_name_the_person_gets_its_option(tmp_path: Path, who: str, patient: str) -> None:
    root = table(tmp_path / "own", who, patient)
    with pytest.raises(
        LabelFileError,
        match=f"If '{who}' names the person, add --patient_column {who}. If 'label' names each image's one "
        "class, add --label_column label",
    ):
        patients(root)
    assert len(patients(root, patient_column=who)) == 20


def test_what_a_column_of_classes_passes_over_is_named_in_log_and_report(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "case_no", "x{}", note="a film")
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache", label_column="label")
    builder.download_and_prepare()
    (said,) = [line for line in note_lines(Path(builder.cache_dir)) if "not read" in line]
    assert "labels.csv: the columns ['case_no', 'note'] are not read" in said
    assert "If 'case_no' names the person, add --patient_column case_no" in said


def test_where_a_patient_is_known_no_other_is_offered(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "patient", case="x1")
    with pytest.raises(LabelFileError) as refused:
        patients(root)
    assert "--patient_column" not in str(refused.value)
    two = table(tmp_path / "two", "mrn", patient_id="p")
    with pytest.raises(LabelFileError, match="mean the same"):
        patients(two)
    assert len(patients(two, patient_column="mrn", label_column="label")) == 20
