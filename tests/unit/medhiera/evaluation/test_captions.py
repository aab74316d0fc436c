"""The command that scores reports: its one line, what it cleans and cuts, and what it refuses."""

import json

import numpy as np
import pytest

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.caption_metrics import MEASURES, measure_captions
from medhiera.evaluation.captions import compare_captions, main, score_captions, truncate_raw
from medhiera.evaluation.report_cleaning import clean_iu, clean_mimic

REFERENCES = {
    "one": "The heart is normal in size. The lungs are clear.",
    "two": "There is a large right pleural effusion. The heart is enlarged.",
    "three": "1. Small left apical pneumothorax. 2. No effusion..",
    "four": "The lungs are clear. No pneumothorax or pleural effusion.",
}
PREDICTIONS = {
    "four": "The lungs are clear. No pleural effusion.",
    "one": "The heart is normal in size. The lungs are clear.",
    "two": "There is a left pleural effusion. The heart is enlarged.",
    "three": "The lungs are clear. No pleural effusion.",
}


@pytest.fixture
def write(tmp_path):
    """Writes a file: text as it is, anything else as JSON."""

    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def score(write, capsys):
    """Runs the command on two contents; what it prints, read."""

    def score(references, predictions, *options):
        main([write("references.json", references), write("predictions.json", predictions), *options])
        [line] = capsys.readouterr().out.splitlines()
        return json.loads(line)

    return score


def test_the_command_prints_one_line_of_json(write, capsys):
    files = [write("references.json", REFERENCES), write("predictions.json", PREDICTIONS)]
    main([*files, "--clean", "iu"])
    [line] = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    assert set(MEASURES) < printed.keys()
    assert printed["studies"] == 4
    assert printed["distinct"] == 3
    assert printed["laterality"]["studies"] == 2
    assert (printed["laterality"]["wrong"], printed["laterality"]["missing"]) == (1, 1)
    assert printed["verbatim_in_training"] is None
    assert (printed["meteor"] is None) == isinstance(printed["meteor_reason"], str)
    low, high = printed["bleu_4_interval"]
    assert low <= printed["bleu_4"] <= high
    pairs = [(clean_iu(text), clean_iu(PREDICTIONS[study])) for study, text in REFERENCES.items()]
    expected = measure_captions(*zip(*pairs, strict=True)).values()
    assert {name: printed[name] for name in MEASURES} == expected


@pytest.mark.parametrize(
    "raw, cleaned",
    [
        ("Heart size normal. Lungs clear.", "heart size normal . lungs clear ."),
        (
            "1. Right-sided PICC, tip in SVC... 2. No edema; stable.",
            "right-sided picc tip in svc . no edema stable .",
        ),
        ('The "XXXX" [a/b] (c) <d> 50%  mass?', "the xxxx ab c d 50  mass ."),
        ("Tip at T4. 3. Unchanged. . Done", "tip at t4 . unchanged .  . done ."),
        ("", " ."),
    ],
)
def test_iu_is_cleaned_as_r2gen_does(raw, cleaned):
    """The expected texts are what R2Gen's clean_report_iu_xray returns for these."""
    assert clean_iu(raw) == cleaned


@pytest.mark.parametrize(
    "raw, cleaned",
    [
        (
            "FINDINGS: PA and lateral.....\n No   pneumothorax; ___ right chest tube. 2. Tip at T4.",
            "findings pa and lateral . no pneumothorax  right chest tube . tip at t4 .",
        ),
        ("____ is seen. 1. Small left effusion?", " is seen . small left effusion ."),
        ("The line [ends] at <1 cm__.. . 3. No edema.", "the line ends at 1 cm .  . no edema ."),
    ],
)
def test_mimic_is_cleaned_as_r2gen_does(raw, cleaned):
    """The expected texts are what R2Gen's clean_report_mimic_cxr returns for these."""
    assert clean_mimic(raw) == cleaned


def test_sides_are_looked_for_before_cleaning_parts_no_clauses_any_more(score):
    """Cleaned, the first would be "no pneumothorax right basal opacity ." and name no side."""
    texts = {"one": "No pneumothorax; right basal opacity.", "two": "Left mass."}
    said = {"one": "Lungs clear; right basal opacity.", "two": "No left mass; right mass."}
    for options in ((), ("--clean", "iu"), ("--clean", "mimic", "--legacy_references", "60")):
        sides = score(texts, said, "--bootstrap_resamples", "0", *options)["laterality"]
        assert (sides["studies"], sides["correct"], sides["wrong"], sides["written"]) == (2, 1, 1, 2)


def test_references_are_cut_and_predictions_are_not(score):
    texts = {"one": "a b c d e", "two": "f g"}
    whole = score(texts, texts, "--bootstrap_resamples", "0")
    cut = score(texts, texts, "--bootstrap_resamples", "0", "--legacy_references", "3")
    assert whole["bleu_1"] == pytest.approx(1) and whole["legacy_references"] is None
    assert cut["bleu_1"] == pytest.approx(5 / 7) and cut["legacy_references"] == 3
    assert cut["cider"] < whole["cider"]
    assert cut["bleu_1_interval"] is None


def test_sides_are_looked_for_in_what_is_left_of_a_cut_reference(score):
    """Cleaned, periods are words of their own and numbers of lists are none: the cut lies elsewhere."""
    raw = {"one": "Clear. Normal. Stable. Left mass.", "two": "1. Heart is large. 2. Right mass."}
    for words, studies in ((4, 0), (6, 1), (7, 2)):
        found = score(raw, raw, "--clean=iu", f"--legacy_references={words}", "--bootstrap_resamples=0")
        assert found["laterality"]["studies"] == studies
        kept = {study: truncate_raw(text, "iu", words) for study, text in raw.items()}
        assert all(len(clean_iu(text).removesuffix(" .").split()) <= words for text in kept.values())
    assert truncate_raw("a b .", None, 2) == "a b" and truncate_raw("a  b", "iu", None) == "a  b"


def test_groups_copies_and_another_model(score, write):
    printed = score(
        REFERENCES, PREDICTIONS, "--clean", "iu",
        "--normal", write("normal.json", ["one", "four"]),
        "--training", write("training.json", {"x": "the LUNGS are clear. No pleural effusion"}),
        "--compare", write("other.json", dict.fromkeys(REFERENCES, "")),
    )  # fmt: skip
    assert printed["verbatim_in_training"] == 0.5
    assert (printed["normal"]["studies"], printed["abnormal"]["studies"]) == (2, 2)
    assert printed["normal"]["rouge_l"] > printed["rouge_l"] > printed["abnormal"]["rouge_l"]
    for name in MEASURES:
        assert printed["comparison"][name]["difference"] == pytest.approx(printed[name])


def test_a_pair_is_compared_under_the_same_resamples():
    """A model that is always the same little better: certain, though the intervals of the two overlap."""
    references = {str(n): " ".join(f"w{n % (7 + k)}" for k in range(12)) for n in range(60)}
    worse = {study: " ".join(text.split()[: 1 + int(study) % 9]) for study, text in references.items()}
    better = {study: " ".join(text.split()[: 2 + int(study) % 9]) for study, text in references.items()}
    bootstrap = Bootstrap(300)
    difference = compare_captions(references, better, worse, bootstrap)["rouge_l"]
    scores = [score_captions(references, each, bootstrap).scores for each in (better, worse)]
    assert scores[0].rouge_l_interval[0] < scores[1].rouge_l_interval[1]
    assert difference.difference == pytest.approx(scores[0].rouge_l - scores[1].rouge_l)
    assert difference.interval[0] > 0 and difference.p_value < 0.05
    assert np.ptp(difference.interval) < np.ptp(scores[0].rouge_l_interval) / 2
    none = compare_captions(references, better, worse, Bootstrap(0))["rouge_l"]
    assert (none.interval, none.p_value) == (None, None)


@pytest.mark.parametrize("studies", [1, 2, 9, 10])
def test_few_studies_show_no_difference(studies):
    """Of one study every resample is the same; of a few, resampling calls equally good models different."""
    references = {str(n): f"small left pleural effusion of w{n} and of v{n % 3}" for n in range(studies)}
    better = {study: " ".join(text.split()[: 3 + int(study) % 5]) for study, text in references.items()}
    worse = dict.fromkeys(references, "the lungs are clear")
    for one in compare_captions(references, better, worse, Bootstrap(200)).values():
        assert (one.p_value is None) == (studies < 10)
        assert one.interval is None or one.interval[0] < one.interval[1]
        assert one.interval is None or studies > 1


def test_a_model_is_not_compared_with_itself_as_if_that_were_certain():
    same = compare_captions(REFERENCES, PREDICTIONS, PREDICTIONS, Bootstrap(100))["cider"]
    assert (same.difference, same.interval, same.p_value) == (0.0, None, None)


def test_an_empty_prediction_is_an_answer(score):
    printed = score(REFERENCES, dict.fromkeys(REFERENCES, " "), "--clean", "iu")
    assert {printed[name] for name in MEASURES} == {0.0}
    assert printed["distinct"] == 1


@pytest.mark.parametrize(
    "references, predictions, message",
    [
        (REFERENCES, {"one": "clear"}, "3 of 4 studies have no prediction \\('two', 'three', 'four'\\)"),
        (
            {"one": "clear"},
            {"one": "clear", "two": "x"},
            "1 of 2 predictions are of studies without a reference",
        ),
        (
            {"one": " ..", "two": "clear"},
            {"one": "a", "two": "a"},
            "1 of 2 references hold no word \\('one'\\)",
        ),
        ({}, {}, "no reference"),
        ({"one": ["clear"]}, {"one": "clear"}, "the report of 'one' is a list; wanted a text"),
        ({"one": "clear"}, {"one": None}, "the report of 'one' is a NoneType"),
        ([], {}, "holds a list; wanted an object"),
        ("{", {}, "cannot be read as JSON"),
        ('{"one": "a", "one": "b"}', {"one": "a"}, "'one' stands in it 2 times"),
        ("[" * 100_000, {}, "cannot be read as JSON"),
    ],
)
def test_what_does_not_pair_is_refused(score, references, predictions, message):
    with pytest.raises(UserError, match=message):
        score(references, predictions, "--clean", "iu")


def test_files_and_ids_that_are_not_there_are_refused(score, write, tmp_path):
    with pytest.raises(UserError, match="absent.json cannot be read"):
        main([str(tmp_path / "absent.json"), write("predictions.json", PREDICTIONS)])
    with pytest.raises(UserError, match="1 of 2 normal studies have no reference \\('nine'\\)"):
        score(REFERENCES, PREDICTIONS, "--normal", write("normal.json", ["one", "nine"]))
    for wrong in ({"one": "yes"}, ["one", 4], 7):
        with pytest.raises(UserError, match="does not say which studies are normal"):
            score(REFERENCES, PREDICTIONS, "--normal", write("normal.json", wrong))


def test_a_study_of_which_neither_is_known_is_in_no_group(score, write):
    every = score(REFERENCES, PREDICTIONS, "--normal", write("normal.json", ["one", "four"]))
    known = score(REFERENCES, PREDICTIONS, "--normal", write("known.json", {"one": True, "two": False}))
    assert (known["normal"]["studies"], known["abnormal"]["studies"]) == (1, 1)
    assert every["abnormal"]["studies"] == 2 and known["rouge_l"] == every["rouge_l"]
    of_numpy = dict(zip(["one", "two"], np.array([1.0, 0.0]) == 1, strict=True))
    report = score_captions(REFERENCES, PREDICTIONS, Bootstrap(0), normal=of_numpy)
    assert (report.normal.studies, report.abnormal.studies) == (1, 1)


@pytest.mark.parametrize("option", ["--legacy_references=0", "--bootstrap_resamples=-1", "--clean=chexpert"])
def test_options_out_of_range_are_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["references.json", "predictions.json", option])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""
