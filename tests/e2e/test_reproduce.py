"""The experiments as a user runs them: every arm, figures, report; and a second time at no cost."""

import json
import os
import signal
import subprocess
import time

import pytest
from PIL import Image
from warm_python import warm_python

from medhiera.data.training_images import read_training_images
from medhiera.experiments.arms import REGIONS, Arm
from medhiera.experiments.runner import ExperimentRunner
from medhiera.training.checkpoints import latest_complete

GEOMETRY = (
    '{"embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "decoder_depth": 1,'
    ' "decoder_num_heads": 2}'
)
SMALL = [
    "--", "--image_size", "96", "--model_overrides", GEOMETRY, "--num_train_epochs", "2",
    "--max_train_images", "48", "--max_eval_images", "64", "--per_device_train_batch_size", "16",
    "--use_cpu", "true",
]  # fmt: skip

MASKS = ["--image_size", "96", "--resize_size", "96", "--max_train_images", "48", "--use_cpu", "true",
         "--eval_steps", "2", "--save_steps", "2"]  # fmt: skip

FEW_STEPS = ["--image_size", "64", "--max_steps", "2", "--eval_steps", "2", "--save_steps", "2",
             "--per_device_train_batch_size", "8", "--use_cpu", "true"]  # fmt: skip

pytestmark = pytest.mark.slow


def command(*words):
    return [warm_python(), "-W", "ignore", "reproduce.py", *words]


def run(workshop, *words):
    done = subprocess.run(
        command(*words),
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


def test_masks(workshop):
    output = workshop.folder / "masks"
    words = ["masks", "--data_dir", str(workshop.raw), "--output_dir", str(output), "--seeds", "1"]
    words += ["--task_sources", "ChestX-ray14", "--", "--max_steps", "4", *MASKS]
    run(workshop, *words)
    report = (output / "report.md").read_text()
    assert "| each chest's contour | " in report and "| contour − none | linear probe, AUROC | " in report
    assert "| rectangle − before | fine-tuned, AUROC | " in report and "smoke budget" in report
    records = [
        json.loads((output / f"mae-{name}" / "seed0" / "metrics.json").read_text()) for name in REGIONS
    ]
    assert [record["recipe"].get("mask_region", "none") for record in records] == list(REGIONS)
    assert len({record["evaluation"]["masked_loss_before"] for record in records}) == 1
    assert len({record["evaluation"]["masked_loss"] for record in records}) == 3
    assert run(workshop, *words).count("finished before, skipped") == 14


def test_labels(workshop, stage1):
    output = workshop.folder / "labels"
    words = ["labels", "--data_dir", str(workshop.raw), "--output_dir", str(output), "--stage1", str(stage1)]
    words += ["--task_sources", "ChestX-ray14", "--label_shares", "1:1", "0.3:1", "--", *FEW_STEPS]
    run(workshop, *words)
    assert pictures(output) == {"label_efficiency.png"}
    report = (output / "report.md").read_text()
    assert "# Few labels: ChestX-ray14" in report and "smoke budget" in report
    assert "| 30 % | stage 1 − random | AUROC | " in report and "| 100 % | " in report
    seen = {}
    for start in ("random", "stage1"):
        for share in ("0.3", "1"):
            folder = output / f"cls-{start}-{share}" / "seed0"
            record = json.loads((folder / "metrics.json").read_text())
            listed = read_training_images(folder)
            images = set(listed[listed["split"] == "train"]["image_id"])
            seen[start, share] = record["data"]["trained_on"], images
            assert record["lineage"]["started_from"].startswith("random" if start == "random" else "stage 1")
            assert json.loads((folder / "config.json").read_text())["embed_dim"] == 8
    for share in ("0.3", "1"):
        assert seen["random", share][0] == seen["stage1", share][0]
    assert seen["random", "0.3"][1] < seen["random", "1"][1]
    assert run(workshop, *words).count("finished before, skipped") == 8


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
    assert "3 trials complete, 0 pruned, 0 failed" in (output / "report.md").read_text()
    assert "trial 3" not in run(workshop, *words)
    refused = command("sweep", *shared, "--output_dir", str(output), "--budget", "paper")
    done = subprocess.run(refused, cwd=workshop.root, text=True, capture_output=True, timeout=300)
    assert done.returncode == 1 and "budget was 'smoke', now 'paper'" in done.stderr, done.stderr


def test_sigterm_leaves_a_checkpoint_that_the_same_command_goes_on_from(workshop, tmp_path):
    words = command("explode", "--data_dir", str(workshop.raw), "--output_dir", str(tmp_path), *SMALL)
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(
            [*words, "--num_train_epochs", "1000"], cwd=workshop.root, stdout=printed, stderr=printed
        )
    log, deadline = tmp_path / "before" / "seed0" / "training_log.csv", time.monotonic() + 300
    try:
        while not log.exists() or "\n3," not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "printed").read_text()
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(200)
    assert status == 143, (tmp_path / "printed").read_text()
    assert "SIGTERM: writing" in (log.parent / "stdout.log").read_text()
    assert latest_complete(log.parent) is not None


def test_the_guards_ending_is_one_that_explode_accepts(workshop, tmp_path):
    words = {"train_mae.py": (str(workshop.configs["train_mae.py"]), "--use_cpu", "true")}
    runner = ExperimentRunner(tmp_path, str(workshop.raw), None, words)
    rate = ("--learning_rate", "1e30", "--precision", "fp32")
    arm = Arm("arm", "arm", "train_mae.py", None, rate, may_diverge=True)
    assert runner.run(arm, 0) and not runner.run(arm, 0)
    assert runner.diverged_at("arm", 0) is not None
