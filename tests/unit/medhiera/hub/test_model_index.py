"""No number stands in the card's metadata that the card's text takes back."""

from dataclasses import replace

import pytest
from stage_records import CLEAN, check_metadata

from medhiera.hub.model_card import render_card
from medhiera.hub.record import StageLeakage
from medhiera.hub.teachers import TeacherRecord


def index(record):
    return check_metadata(render_card(record, [])).get("model-index")


def titles(record):
    return {metric["name"]: metric["value"] for metric in index(record)[0]["results"][0]["metrics"]}


def test_a_result_is_of_one_data_set(record):
    assert index(record)
    record.data.tested_on = {"ChestX-ray14": 214, "COVIDx CXR-3": 24}
    assert index(record) is None
    assert "Tested on: ChestX-ray14 214, COVIDx CXR-3 24 images" in render_card(record, [])


def test_scores_that_nothing_serves_are_no_result(record):
    record.recipe["legacy_head"] = False
    assert index(record)
    record.recipe["legacy_head"] = True
    assert index(record) is None


def leak_here(record):
    record.data.leakage = replace(CLEAN, allowed=25)


def leak_before(record):
    record.lineage.leakage_before = [StageLeakage(**vars(replace(CLEAN, allowed=25)))]


def seen_before_the_stage_before(record):
    record.lineage.leakage_before = [StageLeakage(**vars(replace(CLEAN, seen_before={"test": 80})))]


def not_compared_with_the_stage_before(record):
    record.recipe["allow_leakage"] = True


def shared_patients(record):
    record.data.shared_patients = {"tested_on": 3}


def lists_that_leak(record):
    record.data.split_scheme = "mrm"
    record.data.trained_on = {"ChestX-ray14": 1000, "RSNA Pneumonia": 1000}


def teacher_that_has_seen_them(record):
    record.lineage.teachers = [TeacherRecord("org/rad-dino", "dinov2", "0a", "mit", None, saw_test=True)]


@pytest.mark.parametrize(
    "change",
    [leak_here, leak_before, seen_before_the_stage_before, not_compared_with_the_stage_before,
     shared_patients, lists_that_leak, teacher_that_has_seen_them],
)  # fmt: skip
def test_scores_that_are_too_high_are_no_result(record, change):
    assert index(record)
    change(record)
    assert index(record) is None


def test_patients_shared_with_validation_leave_the_test_scores(record):
    record.data.shared_patients = {"validated_on": 3}
    assert index(record)


def test_a_result_says_of_what_it_is_the_mean(record):
    evaluation = record.evaluation  # Hernia has no positive image
    assert list(titles(record)) == [
        "mean AUROC of 2 of 3 findings", "AUROC of Edema", "mean average precision of 2 of 3 findings",
    ]  # fmt: skip
    edema = evaluation.findings["Edema"]
    one = {"Edema": edema}
    record.evaluation = replace(
        evaluation, findings=one, findings_in_mean=["Edema"], mean_auroc=edema.auroc,
        mean_average_precision=edema.average_precision,
    )  # fmt: skip
    assert titles(record) == {
        "AUROC of Edema": round(edema.auroc, 4),
        "average precision of Edema": round(edema.average_precision, 4),
    }
    both = {"Edema": edema, "Mass": edema, "Pleural_Thickening": edema}
    record.evaluation = replace(evaluation, findings=both, findings_in_mean=list(both))
    assert list(titles(record))[0] == "mean AUROC of 3 findings"


def test_a_card_says_that_a_split_leaks(record):
    assert "leaks**" not in render_card(record, []) and "**Patients leak" not in render_card(record, [])
    record.data.shared_patients = {"validated_on": 1234}
    card = render_card(record, [])
    assert "1,234 patients whose images this stage validated on have others among its training images" in card
    record.data.split_scheme = "mrm"
    assert "leaks**" not in render_card(record, [])  # of ChestX-ray14, which that scheme leaves alone
    record.data.trained_on = {"RSNA Pneumonia": 25184}
    assert "1,055 are of patients in their training list" in render_card(record, [])
