"""evaluate_cls.py on classes: an image is called by all outputs of the model, as predict.py calls it."""

import csv
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from page_fixtures import write_stage2
from PIL import Image

import evaluate_cls
import predict
import probe
from medhiera.errors import UserError
from modeling_hiera_mae import HieraMAEForImageClassification

CLASSES = ["covid", "normal", "tuberculosis", "viral pneumonia"]


def write_model(folder, names=CLASSES):
    """A model of classes that calls every image by its last one and ranks the others as it happens."""
    write_stage2(folder)
    model = HieraMAEForImageClassification.from_pretrained(folder)
    model.classifier.weight.data *= 0.01
    model.classifier.bias.data = torch.tensor([0.0, 0.0, 0.0, 3.0])
    model.config.problem_type = "single_label_classification"
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.save_pretrained(folder)
    return folder


def write_films(folder, names):
    generator = np.random.default_rng(0)
    for name in names:
        (folder / "test" / name).mkdir(parents=True)
        for index in range(6):
            pixels = generator.integers(0, 256, (80, 80), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "test" / name / f"{name}{index}.png")
    return folder


def evaluate(model, films, output, *more):
    words = ["--model", str(model), "--data_dir", str(films), "--output_dir", str(output), "--device", "cpu"]
    evaluate_cls.main([*words, "--bootstrap_resamples", "20", *more])
    return json.loads((output / "metrics.json").read_text())["evaluation"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("classes") / "model")


def test_a_call_of_a_class_that_the_data_lacks_is_wrong(model, tmp_path, caplog):
    """The films are covid and normal alone, and predict.py calls all of them viral pneumonia."""
    films = write_films(tmp_path / "films", ["normal", "covid"])
    predict.main(["--model", str(model), "--output", str(tmp_path / "p.csv"), str(films)])
    with (tmp_path / "p.csv").open() as file:
        assert {row["predicted"] for row in csv.DictReader(file)} == {"viral pneumonia"}
    found = evaluate(model, films, tmp_path / "first")
    exclusive = found["exclusive"]
    assert exclusive["accuracy"] == 0 == exclusive["balanced_accuracy"]
    assert exclusive["accuracy_of_commonest"] == 0.5
    assert exclusive["labels"]["covid"]["recall"] == 0 == exclusive["labels"]["normal"]["recall"]
    called = {"covid": 0, "normal": 0, "tuberculosis": 0, "viral pneumonia": 6}
    assert exclusive["labels"]["covid"]["called"] == called == exclusive["labels"]["normal"]["called"]
    assert exclusive["labels"]["viral pneumonia"]["recall"] is None
    assert found["findings"]["viral pneumonia"]["reason"] == "no positive image"
    assert found["findings_in_mean"] == ["covid", "normal"]
    assert "the data lacks tuberculosis, viral pneumonia of the model's classes" in caplog.text
    assert "not in the data: left out" not in caplog.text
    table = pd.read_parquet(tmp_path / "first" / "predictions.parquet")
    assert table[CLASSES].sum(axis=1).to_numpy() == pytest.approx(1)
    assert (table["tuberculosis (label)"] == 0).all()


def test_models_of_other_classes_are_compared_on_those_of_the_data(model, tmp_path):
    films = write_films(tmp_path / "films", ["covid", "normal"])
    evaluate(model, films, tmp_path / "first")
    table = pd.read_parquet(tmp_path / "first" / "predictions.parquet")
    of_two = table.drop(columns=[name for name in table if name.startswith(("tuberculosis", "viral"))])
    of_two.to_parquet(tmp_path / "two.parquet")
    found = evaluate(model, films, tmp_path / "second", "--compare", str(tmp_path / "two.parquet"))
    comparison = found["comparison"]
    assert comparison["findings"].keys() == {"covid", "normal"}
    assert comparison["other"] == f"{tmp_path.name}/two.parquet"
    assert comparison["other_sha256"] == hashlib.sha256((tmp_path / "two.parquet").read_bytes()).hexdigest()
    assert str(tmp_path.parent) not in (tmp_path / "second" / "metrics.json").read_text()


def test_predictions_of_other_data_are_refused_before_anything_is_scored(model, tmp_path, monkeypatch):
    films = write_films(tmp_path / "films", ["covid", "normal"])
    evaluate(model, films, tmp_path / "first")
    table = pd.read_parquet(tmp_path / "first" / "predictions.parquet")
    covid, normal = "covid (label)", "normal (label)"
    table.rename(columns={covid: normal, normal: covid}).to_parquet(tmp_path / "labels.parquet")
    table.assign(patient_id="p1").to_parquet(tmp_path / "patients.parquet")
    monkeypatch.setattr(evaluate_cls, "predict", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr(probe, "embed_in_memory", lambda *_: pytest.fail("embedded"))
    said_of = {"labels": "has covid (absent|present) there", "patients": "has patient 'p1' there"}
    for file, said in said_of.items():
        other = str(tmp_path / f"{file}.parquet")
        with pytest.raises(UserError, match=rf"--compare .* is of other data: image .* {said} .*12 of 12"):
            evaluate(model, films, tmp_path / "second", "--compare", other)
        with pytest.raises(UserError, match=f"is of other data: .*{said}"):
            probe.main(["--model", str(model), "--data_dir", str(films), "--output_dir", str(tmp_path / "p"),
                        "--device", "cpu", "--compare", other])  # fmt: skip


def test_a_class_that_the_model_lacks_is_refused(model, tmp_path):
    films = write_films(tmp_path / "films", ["covid", "pneumothorax"])
    with pytest.raises(UserError, match=r"no output for \['pneumothorax'\]"):
        evaluate(model, films, tmp_path / "out")


def test_the_legacy_head_of_classes_is_refused(model, tmp_path):
    (tmp_path / "films").mkdir()
    with pytest.raises(UserError, match="--legacy_head is of several labels alone"):
        evaluate(model, tmp_path / "films", tmp_path / "out", "--legacy_head")


def test_a_class_named_as_a_column_of_the_predictions_is_refused_before_scoring(tmp_path, monkeypatch):
    named = write_model(tmp_path / "model", [*CLASSES[:2], "view", CLASSES[3]])
    films = write_films(tmp_path / "films", ["covid", "view"])
    monkeypatch.setattr(evaluate_cls, "predict", lambda *_: pytest.fail("scored"))
    with pytest.raises(UserError, match="two columns 'view'.*rename"):
        evaluate(named, films, tmp_path / "out")
