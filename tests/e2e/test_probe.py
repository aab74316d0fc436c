"""probe.py as a user runs it, on a stage of ours and beside another model."""

import json
import subprocess
import sys

import pandas as pd
import pytest


def probe(workshop, output, *words):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "probe.py", "--data_dir", str(workshop.raw), "--build_dir",
         str(workshop.folder / "built"), "--output_dir", str(output), "--bootstrap_resamples", "50", *words],
        cwd=workshop.root, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


def test_a_probe_is_scored_with_intervals_beside_another_model(stage1, stage2, workshop, tmp_path):
    done = probe(workshop, tmp_path / "first", "--model", str(stage1))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert written["probe_penalty"] in [10.0**power for power in range(-4, 3)]
    assert done.stderr.count(": validation mean AUROC ") == 7 and done.stderr.count(", kept") == 1
    evaluation = written["evaluation"]
    assert evaluation["split"] == "test" and evaluation["mean_auroc_interval"]
    assert evaluation["pointing_game"]["reason"] == "a linear probe has no heat maps"
    assert "synthetic phantoms" in done.stderr or "PHANTOMS" in done.stderr
    assert (tmp_path / "first" / "figures" / "roc.png").is_file()
    table = pd.read_parquet(tmp_path / "first" / "predictions.parquet")
    assert len(table) == evaluation["images"]

    other = str(tmp_path / "first" / "predictions.parquet")
    done = probe(workshop, tmp_path / "second", "--model", str(stage2), "--compare", other)
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "second" / "metrics.json").read_text())["evaluation"]["comparison"]
    assert compared["images"] == len(table) and compared["mean"]["auroc"]["interval"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "no/such"], "no/such: there is no such folder, and the Hub gave no such model"),
        (["--batch_size", "0"], "--batch_size 0: wanted 1 or more"),
        (["--max_train_images", "1"], "the 1 training images have no finding both with and without"),
    ],
)
def test_what_cannot_be_probed_is_refused(stage1, workshop, tmp_path, words, message):
    done = probe(workshop, tmp_path / "probe", "--model", str(stage1), *words)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "probe" / "metrics.json").exists()
