"""Reports from raw pictures to a published folder and back, by the commands that a user types."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from killed_runs import kill_after_checkpoint, logged, weights
from report_workshop import ReportWorkshop, stock_reports
from safetensors import safe_open

from medhiera.errors import UserError
from medhiera.hub.contents import contents_of
from medhiera.hub.model_card import card_of
from medhiera.hub.publish import check_can_push, publish_stage
from medhiera.hub.record import ReportRecord, read_record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def studio(root, tmp_path_factory):
    return ReportWorkshop(root, tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def written(studio):
    """A finished folder."""
    return studio.train(studio.folder / "report")


def test_the_folder_says_everything_that_is_to_be_shown(written):
    record = read_record(written)
    assert isinstance(record, ReportRecord) and record.key == (2, "reports") and record.kind == "smoke"
    assert [one.chosen_by for one in record.evaluation.constants] == ["bleu_4", "cider"]
    card = (written / "README.md").read_text()
    assert card == card_of(written)
    for phrase in (
        "pipeline_tag: image-text-to-text",
        "one constant report, chosen by CIDEr-D",
        "report of the nearest training picture",
        "**This model minus the constant chosen by CIDEr-D**",
        f"**{record.evaluation.written.distinct} distinct reports**",
        "stand word for word among",
        "whose reference names left or right",
        "Not for clinical use",
        "synthetic phantoms",
    ):
        assert phrase in card, phrase
    first, *_ = (written / "training_log.csv").read_text().splitlines()
    assert "eval_cider,eval_bleu_4,eval_rouge_l,eval_distinct" in first
    assert any(row["eval_cider"] for row in logged(written))
    assert "normalization" not in (written / "printed.txt").read_text()  # it starts from no stage


def test_stock_transformers_writes_the_same_in_a_process_without_us(studio, written, tmp_path):
    pictures = [str(path) for path in studio.pictures[:3]]
    stock = stock_reports(written, pictures, tmp_path)
    done = studio.run("predict.py", None, "--model", str(written), "--output", str(tmp_path / "reports.csv"),
                      "--device", "cpu", "--batch_size", "1", *pictures)  # fmt: skip
    assert done.returncode == 0, done.stdout
    rows = list(csv.DictReader((tmp_path / "reports.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == pictures
    assert [row["report"] for row in rows] == [text.strip() for text in stock]
    again = studio.run("predict.py", None, "--model", str(written), "--output", str(tmp_path / "reports.csv"),
                       "--device", "cpu", *pictures, str(studio.pictures[3]))  # fmt: skip
    assert "already holds 3 images: resuming" in again.stdout
    assert len(list(csv.reader((tmp_path / "reports.csv").read_text().splitlines()))) == 5


def test_the_documents_lines_write_of_two_views_what_the_folder_holds(studio, written, root, tmp_path):
    """Those of docs/reports.md, as they stand, in a process that cannot see this project."""
    text = (root / "docs" / "reports.md").read_text(encoding="utf-8")
    [code] = re.findall(r"Several views .*?```python\n(.*?)```", text, re.DOTALL)
    with (written / "reports.csv").open(newline="", encoding="utf-8") as file:
        expected = {row["study"].rpartition("CXR")[2]: row["written"] for row in csv.DictReader(file)}
    views = {}
    for path in studio.pictures:
        views.setdefault(path.name.split("_")[0], []).append(path)
    study = next(number for number, paths in views.items() if len(paths) == 2 and number in expected)
    for name, path in zip(("frontal.png", "lateral.png"), views[study], strict=True):
        shutil.copy(path, tmp_path / name)
    shutil.copytree(written, tmp_path / "runs" / "report", ignore=shutil.ignore_patterns("checkpoint-*"))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"}, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected[study].strip()


def test_scoring_the_folder_gives_the_records_numbers(studio, written, tmp_path):
    def evaluate(name, *words):
        printed = studio.evaluate(written, tmp_path / name, *words)
        return json.loads((tmp_path / name / "metrics.json").read_text())["evaluation"], printed

    recorded = json.loads((written / "metrics.json").read_text())["evaluation"]
    found, _ = evaluate("test")
    assert found == recorded
    texts = (tmp_path / "test" / "reports.csv").read_text()
    assert texts == (written / "reports.csv").read_text()
    _, printed = evaluate("again", "--compare", str(tmp_path / "test" / "reports.csv"))
    assert "cider    +0.000 (–), p 1.000" in printed  # all resamples are equal
    validation, _ = evaluate("validation", "--split", "validation")
    assert validation["split"] == "validation" and validation != recorded


def test_publishing_sends_what_stock_needs_and_no_report(hub, written, tmp_path):
    publish_stage(written, "tester/reports", stage=2)
    files = dict(hub.repositories["tester/reports"].files)
    assert {"config.json", "model.safetensors", "generation_config.json", "processor_config.json",
            "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "metrics.json",
            "view_embeddings.safetensors", "README.md", "figures/loss.png"} <= files.keys()  # fmt: skip
    assert not any(name.endswith((".py", ".csv", ".txt")) for name in files)
    assert "auto_map" not in json.loads(files["config.json"])
    assert b'model="tester/reports"' in files["README.md"]
    check_can_push("tester/reports", stage=2, task="reports")
    with pytest.raises(UserError, match=r"already holds stage 2 \(reports\)"):
        check_can_push("tester/reports", stage=2)
    # As of one view, without a list of images: what of an earlier commit is not sent must not stay.
    fewer, left_out = tmp_path / "fewer", {"view_embeddings.safetensors", "training_images.parquet"}
    shutil.copytree(written, fewer, ignore=shutil.ignore_patterns("checkpoint-*", *left_out))
    record = read_record(fewer)
    record.contents = contents_of(fewer)
    record.write(fewer)
    hub.repositories["tester/reports"].files["notes.md"] = b"by hand"
    publish_stage(fewer, "tester/reports")
    after = hub.repositories["tester/reports"].files.keys()
    assert left_out <= files.keys() - after and "notes.md" in after


@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_and_resume_gives_the_same_weights(studio, tmp_path, ranks):
    words = ["--max_steps", "20", "--per_device_train_batch_size", str(4 // ranks)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = studio.run("train_report.py", whole, *words, ranks=ranks)
    assert done.returncode == 0, done.stdout
    kill_after_checkpoint(studio, "train_report.py", killed, *words, step=8, ranks=ranks)
    done = studio.run("train_report.py", killed, *words, "--resume_from_checkpoint", "true", ranks=ranks)
    assert done.returncode == 0, done.stdout
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)
    assert logged(whole) == logged(killed)
    assert (whole / "reports.csv").read_text() == (killed / "reports.csv").read_text()
    if ranks > 1:  # each wrote its share, and every report stands beside its own study
        studio.evaluate(whole, tmp_path / "alone")
        assert (whole / "reports.csv").read_text() == (tmp_path / "alone" / "reports.csv").read_text()


def test_the_legacy_vocabulary_and_the_impression(studio, tmp_path):
    output = tmp_path / "legacy"
    (output / "figures").mkdir(parents=True)
    (output / "figures" / "roc.png").write_bytes(b"")  # of a classifier whose run was ended
    (output / "training_log.csv").touch()
    done = studio.run(
        "train_report.py", output, "--legacy_vocabulary", "true", "--report_section", "impression",
        "--views", "1", "--score_test", "false", "--max_steps", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    record = read_record(output)
    assert record.evaluation.section == "impression" and record.evaluation.split == "validation"
    assert "<unk>" in json.loads((output / "tokenizer.json").read_text())["model"]["vocab"]
    assert not (output / "view_embeddings.safetensors").exists()
    assert [path.name for path in (output / "figures").iterdir()] == ["loss.png"]
    assert "These numbers are of the same validation studies" in (output / "README.md").read_text()
    with safe_open(output / "model.safetensors", "pt") as file:
        assert "view_embeddings" not in file.keys()
