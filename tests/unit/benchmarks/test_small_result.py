"""The small real experiment: its data, its plan, what is skipped, and its tables."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from small_data_files import write_shared
from small_runs import RATES, laboratory, predictions

from benchmarks.small_data import NIH, OWN, RADIOGRAPHY, prepare
from benchmarks.small_plan import (
    CLS_OPTIONS,
    COCKTAIL,
    FULL,
    MAE_OPTIONS,
    PRETRAININGS,
    RANDOM,
    SMOKE,
    best_rate,
    classifier_arm,
    next_rate,
    ordered,
    pretraining_arm,
)
from benchmarks.small_reached import rates_at
from benchmarks.small_score import SPLITS
from benchmarks.small_teacher import ARCHITECTURE, rename
from dataset_scripts.findings import is_exclusive
from medhiera.config.arguments import DataArguments
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.data.build_reports import own_images_origin
from medhiera.data.cocktail import open_cocktail
from medhiera.errors import UserError
from medhiera.evaluation.predictions import Predictions
from medhiera.shipped_files import script


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return prepare(write_shared(folder / "shared"), folder / "data")


def rows_of(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_who_is_held_out_of_the_task_is_held_out_of_the_cocktail(roots):
    task, cocktail = (rows_of(roots[0]), rows_of(roots[1] / OWN))
    assert {row["split"] for row in task.values()} == {"train", "validation", "test"}
    assert {name: row for name, row in cocktail.items() if not name.startswith("jsrt/")} == task
    jsrt = [row for name, row in cocktail.items() if name.startswith("jsrt/")]
    assert len(jsrt) == 2 and all(row["split"] == "train" and row["Pneumonia"] == "" for row in jsrt)


def test_the_official_test_split_stays_and_validation_is_cut_by_patient(roots):
    rows = rows_of(roots[0])
    assert {name for name, row in rows.items() if row["split"] == "test"} == {
        name for name in rows if name.startswith("test/")
    }
    of = {split: {row["patient"] for row in rows.values() if row["split"] == split} for split in SPLITS}
    assert not of["train"] & of["validation"] and not (of["train"] | of["validation"]) & of["test"]
    assert all(row["Pneumonia"] == str(int("PNEUMONIA" in name)) for name, row in rows.items())


def test_both_folders_of_a_source_are_one(roots):
    _, cocktail = roots
    listed = [(cocktail / NIH / f"{name}_list.txt").read_text().split() for name in ("test", "train_val")]
    images = {path.name for path in (cocktail / NIH / "images").iterdir()}
    assert set(listed[0]) | set(listed[1]) == images and not set(listed[0]) & set(listed[1])
    normal = {path.name for path in (cocktail / RADIOGRAPHY / "Normal" / "images").iterdir()}
    assert {"Normal-1.png", "mini-Normal-1.png"} <= normal


def test_the_builder_reads_both(roots, tmp_path):
    for root in roots:
        built = open_cocktail(DataArguments(str(root), str(tmp_path), stored_size=16))
        assert set(SPLITS) <= set(built.rows), root
        if root is roots[0]:
            assert built.names == ["Pneumonia"] and not is_exclusive(built.rows["train"].features)


def test_the_cards_of_what_is_trained_name_each_set_and_its_terms(roots, tmp_path):
    """Of stage 1 both sets of the folder that it reads as your own images."""
    origins = [
        own_images_origin(open_cocktail(DataArguments(str(root), str(tmp_path), stored_size=16)).folder)
        for root in roots
    ]
    assert origins[0].name == "Kermany's chest X-rays of children" and origins[0].license == "cc-by-4.0"
    assert origins[1].name == "Kermany's chest X-rays of children and JSRT's chest radiographs"
    assert origins[1].license.startswith("CC BY 4.0 (Kermany et al. 2018), for research, citing Shiraishi")
    assert "Shiraishi et al. 2000 and van Ginneken et al. 2006 (JSRT)" in origins[1].license


def test_a_sweep_moves_outward_while_the_best_stands_at_its_edge():
    found = {}
    reached = dict(zip(RATES, (0.9, 0.8, 0.7, 0.6, 0.5), strict=True))
    while (rate := next_rate(found, RATES)) is not None:
        found[rate] = reached[rate]
    assert sorted(found) == list(RATES[:4]) and best_rate(found) == RATES[0]
    inner = dict(zip(RATES[1:4], (0.7, 0.8, 0.7), strict=True))
    assert next_rate(inner, RATES) is None and best_rate(inner) == RATES[2]
    assert best_rate(dict.fromkeys(RATES, 0.9)) == RATES[0]  # the lowest of equals
    assert next_rate({}, SMOKE.rates) == 1e-3 and next_rate({1e-3: 0.5}, SMOKE.rates) is None


def test_everything_comes_after_what_it_starts_from_and_the_first_question_first():
    trained, seen = set(), []
    for work in ordered(FULL):
        if work.pretraining is not None:
            trained.add(work.pretraining.name)
            continue
        assert work.contestant.start is None or work.contestant.start in trained
        seen.append((work.contestant.name, work.share.fraction))
    assert trained == set(PRETRAININGS) and len(seen) == len(set(seen))
    assert seen[:2] == [("random", 1.0), ("cocktail", 1.0)]
    few = {fraction: {name for name, share in seen if share == fraction} for fraction in (0.01, 0.1)}
    assert few[0.01] == few[0.1] == {"random", "cocktail", "kermany", "resnet18"}
    assert all(share.seeds >= 3 for share in FULL.shares)


def command(lab, name):
    each = PRETRAININGS[name]
    data = lab.cocktail if each.is_cocktail else lab.task
    return lab.runner(data).command(pretraining_arm(each, FULL, lab.teacher), 0)


def test_the_guard_is_off_for_the_leak_alone(tmp_path):
    lab = laboratory(tmp_path)
    allowed = {name for name in PRETRAININGS if "--allow_leakage" in command(lab, name)}
    assert allowed == {"leak"}
    steps = {name: value_of(command(lab, name), "--max_steps") for name in PRETRAININGS}
    assert {value for name, value in steps.items() if name != "none"} == {str(FULL.mae_steps)}
    assert value_of(command(lab, "kermany"), "--data_dir") == str(lab.task)
    assert value_of(command(lab, "features"), "--teacher") == "TEACHER"


@pytest.mark.parametrize("budget", [FULL, SMOKE])
def test_the_scripts_take_every_command_of_the_plan(tmp_path, budget):
    """Parsed as the scripts do, all faults at once: not found an hour into the runs."""
    lab = laboratory(tmp_path, budget)
    for folder in (lab.task, lab.cocktail):
        folder.mkdir()
    rates = set()
    for work in ordered(budget):
        if work.pretraining is not None:
            arm, kind = pretraining_arm(work.pretraining, budget, lab.teacher), MAEArguments
        else:
            arm, kind = classifier_arm(work.contestant, work.share, 3e-3), ClassificationArguments
        start = work.contestant and work.contestant.start
        command = lab.runner(lab.task, start).command(arm, 1)
        if "--model_name_or_path" in command:  # what would have been trained before
            Path(command[command.index("--model_name_or_path") + 1]).mkdir(parents=True, exist_ok=True)
        config = parse_config(kind, command[command.index(script(arm.script)) + 1 :])
        if kind is ClassificationArguments:
            rates.add(config.training.learning_rate)
            assert not config.stage.score_test and not config.training.load_best_model_at_end
            assert config.stage.label_fraction == work.share.fraction
            assert config.stage.bootstrap_resamples == 0
        assert config.training.use_cpu
    assert rates == {3e-3}


def test_the_recipes_for_everyone_have_the_lengths_and_rates_of_the_experiment(tmp_path):
    """configs/mae_small.yaml and cls_small.yaml, without the options that the plan adds."""
    words = ["--data_dir", "d", "--output_dir", str(tmp_path)]
    mae = parse_config(MAEArguments, [MAE_OPTIONS[0], *words])
    assert (mae.training.max_steps, mae.training.learning_rate) == (FULL.mae_steps, FULL.mae_rate)
    cls, share = parse_config(ClassificationArguments, [CLS_OPTIONS[0], *words]), FULL.shares[0]
    assert (cls.training.max_steps, cls.training.per_device_train_batch_size) == (share.steps, share.batch)
    assert cls.training.learning_rate in RATES
    assert cls.stage.score_test and cls.stage.bootstrap_resamples > 0
    encoder = {name: mae.model.model_overrides[name] for name in ("embed_dim", "depths")}
    assert cls.model.model_overrides == encoder and cls.data.image_size == mae.data.image_size


def value_of(words, name):
    return words[words.index(name) + 1]


def test_a_share_of_the_labels_is_drawn_by_the_seed_and_the_same_for_every_contestant(tmp_path):
    lab, share = laboratory(tmp_path), FULL.shares[1]
    for contestant in (RANDOM, COCKTAIL):
        runner = lab.runner(lab.task, contestant.start)
        words = runner.command(classifier_arm(contestant, share, 1e-3), 2)
        assert value_of(words, "--label_fraction") == "0.1" and value_of(words, "--seed") == "2"
        assert ("--model_name_or_path" in words) == (contestant is COCKTAIL)
    assert value_of(words, "--model_name_or_path") == str(tmp_path / "mae-cocktail" / "seed0")
    whole = lab.runner(lab.task).command(classifier_arm(RANDOM, FULL.shares[0], 1e-3), 2)
    assert "--label_fraction" not in whole


def test_the_teacher_has_the_packages_tensors_under_timms_names():
    torch.manual_seed(0)
    stock = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    renamed = rename({f"_other.{number}": tensor for number, tensor in enumerate(stock.values())})
    assert renamed.keys() == stock.keys()
    assert all(torch.equal(renamed[name], stock[name]) for name in stock)
    with pytest.raises(UserError, match="1 tensors that are not"):
        rename({"one": torch.zeros(1)})


def test_the_threshold_is_validations():
    validation, test = predictions(0, 8.0), predictions(1, 8.0)
    shifted = Predictions(test.scores * 1e-3, test.labels, test.finding_names, test.patient_ids, test.rows)
    accuracy, sensitivity, specificity = rates_at(validation, test)
    assert accuracy > 0.9 and accuracy == pytest.approx((sensitivity + specificity) / 2)
    assert rates_at(validation, shifted) == (0.5, 0.0, 1.0)  # calibrated otherwise: nothing is called present


def test_smoke_has_everything_that_the_full_budget_has():
    def kinds(budget):
        return {
            (work.pretraining and work.pretraining.name, work.contestant and work.contestant.name)
            for work in ordered(budget)
        }

    assert kinds(SMOKE) == kinds(FULL)
