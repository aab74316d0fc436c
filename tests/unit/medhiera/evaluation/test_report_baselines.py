"""The reports that no model wrote: found by brute force too, and IU's real numbers."""

import json
import os
import random
from pathlib import Path

import pytest

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.caption_metrics import measure_captions
from medhiera.evaluation.captions import score_captions
from medhiera.evaluation.report_baselines import (
    find_best_constant,
    find_nearest_reports,
    main,
    read_annotation,
    score_baselines,
)
from medhiera.evaluation.report_cleaning import clean_iu

SENTENCES = [
    "the heart is normal in size .",
    "the lungs are clear .",
    "no pleural effusion or pneumothorax .",
    "there is a small left pleural effusion .",
    "the heart is enlarged .",
    "no no no .",
]


@pytest.fixture
def write_reports():
    def write(count, seed):
        generator = random.Random(seed)
        return [" ".join(generator.choices(SENTENCES, k=generator.randint(1, 5))) for _ in range(count)]

    return write


@pytest.fixture
def iu():
    """IU X-Ray's reports in R2Gen's split: real texts where they stand beside the clone."""
    shared = Path(os.environ.get("MEDHIERA_SHARED", Path(__file__).parents[5] / "shared"))
    file = shared / "reports" / "annotation.json"
    if not file.is_file():
        pytest.skip("no real reports: ../shared/reports/annotation.json is absent")
    return read_annotation(file)


def number_text(value):
    return f"{value:.3f}".removeprefix("0")


def table_row(name, report):
    """A row of the table in docs/reports.md."""
    fields = vars(report.scores)
    measures = ("bleu_4", "rouge_l", "cider")
    limits = {measure: "–".join(map(number_text, fields[f"{measure}_interval"])) for measure in measures}
    bleu = "/".join(number_text(fields[f"bleu_{order}"]) for order in range(1, 5))
    cells = [name, f"{bleu} ({limits['bleu_4']})"]
    cells += [f"{number_text(fields[measure])} ({limits[measure]})" for measure in measures[1:]]
    return f"| {' | '.join(cells)} | {report.distinct} |"


@pytest.mark.parametrize("chosen_by", ["bleu_4", "cider"])
def test_the_best_constant_is_the_one_that_brute_force_finds(write_reports, chosen_by):
    training = [
        *(f"{report} of note" for report in write_reports(60, 1)),
        "word",
    ]  # words that validation lacks
    validation = write_reports(25, 2)
    found = find_best_constant(training, validation, chosen_by)
    values = {
        report: measure_captions(validation, [report] * 25).values()[chosen_by] for report in set(training)
    }
    assert found.validation == pytest.approx(max(values.values()), abs=1e-12)
    assert values[found.report] == pytest.approx(found.validation, abs=1e-12)


def test_nearest_is_itself_where_training_has_it(write_reports):
    training = write_reports(40, 3)
    assert find_nearest_reports(training, training) == training
    reference = "there is a small left pleural effusion . the heart is very large ."
    assert find_nearest_reports(SENTENCES, [reference]) == ["there is a small left pleural effusion ."]
    assert find_nearest_reports(training, ["unheard of"]) == training[:1]


def test_the_command_prints_one_line_of_json(write_reports, tmp_path, capsys):
    annotation = {
        name: [{"id": f"{name}{n}", "report": text} for n, text in enumerate(write_reports(count, seed))]
        for seed, (name, count) in enumerate({"train": 30, "val": 8, "test": 12}.items())
    }
    (tmp_path / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    (tmp_path / "normal.json").write_text(json.dumps(["test1", "test2"]), encoding="utf-8")
    main(
        [str(tmp_path / "annotation.json"), "--clean", "iu", "--normal", str(tmp_path / "normal.json"),
         "--bootstrap_resamples", "100"]
    )  # fmt: skip
    [line] = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    assert printed["studies"] == {"train": 30, "val": 8, "test": 12}
    for name in ("constant_by_bleu_4", "constant_by_cider"):
        assert printed[name]["distinct"] == 1 and printed[name]["verbatim_in_training"] == 1
        assert (printed[name]["normal"]["studies"], printed[name]["abnormal"]["studies"]) == (2, 10)
    assert printed["nearest_by_text"]["cider"] > printed["constant_by_cider"]["cider"]
    low, high = printed["constant_by_cider"]["cider_interval"]
    assert low <= printed["constant_by_cider"]["cider"] <= high


@pytest.mark.parametrize(
    "content, message",
    [
        ({"train": [{"id": "a", "report": "x"}], "val": []}, 'no list of studies "val"'),
        ([], 'no list of studies "train"'),
        ({"train": [{"id": "a"}]}, 'study 0 of "train" has no text as "id" and "report"'),
        ({"train": [{"id": "a", "report": "x"}] * 2}, "the study 'a' stands twice in \"train\""),
    ],
)
def test_another_layout_is_refused(tmp_path, content, message):
    (tmp_path / "annotation.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_annotation(tmp_path / "annotation.json")


@pytest.mark.realdata
def test_a_known_constant_has_its_known_numbers_on_iu(iu):
    """Written down before this code was, with coco-caption: .455/.303/.212/.153, .338, .143."""
    test = {study: clean_iu(text) for study, text in iu["test"].items()}
    constant = clean_iu(iu["train"]["CXR2748_IM-1198"])
    scores = score_captions(test, dict.fromkeys(test, constant), Bootstrap(0)).scores
    bleu = [scores.bleu_1, scores.bleu_2, scores.bleu_3, scores.bleu_4]
    assert [round(value, 3) for value in bleu] == [0.455, 0.303, 0.212, 0.153]
    assert (round(scores.rouge_l, 3), round(scores.cider, 3)) == (0.338, 0.143)


@pytest.mark.realdata
def test_the_best_constants_on_iu_are_those_of_the_document(iu, root):
    found = score_baselines(iu, Bootstrap(), clean="iu")
    assert found.studies == {"train": 2069, "val": 296, "test": 590}
    assert round(found.test_verbatim_in_training, 3) == 0.469
    text = (root / "docs" / "reports.md").read_text(encoding="utf-8")
    names = ["constant, chosen by BLEU-4", "constant, chosen by CIDEr-D", "nearest training report by text"]
    reports = [*(report for _, report in found.constants), found.nearest_by_text]
    for name, report in zip(names, reports, strict=True):
        assert table_row(name, report) in text
    for constant, _ in found.constants:
        assert constant.report in text.replace("\n> ", " ")  # quoted over several lines
    sides = [report.laterality for report in reports]
    assert [(one.studies, one.correct) for one in sides] == [(130, 0), (130, 0), (130, 6)]
