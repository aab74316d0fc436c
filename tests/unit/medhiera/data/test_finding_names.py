"""Spellings of one finding: the same everywhere that names of models, data and files meet."""

import numpy as np
import pytest

from medhiera.data.finding_names import find_name, find_names
from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.checkpoint_selection import choose_findings
from medhiera.evaluation.metrics import rank_findings
from medhiera.evaluation.predictions import Predictions
from medhiera.inference.classifier import match_findings


def test_the_same_name_comes_first_and_what_is_ambiguous_is_none():
    assert find_name("pleural thickening", ["Mass", "Pleural_Thickening"]) == 1
    assert find_name("a", ["A", "a"]) == 1 and find_name("A", ["A", "a"]) == 0
    assert find_name("A b", ["a b", "A_b"]) is None
    assert find_name("Nodule", ["Mass"]) is None


def test_outputs_that_differ_by_case_alone_keep_their_own_labels():
    assert match_findings(["A", "a", "b"], ["A", "a", "B"]) == [0, 1, 2]
    with pytest.raises(
        UserError, match=r"no output for \['b c'\].*; --findings 'A d' scores what both have$"
    ):
        match_findings(["a d"], ["A d", "b c"])
    with pytest.raises(UserError, match=r"its outputs are \['A'\]$"):
        match_findings(["A"], ["A", "B"], is_exclusive=True)
    with pytest.raises(UserError, match=r"no output for \['A b'\]"):
        match_findings(["a b", "A_b"], ["A b"])


@pytest.mark.parametrize("name", ["No Finding", "no_finding"])
def test_no_finding_is_no_disease_however_it_is_spelled(name):
    labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (60, 1))
    scores = np.random.default_rng(0).random((120, 2))
    patients = np.arange(120).astype(str).tolist()
    report = rank_findings(Predictions(scores, labels, ["Mass", name], patients), Bootstrap(0))
    assert report.findings_in_mean == ["Mass", name] and report.diseases.findings_in_mean == ["Mass"]
    chosen = choose_findings(labels, patients, ["Mass", name])
    assert chosen.findings == ["Mass"] and chosen.rule.startswith("diseases with")


def test_no_two_names_have_one_place():
    assert find_names(["Mass", "mass"], ["Mass"]) == [0, None]
    assert find_names(["Mass", "MASS"], ["mass"]) == [None, None]
    assert find_names(["mass", "Edema"], ["edema", "Mass"]) == [1, 0]
    with pytest.raises(UserError, match=r"no output for \['mass'\]"):
        match_findings(["Mass"], ["Mass", "mass"])
