"""Several classifiers as one: the mean of their probabilities, each fed as it was trained."""

import json

import numpy as np
import pytest
import torch
from page_fixtures import NAMES, phantom, write_sibling, write_stage2
from PIL import Image

from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.inference.classifier import Classifier
from medhiera.inference.ensemble import Ensemble


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("ensemble") / "first")


PICTURES = [Image.fromarray(phantom()), Image.fromarray(np.flipud(phantom()).copy())]


def score(ensemble):
    return ensemble.score([ensemble.pixels(picture) for picture in PICTURES])


def test_the_mean_of_models_of_other_order_spelling_and_size(first, tmp_path):
    names = [name.upper().replace("_", " ") for name in NAMES[::-1]]
    second = write_sibling(tmp_path / "second", first, names=names)
    Preprocessing(image_size=96, resize_size=110, mean=0.4, std=0.3).to_processor().save_pretrained(second)
    one, two = Classifier.from_pretrained(first), Classifier.from_pretrained(second)
    both = Ensemble.open([first, second])
    assert both.names == NAMES and both.resize_size == 110
    expected = (one.probabilities(PICTURES) + two.probabilities(PICTURES).flip(1)) / 2
    assert torch.equal(score(both), expected)
    assert not torch.allclose(expected, one.probabilities(PICTURES), atol=1e-3)
    other_way = Ensemble.open([second, first])
    assert (
        both.fingerprint()
        == other_way.fingerprint()
        == "+".join(sorted([one.fingerprint(), two.fingerprint()]))
    )


def test_names_that_differ_by_case_alone_are_not_mixed_up(first, tmp_path):
    one = write_sibling(tmp_path / "one", first, names=["t", "T", *NAMES[2:]])
    other = write_sibling(tmp_path / "other", first, names=["T", "t", *NAMES[2:]])
    assert Ensemble.open([one, other]).columns[1] == [1, 0, *range(2, len(NAMES))]


def test_one_model_is_itself(first):
    alone, classifier = Ensemble.open([first]), Classifier.from_pretrained(first)
    assert torch.equal(score(alone), classifier.probabilities(PICTURES))
    assert alone.fingerprint() == classifier.fingerprint()


def test_what_has_no_mean_is_refused(first, tmp_path):
    other = write_sibling(tmp_path / "other", first, names=[*NAMES[:-1], "Fracture"])
    with pytest.raises(UserError, match=r"first and .*other name other findings: .*fracture"):
        Ensemble.open([first, other])
    twin = write_sibling(tmp_path / "twin", other)
    again = write_sibling(tmp_path / "again", other)
    with pytest.raises(UserError, match="twin and .*again are the same model"):
        Ensemble.open([first, twin, again])
    with pytest.raises(UserError, match="first and .*first are the same model"):
        Ensemble.open([first, first])


def test_probabilities_that_sum_to_1_are_not_averaged_with_others(first, tmp_path):
    single = write_sibling(tmp_path / "single", first)
    config = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(config | {"problem_type": "single_label_classification"}))
    assert Classifier.from_pretrained(single).probabilities(PICTURES).sum(1).tolist() == pytest.approx([1, 1])
    with pytest.raises(UserError, match="single gives each image exactly one label, the other any number"):
        Ensemble.open([first, single])
