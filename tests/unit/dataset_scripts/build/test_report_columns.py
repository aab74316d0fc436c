"""Reports through an export: studies stay together, the plan keeps texts, the card names the columns."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from mini_mimic import MimicFolder

from dataset_scripts import Cocktail
from dataset_scripts.__main__ import main
from dataset_scripts.build.export_plan import cut_into_shards, read_plan, write_plan
from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.findings import REPORT_COLUMNS
from dataset_scripts.mimic_cxr import SOURCE
from dataset_scripts.phantom.reports import write_phantom_reports


@pytest.fixture
def builder(tmp_path: Path) -> Cocktail:
    write_phantom_reports(tmp_path / "raw", studies=40, image_size=32)
    return Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "cache")


def test_an_export_keeps_studies_together_and_names_the_columns(builder, tmp_path):
    export_parquet(builder, tmp_path / "export", 1)
    rows = load_dataset(str(tmp_path / "export"), "iu_x_ray", cache_dir=str(tmp_path / "hf"))
    truth = json.loads((tmp_path / "raw" / "iu_xray" / "phantom_reports.json").read_text())["studies"]
    seen: list[str] = []
    for part in rows.values():
        names = part["study_id"]
        starts = [name for name, before in zip(names, ["", *names], strict=False) if name != before]
        assert len(starts) == len(set(names))
        assert all(
            view == "FRONTAL"
            for view, name, before in zip(part["view"], names, ["", *names], strict=False)
            if name != before
        )
        seen += starts
    assert sorted(seen) == sorted(f"iu_x_ray/{study}" for study in truth)
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert all(column in card for column in REPORT_COLUMNS) and "- image-to-text" in card


def test_a_plan_gives_the_texts_back(builder, tmp_path):
    tasks = tuple(cut_into_shards(builder.list_records(None)))
    assert any(record.report_findings for task in tasks for record in task.records)
    key = {"dataset": "cocktail", "config": "official", "version": "1"}
    (tmp_path / "work").mkdir()
    write_plan(tmp_path / "work", key, tasks)
    plan = read_plan(tmp_path / "work", key)
    assert repr(plan.tasks) == repr(tasks)  # by text, as NaN is not NaN


def test_credentialed_data_is_never_uploaded(tmp_path, capsys, caplog):
    MimicFolder(tmp_path / "raw" / SOURCE.folder)
    arguments = [
        "--data_dir",
        str(tmp_path / "raw"),
        "--output_dir",
        str(tmp_path / "out"),
        "--push_to_hub",
        "me/x",
    ]
    assert main(arguments) == 1
    assert "would upload MIMIC-CXR, whose terms forbid to pass it on" in caplog.text + capsys.readouterr().err
    assert not (tmp_path / "out").exists()
