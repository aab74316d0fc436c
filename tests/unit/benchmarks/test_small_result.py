"""The small real experiment: whoever is held out of the task is held out of its pre-training."""

import csv
from argparse import Namespace
from dataclasses import replace

import pytest
from stage_records import SOME_REPORT, classification_record

from benchmarks.small_result import COUNTED, NIH, arms_of, prepare, report, runner_of, with_interval
from dataset_scripts.phantom.cohort import write_phantom_cohort


def patients_of(root):
    """Patient of each image, and the names of the test list."""
    with next((root / NIH).glob("Data_Entry*.csv")).open(newline="") as file:
        patients = {row["Image Index"]: row["Patient ID"] for row in csv.DictReader(file)}
    return patients, (root / NIH / "test_list.txt").read_text().split()


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, seed in (("task", 0), ("cocktail", 1)):
        write_phantom_cohort(folder / name, patients=40, image_size=32, seed=seed)
    return folder, *prepare(folder / "task", folder / "cocktail", folder / "runs", seed=0)


def test_who_is_held_out_of_the_task_is_held_out_of_the_cocktail(roots):
    _, task, cocktail = roots
    patients, tested = patients_of(task)
    assert 0.2 < len(tested) / len(patients) < 0.5
    held_out = {patients[name] for name in tested}
    trained = {patients[name] for name in (task / NIH / "train_val_list.txt").read_text().split()}
    assert not held_out & trained
    others, held_back = patients_of(cocktail)
    assert set(patients) <= set(others)
    assert {name for name, patient in others.items() if patient in held_out} <= set(held_back)
    assert len(held_back) > len(tested)  # validation's patients too
    assert {each.name for each in cocktail.iterdir()} > {NIH, "COVIDx_CXR"}


def test_another_seed_tests_other_patients(roots):
    folder, task, _ = roots
    other, _ = prepare(folder / "task", folder / "cocktail", folder / "runs", seed=1)
    assert patients_of(task)[1] != patients_of(other)[1]


def test_the_report_pairs_by_seed(tmp_path):
    options = Namespace(output_dir=tmp_path, image_size=96)
    runner, arms = runner_of(options, "paper", tmp_path), arms_of(4, 4, tmp_path)
    reached = {"random": (0.5, 0.6), "nih": (0.6, 0.7), "cocktail": (0.5, 0.7), "resnet18": (0.4, 0.4)}
    for name, values in reached.items():
        for seed, value in enumerate(values):
            folder = runner.folder(name, seed)
            folder.mkdir(parents=True)
            score = replace(SOME_REPORT.findings["Edema"], auroc=value)
            evaluation = replace(SOME_REPORT, findings=dict.fromkeys(COUNTED, score))
            classification_record(evaluation).write(folder)
            (folder / "README.md").write_text("done")
    text = report({"paper": runner}, arms, [0, 1])
    assert "| paper | Hiera, MAE on ChestX-ray14 |" in text and "| 0.100 (0.100 to 0.100) |" in text
    assert with_interval([0.0, 0.1]) in text  # the cocktail's differences
    assert text.count("| – |") == 1


def test_an_interval_over_seeds_is_students():
    assert with_interval([0.1, 0.2, 0.3]) == "0.200 (-0.048 to 0.448)"  # t(2) = 4.303
