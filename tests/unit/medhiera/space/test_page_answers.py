"""Which picture another finding or another mask is shown on: the one whose result stands on the page."""

import pytest
from page_fixtures import phantom

from medhiera.space.pictures import digest

answers = pytest.importorskip("medhiera.space.answers")
OPENING, MINE, OTHER = phantom(), phantom(96), 255 - phantom()


@pytest.mark.parametrize(
    ("seen", "shown", "found"),
    [
        (None, OPENING, OPENING),  # a visitor who has only looked
        (MINE, MINE, MINE),
        (None, MINE, None),
        (OTHER, MINE, None),  # its answer never reached the page
        (MINE, None, None),
    ],
)
def test_only_the_picture_that_the_page_shows_is_looked_at_again(seen, shown, found):
    looked_at = []

    def act(gray, name):
        looked_at.append(gray)
        return name

    token = "" if shown is None else digest(shown)
    said = answers.act_on_shown(OPENING, act, seen, token, "Edema")
    if found is None:
        assert looked_at == [] and "no longer in memory; drop it again" in said
    else:
        assert looked_at[0] is found and said == "Edema"


def test_a_refusal_empties_page_and_memory():
    upload, seen, result, controls, _, view, shown = answers.refuse("No.")
    assert (upload, seen, view, shown) == (None, None, "", "")
    assert "No." in result and controls["visible"] is False


def test_pictures_of_the_same_bytes_are_two():
    assert digest(MINE) == digest(MINE.copy())
    assert digest(MINE) != digest(MINE.reshape(48, -1))
