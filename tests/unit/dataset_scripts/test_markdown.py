"""Names from outside stay text: in Markdown they begin nothing, in YAML they come back as they were."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.markdown import escape_markdown, front_matter


@pytest.mark.parametrize(
    "text",
    ["Edema", "Pleural_Thickening", "No Finding", "0.812 to 0.9", "-0.1", "[0.9, 0.95]", "95 % interval",
     "a*", "–", "Müller & Söhne", "cosine_with_min_lr", "{'a': 1}", "(smoke run)", "肺炎", "1.5", ""],
)  # fmt: skip
def test_plain_text_is_left_as_it_is(text):
    assert escape_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("<!-- gone", "&lt;!-- gone"),
        ("# heading", "\\# heading"),
        ("a\n# heading", "a # heading"),
        ("a | b", "a \\| b"),
        ("a \\", "a \\\\"),
        ("a\\|b", "a\\\\\\|b"),
        ("`code`", "&#96;code&#96;"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("[x](javascript:alert(1))", "[x]\\(javascript:alert(1))"),
        ("---", "\\---"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("a\u202egnp.exe", "a gnp.exe"),
        ("a\x00b\u2028c", "a b c"),
        ("caf\udce9", "caf\N{REPLACEMENT CHARACTER}"),
        ("{{ 7 * 7 }}{% x %}", "{{ 7 * 7 }}{% x %}"),
    ],
)
def test_marks_lose_their_meaning(text, shown):
    assert escape_markdown(text) == shown


@given(st.text())
@settings(deadline=None, max_examples=300)
def test_any_text_stays_one_cell_of_one_line(text):
    shown = escape_markdown(text)
    assert not re.search(r"[<>`\n\r\x00-\x1f\u2028\u2029]", shown)
    assert not re.match(r"\s*(#|---|[-+*]\s|=|~)", shown)
    # Pairs of a backslash and what it escapes aside, no bar is left to end a cell.
    assert "|" not in re.sub(r"\\.", "", f"{shown} ")
    shown.encode("utf-8")


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"))


@given(st.dictionaries(NAMES, NAMES | st.lists(NAMES), max_size=3))
@settings(deadline=None, max_examples=300)
def test_front_matter_comes_back(metadata):
    text = front_matter(metadata)
    assert text.startswith("---\n") and text.endswith("---\n")
    inside = text.removeprefix("---\n").removesuffix("---\n")
    assert not re.search(r"^---", inside, re.MULTILINE)
    assert yaml.safe_load(inside) == metadata


def test_a_name_that_looks_like_the_end_of_front_matter():
    name = "a: b\n---\n# x"
    text = front_matter({"license": name, "names": [name, "yes", "1", "null", "{a: b}", "- c"]})
    assert text.count("---\n") == 2
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "license": name, "names": [name, "yes", "1", "null", "{a: b}", "- c"],
    }  # fmt: skip
