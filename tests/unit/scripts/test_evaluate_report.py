"""evaluate_report.py in this process, on drawn studies and a tiny writer."""

import argparse
import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter
from report_rows import write_report_folder
from stage_records import facts, training
from tiny_chexbert import write_chexbert
from torch.nn.modules.module import register_module_forward_pre_hook

import evaluate_report
from dataset_scripts.phantom.reports import write_phantom_reports
from medhiera.errors import UserError
from medhiera.evaluation.caption_results import RadGraphScores
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.hub.record import ReportRecord, read_record
from modeling_hiera_mae import HieraMAEModel


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with the data, the model, and one evaluation of it."""
    folder = tmp_path_factory.mktemp("reports")
    write_phantom_reports(folder / "raw", studies=40, image_size=80)
    write_report_folder(folder / "model")
    evaluate_report.main(words(folder, "first", "--report_section", "impression"))
    return folder


def words(folder, output, *more):
    own = ["--model", folder / "model", "--data_dir", folder / "raw", "--build_dir", folder / "built"]
    own += ["--output_dir", folder / output, "--bootstrap_resamples", "20", "--device", "cpu"]
    return [*map(str, own), *map(str, more)]


def test_a_folder_is_scored_beside_what_no_model_wrote(scored):
    evaluation = json.loads((scored / "first" / "metrics.json").read_text())["evaluation"]
    with (scored / "first" / "reports.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert evaluation["written"]["scores"]["studies"] == len(rows) > 3
    assert {row["written"] for row in rows} == {"The heart is normal."}
    assert evaluation["written"]["distinct"] == 1 and evaluation["section"] == "impression"


def test_another_models_reports_of_the_same_studies_are_compared(scored, tmp_path, caplog):
    again = ("--report_section", "impression", "--compare", scored / "first" / "reports.csv")
    with caplog.at_level("INFO"):
        evaluate_report.main(words(scored, tmp_path / "again", *again))
    assert "this model minus" in caplog.text and "paired:" in caplog.text


def test_chexbert_and_radgraph_where_they_are_named(scored, tmp_path, caplog):
    """What reports.csv holds is annotated; the same command scores it, and refuses another model's."""
    with (scored / "first" / "reports.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entities = {"1": {"tokens": "heart", "label": "ANAT-DP", "relations": []}}
    files = [tmp_path / "references.json", tmp_path / "written.json"]
    for file, column in zip(files, ("reference", "written"), strict=True):
        found = {row["study"]: {"text": row[column], "entities": entities} for row in rows}
        file.write_text(json.dumps(found))
    named = ("--report_section", "impression", "--chexbert", write_chexbert(tmp_path / "chexbert"))
    with caplog.at_level("INFO"):
        evaluate_report.main(words(scored, tmp_path / "again", *named, "--radgraph", *files))
    assert "CheXbert F1, 14 conditions" in caplog.text and "RadGraph F1: simple 1.000" in caplog.text
    evaluation = json.loads((tmp_path / "again" / "metrics.json").read_text())["evaluation"]
    assert evaluation["written"]["radgraph"]["partial"] == 1 and evaluation["nearest"]["radgraph"] is None
    assert 0 <= evaluation["constants"][1]["scores"]["chexbert"]["macro_f1"] <= 1
    with pytest.raises(UserError, match=r"written.json annotates other texts"):
        evaluate_report.main(words(scored, tmp_path / "third", *named[:2], "--radgraph", files[1], files[0]))
    assert (tmp_path / "third" / "reports.csv").is_file()  # what was written can be annotated now
    (tmp_path / "chexbert" / "chexbert.pth").unlink()
    with pytest.raises(UserError, match="chexbert.pth missing"):
        evaluate_report.main(words(scored, tmp_path / "fourth", *named))


def test_a_card_takes_the_scores_of_its_own_studies_alone(scored, tmp_path):
    with pytest.raises(UserError, match="is no folder with the record of train_report.py"):
        evaluate_report.main(words(scored, tmp_path / "out", "--update_card"))
    content = json.loads((scored / "first" / "metrics.json").read_text())["evaluation"]
    result = TypeAdapter(ReportEvaluation).validate_python(content)
    folder = tmp_path / "model"
    folder.mkdir()
    record = ReportRecord(
        **facts(trained_on={"IU X-Ray": 8}, tested_on={"IU X-Ray": 8}), training=training(), decoder=None,
        vocabulary=300, views=2, evaluation=result,
    )  # fmt: skip
    record.write(folder)
    shifted = replace(result, written=replace(result.written, distinct=7))
    evaluate_report.update_card(folder, shifted)
    assert read_record(folder).evaluation == shifted
    assert "**7 distinct reports**" in (folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"what was scored is not of the same \(.* findings, clean"):
        evaluate_report.update_card(folder, replace(result, section="findings"))
    assert read_record(folder).evaluation == shifted
    graph = RadGraphScores(
        simple=0.5,
        partial=0.4,
        complete=0.3,
        simple_interval=None,
        partial_interval=None,
        complete_interval=None,
    )
    evaluate_report.update_card(folder, replace(shifted, written=replace(shifted.written, radgraph=graph)))
    evaluate_report.update_card(folder, shifted)  # of the same texts, without RadGraph's annotations
    assert read_record(folder).evaluation.written.radgraph == graph
    assert "RadGraph F1 of this model's reports" in (folder / "README.md").read_text()
    others = replace(shifted.written, scores=replace(shifted.written.scores, cider=0.1))
    evaluate_report.update_card(folder, replace(shifted, written=others))
    assert read_record(folder).evaluation.written.radgraph is None
    fewer = replace(shifted.written, bootstrap_resamples=shifted.written.bootstrap_resamples - 1)
    with pytest.raises(UserError, match=r"are of \d+ resamples; score with"):
        evaluate_report.update_card(folder, replace(shifted, written=fewer))
    options = argparse.Namespace(model=str(folder), split="validation", split_scheme=None)
    with pytest.raises(UserError, match=r"is of the test split .*--split test"):
        evaluate_report.check_card(options, record)
    options.split = "test"
    evaluate_report.check_card(options, record)
    with (folder / "README.md").open("a") as file:
        file.write("Ask me before you use it.")
    with pytest.raises(UserError, match="what was added there"):
        evaluate_report.check_card(options, record)


def test_a_batch_that_does_not_fit_is_named(scored, tmp_path):
    def ask(module, inputs):
        if isinstance(module, HieraMAEModel) and len(inputs[0]) > 4:  # pictures: two a study
            torch.empty(2**50, dtype=torch.uint8)

    handle = register_module_forward_pre_hook(ask)
    try:
        with pytest.raises(UserError, match="of 8 studies does not fit; 2 do .*--batch_size 2"):
            evaluate_report.main(
                words(scored, tmp_path / "out", "--report_section", "impression", "--batch_size", "8",
                      "--split", "train")
            )  # fmt: skip
    finally:
        handle.remove()


def test_reports_of_another_section_are_not_compared(scored, tmp_path):
    other = tmp_path / "other.csv"
    shutil.copy(scored / "first" / "reports.csv", other)
    with other.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["reference"] = "Other words."
    with other.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(UserError, match=r"against other references \(1 of \d+, such as that of"):
        evaluate_report.main(
            words(scored, tmp_path / "again", "--report_section", "impression", "--compare", other)
        )


def test_no_report_is_quoted_once_a_real_one_stands_among_the_drawn(scored, tmp_path):
    """Phantoms' reports are shown as examples; of a folder that a study was added to, none is."""
    record = json.loads((scored / "first" / "metrics.json").read_text())
    evaluation = record["evaluation"]
    assert record["is_phantom"] and evaluation["examples"]
    assert all(one["report"] for one in evaluation["constants"])
    folder = tmp_path / "mixed"
    shutil.copytree(scored / "raw", folder / "raw")
    (folder / "model").symlink_to(scored / "model")
    studies = folder / "raw" / "iu_xray"
    picture = min((studies / "images" / "images_normalized").iterdir())
    shutil.copy(picture, picture.with_name("3999_IM-2999-1001.dcm.png"))
    with (studies / "indiana_projections.csv").open("a", newline="") as file:
        csv.writer(file).writerow([3999, "3999_IM-2999-1001.dcm.png", "Frontal"])
    with (studies / "indiana_reports.csv").open("a", newline="") as file:
        row = [3999, "normal", "normal", "PA", "Fever.", "None.", "Clear lungs.", "No acute disease."]
        csv.writer(file).writerow(row)
    evaluate_report.main(words(folder, "second", "--report_section", "impression"))
    record = json.loads((folder / "second" / "metrics.json").read_text())
    assert not record["is_phantom"] and record["evaluation"]["examples"] == []
    assert [one["report"] for one in record["evaluation"]["constants"]] == [None, None]
