"""What a stage's record says of the stages before it."""

import json
import logging
from dataclasses import asdict

import huggingface_hub
import pytest
from datasets import Dataset
from stage_records import SOME_REPORT, classification_record, imagenet_record, pretraining_record

from dataset_scripts.build.origin import DatasetOrigin
from medhiera.data.cocktail import LeakageCounts
from medhiera.data.training_images import list_images, write_training_images
from medhiera.errors import UserError
from medhiera.hub.lineage import find_record, images_before, lineage_of, teacher_record
from medhiera.hub.operation import Operation
from medhiera.hub.published_files import AUTO_MAP
from medhiera.hub.record import Lineage, StageLeakage

CLEAN = LeakageCounts(is_checked=True, held_out=5, compared=9, dropped=2, allowed=0)
LEAKING = LeakageCounts(is_checked=True, held_out=5, compared=9, dropped=0, allowed=2)
NIH = {"ChestX-ray14": 4}


def write(folder, record):
    folder.mkdir(exist_ok=True)
    record.write(folder)
    return str(folder)


def test_a_leak_of_stage_1_is_still_known_after_two_clean_stages(tmp_path):
    first = pretraining_record(trained_on={"COVIDx CXR-3": 3} | NIH, leakage=LEAKING)
    lineage = lineage_of(write(tmp_path / "1", first), [])
    second = classification_record(SOME_REPORT, lineage=lineage, trained_on=NIH, leakage=CLEAN)
    found = lineage_of(write(tmp_path / "2", second), ["classifier.bias"])
    assert found.leakage_before == [
        StageLeakage(stage=1, **vars(LEAKING)), StageLeakage(stage=2, **vars(CLEAN))
    ]  # fmt: skip
    assert found.earlier_sources == ["COVIDx CXR-3", "ChestX-ray14"]
    assert found.license == "apache-2.0" and found.new_weights == ["classifier.bias"]
    assert found.started_from.startswith("stage 2 (from stage 1 (from random weights; COVIDx CXR-3 3, ")


def test_your_own_images_are_named_by_their_card(tmp_path):
    record = pretraining_record(trained_on={"image folder": 3} | NIH)
    assert "; image folder 3, " in lineage_of(write(tmp_path / "bare", record), []).started_from
    record.data.own_images = DatasetOrigin(folder="own_images", name="Two hospitals' films")
    found = lineage_of(write(tmp_path / "named", record), [])
    assert found.started_from == (
        "stage 1 (from random weights; Two hospitals' films 3, ChestX-ray14 4 images)"
    )
    assert "image folder" in found.earlier_sources  # by which overlap is looked for


def test_what_is_not_recorded_is_not_known(tmp_path):
    (tmp_path / "bare").mkdir()
    bare = lineage_of(str(tmp_path / "bare"), [])
    assert bare.leakage_before is None and bare.started_from == "the folder bare"
    after = write(tmp_path / "1", pretraining_record(lineage=bare, leakage=CLEAN))
    assert lineage_of(after, []).leakage_before is None


def test_imagenet_weights_have_seen_no_radiograph(monkeypatch, tmp_path):
    """With no network and nothing cached: neither a record nor a card is to be had."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = lineage_of("facebook/hiera-tiny-224-mae-hf", [])
    assert found.leakage_before == [] and found.license == "cc-by-nc-4.0"
    assert lineage_of("someone/else", []).leakage_before is None


def test_phantoms_are_no_images_of_a_source(tmp_path):
    first = write(tmp_path / "1", pretraining_record(trained_on=NIH, is_phantom=True))
    assert lineage_of(first, []).earlier_sources == []


@pytest.mark.parametrize("make", [imagenet_record, pretraining_record, classification_record])
def test_a_record_comes_back_as_it_was_written(tmp_path, make):
    record = make()
    assert find_record(write(tmp_path, record)) == record


def test_a_record_with_a_nan_is_not_written(tmp_path):
    record = pretraining_record()
    record.evaluation.masked_loss = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path)


def test_a_damaged_record_names_what_is_wrong(tmp_path):
    write(tmp_path, pretraining_record())
    text = (tmp_path / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(text.replace('"steps": 10', '"steps": "many"'))
    with pytest.raises(UserError, match=r"metrics.json is not the record .*training.steps: Input should be"):
        find_record(tmp_path)
    (tmp_path / "metrics.json").write_text(text[:50])
    with pytest.raises(UserError, match=r"metrics.json is not valid JSON"):
        find_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["lineage"].pop("license"), "lineage.license: Field required"),
        (lambda record: record["lineage"].update(trained_before=[]), "trained_before: Unexpected"),
    ],
)
def test_a_record_of_another_version_does_not_lose_a_licence_in_silence(tmp_path, change, message):
    record = asdict(pretraining_record(lineage=Lineage.random()))
    change(record)
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        find_record(tmp_path)


@pytest.mark.parametrize("content", ['{"model": "x", "mean_auroc": 0.5}', "[]"])
def test_an_evaluation_s_record_is_no_stage_s(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    assert find_record(tmp_path) is None


def cache(monkeypatch, folder, name, config, absent=()):
    """A repository as the Hub's cache holds it offline: its config.json, and what it is known to lack."""
    place = folder / f"models--{name.replace('/', '--')}"
    for file, content in {
        "refs/main": "c0ffee",
        "snapshots/c0ffee/config.json": json.dumps(config),
        **{f".no_exist/c0ffee/{file}": "" for file in absent},
    }.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(content)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return name


OURS = {"model_type": "hiera", "auto_map": AUTO_MAP}
WRITER = {"model_type": "vision-encoder-decoder", "report_views": 1}
STOCK = {"model_type": "hiera"}


@pytest.mark.parametrize("config", [OURS, WRITER])
def test_a_record_that_cannot_be_fetched_is_not_taken_for_none(monkeypatch, tmp_path, caplog, config):
    name = cache(monkeypatch, tmp_path, f"tester/{config['model_type']}", config)
    for _ in range(3):
        assert Operation.find(name).thresholds == {}
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"metrics.json of {name} cannot be fetched (HF_HUB_OFFLINE is set" in said
    assert "thresholds, calibration, license" in said and "are not known; `hf download" in said
    keep = (lambda: lineage_of(name, []), lambda: Operation.find(name, is_kept=True),
            lambda: teacher_record(name, "hiera", "0"))  # fmt: skip
    for ask in keep:
        with pytest.raises(UserError, match=rf"would lack .* Run `hf download {name} metrics.json` with"):
            ask()


def test_a_stage_without_its_list_of_images_is_no_start(monkeypatch, tmp_path):
    """The list of what is trained from it would vouch for less than its weights have seen."""
    told = "was trained on 1,000 images, and no training_images.parquet is to be had that says on which"
    here = tmp_path / "here"
    write(here, pretraining_record())
    (here / "checkpoint-8").mkdir()
    (here / "run.json").write_text("{}")
    name = cache(monkeypatch, tmp_path / "hub", "tester/listless", OURS)
    write(tmp_path / "hub" / "models--tester--listless" / "snapshots" / "c0ffee", pretraining_record())
    for source, step in ((here, "copy the file from where"), (here / "checkpoint-8", "copy the file"),
                         (name, f"run `hf download {name} training_images.parquet`")):  # fmt: skip
        with pytest.raises(UserError, match=rf"{told}: .*; {step}"):
            images_before(str(source))
    images = list_images(Dataset.from_dict({"source": ["ChestX-ray14"], "image_id": ["a.png"]}), "train")
    write_training_images(here, images)
    assert [len(images_before(str(source))) for source in (here, here / "checkpoint-8")] == [1, 1]
    assert images_before(write(tmp_path / "stage0", imagenet_record())).empty
    assert images_before(None).empty and images_before("someone/else").empty


def test_a_stock_model_in_the_cache_is_trained_from_offline(monkeypatch, tmp_path, caplog):
    name = cache(monkeypatch, tmp_path, "facebook/hiera-tiny-224-mae-hf", STOCK)
    assert lineage_of(name, []).license == "cc-by-nc-4.0"
    assert "if it is a stage of this project" in caplog.text
    caplog.clear()
    for config in (STOCK, OURS):
        known = cache(monkeypatch, tmp_path / config.get("auto_map", {}).get("AutoConfig", "stock"),
                      "someone/known", config, ["metrics.json"])  # fmt: skip
        assert lineage_of(known, []).started_from == known
        assert Operation.find(known, is_kept=True).thresholds == {}
    assert caplog.records == []


def test_an_export_without_its_record_is_refused(monkeypatch, tmp_path):
    """Its metadata would say for good that the model has neither thresholds nor calibration."""
    from medhiera.inference import onnx_export

    class Model:
        is_exclusive, names = False, ["Mass"]

    name = cache(monkeypatch, tmp_path, "tester/export", OURS)
    with pytest.raises(UserError, match=r"metrics.json of tester/export cannot be fetched"):
        onnx_export._reading(name, Model())
