"""RSNA from its raw layout to a scored classifier, with few labels, on real pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mini_rsna import write_real_rsna

SMALL = {
    "smoke_run": "true", "use_cpu": "true", "image_size": "64", "max_steps": "4", "rand_augment": "false",
    "model_overrides": '{"embed_dim": 8, "depths": [1, 1, 1, 1]}', "per_device_train_batch_size": "8",
    "eval_strategy": "steps", "eval_steps": "2", "save_strategy": "steps", "save_steps": "2",
    "dataloader_num_workers": "0", "bootstrap_resamples": "20", "label_fraction": "0.5",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.realdata
def test_few_labels_from_raw_files_to_the_pointing_game(
    root: Path, mini_cocktail: Path, tmp_path: Path
) -> None:
    mapping = write_real_rsna(mini_cocktail, tmp_path / "raw").mapping_file()

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words, "--data_dir", str(tmp_path / "raw"), "--nih_mapping", mapping],
            cwd=root, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    stage = tmp_path / "stage2"
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    said = run("train_cls.py", "configs/cls_rsna.yaml", "--output_dir", str(stage), *small)
    record = json.loads((stage / "metrics.json").read_text())
    assert set(record["data"]["trained_on"]) == {"RSNA Pneumonia"}
    count, all_rows = (
        record["data"]["trained_on"]["RSNA Pneumonia"],
        record["data"]["images"]["train"]["RSNA Pneumonia"],
    )
    assert abs(count - all_rows / 2) <= 4 and f"label_fraction 0.5: {count} of {all_rows}" in said
    assert record["recipe"]["label_fraction"] == 0.5 and record["data"]["shared_patients"] == {}
    assert "| `label_fraction` | 0.5 |" in (stage / "README.md").read_text()
    findings = record["evaluation"]["findings"]
    assert [name for name, entry in findings.items() if entry["auroc"] is not None] == ["Pneumonia"]
    assert record["evaluation"]["findings_in_mean"] == ["Pneumonia"]
    said = run("evaluate_cls.py", "--model", str(stage), "--output_dir", str(tmp_path / "scores"),
               "--sources", "RSNA Pneumonia", "--bootstrap_resamples", "20")  # fmt: skip
    assert "reused" in said
    again = json.loads((tmp_path / "scores" / "metrics.json").read_text())["evaluation"]
    assert again["pointing_game"]["pairs"] == record["evaluation"]["pointing_game"]["pairs"] > 0
    assert again["findings"]["Pneumonia"]["auroc"] == pytest.approx(findings["Pneumonia"]["auroc"], abs=1e-3)
