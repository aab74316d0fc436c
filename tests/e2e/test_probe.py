"""probe.py as a user runs it, on a stage of ours and beside another model."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from warm_python import warm_python

from medhiera.hub.model_card import card_of
from medhiera.hub.record import read_record
from medhiera.inference.features_file import read_features


def probe(workshop, output, *words):
    return subprocess.run(
        [warm_python(), "-W", "ignore", "probe.py", "--data_dir", str(workshop.raw), "--build_dir",
         str(workshop.folder / "built"), "--output_dir", str(output), "--bootstrap_resamples", "50", *words],
        cwd=workshop.root, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


def test_a_probe_is_scored_with_intervals_beside_another_model(stage1, stage2, workshop, tmp_path):
    done = probe(workshop, tmp_path / "first", "--model", str(stage1))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert written["probe_penalty"] in [10.0**power for power in range(-4, 3)]
    assert len(re.findall(r": mean AUROC [\d.]+ on validation", done.stderr)) == 7
    assert done.stderr.count(", kept") == 1
    evaluation = written["evaluation"]
    fit = written["probe"]
    assert (fit["chosen_on"], fit["shared_patients"]) == ("validation", 0)
    assert [each["shots"] for each in fit["few_labels"]] == [1, 5, 10, 50, None, None, None]
    assert [each["share"] for each in fit["few_labels"]][4:] == [0.01, 0.1, 1.0]
    assert fit["few_labels"][-1]["mean_auroc"] == evaluation["mean_auroc"]
    assert len(fit["few_labels"][0]["draw_aurocs"]) == 5
    assert "1 + 1 patients" in done.stderr and "of draws" in done.stderr
    assert evaluation["split"] == "test" and evaluation["mean_auroc_interval"]
    assert evaluation["pointing_game"]["reason"] == "a linear probe has no heat maps"
    assert "not shown beside this: the images are synthetic" in done.stderr
    figures = {path.name for path in (tmp_path / "first" / "figures").iterdir()}
    assert {"roc.png", "few_shots.png"} <= figures
    assert "label_efficiency.png" not in figures, "a tenth of so few images is too few to learn from"
    table = pd.read_parquet(tmp_path / "first" / "predictions.parquet")
    assert len(table) == evaluation["images"]

    other = str(tmp_path / "first" / "predictions.parquet")
    done = probe(workshop, tmp_path / "second", "--model", str(stage2), "--compare", other)
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "second" / "metrics.json").read_text())["evaluation"]["comparison"]
    assert compared["images"] == len(table) and compared["mean"]["auroc"]["interval"]


def test_features_of_a_dataset_are_probed_as_the_model_is_and_the_card_shows_it(stage1, workshop, tmp_path):
    stage = tmp_path / "stage1"
    shutil.copytree(stage1, stage, ignore=shutil.ignore_patterns("checkpoint-*"))
    words = ["--data_dir", str(workshop.raw), "--build_dir", str(workshop.folder / "built")]
    features = tmp_path / "features.parquet"
    embed = [warm_python(), "-W", "ignore", "embed.py", "--model", str(stage), "--output", str(features)]
    done = subprocess.run([*embed, *words], cwd=workshop.root, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    header, table = read_features(features)
    assert header.is_phantom and header.finding_names[0] == "Atelectasis" and header.figure_mark
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    is_train = np.array(table["split"].to_pylist()) == "train"
    trained = np.array(table["is_trained_on"].to_pylist())
    assert (trained <= is_train).all() and trained.any(), "by training_images.parquet beside the stage"

    direct = probe(workshop, tmp_path / "direct", "--model", str(stage), "--draws", "2", "--update_card")
    assert direct.returncode == 0, direct.stderr
    again = [warm_python(), "-W", "ignore", "probe.py", "--features", str(features), "--draws", "2"]
    again += ["--bootstrap_resamples", "50", "--output_dir", str(tmp_path / "file")]
    done = subprocess.run(again, cwd=workshop.root, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("direct", "file"))
    for key in ("model", "fingerprint", "split_scheme", "is_phantom", "probe_penalty", "probe_train_images"):
        assert one[key] == other[key]
    assert one["evaluation"]["mean_auroc"] == pytest.approx(other["evaluation"]["mean_auroc"], abs=1e-3)

    record = read_record(stage)
    assert record.probe.fit.penalty == one["probe_penalty"] and record.probe.tested_on
    assert record.probe.ranking.mean_auroc == one["evaluation"]["mean_auroc"]
    card = (stage / "README.md").read_text()
    assert f"**{one['evaluation']['mean_auroc']:.3f}**" in card and "figures/few_shots.png" in card
    assert "**synthetic phantoms**" in card and "chosen on validation" in card
    assert card == card_of(stage)

    seen = table.set_column(
        table.column_names.index("split"), "split", [["test" if each else "train" for each in trained]]
    )
    parquet.write_table(seen, features)
    done = subprocess.run(again, cwd=workshop.root, text=True, capture_output=True, timeout=300)
    assert done.returncode == 1 and "stage1 was trained on" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "no/such"],
            "no/such: there is no such folder",
        ),
        (["--batch_size", "0"], "--batch_size 0: wanted 1 or more"),
        (["--update_card", "--model", "STAGE2"], "is no folder of a finished stage 1, whose card alone"),
        (["--max_train_images", "1"], "the 1 training images have no finding both with and without"),
    ],
)
def test_what_cannot_be_probed_is_refused(stage1, stage2, workshop, tmp_path, words, message):
    words = [str(stage2) if word == "STAGE2" else word for word in words]
    done = probe(workshop, tmp_path / "probe", "--model", str(stage1), *words)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "probe" / "metrics.json").exists()
