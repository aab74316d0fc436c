"""Patients who stand in training and in a split that is held out."""

from datasets import Dataset

from medhiera.data.cocktail import shared_patients


def test_patients_on_both_sides_are_counted() -> None:
    def rows(*patients: str) -> Dataset:
        return Dataset.from_dict({"patient_id": list(patients)})

    used = {"trained_on": rows("a", "a", "b"), "validated_on": rows("b", "c"), "tested_on": rows("d")}
    assert shared_patients(used) == {"validated_on": 1}
