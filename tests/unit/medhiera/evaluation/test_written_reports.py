"""What a card says of a model's reports: baselines, normal studies, sides, and no texts of patients."""

import csv
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from datasets import Dataset
from report_rows import report_rows
from tiny_chexbert import write_chexbert
from transformers import EvalPrediction

from medhiera.config.report_arguments import ReportArguments
from medhiera.data.report_dataset import ReportSplit, Study, read_studies
from medhiera.data.report_tokenizer import encode_report, train_byte_tokenizer
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.chexbert import Chexbert
from medhiera.evaluation.report_cleaning import clean_report
from medhiera.evaluation.report_tables import report_lines
from medhiera.evaluation.written_reports import (
    ValidationReports,
    WrittenReports,
    choose_cleaning,
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


def test_chexbert_and_radgraph_stand_beside_where_they_are_named(tmp_path):
    """CheXbert reads every text as it is, the baselines' too; RadGraph's files are of the model's reports."""
    everything = reports([LEFT, LEFT, CLEAR, ""])
    files = []
    for name, texts in (("references", everything.references), ("written", everything.written)):
        files.append(tmp_path / f"{name}.json")
        entities = {"1": {"tokens": "heart", "label": "ANAT-DP", "relations": []}}
        found = {study: {"text": text, "entities": entities if text else {}} for study, text in texts.items()}
        files[-1].write_text(json.dumps(found))
    labeler = Chexbert.open(write_chexbert(tmp_path / "chexbert"))
    found = everything.evaluate(Bootstrap(20), labeler, files)
    expected = labeler.score([LEFT, RIGHT, CLEAR, CLEAR], [LEFT, LEFT, CLEAR, ""], Bootstrap(20))
    assert found.written.chexbert == expected and found.written.radgraph.simple == 0.75
    assert found.nearest.chexbert == labeler.score([LEFT, RIGHT, CLEAR, CLEAR], [LEFT] * 4, Bootstrap(20))
    assert found.constants[0].scores.chexbert.positives == expected.positives
    text = "\n".join(report_lines(found))
    assert text.count("CheXbert F1, 14 conditions") == 4 and "RadGraph F1: simple 0.750" in text
    assert found.nearest.radgraph is None and "CheXbert" not in "\n".join(
        report_lines(everything.evaluate(Bootstrap(0)))
    )
    with pytest.raises(UserError, match="annotates other texts"):
        reports([RIGHT, LEFT, CLEAR, ""]).evaluate(Bootstrap(0), None, files)


def split_of(*sources):
    rows = Dataset.from_dict({"source": list(sources)})
    return ReportSplit(rows, [Study(f"{source}/1", (row,), "x") for row, source in enumerate(sources)])


@pytest.mark.parametrize(
    ("asked", "sources", "rules"),
    [
        ("source", ["IU X-Ray"], "iu"),
        ("source", ["MIMIC-CXR"], "mimic"),
        ("source", ["IU X-Ray", "MIMIC-CXR"], "mimic"),
        ("source", ["another"], "none"),
        ("none", ["IU X-Ray"], "none"),
        ("iu", ["MIMIC-CXR"], "iu"),
    ],
)
def test_reports_are_cleaned_by_the_rules_of_their_source(asked, sources, rules):
    assert choose_cleaning(ReportArguments(clean=asked), split_of(*sources), split_of(sources[0])) == rules


def test_r2gens_words_of_reports_without_rules_are_refused():
    with pytest.raises(UserError, match=r"no rules for those of \['another'\]; set clean to iu or mimic"):
        choose_cleaning(ReportArguments(legacy_vocabulary=True), split_of("another"))


def test_nearest_is_by_the_cosine():
    training = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    scored = np.array([[9.0, 1.0], [0.1, 0.3], [1.0, 1.2], [0.0, 0.0]])
    assert find_nearest(training, scored) == [0, 1, 2, 0]


def test_normal_studies_are_those_annotated_so():
    rows = report_rows(6, "test")
    studies = read_studies(rows, "findings", 2)
    names = [str(number) for number in range(15)]
    names[10] = "No Finding"
    is_normal = {f"IU X-Ray/{number}": number in (2, 5) for number in range(6)}
    assert find_normal(rows, studies, names) == is_normal
    labels = [
        [math.nan if place == 3 else value for value in row] for place, row in enumerate(rows["labels"])
    ]
    kind = rows.features["labels"]
    partly = rows.remove_columns("labels").add_column("labels", labels, feature=kind)
    del is_normal["IU X-Ray/2"]
    assert find_normal(partly, studies, names) == is_normal
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
