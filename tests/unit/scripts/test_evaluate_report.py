"""evaluate_report.py in this process, on drawn studies and a tiny writer."""

import csv
import json
import shutil

import pytest
from report_rows import write_report_folder

import evaluate_report
from dataset_scripts.phantom.reports import write_phantom_reports
from medhiera.errors import UserError


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
