"""Columns of a dataset beside its images: findings by a table's rule, and what is not read is named."""

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from test_dataset_rows import KINDS, build, rows, table_lines

from dataset_scripts import label_names
from dataset_scripts.__main__ import main
from dataset_scripts.build.build_log import note_lines
from dataset_scripts.errors import LabelFileError
from dataset_scripts.image_folder import NOT_NAMED
from dataset_scripts.own.dataset_rows import extract_dataset
from dataset_scripts.own.labels import Columns

INT, TEXT = datasets.Value("int64"), datasets.Value("string")


def lines(place: Path, columns: Columns = NOT_NAMED, **splits: datasets.Dataset) -> list[str]:
    datasets.DatasetDict(splits).save_to_disk(place / "saved")
    return table_lines(extract_dataset(str(place / "saved"), "", columns, place / "out").folder)


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "float32", "string"])
def test_columns_of_1_and_0_are_findings_as_in_a_table(tmp_path: Path, kind: str) -> None:
    cells: list[Any] = {"bool": [True, False, None], "string": ["1", "0", ""]}.get(kind, [1, 0, None])
    device = (datasets.Value(kind), cells)
    part = rows(30, Device=device, who=(TEXT, [f"p{n}" for n in range(10)]), Note=(TEXT, ["a film"]))
    part.save_to_disk(tmp_path / "saved")
    built = build(tmp_path / "saved", tmp_path, Columns(patient="who"))
    assert label_names(built["train"].features) == ["Device"]
    every = [row["labels"][0] for split in built.values() for row in split]
    assert (every.count(1.0), every.count(0.0), sum(map(math.isnan, every))) == (10, 10, 10)


def test_all_that_is_not_read_is_named_with_its_type_and_the_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = rows(
        30, Person=(TEXT, [f"p{n}" for n in range(10)]), diagnosis=(TEXT, ["sick", "well"]),
        stage=(INT, [0, 1, 2]), boxes=(datasets.List(INT), [[1]]), age=(INT, [50]),
    )  # fmt: skip
    datasets.DatasetDict(train=part).save_to_disk(tmp_path / "saved")
    assert main(["--data_dir", f"{tmp_path / 'saved'}", "--output_dir", f"{tmp_path / 'built'}"]) == 0
    assert "its images have no labels" in caplog.text
    assert "labels: none" in caplog.text and "Atelectasis" not in caplog.text
    (said,) = [line for line in note_lines(tmp_path / "built") if "are not read" in line]
    assert "'Person (string)', 'diagnosis (string)', 'stage (int64)', 'boxes (List)'" in said
    assert "named by --label_column" in said and "--patient_column Person" in said and "'age" not in said


def test_beside_a_class_columns_of_1_and_0_are_named_and_not_read(tmp_path: Path) -> None:
    part = rows(30, kind=(KINDS, [0, 1]), Device=(INT, [1, 0, 0]))
    part.save_to_disk(tmp_path / "saved")
    built = build(tmp_path / "saved", tmp_path)
    assert label_names(built["train"].features) == KINDS.names
    (said,) = [line for line in note_lines(Path(built["train"].cache_files[0]["filename"]).parent)
               if "are not read" in line]  # fmt: skip
    assert "'Device (int64)'" in said


def test_a_number_that_is_another_in_any_split_is_no_finding(tmp_path: Path) -> None:
    train, test = rows(4, fold=(INT, [0, 1]), Edema=(INT, [1])), rows(2, fold=(INT, [2]), Edema=(INT, [None]))
    assert lines(tmp_path, train=train, test=test)[:2] == ["image,Edema", "train/0000000.png,1"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"Edema": (INT, [1, 0, -1])}, {"Edema": (INT, [1])}, "'Edema' holds -1.*as in CheXpert, empty"),
        ({"Edema": (INT, [1, 0])}, {}, r"'Edema' holds 1 and 0 in \['train'\], and \['test'\] lacks it"),
        (
            {"labels": (datasets.List(datasets.Value("float64")), [[1.0, 0.0]])},
            {"labels": (datasets.List(datasets.Value("float64")), [[1.0, 0.0]])},
            r"holds numbers \(float64\); wanted classes. .*a column of 1 and 0 for each.*--label_column",
        ),
    ],
)
def test_findings_that_cannot_be_meant(
    tmp_path: Path, train: dict[str, Any], test: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabelFileError, match=message):
        lines(tmp_path, train=rows(3, **train), test=rows(2, **test))


def test_subjects_are_patients_and_a_second_such_column_is_no_label(tmp_path: Path) -> None:
    part = rows(2, **{"Subject ID": (TEXT, ["a"]), "Edema": (INT, [1, 0])})
    assert lines(tmp_path / "a", train=part)[1] == "train/0000000.png,a,1"
    two = part.add_column("mrn", [0, 1])
    with pytest.raises(LabelFileError, match=r"\['Subject ID', 'mrn'\] may each hold the patient; name one"):
        lines(tmp_path / "b", train=two)
    assert lines(tmp_path / "c", Columns(patient="mrn"), train=two)[:2] == [
        "image,patient,Edema",
        "train/0000000.png,0,1",
    ]
