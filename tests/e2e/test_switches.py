"""The switches that a recipe may turn, each in a run of its own: it ends well and does what it says."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import evaluate_cls
import train_cls
import train_mae
from dataset_scripts import FINDINGS

SCRIPTS = {"train_mae.py": train_mae, "train_cls.py": train_cls}


def run(workshop, script, output, *words):
    own = [str(workshop.configs[script]), "--data_dir", str(workshop.raw), "--output_dir", str(output)]
    built = str(workshop.folder / "built")
    SCRIPTS[script].main([*own, "--build_dir", built, "--use_cpu", "true", *words])
    return json.loads((output / "metrics.json").read_text())


def leave_figures(output, *names):
    """What a run leaves that was ended before its first checkpoint."""
    (output / "figures" / "steps").mkdir(parents=True)
    (output / "training_log.csv").touch()
    for name in names:
        (output / "figures" / name).write_bytes(b"")


def test_stage_1_with_masks_drawn_anew_and_pictures_on_the_way(workshop, tmp_path):
    leave_figures(tmp_path, "masks.png", "heat_maps.png", "steps/reconstructions-0000099.png", "mine.png")
    record = run(
        workshop, "train_mae.py", tmp_path, "--fixed_eval_masks", "false", "--ema_decay", "0.5",
        "--reconstruction_steps", "2", "--random_crop_scale", "0.5", "--rand_augment", "true",
    )  # fmt: skip
    assert record["recipe"]["fixed_eval_masks"] is False and record["recipe"]["ema_decay"] == 0.5
    drawn = sorted(path.name for path in (tmp_path / "figures" / "steps").iterdir())
    assert drawn == [f"reconstructions-{step:07d}.png" for step in (2, 4, 6)]
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {"loss.png", "reconstructions.png", "mine.png"}
    card = (tmp_path / "README.md").read_text()
    assert "masks.png" not in card and "masks drawn anew at each evaluation, 60 % hidden" in card
    averaged, raw = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "raw/model.safetensors")
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)


def test_a_run_that_does_not_score_the_test_split_says_so(workshop, tmp_path):
    """As the trials of a sweep run; and what chose the checkpoint is recorded where it did."""
    leave_figures(tmp_path, "reconstructions.png")
    record = run(workshop, "train_cls.py", tmp_path, "--score_test", "false")
    assert not (tmp_path / "figures" / "reconstructions.png").exists()
    assert record["evaluation"]["split"] == "validation" and record["data"]["tested_on"] == {}
    assert record["evaluation"]["images"] == sum(record["data"]["validated_on"].values())
    assert record["evaluation"]["operating_points"]["findings"] == {}
    assert record["training"]["selection"]["rule"].startswith("all diseases")
    card = (tmp_path / "README.md").read_text()
    assert "this run did not read the test split" in card and "on the test split" not in card
    log = (tmp_path / "training_log.csv").read_text()
    assert "eval_selection_auroc" in log.splitlines()[0]


def test_stage_2_with_the_papers_defects(workshop, tmp_path):
    record = run(workshop, "train_cls.py", tmp_path, "--legacy_head", "true", "--keep_checkpoint", "last")
    assert record["recipe"]["legacy_head"] is True and record["recipe"]["keep_checkpoint"] == "last"
    assert record["training"]["best_step"] is None and record["training"]["selection"] is None
    last = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    kept = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(kept[name], last[name]) for name in kept)


def test_stage_2_goes_on_at_a_larger_size(workshop, stage2, tmp_path):
    record = run(
        workshop, "train_cls.py", tmp_path, "--model_name_or_path", str(stage2), "--image_size", "96",
        "--max_steps", "3",
    )  # fmt: skip
    assert record["lineage"]["started_from"].startswith("stage 2 (from stage 1")
    assert record["lineage"]["new_weights"] == []
    before = json.loads((stage2 / "metrics.json").read_text())["preprocessing"]
    assert record["preprocessing"] == before | {"image_size": 96, "resize_size": 110}


def test_stage_2_of_a_frozen_encoder(workshop, stage2, tmp_path):
    record = run(
        workshop, "train_cls.py", tmp_path, "--model_name_or_path", str(stage2), "--encoder_rate", "0",
        "--drop_path_rate", "0.2", "--max_steps", "3", "--bootstrap_resamples", "0",
    )  # fmt: skip
    before, after = (load_file(folder / "model.safetensors") for folder in (stage2, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert record["recipe"]["encoder_rate"] == 0 and "drop_path_rate" not in record["recipe"]
    assert "| `encoder_rate` | 0.0 |" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["drop_path_rate"] == 0


def test_evaluation_with_the_mirror_image(workshop, stage2, tmp_path):
    built = ["--build_dir", str(workshop.folder / "built")]
    words = ["--model", str(stage2), "--data_dir", str(workshop.raw), *built, "--bootstrap_resamples", "0"]
    tables = []
    for name, extra in (("plain", []), ("flipped", ["--tta"])):
        evaluate_cls.main([*words, "--output_dir", str(tmp_path / name), *extra])
        assert json.loads((tmp_path / name / "metrics.json").read_text())["tta"] == (name == "flipped")
        table = pd.read_parquet(tmp_path / name / "predictions.parquet").set_index("image_id")
        tables.append(table[list(FINDINGS)])
    assert tables[0].index.equals(tables[1].index)
    assert 0 < (tables[0] - tables[1]).abs().to_numpy().max() < 0.5


@pytest.mark.parametrize("legacy", [False, True])
def test_the_legacy_head_makes_findings_compete(legacy):
    logits = np.array([[2.0, -1.0], [2.0, 2.0]])
    scores = train_cls.scores_of(logits, legacy, is_exclusive=False)
    if legacy:
        assert scores[1, 0] < scores[0, 0]  # the same logit, but now another finding stands beside it
        expected = 1 / (1 + np.exp(-np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)))
        np.testing.assert_allclose(scores, expected)
    else:
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)))
