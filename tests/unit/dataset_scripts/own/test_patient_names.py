"""Patients by the names of files: Kermany's rule, one for numbered images, and where neither counts."""

import csv
from pathlib import Path

import pytest

from dataset_scripts.own.patient_names import patients_by_name


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person100_bacteria_475.jpeg", "person100_bacteria"),
        ("person447_virus_921_1.jpeg", "person447_virus"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0007-0001.jpeg", "NORMAL2-IM-0007"),
        ("00000013_005.png", "00000013"),
        ("CXR12-3.dcm", "CXR12"),
        ("CHNCXR_0001_0.png", "CHNCXR_0001"),
    ],
)
def test_a_name_says_whose_image_it_is(name: str, patient: str) -> None:
    assert patients_by_name([name]).patients == {name: patient}


@pytest.mark.parametrize(
    "form", ["img_{}.png", "{}.png", "scan{}.png", "Normal-{}.png", "COVID-19_{:04}.png"]
)
def test_numbers_that_count_images_are_no_patients(form: str) -> None:
    found = patients_by_name([form.format(index) for index in range(300)])
    assert found.patients == {} and found.rule == ""


def test_a_few_odd_names_are_their_own_patients() -> None:
    names = [f"p{index}_{film}.png" for index in range(50) for film in range(2)]
    found = patients_by_name([*names, "lateral.png"])
    assert len(set(found.patients.values())) == 50 and "lateral.png" not in found.patients
    assert found.rule == "all before the last number"
    assert patients_by_name([*names, *(f"film{index}.png" for index in range(50))]).rule == ""


@pytest.mark.realdata
def test_kermanys_patients_are_those_of_its_index(kermany_folder: Path) -> None:
    with (kermany_folder.parent / "index.csv").open(encoding="utf-8") as file:
        wanted = {Path(row["path"]).name: row["patient"] for row in csv.DictReader(file)}
    assert len(wanted) == 5856
    assert patients_by_name(list(wanted)).patients == wanted
