"""Training on your own images and findings, and on an exported cocktail."""

import csv
import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image
from warm_python import warm_python


@pytest.fixture
def own_folder(tmp_path):
    """Sixty films with two findings of your own, a bright disk and a bright bar, some not annotated; and what
    is no finding."""
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "disk", "is_male", "bar"])
        for index in range(60):
            disk, bar = generator.random(2) < 0.5
            pixels = generator.integers(0, 120, (80, 80), dtype=np.uint8)
            if disk:
                pixels[20:40, 20:40] = 250
            if bar:
                pixels[60:66] = 250
            Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
            seen_bar = "" if index % 7 == 0 else int(bar)
            writer.writerow([f"{index}.png", index // 2, int(disk), index // 2 % 2, seen_bar])
    return folder


FINDINGS = ["--findings", "Bar", "disk"]


def test_stage_2_learns_the_findings_of_ones_own_folder(own_folder, workshop, stage1, tmp_path):
    output = tmp_path / "stage2"
    done = workshop.run(
        "train_cls.py", output, "--data_dir", str(own_folder), "--build_dir", str(tmp_path / "built"),
        "--model_name_or_path", str(stage1), *FINDINGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "disk", "1": "bar"}
    assert config["problem_type"] == "multi_label_classification"
    record = json.loads((output / "metrics.json").read_text())
    assert set(record["evaluation"]["findings"]) == {"disk", "bar"}
    assert set(record["data"]["trained_on"]) == {"image folder"}
    card = (output / "README.md").read_text()
    assert "# Hiera, findings of the user's own images" in card
    assert "NIH" not in card and "ChestX-ray8" not in card
    scored = subprocess.run(
        [warm_python(), "evaluate_cls.py", "--model", str(output), "--data_dir", str(own_folder),
         *FINDINGS, "--output_dir", str(tmp_path / "scores")],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    is_split_anew_where_the_folder_changes(own_folder, output, workshop, tmp_path)


def is_split_anew_where_the_folder_changes(own_folder, trained, workshop, tmp_path):
    """The same films, one a patient: others are held out, which the model was trained on."""
    table = own_folder / "labels.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join([image, *labels]) for image, _, *labels in lines))
    words = ["--data_dir", str(own_folder), "--build_dir", str(tmp_path / "built"), *FINDINGS]
    for command in (
        ["evaluate_cls.py", "--model", str(trained), *words, "--output_dir", str(tmp_path / "anew")],
        ["evaluate_cls.py", "--model", str(trained), *words, "--split_scheme", "official",
         "--output_dir", str(tmp_path / "anew1")],
        ["train_cls.py", str(workshop.configs["train_cls.py"]), *words, "--use_cpu", "true",
         "--output_dir", str(tmp_path / "anew2"), "--model_name_or_path", str(trained / "checkpoint-6")],
    ):  # fmt: skip
        done = subprocess.run([warm_python(), *command], cwd=workshop.root, text=True, capture_output=True)
        assert done.returncode == 1, done.stderr
        assert re.search(rf"{trained}(/checkpoint-6)? was trained on ", done.stderr), done.stderr
        assert "a column `split`" in done.stderr
    scored = subprocess.run(
        [warm_python(), "evaluate_cls.py", "--model", str(trained), *words, "--split", "train",
         "--bootstrap_resamples", "0", "--output_dir", str(tmp_path / "fit")],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert "was trained on" in scored.stderr, "thresholds come from a validation split that it has seen"


def test_the_exported_cocktail_trains_like_the_raw_one(workshop, stage1, tmp_path):
    """Its images are stored as PNGs, those of the build beside the run as bytes."""
    exported = tmp_path / "exported"
    subprocess.run(
        [warm_python(), "-m", "dataset_scripts", "--data_dir", str(workshop.raw),
         "--output_dir", str(exported), "--stored_size", "73"],
        cwd=workshop.root, check=True, capture_output=True,
    )  # fmt: skip
    done = workshop.run(
        "train_mae.py", tmp_path / "stage1", "--data_dir", str(exported), "--build_dir", str(tmp_path / "b")
    )
    assert done.returncode == 0, done.stdout
    raw, parquet = (json.loads((s / "metrics.json").read_text()) for s in (stage1, tmp_path / "stage1"))
    assert parquet["data"]["trained_on"] == raw["data"]["trained_on"]
    assert parquet["preprocessing"] == pytest.approx(raw["preprocessing"])
    # The order of rows differs, so the batches do; before training the same images and masks are seen.
    before = [record["evaluation"]["masked_loss_before"] for record in (raw, parquet)]
    assert before[0] == pytest.approx(before[1], rel=1e-3)
