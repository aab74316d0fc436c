"""The experiments as a user runs them: every arm, figures, report; and a second time at no cost."""

import os
import subprocess
import sys

import pytest
from PIL import Image

GEOMETRY = (
    '{"embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "decoder_depth": 1,'
    ' "decoder_num_heads": 2}'
)
SMALL = [
    "--", "--image_size", "96", "--model_overrides", GEOMETRY, "--num_train_epochs", "2",
    "--max_train_images", "48", "--max_eval_images", "64", "--per_device_train_batch_size", "16",
    "--use_cpu", "true",
]  # fmt: skip

pytestmark = pytest.mark.slow


def run(workshop, *words):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "reproduce.py", *words],
        cwd=workshop.root, env=os.environ | {"PYTHONWARNINGS": "ignore"}, text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def pictures(folder):
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    return {path.name for path in folder.glob("*.png")}


def test_ablation(workshop):
    output = workshop.folder / "ablation"
    words = ["ablation", "--data_dir", str(workshop.raw), "--output_dir", str(output), "--seeds", "1", *SMALL]
    printed = run(workshop, *words)
    assert pictures(output) == {"fig1.png", "fig1_auroc.png", "fig4.png"}
    report = (output / "report.md").read_text()
    assert "smoke budget" in report and "| MAE on the cocktail with its leak |" in report
    assert "| Edema |" in report and "87.24" in report
    assert "## Table 3" in report and "| EVA-X-B | 83.5 |" in report and "| **this model** |" in report
    assert "| images a step | 16 | 64 |" in report and "| mask ratio | 0.6 | 0.6 |" in report
    assert "no --stage0" in printed
    assert run(workshop, *words).count("finished before, skipped") == 9


def test_explode_and_sweep(workshop):
    output = workshop.folder / "explode"
    shared = ["--data_dir", str(workshop.raw), "--seeds", "1"]
    run(workshop, "explode", *shared, "--output_dir", str(output), *SMALL)
    assert pictures(output) == {"fig5.png"}
    assert "| learning rate 0.1 |" in (output / "report.md").read_text()

    output = workshop.folder / "sweep"
    words = ["sweep", *shared, "--output_dir", str(output), "--trials", "3", *SMALL]
    run(workshop, *words)
    assert pictures(output) == {"fig3.png"}
    assert "3 trials complete, 0 pruned" in (output / "report.md").read_text()
    assert "trial 3" not in run(workshop, *words)
