"""Class folders, pictures alone and datasets of the Hub train by the commands as a user types them."""

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import datasets
import numpy as np
import onnx
import pytest
import yaml
from loopback_hub import LoopbackHub
from PIL import Image
from transformers import pipeline
from warm_python import warm_python

from medhiera.hub.record import read_record

pytestmark = pytest.mark.slow

CLASSES = {"bar": slice(60, 70), "disk": slice(20, 40), "none": slice(0, 0)}


def film(seed: int, rows: slice) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 120, (80, 80), dtype=np.uint8)
    pixels[rows, 20:60] = 250
    return Image.fromarray(pixels)


def write_classes(folder: Path) -> Path:
    """Class folders without splits: twenty films of each, two of a patient."""
    for number, (name, rows) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            film(100 * number + index, rows).save(folder / name / f"p{number}{index // 2:02}_{index % 2}.png")
    return folder


def run(workshop, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [warm_python(), *words], cwd=workshop.root, text=True, capture_output=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"} | environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    return write_classes(tmp_path_factory.mktemp("own") / "films")


@pytest.fixture(scope="module")
def trained(classes, workshop, stage1) -> Path:
    output = classes.parent / "stage2"
    done = workshop.run(
        "train_cls.py", output, "--data_dir", str(classes), "--build_dir", str(classes.parent / "built"),
        "--model_name_or_path", str(stage1), "--mixup_alpha", "0.2", "--label_smoothing", "0.1",
        "--prior_bias", "true", "--bootstrap_resamples", "50",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "patients are told by the names of the files (all before the last number)" in done.stdout
    return output


def test_a_stage_of_exclusive_labels_says_so_everywhere(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"
    assert list(config["id2label"].values()) == list(CLASSES)
    found = read_record(trained).evaluation
    assert set(found.exclusive.labels) == set(CLASSES) == set(found.findings)
    assert found.exclusive.accuracy_interval and not found.operating_points.findings and not found.rescaling
    card = (trained / "README.md").read_text()
    assert "logits.softmax(dim=-1)" in card and "sigmoid" not in card
    assert "### The most probable label" in card and "model-index" not in card  # a smoke run's is left out


def test_one_probability_by_predict_the_stock_pipeline_and_onnx(trained, classes, workshop, tmp_path):
    run(
        workshop,
        "predict.py",
        "--model",
        str(trained),
        "--output",
        str(tmp_path / "p.csv"),
        str(classes / "bar"),
    )
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    stock = pipeline("image-classification", str(trained), top_k=3)
    for row in rows[:3]:
        scores = {name: float(row[name]) for name in CLASSES}
        assert list(row) == ["path", "model", "content", *CLASSES, "predicted"]
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        with Image.open(tmp_path / row["path"]) as image:
            wanted = {entry["label"]: entry["score"] for entry in stock(image.convert("RGB"))}
        assert scores == pytest.approx(wanted, abs=1e-5) and row["predicted"] == max(wanted, key=wanted.get)
    run(workshop, "-m", "medhiera.inference.onnx_export", str(trained), str(tmp_path / "model.onnx"))
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert properties["activation"] == "softmax"


def test_evaluation_and_a_probe_tell_accuracy(trained, classes, workshop, tmp_path):
    common = ("--data_dir", str(classes), "--bootstrap_resamples", "20")
    done = run(
        workshop, "evaluate_cls.py", "--model", str(trained), *common, "--output_dir", str(tmp_path / "e")
    )
    assert "accuracy of the most probable label" in done.stderr + done.stdout
    again = json.loads((tmp_path / "e" / "metrics.json").read_text())["evaluation"]["exclusive"]
    assert again["accuracy"] == read_record(trained).evaluation.exclusive.accuracy
    model = ("--model", str(trained))
    quick = ("--draws", "0", "--bootstrap_resamples", "20")
    done = run(workshop, "probe.py", *model, *common, *quick[:2], "--output_dir", str(tmp_path / "p"))
    assert "accuracy of the most probable label" in done.stderr + done.stdout
    built = ("--data_dir", str(classes), "--build_dir", str(classes.parent / "built"))
    run(workshop, "embed.py", *model, *built, "--output", str(tmp_path / "f.parquet"))
    words = ("--features", str(tmp_path / "f.parquet"), *quick, "--output_dir", str(tmp_path / "f"))
    run(workshop, "probe.py", *words)
    told = [json.loads((tmp_path / name / "metrics.json").read_text())["evaluation"] for name in ("p", "f")]
    assert told[0]["exclusive"]["accuracy"] == told[1]["exclusive"]["accuracy"] is not None


def test_pictures_alone_pretrain_and_have_nothing_for_stage_2(classes, workshop, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in classes.rglob("*.png"):
        shutil.copy(path, plain / f"{path.parent.name}{path.name}")
    words = ("--data_dir", str(plain), "--build_dir", str(tmp_path / "built"), "--max_steps", "3")
    done = workshop.run("train_mae.py", tmp_path / "stage1", *words)
    assert done.returncode == 0, done.stdout
    assert read_record(tmp_path / "stage1").trained_on == {"image folder": 48}
    done = workshop.run("train_cls.py", tmp_path / "stage2", *words)
    assert done.returncode == 1 and "has a label, so there is nothing to learn" in done.stdout, done.stdout


def test_a_dataset_of_the_hub_trains_by_its_id(workshop, stage1, tmp_path):
    kinds = datasets.ClassLabel(names=["none", "bar"])
    features = datasets.Features(film=datasets.Image(), label=kinds, subject=datasets.Value("int64"))
    parts = {}
    for split, count, first in (("train", 40, 0), ("test", 8, 100)):
        images = []
        for index in range(count):
            stream = io.BytesIO()
            film(first + index, CLASSES["bar"] if index % 2 else CLASSES["none"]).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        subjects = [first + index // 2 for index in range(count)]
        table = {"film": images, "label": [index % 2 for index in range(count)], "subject": subjects}
        parts[split] = datasets.Dataset.from_dict(table, features=features)
    with LoopbackHub() as hub:
        environment = hub.environment(str(tmp_path / "home"))
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
        push = tmp_path / "push.py"
        push.write_text(
            "import datasets, sys; rows = datasets.load_from_disk(sys.argv[1]);"
            "rows.push_to_hub('tester/chests', 'films'); rows.push_to_hub('tester/chests', 'others')"
        )
        run(workshop, str(push), str(tmp_path / "saved"), **environment)
        config = tmp_path / "cls.yaml"
        config.write_text(workshop.configs["train_cls.py"].read_text())
        words = (
            "train_cls.py", str(config), "--data_dir", "tester/chests",
            "--output_dir", str(tmp_path / "stage2"), "--model_name_or_path", str(stage1),
            "--dataset_config", "films", "--patient_column", "subject", "--use_cpu", "true",
            "--bootstrap_resamples", "20",
        )  # fmt: skip
        run(workshop, *words, **environment)
        record = read_record(tmp_path / "stage2")
        assert record.tested_on == {"image folder": 8} and set(record.evaluation.findings) == {"none", "bar"}
        assert record.evaluation.patients == 4
        revision = hub.repositories["datasets:tester/chests"].head
    assert record.data.own_images.revision == revision
    card = (tmp_path / "stage2" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["tester/chests"]
    assert "# Hiera, findings of tester/chests (smoke run)\n" in card
    assert f"datasets/tester/chests) on the Hub, configuration `films`, revision `{revision}`;" in card
    scored = run(  # the Hub is gone: what was extracted of it is read
        workshop, "evaluate_cls.py", "--model", str(tmp_path / "stage2"), "--data_dir", "tester/chests",
        "--dataset_config", "films", "--patient_column", "subject", "--output_dir", str(tmp_path / "scores"),
        "--bootstrap_resamples", "0",
        **environment,
    )  # fmt: skip
    assert "what was extracted of it before is read" in scored.stderr


@pytest.mark.realdata
def test_kermanys_folder_trains_with_no_preparation(kermany_folder, workshop, stage1, tmp_path):
    small = tmp_path / "chest_xray"
    for split, count in (("train", 25), ("val", 2), ("test", 6)):
        for name in ("NORMAL", "PNEUMONIA"):
            (small / split / name).mkdir(parents=True)
            for path in sorted((kermany_folder / split / name).iterdir())[:count]:
                shutil.copy(path, small / split / name)
    words = ("--data_dir", str(small), "--build_dir", str(tmp_path / "built"), "--max_steps", "3")
    of_stage_2 = ("--model_name_or_path", str(stage1), "--bootstrap_resamples", "20")
    for script, more in (("train_mae.py", ()), ("train_cls.py", of_stage_2)):
        done = workshop.run(script, tmp_path / script, *words, *more)
        assert done.returncode == 0, done.stdout
        assert "Kermany's: person1_virus_6 is of person1_virus" in done.stdout
    record = read_record(tmp_path / "train_cls.py")
    assert record.tested_on == {"image folder": 12}
    assert set(record.evaluation.exclusive.labels) == {"NORMAL", "PNEUMONIA"}
    assert record.data.shared_patients == {}
