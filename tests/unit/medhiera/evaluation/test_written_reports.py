"""What a card says of a model's reports: baselines, normal studies, sides, and no texts of patients."""

import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
from report_rows import report_rows
from transformers import EvalPrediction

from medhiera.data.report_dataset import read_studies
from medhiera.data.report_tokenizer import encode_report, train_byte_tokenizer
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.report_cleaning import clean_report
from medhiera.evaluation.report_tables import report_lines
from medhiera.evaluation.written_reports import (
    ValidationReports,
    WrittenReports,
    find_nearest,
    find_normal,
    write_table,
)

LEFT, RIGHT = "Small left effusion. The heart is normal.", "Large right effusion. The heart is normal."
CLEAR = "The lungs are clear. The heart is normal."


def reports(written, shows_texts=True, normal=None):
    references = {"1": LEFT, "2": RIGHT, "3": CLEAR, "4": CLEAR}
    return WrittenReports(
        split="test", section="findings", clean="iu", references=references,
        written=dict(zip(references, written, strict=True)), nearest=dict.fromkeys(references, LEFT),
        training=[CLEAR, LEFT, "No effusion. The heart is large."], validation=[CLEAR, CLEAR, LEFT],
        normal=normal, shows_texts=shows_texts,
    )  # fmt: skip


def test_everything_stands_beside_what_needs_no_model(tmp_path):
    found = reports([LEFT, LEFT, CLEAR.lower(), ""], normal={"3", "4"}).evaluate(Bootstrap(50))
    assert found.written.distinct == 3 and found.training_studies == 3
    assert found.references_verbatim == 0.75 and found.written.verbatim_in_training == 0.75
    sides = found.written.laterality
    assert (sides.studies, sides.correct, sides.wrong, sides.missing) == (2, 1, 1, 0)
    assert {one.chosen_by: one.report for one in found.constants} == dict.fromkeys(
        ("bleu_4", "cider"), clean_report(CLEAR, "iu")
    )
    assert found.constants[0].scores.distinct == 1 and found.nearest.laterality.correct == 1
    gain = found.above_constant["cider"]
    assert gain.difference == pytest.approx(
        found.written.scores.cider - found.constants[1].scores.scores.cider
    )
    assert gain.interval is not None and gain.interval[0] <= gain.difference <= gain.interval[1]
    assert found.written.normal.studies == found.written.abnormal.studies == 2
    assert found.examples[0].written == clean_report(LEFT, "iu") and found.normal_reason is None
    text = "\n".join(report_lines(found))
    assert "3 distinct of 4" in text and "1 of 2, 1 wrong, 0 missing" in text and "normal studies: 2" in text


def test_texts_of_patients_stay_out_of_the_record(tmp_path):
    everything = reports([LEFT, RIGHT, CLEAR, CLEAR], shows_texts=False)
    found = everything.evaluate(Bootstrap(0))
    assert "effusion" not in json.dumps(asdict(found))
    assert found.normal_reason and found.written.normal is None
    write_table(everything, tmp_path / "reports.csv")
    [first, *_] = csv.DictReader((tmp_path / "reports.csv").read_text(encoding="utf-8").splitlines())
    assert first == {"study": "1", "reference": LEFT, "written": LEFT, "nearest": LEFT}


def test_nearest_is_by_the_cosine():
    training = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    scored = np.array([[9.0, 1.0], [0.1, 0.3], [1.0, 1.2], [0.0, 0.0]])
    assert find_nearest(training, scored) == [0, 1, 2, 0]


def test_normal_studies_are_those_annotated_so():
    rows = report_rows(6, "test")
    studies = read_studies(rows, "findings", 2)
    names = [str(number) for number in range(15)]
    names[10] = "No Finding"
    assert find_normal(rows, studies, names) == {"IU X-Ray/2", "IU X-Ray/5"}
    assert find_normal(rows, studies, ["x"] * 15) is None
    names[10], names[3] = "x", "No Finding"  # where nothing is annotated
    assert find_normal(rows, studies, names) is None


def test_validation_scores_what_was_written():
    tokenizer = train_byte_tokenizer([LEFT, CLEAR], 300)
    tokens = [encode_report(tokenizer, text, 200) for text in (LEFT, CLEAR)]
    width = max(map(len, tokens))
    padded = np.array([[*line, *[tokenizer.pad_token_id] * (width - len(line))] for line in tokens])
    scores = ValidationReports(tokenizer, [LEFT, CLEAR], "iu")(EvalPrediction(padded, padded[:, 0]))
    assert scores["distinct"] == 2 and scores["bleu_4"] == pytest.approx(1) and scores["cider"] > 1
