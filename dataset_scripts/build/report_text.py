"""The text of a report: its white space, and its sections where the report is one text with headings.

A source's report files → `cut_sections` → its records. Nothing is lower-cased, corrected or left out.
"""

import difflib
import re
from dataclasses import dataclass, field

_NAME = r"[A-Za-z][A-Za-z ,&/()'-]{1,59}?"

_HEADING = re.compile(rf"^[ \t]*({_NAME})[ \t]*(:|$)", re.MULTILINE)

_INNER_HEADING = re.compile(r"(?<=[.:;?!])[ \t]+([A-Z][A-Z ,&/()'-]{1,59}?)[ \t]*(:)")
"""In capitals after a sentence: known ones alone are headings there."""

_START = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE | re.IGNORECASE)

_READINGS = {
    **dict.fromkeys(("finding", "findings"), "findings"),
    **dict.fromkeys(("impression", "impressions", "conclusion", "conclusions"), "impression"),
}
"""A heading of several ("FINDINGS AND IMPRESSION") has findings below it, if it names them."""

_INDICATIONS = frozenset(
    "indication,indications,history,clinical history,clinical indication,clinical information,"
    "reason for exam,reason for examination,reason for study,indication for exam".split(",")
)

_OTHER_HEADINGS = frozenset(
    "addendum,comparison,comparisons,comment,exam,examination,final addendum,notification,procedure,"
    "recommendation,recommendations,recommendation(s),study,technique,type of examination,views,"
    "wet read".split(",")
)

_OTHER_WORDS = frozenset(
    "addendum attending clinical communication communicated critical date dictated doctor dose dr "
    "electronically history indication indications notification pfi physician radiologist reason "
    "recommendation recommendations reference referring results signed technique wet wetread".split()
)
"""A heading in capitals with one of these ("PATIENT HISTORY:") is no part of the findings above it."""

_CHEST_WORDS = frozenset(
    "ap chest frontal lateral pa portable radiograph radiographs upright view views".split()
)
"""A heading with one of these may stand before findings, where a report names neither section."""

_FILLERS = frozenset("a and of one single the three two".split())

_SENTENCE_END = re.compile(r"[A-Za-z]\.(?:\s|$)")

SECTIONS = ("findings", "impression", "indication")

_MISTYPED = 0.85
"""Likeness (difflib's ratio) from which a heading in capitals is taken for a known one: IMPRESSON."""


@dataclass(frozen=True, slots=True)
class ReportText:
    """The sections of one report; "" is a section that it lacks.

    Attributes:
        findings: text.
        impression: text.
        indication: text.
        left_out: headings that no report is known to have, whose text is in no section.
    """

    findings: str = ""
    impression: str = ""
    indication: str = ""
    left_out: tuple[str, ...] = field(default=(), compare=False, kw_only=True)


def tidy(text: str) -> str:
    """Return a text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def cut_sections(text: str) -> ReportText:
    """Cut a report into its sections.

    A heading is a line's beginning up to a colon, in capitals or one of the known headings in any case
    ("FINDINGS:", "Findings :", "CLINICAL HISTORY:"; "comparison:" not amid a sentence), or a known one in
    capitals that is a line of its own or follows a sentence. In capitals what names a section beside other
    words is that section ("PRELIMINARY IMPRESSION:"). What precedes a line "FINAL REPORT" (a preliminary
    reading) does not count. Sections of one name are joined. A heading within findings that names no other
    section ("LUNGS:", "ET TUBE:") belongs to them with what it heads, but a view alone directly below theirs
    ("PA AND LATERAL VIEWS OF THE CHEST:") is taken out. A report without findings has them below a heading
    that is the view alone or, without impression too, that names it ("CHEST, AS REQUESTED:"), or in its last
    paragraph.

    Args:
        text: the file's content, lines ending in line feeds.
    """
    *_, text = _START.split(text)
    found: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    headings = _headings(text)
    starts = [match.start() for match in headings] + [len(text)]
    before = ""
    for match, end in zip(headings, starts[1:], strict=True):
        section, words = _section(match[1]), text[match.end() : end]
        if before == "findings" and section in ("view", "perhaps a view", "unknown"):
            is_begun = tidy("".join(found[before]))
            words = words if section == "view" and not is_begun else f"{match[0]}{words}"
            section = before
        found.setdefault(section, []).append(words)
        if section not in (*SECTIONS, "other") and tidy(words):
            unknown.setdefault(section, []).append(tidy(match[1]))
        before = section
    joined = {name: tidy(" ".join(parts)) for name, parts in found.items()}
    viewed = joined.get("view", "")
    is_told = bool(_SENTENCE_END.search(viewed))  # else it is the time of the picture
    used = set() if is_told else {"view"}
    if not joined.get("findings") and not joined.get("impression"):
        viewed = tidy(" ".join([viewed, joined.get("perhaps a view", "")]))
        joined["findings"] = viewed or _last_paragraph(text, headings)
        used = {"view", "perhaps a view"}
    elif not joined.get("findings") and is_told:
        joined["findings"] = viewed
        used = {"view"}
    left_out = tuple(name for section, names in unknown.items() if section not in used for name in names)
    return ReportText(*(joined.get(name, "") for name in SECTIONS), left_out=left_out)


def _folded(heading: str) -> str:
    return tidy(re.sub(r"\s*[/&]\s*", " and ", heading.lower()))


def _headings(text: str) -> list[re.Match[str]]:
    """The headings of a report, in their order."""
    at_lines = [match for match in _HEADING.finditer(text) if _is_heading(match, text)]
    inner = [match for match in _INNER_HEADING.finditer(text) if _known_section(_folded(match[1]))]
    return sorted([*at_lines, *inner], key=lambda match: match.start())


def _is_heading(match: re.Match[str], text: str) -> bool:
    heading, colon = match[1], match[2]
    is_known = bool(_known_section(_folded(heading)))
    if not colon:
        return heading.isupper() and is_known
    if heading.islower() and is_known:
        before = text[: match.start()]
        said = before.rstrip()
        return not said or said[-1] in ".:;?!" or before.count("\n", len(said)) > 1
    return heading.isupper() or is_known


def _known_section(folded: str) -> str:
    """What stands below a known heading: a section or other; "" for any else."""
    parts = re.split(r",? and |, ", folded)
    read = [_READINGS.get(part) for part in parts]
    if None not in read:
        return "findings" if "findings" in read else "impression"
    if folded == "summary":
        return "impression"
    if _INDICATIONS.issuperset(parts):
        return "indication"
    return "other" if folded in _OTHER_HEADINGS else ""


def _section(heading: str) -> str:
    """What stands below a heading: a section, other, another, a view, perhaps one, or unknown."""
    folded = _folded(heading)
    if known := _known_section(folded):
        return known
    words = set(re.findall(r"[a-z]+", folded)) - _FILLERS
    if words & {"comparison", "comparisons"}:
        return "another"  # "COMPARISON TO PRIOR FINDINGS"
    for section in ("findings", "impression"):
        if any(_READINGS.get(word) == section for word in words):
            return section
    if words & _OTHER_WORDS:
        return "another"
    if words and words <= _CHEST_WORDS:
        return "view"
    if words & _CHEST_WORDS:
        return "perhaps a view"
    near = difflib.get_close_matches(folded, [*_READINGS, "indication", "comparison"], 1, _MISTYPED)
    return _known_section(near[0]) if near else "unknown"


def _last_paragraph(text: str, headings: list[re.Match[str]]) -> str:
    """Return the last paragraph that holds more than a heading, without a heading at its beginning."""
    paragraphs = [tidy(part) for part in re.split(r"\n[ \t]*\n", text)]
    paragraphs = [part for part in paragraphs if part and not part.endswith(":")]
    if not paragraphs:
        return ""
    last = paragraphs[-1]
    match = _HEADING.match(last)
    is_headed = match is not None and match[1] in {heading[1] for heading in headings}
    return "" if is_headed else last
