"""The labels experiment: what each arm is given, and what its report and figure say."""

import argparse
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stage_records import classification_record

import reproduce
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.predictions import Predictions
from medhiera.experiments.label_share import DEFAULT_SHARES, LabelShare
from medhiera.experiments.labels import arms_of_shares, encoder_shape
from medhiera.experiments.labels_report import FIGURE, labels_report
from medhiera.experiments.runner import ExperimentRunner
from medhiera.shipped_files import script
from modeling_hiera_mae import HieraMAEConfig

IMAGES = 300


@pytest.fixture
def stage1(tmp_path):
    """A checkpoint's config.json, of a geometry that no recipe has."""
    return write_config(tmp_path / "stage1", embed_dim=16, depths=[1, 2, 1, 1])


def write_config(folder, **fields):
    config = HieraMAEConfig.from_size("tiny", position_interpolation="windowed", **fields)
    config.save_pretrained(folder)
    return str(folder)


def words_of(runner, arm, seed=0):
    command = runner.command(arm, seed)
    return command[command.index(script(arm.script)) + 1 :]


def test_the_arms_of_a_share_differ_in_their_start_alone(stage1, tmp_path):
    budget = reproduce.script_arguments(
        reproduce.LABEL_BUDGETS["paper"], reproduce.FROM_STAGE0, [], ["RSNA Pneumonia"], "map.csv"
    )
    runner = ExperimentRunner(tmp_path, "DATA", None, budget, stage1)
    by_share = arms_of_shares(DEFAULT_SHARES, {"stage1": stage1}, budget["train_cls.py"], True)
    assert [(share.fraction, share.seeds) for share in by_share] == [(0.01, 5), (0.1, 3), (1.0, 1)]
    expected = {0.01: (300, 16), 0.1: (100, 64), 1.0: (30, 128)}
    for share, arms in by_share.items():
        assert [arm.script for arm in arms] == ["train_cls.py", "evaluate_cls.py"] * 2
        random, own = (parse_config(ClassificationArguments, words_of(runner, arm)) for arm in arms[::2])
        assert (random.model.model_name_or_path, own.model.model_name_or_path) == (None, stage1)
        for name in ("data", "augmentation", "optimization", "stage"):
            assert getattr(random, name) == getattr(own, name)
        assert own.stage.label_fraction == share.fraction and own.data.sources == ["RSNA Pneumonia"]
        length = own.training.num_train_epochs, own.training.per_device_train_batch_size
        assert length == expected[share.fraction]
        shape = HieraMAEConfig.from_size(random.model.model_size, **random.model.model_overrides)
        loaded = HieraMAEConfig.from_pretrained(stage1)
        for name in encoder_shape(stage1):
            assert getattr(shape, name) == getattr(loaded, name), name
        for arm in arms[1::2]:
            words = " ".join(words_of(runner, arm))
            assert "--sources RSNA Pneumonia --nih_mapping map.csv" in words


def test_the_users_own_length_wins_over_a_shares(stage1):
    words = ["--max_steps", "7", "--per_device_train_batch_size=8"]
    arms = arms_of_shares([LabelShare(0.01, 1)], {"stage1": stage1}, words, True)
    assert "--num_train_epochs" not in str(arms) and "train_batch_size" not in str(arms)


def test_starts_of_different_shapes_are_not_compared(stage1, tmp_path):
    other = write_config(tmp_path / "other", embed_dim=32, depths=[1, 2, 1, 1])
    with pytest.raises(UserError, match=r"--stage0 and --stage1 .* different shapes \(embed_dim\)"):
        arms_of_shares(DEFAULT_SHARES, {"stage0": other, "stage1": stage1}, [], True)
    same = {"stage0": stage1, "stage1": stage1}
    names = [arm.name for arm in arms_of_shares([LabelShare(0.1, 1)], same, [], True)[LabelShare(0.1, 1)]]
    assert names[::2] == ["cls-random-0.1", "cls-stage0-0.1", "cls-stage1-0.1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name its folder by --stage1"),
        (["--stage1", "S", "--seeds", "3"], "--label_shares 0.01:5; leave --seeds out"),
        (["--stage1", "S", "--label_shares", "0.1:1", "0.1:2"], "names 0.1 twice"),
        (["--stage1", "S", "--", "--label_fraction", "0.1"], "sets --label_fraction itself"),
    ],
)
def test_options_that_labels_cannot_have(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        reproduce.main(["labels", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), *words])


@pytest.mark.parametrize("text", ["0.1", "0:5", "1.5:1", "0.1:0", "a:1", "nan:1"])
def test_a_share_needs_its_seeds(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"such as 0\.01:5"):
        LabelShare.parse(text)


def write_run(runner, name, seed, shift):
    """A finished run: scores that share the patients' noise; `shift` is how far the sick stand above."""
    labels = (np.arange(IMAGES) % 3 == 0).astype(np.float64)[:, None]
    logits = np.random.default_rng(0).normal(size=(IMAGES, 1)) + shift * labels
    logits += 0.05 * np.random.default_rng(1 + seed).normal(size=(IMAGES, 1))
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(IMAGES)],
            "patient_id": [f"p{n // 2}" for n in range(IMAGES)],
            "sex": None, "age_years": np.nan, "view": None,
        }
    )  # fmt: skip
    for folder in (runner.folder(f"cls-{name}", seed), runner.folder(f"test-{name}", seed)):
        folder.mkdir(parents=True)
    scores = 1 / (1 + np.exp(-logits))
    predictions = Predictions(scores, labels, ["Pneumonia"], rows["patient_id"].tolist(), rows)
    predictions.table().to_parquet(runner.folder(f"test-{name}", seed) / "predictions.parquet")
    fraction = float(name.split("-")[1])
    record = classification_record(trained_on={"RSNA Pneumonia": round(20_000 * fraction) + seed})
    record.write(runner.folder(f"cls-{name}", seed))
    (runner.folder(f"cls-{name}", seed) / "README.md").write_text("card")


def test_the_report_tells_seeds_patients_and_verdicts(tmp_path):
    shares = [LabelShare(0.01, 5), LabelShare(0.1, 3), LabelShare(1.0, 1)]
    runner = ExperimentRunner(tmp_path, "DATA", None, {}, "S")
    reached = {"random": (0.3, 0.8, 1.5), "stage1": (1.2, 0.8, 1.9)}
    for start, shifts in reached.items():
        for share, shift in zip(shares, shifts, strict=True):
            for seed in range(share.seeds):
                write_run(runner, f"{start}-{share.fraction:g}", seed, shift + 0.02 * (seed - 1))
    report = labels_report(runner, shares, ["random", "stage1"], "RSNA Pneumonia", "a note", Bootstrap(200))
    rows = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| ")]
    few = next(row for row in rows if row[0] == "1 %" and row[2] == "stage 1")
    assert few[1] == "200 to 204" and few[3] == "5" and few[4].count(" to ") == few[5].count(" to ") == 1
    whole = next(row for row in rows if row[0] == "100 %" and row[2] == "random")
    assert whole[1] == "20,000" and "to" not in whole[4] and " to " in whole[5]
    verdicts = {(row[0], row[2]): row[-1] for row in rows if row[1] == "stage 1 − random"}
    assert verdicts["1 %", "AUROC"] == verdicts["1 %", "average precision"] == "better"
    assert verdicts["10 %", "AUROC"] == "undecided"
    assert verdicts["100 %", "AUROC"] == "undecided"  # one seed
    assert "**a note**" in report and "Pneumonia: 300 test images of 150 patients" in report
    with Image.open(tmp_path / FIGURE) as picture:
        assert min(picture.size) > 200


def test_the_command_runs_five_seeds_at_one_percent_unless_told_otherwise(stage1, tmp_path, caplog):
    """Every run of the plan is there already, so that each is named and none is trained."""
    output = tmp_path / "out"
    words = ["labels", "--data_dir", str(tmp_path), "--output_dir", str(output), "--stage1", stage1]
    options, arguments = reproduce.read_options(words)
    options.task_sources = reproduce.SOURCES
    reproduce.check_settings(output, options, arguments)
    runner = ExperimentRunner(output, str(tmp_path), None, {}, stage1)
    plan = {"0.01": 5, "0.1": 3, "1": 1}
    for share, seeds in plan.items():
        for seed in range(seeds):
            for start in ("random", "stage1"):
                write_run(runner, f"{start}-{share}", seed, 1.0)
                (runner.folder(f"test-{start}-{share}", seed) / "metrics.json").write_text("{}")
    with caplog.at_level("INFO"):
        reproduce.main(words)
    named = re.findall(r"cls-stage1-([\d.]+), seed (\d+)", caplog.text)
    assert named == [(share, str(seed)) for share, seeds in plan.items() for seed in range(seeds)]
    assert caplog.text.count("finished before, skipped") == 2 * 2 * 9
    [row] = re.findall(r"\| 1 % \|.*\| random \| (\d) \|", (output / "report.md").read_text())
    assert row == "5"


def test_settings_hold_the_start_and_the_mapping_and_shares_may_grow(stage1, tmp_path):
    def pin(*words):
        options, arguments = reproduce.read_options(
            ["labels", "--data_dir", "D", "--output_dir", str(tmp_path / "out"), *words]
        )
        reproduce.check_settings(tmp_path / "out", options, arguments)

    pin("--stage1", stage1, "--nih_mapping", "map.csv")
    log = tmp_path / "out" / "cls-random-0.1" / "seed0" / "training_log.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step\n")
    pin("--stage1", stage1, "--nih_mapping", "map.csv", "--label_shares", "0.01:9")
    with pytest.raises(UserError, match="stage1 was"):
        pin("--stage1", "elsewhere", "--nih_mapping", "map.csv")
    assert json.loads((tmp_path / "out" / "experiment.json").read_text())["nih_mapping"] == "map.csv"


def test_a_test_split_of_one_label_value_is_refused(tmp_path):
    runner = ExperimentRunner(tmp_path, "DATA", None, {}, "S")
    write_run(runner, "random-1", 0, 1.0)
    file = runner.folder("test-random-1", 0) / "predictions.parquet"
    table = pd.read_parquet(file)
    table["Pneumonia (label)"] = 0.0
    table.to_parquet(file)
    with pytest.raises(UserError, match="no finding of X is both present and absent"):
        labels_report(runner, [LabelShare(1.0, 1)], ["random"], "X", "", Bootstrap(5))
