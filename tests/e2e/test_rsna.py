"""RSNA from its raw layout to a scored, published classifier, with few labels, on real pictures."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from mini_rsna import write_mrm_lists, write_real_rsna
from warm_python import warm_python

from dataset_scripts.rsna_pneumonia import SOURCE
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import open_cocktail
from medhiera.data.stored_images import as_picture
from medhiera.data.training_images import read_training_images
from medhiera.evaluation.predictions import LABEL_SUFFIX

SMALL = {
    "smoke_run": "true", "use_cpu": "true", "image_size": "64", "max_steps": "4", "rand_augment": "false",
    "model_overrides": '{"embed_dim": 8, "depths": [1, 1, 1, 1]}', "per_device_train_batch_size": "8",
    "eval_strategy": "steps", "eval_steps": "2", "save_strategy": "steps", "save_steps": "2",
    "dataloader_num_workers": "0", "bootstrap_resamples": "20",
}  # fmt: skip

SMALL_MAE = {
    name: value for name, value in SMALL.items() if name not in ("rand_augment", "bootstrap_resamples")
} | {
    "model_overrides": '{"embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16,'
    ' "decoder_depth": 1, "decoder_num_heads": 2}'
}

STOCK = """
import importlib.util, json, sys
from transformers import pipeline
assert importlib.util.find_spec("modeling_hiera_mae") is None, "this process can see the project"
classify = pipeline("image-classification", model=sys.argv[1], top_k=15)
print(json.dumps({"class": type(classify.model).__name__, "scores": classify(sys.argv[2])}))
"""

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


@pytest.fixture(scope="module")
def walk(root: Path, mini_cocktail: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The raw folder, and a classifier of half the labels with what its training said."""
    folder = tmp_path_factory.mktemp("rsna")
    rsna = write_real_rsna(mini_cocktail, folder / "raw")
    mapping = rsna.mapping_file()
    walk = SimpleNamespace(root=root, folder=folder, rsna=rsna, mapping=mapping, stage=folder / "stage2")
    walk.said = train(walk, "raw", walk.stage, "--label_fraction", "0.5")
    walk.record = json.loads((walk.stage / "metrics.json").read_text())
    walk.card = (walk.stage / "README.md").read_text()
    words = ["--model", str(walk.stage), "--output_dir", str(folder / "scores"), "--sources", SOURCE.name]
    walk.scored = run(walk, "evaluate_cls.py", "raw", *words, "--bootstrap_resamples", "20")
    walk.again = json.loads((folder / "scores" / "metrics.json").read_text())["evaluation"]
    return walk


def run(walk: SimpleNamespace, script: str, raw: str, *words: str) -> str:
    """A script on a raw folder; what it said."""
    data = ("--data_dir", str(walk.folder / raw), "--nih_mapping", walk.mapping)
    done = subprocess.run(
        [warm_python(), script, *words, *data], cwd=walk.root, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def train(walk: SimpleNamespace, raw: str, output: Path, *words: str) -> str:
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    return run(
        walk, "train_cls.py", raw, "configs/cls_rsna.yaml", "--output_dir", str(output), *small, *words
    )


def test_few_labels_of_whole_patients_are_learned(walk: SimpleNamespace) -> None:
    record, name = walk.record, SOURCE.name
    assert set(record["data"]["trained_on"]) == {name}
    count, all_rows = record["data"]["trained_on"][name], record["data"]["images"]["train"][name]
    assert abs(count - all_rows / 2) <= 0.05 * all_rows  # whole patients
    assert f"label_fraction 0.5: {count} of {all_rows}" in walk.said
    assert record["recipe"]["label_fraction"] == 0.5 and record["data"]["shared_patients"] == {}
    assert "| `label_fraction` | 0.5 |" in walk.card and "The split leaks" not in walk.card
    findings = record["evaluation"]["findings"]
    assert [each for each, entry in findings.items() if entry["auroc"] is not None] == ["Pneumonia"]
    assert record["evaluation"]["findings_in_mean"] == ["Pneumonia"]


def test_accuracy_f1_and_the_pointing_game_are_in_record_card_and_log(walk: SimpleNamespace) -> None:
    assert "reused" in walk.scored
    own, again = walk.record["evaluation"], walk.again
    assert again["findings"]["Pneumonia"]["auroc"] == pytest.approx(
        own["findings"]["Pneumonia"]["auroc"], abs=1e-3
    )
    game = own["pointing_game"]
    assert again["pointing_game"]["pairs"] == game["pairs"] > 0
    assert f"in {100 * game['hit_rate']:.0f} % of {game['pairs']} cases" in walk.card
    assert own["operating_points"]["validation_images"] == walk.record["data"]["validated_on"][SOURCE.name]
    entry = own["operating_points"]["findings"]["Pneumonia"]
    positives = own["findings"]["Pneumonia"]["positives"]
    images = positives + own["findings"]["Pneumonia"]["negatives"]
    assert entry["accuracy_of_none"] == pytest.approx(1 - positives / images)
    predicted = pd.read_parquet(walk.folder / "scores" / "predictions.parquet")
    is_present = predicted[f"Pneumonia{LABEL_SUFFIX}"] == 1
    entry = again["operating_points"]["findings"]["Pneumonia"]
    is_called = predicted["Pneumonia"] >= entry["best_f1"]["threshold"]
    assert entry["best_f1"]["accuracy"] == pytest.approx((is_called == is_present).mean())
    f1 = 2 * (is_called & is_present).sum() / (is_called.sum() + is_present.sum())
    assert entry["best_f1"]["f1"] == pytest.approx(f1)
    for measure in ("accuracy", "f1"):
        low, high = entry["best_f1"][f"{measure}_interval"]
        assert 0 <= low <= entry["best_f1"][measure] <= high <= 1
        assert f"{entry['best_f1'][measure]:.3f} " in walk.scored.split("(largest F1)")[1]
    assert "| finding | largest F1 | accuracy |" in walk.card


def test_stock_transformers_give_the_same_probability(walk: SimpleNamespace) -> None:
    built = open_cocktail(
        DataArguments(
            str(walk.folder / "raw"), str(walk.folder / "cocktail"), nih_mapping=walk.mapping,
            stored_size=walk.record["preprocessing"]["resize_size"],
        )
    )  # fmt: skip
    predicted = pd.read_parquet(walk.folder / "scores" / "predictions.parquet").iloc[0]
    rows = built.split("test")
    row = rows[list(rows["image_id"]).index(predicted["image_id"])]
    picture = walk.folder / "picture.png"
    as_picture(row["image"]).convert("RGB").save(picture)
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK, str(walk.stage), str(picture)],
        cwd=walk.folder, text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["class"] == "HieraForImageClassification"
    scores = {entry["label"]: entry["score"] for entry in found["scores"]}
    assert scores["Pneumonia"] == pytest.approx(predicted["Pneumonia"], abs=1e-4)


def test_a_stage_that_saw_held_out_images_under_their_nih_names_is_refused(walk: SimpleNamespace) -> None:
    """ChestX-ray14 for stage 1 and RSNA for stage 2, each in its own folder: nothing compares pixels."""
    nih, alone, stage1 = walk.folder / "nih", walk.folder / "rsna_alone", walk.folder / "stage1"
    for folder, source in ((nih, walk.folder / "raw" / "ChestXray-NIHCC"), (alone, walk.rsna.root)):
        folder.mkdir()
        (folder / source.name).symlink_to(source.resolve())
    small = [word for name, value in SMALL_MAE.items() for word in (f"--{name}", value)]
    run(walk, "train_mae.py", "nih", "configs/mae_smoke.yaml", "--output_dir", str(stage1), *small)
    seen = read_training_images(stage1)
    assert set(seen["source"]) == {"ChestX-ray14"} and (seen["nih_image"].str.len() > 0).all()
    rows = open_cocktail(
        DataArguments(str(alone), str(alone / "built"), nih_mapping=walk.mapping, stored_size=73)
    ).split("validation")
    trained = set(seen[seen["split"] == "train"]["nih_image"])
    both = sum(name in trained for name in rows["nih_image"])
    assert 0 < both < len(rows)
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    words = ["--model_name_or_path", str(stage1), "--output_dir", str(walk.folder / "none"), *small]
    data = ["--data_dir", str(alone), "--build_dir", str(alone / "built"), "--nih_mapping", walk.mapping]
    done = subprocess.run(
        [warm_python(), "train_cls.py", "configs/cls_rsna.yaml", *words, *data],
        cwd=walk.root, text=True, capture_output=True,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 1 and f"stage1 was trained on {both} of the {len(rows)} validation images" in last
    )
    assert "which is ChestX-ray14's 0" in last and "put both sets under one data_dir" in last


def test_the_card_of_the_published_lists_says_that_they_leak(
    walk: SimpleNamespace, mini_cocktail: Path
) -> None:
    write_mrm_lists(mini_cocktail, walk.rsna)
    alone = walk.folder / "alone"
    alone.mkdir()
    (alone / SOURCE.folder).symlink_to(walk.rsna.root)
    train(walk, "alone", walk.folder / "mrm", "--split_scheme", "mrm", "--build_dir", str(alone / "built"))
    record = json.loads((walk.folder / "mrm" / "metrics.json").read_text())
    shared = record["data"]["shared_patients"]
    assert record["data"]["split_scheme"] == "mrm" and shared["validated_on"] > 0 < shared["tested_on"]
    card = (walk.folder / "mrm" / "README.md").read_text()
    assert "**The split leaks**: the lists of `split_scheme: mrm`" in card
    for use, said in (("validated_on", "validated on"), ("tested_on", "tested on")):
        assert (
            f"**Patients leak**: {shared[use]} patients whose images this stage {said.split()[0]} on" in card
        )
