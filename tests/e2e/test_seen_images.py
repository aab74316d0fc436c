"""What a stage has seen is published with it, and read back from the Hub."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import constants

from medhiera.data.training_images import (
    check_unseen,
    list_images,
    read_training_images,
    unite,
    write_training_images,
)
from medhiera.errors import UserError
from medhiera.hub.model_card import card_of
from medhiera.hub.publish import publish_stage

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

NIH = [f"{number:08d}_000.png" for number in range(1, 6)]

RSNA = Dataset.from_dict(
    {"source": ["RSNA Pneumonia"], "image_id": ["RSNA Pneumonia/uuid"], "nih_image": ["00000002_000.png"]}
)


def write_list(folder: Path, source: str, *names: str) -> None:
    rows = {"source": [source] * len(names), "image_id": [f"{source}/{name}" for name in names]}
    if source == "ChestX-ray14":
        rows["nih_image"] = list(names)
    write_training_images(folder, unite([list_images(Dataset.from_dict(rows), "train")]))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where this process keeps what it downloads."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_it_is_published_and_read_back_and_anyone_leaves_the_overlap_out(
    hub, stage_folder, cache, tmp_path, monkeypatch, caplog
):
    write_list(stage_folder, "ChestX-ray14", *NIH[:3])
    (stage_folder / "README.md").write_text(card_of(stage_folder))
    publish_stage(stage_folder, "tester/model")
    files = hub.repositories["tester/model"].files
    assert files["training_images.parquet"] == (stage_folder / "training_images.parquet").read_bytes()
    told = "tester/model was trained on 1 of the 1 test images, such as 'RSNA Pneumonia/uuid', which is "
    with pytest.raises(UserError, match=f"{told}ChestX-ray14's 00000002_000.png"):
        check_unseen("tester/model", test=RSNA)

    card = files["README.md"].decode()
    [snippet] = [part for part in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "seen" in part]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(["Image Index", *NIH]) + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["images"]["Image Index"].tolist() == NIH[3:]

    (stage_folder / "training_images.parquet").unlink()
    publish_stage(stage_folder, "tester/model")
    assert "training_images.parquet" not in hub.repositories["tester/model"].files  # none out of date
    check_unseen("tester/model", test=RSNA)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_offline_the_list_that_was_downloaded_before_counts(
    hub, stage_folder, cache, tmp_path, monkeypatch, caplog
):
    write_list(stage_folder, "ChestX-ray14", *NIH[:3])
    publish_stage(stage_folder, "tester/model")
    assert len(read_training_images("tester/model")) == 3
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="tester/model was trained on 1 of the 1 test images"):
        check_unseen("tester/model", test=RSNA)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    check_unseen("tester/model", test=RSNA)
    assert "whether tester/model has seen the images that are held out is not checked" in caplog.text


def test_a_list_that_names_a_folder_of_this_machine_is_not_published(hub, stage_folder):
    write_list(stage_folder, "COVID-19 Radiography", "COVID/images/COVID-1.png", "COVID/home/anna/1.png")
    with pytest.raises(UserError, match=r"training_images.parquet in .* names '/home/anna'"):
        publish_stage(stage_folder, "tester/model")
    assert hub.repositories == {}
