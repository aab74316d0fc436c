"""CheXbert F1 and RadGraph F1. CheXbert's own weights could not be had: a tiny BERT of its form stands in."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from tiny_chexbert import write_chexbert
from warm_python import warm_python

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.chexbert import CONDITIONS, FIVE, Chexbert, score_labels
from medhiera.evaluation.radgraph import check_annotations, score_annotations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_chexbert(tmp_path_factory.mktemp("chexbert"))


def test_labels_do_not_depend_on_the_batch_and_an_empty_report_has_none(folder):
    labeler = Chexbert.open(folder)
    reports = ["The heart is large.", "", "lungs are\n clear", "the heart", "clear clear clear lungs are the"]
    labels = labeler.label(reports)
    assert labels.shape == (5, len(CONDITIONS)) and not labels[1].any()
    assert labels[:, -1].max() <= 1 and len(np.unique(labels)) > 2
    for one, report in zip(labels, reports, strict=True):
        assert (labeler.label([report], batch_size=1) == one).all()
    assert (labeler.label(["lungs   are clear"]) == labels[2]).all()
    assert (
        Chexbert.open(folder).label(reports[::-1], batch_size=2) == labels[::-1]
    ).all()  # nothing known yet


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "chexbert.pth missing; wanted CheXbert's chexbert.pth with config.json"),
        (lambda file: file.write_bytes(b"PK\x03\x04" + bytes(60)), "cannot be (read as weights|opened)"),
        (lambda file: torch.save({"weights": {}}, file), "holds no model_state_dict"),
        (lambda file: torch.save({"model_state_dict": {}}, file), "is not CheXbert's: .*Missing key"),
    ],
)
def test_what_is_not_chexbert_is_refused_in_words(damage, message, folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path / "chexbert.pth")
    with pytest.raises(UserError, match=message):
        Chexbert.open(tmp_path)


def test_f1_of_labels_is_scikit_learns():
    generator = np.random.default_rng(0)
    true, said = generator.integers(0, 4, (2, 200, len(CONDITIONS)))
    said = np.where(generator.random(said.shape) < 0.6, true, said)
    true[:, 3] = said[:, 3] = 0  # nobody mentions it
    scores = score_labels(true, said, Bootstrap(100))
    five = [CONDITIONS.index(name) for name in FIVE]
    for name, columns in (("", slice(None)), ("_five", five)):
        for average in ("micro", "macro"):
            wanted = f1_score(true[:, columns] == 1, said[:, columns] == 1, average=average, zero_division=0)
            assert getattr(scores, f"{average}_f1{name}") == pytest.approx(wanted, abs=1e-12)
            low, high = getattr(scores, f"{average}_f1{name}_interval")
            assert low < wanted < high
    assert scores.f1["Lung Lesion"] == 0 and scores.positives["Edema"] == (true[:, 4] == 1).sum()


def annotation(*entities):
    """Each: words, label, relations."""
    named = {
        str(number): {"tokens": words, "label": label, "relations": relations}
        for number, (words, label, relations) in enumerate(entities, start=1)
    }
    return {"text": "", "entities": named}


TRUE = annotation(
    ("Heart", "ANAT-DP", []),
    ("large", "OBS-DP", [["located_at", "1"]]),
    ("mild", "OBS-DP", [["modify", "2"]]),
)
SAID = annotation(("Heart", "ANAT-DP", []), ("large", "OBS-DP", []), ("edema", "OBS-DA", []))


def test_radgraph_f1_at_its_three_levels():
    """Figures of radgraph 0.1.18's own compute_reward for these annotations."""
    scores = score_annotations({"a": TRUE, "b": TRUE}, {"a": SAID, "b": TRUE}, Bootstrap(50))
    assert scores.simple == pytest.approx((2 / 3 + 1) / 2)
    assert scores.partial == pytest.approx((1 / 3 + 1) / 2)
    assert scores.complete == pytest.approx((1 / 3 + 1) / 2)
    assert scores.simple_interval == [pytest.approx(2 / 3), pytest.approx(1)]
    nothing = score_annotations({"a": TRUE}, {"a": annotation()}, Bootstrap(0))
    assert (nothing.simple, nothing.partial, nothing.complete) == (0, 0, 0)
    assert nothing.simple_interval is None


def test_annotations_that_do_not_pair_or_are_none_are_refused():
    with pytest.raises(UserError, match=r"1 references and 1 predictions, which are not the same studies"):
        score_annotations({"a": TRUE}, {"b": TRUE}, Bootstrap(0))
    with pytest.raises(UserError, match="the annotation of 'a' is not RadGraph's"):
        score_annotations({"a": TRUE}, {"a": {"entities": {"1": {"tokens": "x"}}}}, Bootstrap(0))


def test_annotations_of_other_texts_are_refused():
    """Those of the model before this one, say: the scores would be another model's."""
    file = Path("found.json")
    annotated = {"a": TRUE | {"text": "Heart is mildly enlarged ( stable ) ."}, "b": SAID}
    reports = {"a": "Heart is mildly enlarged (stable)."}
    assert check_annotations(annotated, file, reports) == {"a": annotated["a"]}
    assert check_annotations(annotated, file, {"a": "?"}, {"a": "heart is mildly enlarged stable ."})
    of_nothing = check_annotations({"a": TRUE | {"text": "None"}}, file, {"a": " "})  # as the package says it
    assert of_nothing == {"a": {"entities": {}}}
    with pytest.raises(UserError, match=r"found.json annotates other texts .*1 of 1, such as that of 'a'"):
        check_annotations(annotated, file, {"a": "Heart is mildly enlarged."})
    with pytest.raises(UserError, match=r"found.json lacks 1 of 2 studies, such as 'c'"):
        check_annotations(annotated, file, reports | {"c": ""})
    with pytest.raises(UserError, match="found.json: wanted"):
        check_annotations([], file)


def test_the_command_prints_both(folder, root, tmp_path):
    files = {}
    for name, content in {
        "references": {"a": "the heart is large", "b": "lungs are clear"},
        "said": {"a": "heart", "b": "clear"}, "true": {"a": TRUE, "b": TRUE}, "found": {"a": SAID, "b": TRUE},
    }.items():  # fmt: skip
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(content))
    done = subprocess.run(
        [warm_python(), "-m", "medhiera.evaluation.captions", files["references"], files["said"],
         "--chexbert", folder, "--radgraph", files["true"], files["found"], "--bootstrap_resamples", "20"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert 0 <= printed["chexbert"]["micro_f1"] <= 1 and set(printed["chexbert"]["f1"]) == set(CONDITIONS)
    assert printed["radgraph"]["simple"] == pytest.approx(5 / 6)
