"""Copies, distinct reports, and sides."""

import pytest

from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.report_content import (
    count_distinct,
    named_sides,
    score_laterality,
    share_verbatim,
)


def test_reports_are_the_same_when_their_words_are():
    reports = ["the lungs are clear .", "the  lungs are clear . ", "heart enlarged .", ""]
    assert count_distinct(reports) == 3
    assert share_verbatim(reports, ["the lungs are clear .", "another ."]) == 0.5


@pytest.mark.parametrize(
    "report, sides",
    [
        ("There is a small left pleural effusion. The heart is normal.", {"left"}),
        ("right-sided picc line . left effusion .", {"left", "right"}),
        ("no right effusion . the left lung is clear .", set()),
        ("No effusion; RIGHT basal opacity", {"right"}),
        ("upright film . bilateral opacities .", set()),
        ("", set()),
    ],
)
def test_a_side_is_named_in_a_sentence_that_says_something_is_there(report, sides):
    assert named_sides(report) == sides


def test_laterality_counts_studies_whose_reference_names_a_side():
    references = [
        "left effusion .",
        "left effusion .",
        "right mass .",
        "left and right masses .",
        "no mass .",
    ]
    predictions = ["an effusion on the left .", "right effusion .", "a mass .", "left mass .", "left mass ."]
    found = score_laterality(references, predictions, Bootstrap(200))
    assert (found.studies, found.correct, found.wrong, found.missing) == (4, 1, 2, 1)
    assert found.share_correct == 0.25
    low, high = found.share_correct_interval
    assert 0 <= low <= 0.25 <= high <= 1
    assert (found.written, found.share_written_correct) == (
        4,
        0.25,
    )  # a side that no reference names is wrong
    low, high = found.share_written_correct_interval
    assert 0 <= low <= 0.25 <= high <= 1


def test_without_a_side_there_is_no_share():
    found = score_laterality(["no mass ."], ["left mass ."], Bootstrap(50))
    assert (found.studies, found.share_correct, found.share_correct_interval) == (0, None, None)
    assert (found.written, found.share_written_correct) == (1, 0.0)
    found = score_laterality(["left mass ."], ["no mass ."], Bootstrap(50))
    assert (found.written, found.share_written_correct, found.share_written_correct_interval) == (
        0,
        None,
        None,
    )
