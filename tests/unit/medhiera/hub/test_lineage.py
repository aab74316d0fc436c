"""What a stage's record says of the stages before it."""

import json

import huggingface_hub
import pytest

from medhiera.hub.lineage import RANDOM, lineage_of, stage_record

CLEAN = {"is_checked": True, "held_out": 5, "compared": 9, "dropped": 2, "allowed": 0}
LEAKING = CLEAN | {"dropped": 0, "allowed": 2}


def write(folder, stage, lineage, trained_on, leakage, is_phantom=False):
    folder.mkdir()
    data = {"trained_on": trained_on, "is_phantom": is_phantom, "leakage": leakage}
    record = {"stage": stage, "lineage": lineage, "data": data}
    (folder / "metrics.json").write_text(json.dumps(record))
    return str(folder)


def test_a_leak_of_stage_1_is_still_known_after_two_clean_stages(tmp_path):
    first = write(tmp_path / "1", 1, RANDOM, {"COVIDx CXR-3": 3, "ChestX-ray14": 4}, LEAKING)
    second = write(tmp_path / "2", 2, lineage_of(first), {"ChestX-ray14": 4}, CLEAN)
    found = lineage_of(second)
    assert found["leakage_before"] == [{"stage": 1} | LEAKING, {"stage": 2} | CLEAN]
    assert found["trained_before"] == ["COVIDx CXR-3", "ChestX-ray14"]
    assert found["license"] == "apache-2.0"


def test_what_is_not_recorded_is_not_known(tmp_path):
    (tmp_path / "bare").mkdir()
    bare = lineage_of(str(tmp_path / "bare"))
    assert bare["leakage_before"] is None and bare["started_from"] == "the folder bare"
    after = write(tmp_path / "1", 1, lineage_of(str(tmp_path / "bare")), {"ChestX-ray14": 4}, CLEAN)
    assert lineage_of(after)["leakage_before"] is None


def test_imagenet_weights_have_seen_no_radiograph(monkeypatch, tmp_path):
    """With no network and nothing cached: neither a record nor a card is to be had."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = lineage_of("facebook/hiera-tiny-224-mae-hf")
    assert found["leakage_before"] == [] and found["license"] == "cc-by-nc-4.0"
    assert lineage_of("someone/else")["leakage_before"] is None


def test_phantoms_are_no_images_of_a_source(tmp_path):
    first = write(tmp_path / "1", 1, RANDOM, {"ChestX-ray14": 4}, CLEAN, is_phantom=True)
    assert lineage_of(first)["trained_before"] == []


@pytest.mark.parametrize("content", ['{"model": "x", "mean_auroc": 0.5}', "[]"])
def test_an_evaluation_s_record_is_no_stage_s(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    assert stage_record(tmp_path) is None
