"""A run killed with -9 ends as if nothing had happened; two ranks train as one does."""

import copy
import json
import subprocess

import pytest
import torch
from killed_runs import kill_after_checkpoint, logged, weights
from warm_python import warm_python

from medhiera.training.checkpoints import latest_complete

LONGER = ("--max_steps", "24", "--save_steps", "4", "--eval_steps", "4", "--logging_steps", "3")


@pytest.mark.slow
@pytest.mark.parametrize(  # train_mae.py with workers: test_high_definition.py; train_cls.py without: below
    ("script", "workers"), [("train_mae.py", "0"), ("train_cls.py", "2")]
)
def test_kill_and_resume_gives_the_same_weights(script, workers, workshop, tmp_path):
    words = [*LONGER, "--dataloader_num_workers", workers]
    if script == "train_cls.py":
        words += ["--rotation_degrees", "30"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run(script, whole, *words)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(workshop, script, killed, *words)
    done = workshop.run(script, killed, *words, "--resume_from_checkpoint", "true")
    assert done.returncode == 0, done.stdout
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(whole) == logged(killed)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_mae.py", "train_cls.py"])
def test_two_ranks_go_on_in_the_middle_of_a_later_epoch(script, workshop, tmp_path):
    """The order, masks and augmentation of the second epoch, not of the first, on both ranks."""
    words = [*LONGER, "--per_device_train_batch_size", "4", "--max_train_images", "56"]  # 7 steps an epoch
    words += ["--ema_decay", "0.9", "--random_crop_scale", "0.5"]
    words += ["--precision", "bf16_weights" if script == "train_cls.py" else "auto"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run(script, whole, *words, ranks=2)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(workshop, script, killed, *words, step=12, ranks=2)
    epoch = json.loads((latest_complete(killed) / "trainer_state.json").read_text())["epoch"]
    assert epoch > 1 and epoch % 1, "killed in the middle of an epoch after the first"
    done = workshop.run(script, killed, *words, "--resume_from_checkpoint", "true", ranks=2)
    assert done.returncode == 0, done.stdout
    for one, other in ((whole, killed), (whole / "raw", killed / "raw")):
        expected, found = weights(one), weights(other)
        assert all(torch.equal(expected[name], found[name]) for name in expected), one.name
    assert logged(whole) == logged(killed)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "compression"), [("train_mae.py", "raw"), ("train_cls.py", "none")])
def test_two_ranks_go_on_in_an_export_that_is_read_in_place(script, compression, workshop, tmp_path):
    """The shards are all that is read: nothing as large is written, and workers map them themselves."""
    export = tmp_path / "export"
    subprocess.run(
        [warm_python(), "-m", "dataset_scripts", "--data_dir", workshop.raw, "--output_dir", export,
         "--stored_size", "72", "--compression", compression, "--num_proc", "1"],
        cwd=workshop.root, check=True,
    )  # fmt: skip
    workshop = copy.copy(workshop)
    workshop.raw, workshop.folder = export, tmp_path
    words = [*LONGER, "--per_device_train_batch_size", "4", "--dataloader_num_workers", "1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run(script, whole, *words, ranks=2)
    assert done.returncode == 0 and "is copied" not in done.stdout, done.stdout
    kill_after_checkpoint(workshop, script, killed, *words, step=8, ranks=2)
    done = workshop.run(script, killed, *words, "--resume_from_checkpoint", "true", ranks=2)
    assert done.returncode == 0, done.stdout
    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(whole) == logged(killed)
    written = sum(path.stat().st_size for path in (tmp_path / "built").rglob("*.arrow"))
    assert 0 < written < sum(path.stat().st_size for path in export.glob("data/*/*")) / 4


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_average_with_every_modern_option(workshop, tmp_path):
    words = [*LONGER, "--optimizer", "adamw", "--layer_decay", "0.7", "--ema_decay", "0.9",
             "--lr_scheduler_type", "cosine", "--warmup_steps", "3", "--random_crop_scale", "0.5",
             "--horizontal_flip", "true", "--rand_augment", "true", "--drop_path_rate", "0.2",
             "--mixup_alpha", "0.4", "--classifier_dropout", "0.2", "--label_smoothing", "0.1",
             "--loss", "asymmetric", "--early_stopping_patience", "50"]  # fmt: skip
    recipe = tmp_path / "modern.yaml"
    text = workshop.configs["train_cls.py"].read_text()
    recipe.write_text(text.replace("schedule: one_cycle\n", ""))  # unset: what lr_scheduler_type says
    workshop = copy.copy(workshop)
    workshop.configs = workshop.configs | {"train_cls.py": recipe}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = workshop.run("train_cls.py", whole, *words)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(workshop, "train_cls.py", killed, *words)
    done = workshop.run("train_cls.py", killed, *words, "--resume_from_checkpoint", "true")
    assert done.returncode == 0, done.stdout
    for one, other in ((whole, killed), (whole / "raw", killed / "raw")):
        expected, found = weights(one), weights(other)
        assert all(torch.equal(expected[name], found[name]) for name in expected), one.name
    averaged, raw = weights(whole), weights(whole / "raw")
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)
    assert logged(whole) == logged(killed)


@pytest.mark.slow
def test_two_ranks_equal_one_at_the_same_global_batch(workshop, tmp_path):
    words = ("--precision", "fp32", "--rotation_degrees", "30", "--load_best_model_at_end", "false")
    for ranks, batch in ((1, "8"), (2, "4")):
        output = tmp_path / f"{ranks}"
        done = workshop.run(
            "train_cls.py", output, *words, "--per_device_train_batch_size", batch, ranks=ranks
        )
        assert done.returncode == 0, done.stdout
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    largest = max((one[name] - two[name]).abs().max().item() for name in one)
    assert 0 < largest < 2e-4, f"largest difference between one and two ranks: {largest}"
