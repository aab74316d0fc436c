"""evaluate_cls.py and predict.py as a user runs them, on ours and on stock checkpoints."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BitImageProcessor, HieraConfig, HieraForImageClassification
from warm_python import warm_python

from dataset_scripts import FINDINGS
from medhiera.data.training_images import list_images, write_training_images


def test_evaluate_cls_repeats_the_test_numbers_of_training(stage2, workshop, tmp_path):
    done = subprocess.run(
        [warm_python(), "evaluate_cls.py", "--model", str(stage2), "--data_dir", str(workshop.raw),
         "--build_dir", str(workshop.folder / "built"), "--output_dir", str(tmp_path / "scores")],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "scores" / "metrics.json").read_text())["evaluation"]
    trained = json.loads((stage2 / "metrics.json").read_text())["evaluation"]
    for name, entry in trained["findings"].items():
        assert again["findings"][name]["positives"] == entry["positives"]
        if entry["auroc"] is not None:
            assert again["findings"][name]["auroc"] == pytest.approx(entry["auroc"], abs=1e-3)
    assert again["pointing_game"]["pairs"] == trained["pointing_game"]["pairs"] > 0
    assert "Table 3" not in done.stderr and "not shown beside this: the images are synthetic" in done.stderr
    assert "this model is a smoke run's" in done.stderr and "synthetic phantoms, and" not in done.stderr
    assert again["comparison"] is None and again["split"] == "test"
    table = pd.read_parquet(tmp_path / "scores" / "predictions.parquet")
    assert len(table) == again["images"] and "Edema (label)" in table


def test_a_model_is_scored_on_the_split_it_was_trained_with(stage2, workshop, tmp_path):
    """Another split's test images may have been trained on; it is scored where it is asked for by name."""
    model = tmp_path / "thirds"
    shutil.copytree(stage2, model, ignore=shutil.ignore_patterns("checkpoint-*"))
    record = json.loads((model / "metrics.json").read_text())
    record["data"]["split_scheme"] = "medtransformer"
    (model / "metrics.json").write_text(json.dumps(record))

    def evaluate(name, *words):
        done = subprocess.run(
            [warm_python(), "evaluate_cls.py", "--model", str(model), "--data_dir", str(workshop.raw),
             "--build_dir", str(workshop.folder / "built"), "--output_dir", str(tmp_path / name),
             "--bootstrap_resamples", "0", *words],
            cwd=workshop.root, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / name / "metrics.json").read_text()), done.stderr

    thirds, said = evaluate("own")
    assert thirds["split_scheme"] == "medtransformer" and "as asked for" not in said
    official, said = evaluate("other", "--split_scheme", "official")
    assert official["split_scheme"] == "official"
    assert "was trained with the medtransformer split and is scored on the official one" in said
    listed = len((workshop.raw / "ChestXray-NIHCC" / "test_list.txt").read_text().split())
    assert official["evaluation"]["images"] == listed
    assert thirds["evaluation"]["images"] == listed - 2 * listed // 3


def test_evaluate_cls_takes_a_stock_checkpoint_and_compares_two_models(stage2, workshop, tmp_path):
    """Stock Hiera, its own normalization, labels in another order and spelling; legacy head and tta."""
    names = [name.replace("_", " ").upper() for name in FINDINGS[::-1]] + ["Fracture"]
    torch.manual_seed(0)
    config = HieraConfig(
        image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    HieraForImageClassification(config).save_pretrained(tmp_path / "stock")
    BitImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(tmp_path / "stock")  # fmt: skip

    def evaluate(model, name, *words):
        return subprocess.run(
            [warm_python(), "evaluate_cls.py", "--model", str(model), "--data_dir", str(workshop.raw),
             "--build_dir", str(workshop.folder / "built"), "--output_dir", str(tmp_path / name),
             "--bootstrap_resamples", "20", *words],
            cwd=workshop.root, text=True, capture_output=True,
        )  # fmt: skip

    first = evaluate(tmp_path / "stock", "first", "--tta")
    assert first.returncode == 0, first.stderr
    assert "1 outputs of the model are not in the data" in first.stderr
    one = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert list(one["evaluation"]["findings"]) == list(FINDINGS) and one["tta"] and one["model"] == "stock"
    predictions = str(tmp_path / "first" / "predictions.parquet")
    second = evaluate(stage2, "second", "--legacy_head", "--compare", predictions)
    assert second.returncode == 0, second.stderr
    other = json.loads((tmp_path / "second" / "metrics.json").read_text())
    one, other = one["evaluation"], other["evaluation"]
    difference = other["comparison"]["mean"]["auroc"]["difference"]
    assert difference == pytest.approx(other["mean_auroc"] - one["mean_auroc"], abs=1e-9)
    assert "paired:" in second.stderr
    wrong = evaluate(stage2, "third", "--compare", str(tmp_path / "absent.parquet"))
    assert wrong.returncode == 1 and "no such file" in wrong.stderr.splitlines()[-1]


def test_the_mean_of_two_models_is_scored_beside_each(stage2, workshop, tmp_path):
    """And refused where one of them was trained with another split, or on images that are scored."""
    other = tmp_path / "other"
    shutil.copytree(stage2, other, ignore=shutil.ignore_patterns("checkpoint-*", "raw"))
    weights = load_file(other / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    weights["classifier.weight"].normal_(generator=noise)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})

    def evaluate(name, *models):
        done = subprocess.run(
            [warm_python(), "evaluate_cls.py", "--model", *map(str, models), "--data_dir", str(workshop.raw),
             "--build_dir", str(workshop.folder / "built"), "--output_dir", str(tmp_path / name),
             "--bootstrap_resamples", "20", "--tta"],
            cwd=workshop.root, text=True, capture_output=True,
        )  # fmt: skip
        return done, tmp_path / name

    done, both = evaluate("both", stage2, other)
    assert done.returncode == 0, done.stderr
    record = json.loads((both / "metrics.json").read_text())
    assert record["model"] == f"{stage2.name} + other" and "+" in record["fingerprint"] and record["tta"]
    assert [one["model"] for one in record["members"]] == [stage2.name, "other"]
    assert record["evaluation"]["pointing_game"]["reason"] == "the mean of several models has no heat maps"
    done, alone = evaluate("alone", other)
    assert done.returncode == 0, done.stderr
    single = json.loads((alone / "metrics.json").read_text())
    assert single["members"] == []
    member = record["members"][1]
    assert member["scores"]["mean_auroc"] == single["evaluation"]["mean_auroc"]
    assert member["scores"]["mean_auroc_interval"] == single["evaluation"]["mean_auroc_interval"]
    gain = member["gain"]["mean"]["auroc"]
    of_mean = record["evaluation"]["mean_auroc"]
    assert gain["difference"] == pytest.approx(of_mean - single["evaluation"]["mean_auroc"], abs=1e-9)
    assert gain["interval"] is not None
    one, mean = (pd.read_parquet(folder / "predictions.parquet") for folder in (alone, both))
    assert not np.allclose(one["Edema"], mean["Edema"])

    scored = Dataset.from_pandas(mean[["image_id"]].head(3).assign(source="ChestX-ray14", is_phantom=True))
    write_training_images(other, list_images(scored, "train"))
    done, _ = evaluate("seen", stage2, other)
    assert done.returncode == 1 and "was trained on 3 of the" in done.stderr.splitlines()[-1]
    parts = json.loads((other / "metrics.json").read_text())
    parts["data"]["split_scheme"] = "medtransformer"
    (other / "metrics.json").write_text(json.dumps(parts))
    done, _ = evaluate("splits", stage2, other)
    assert done.returncode == 1 and "trained with different splits" in done.stderr.splitlines()[-1]


def test_predict_writes_a_row_an_image_and_names_the_broken_one(stage2, workshop, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for index in range(3):
        Image.effect_noise((80 + index, 90), 40).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    done = subprocess.run(
        [warm_python(), "predict.py", "--model", str(stage2), "--output", str(tmp_path / "out.csv"),
         str(folder)],
        cwd=workshop.root, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 file could not be read" in done.stderr and "broken.png" in done.stderr
    assert "broken.png,truncated" in (tmp_path / "out.unreadable.csv").read_text()
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    findings = [name for name in rows[0] if f"{name} threshold" in rows[0]]
    assert findings and all(0 < float(row[name]) < 1 for row in rows for name in findings)
    for row in rows:
        for name in findings:
            above, threshold = row[f"{name} is_above"], row[f"{name} threshold"]
            assert (above == "") == (threshold == "")
            assert not threshold or (above == "1") == (float(row[name]) >= float(threshold))


def test_predict_reads_dicom_and_goes_on_after_a_kill(stage2, workshop, tmp_path):
    """16 bits, MONOCHROME1, a DICOM file without a suffix; the third batch is killed."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with Image.open(next((workshop.raw / "COVIDx_CXR" / "test").iterdir())) as picture:
        gray = np.asarray(picture.convert("L"))
    Image.fromarray(gray).save(folder / "a.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "b.png")
    write_dicom(folder / "c.dcm", gray, "MONOCHROME2")
    write_dicom(folder / "d", 255 - gray, "MONOCHROME1")
    (folder / "notes").write_text("no image, no suffix")
    command = [warm_python(), "predict.py", "--model", str(stage2), "--output", str(tmp_path / "out.csv")]
    command += ["--batch_size", "2", str(folder)]
    done = subprocess.run(command, cwd=workshop.root, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out.unreadable.csv").exists()
    whole = (tmp_path / "out.csv").read_bytes()
    table = pd.read_csv(tmp_path / "out.csv").set_index("path").drop(columns=["model", "content"])
    assert [Path(path).name for path in table.index] == ["a.png", "b.png", "c.dcm", "d"]
    probabilities = table[[name for name in table if f"{name} threshold" in table]]
    assert np.ptp(probabilities.to_numpy(), axis=0).max() < 0.02  # the same picture four times
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out.csv").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # as a kill leaves it
    again = subprocess.run(command, cwd=workshop.root, text=True, capture_output=True)
    assert "already holds 2 images" in again.stderr
    resumed = pd.read_csv(tmp_path / "out.csv").set_index("path").drop(columns=["model", "content"])
    pd.testing.assert_frame_equal(resumed, table, atol=1e-5)


def write_dicom(path, pixels, photometric):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = photometric
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
