"""The text of a report: its white space, and its sections where the report is one text with headings.

A source's report files → `cut_sections` → its records. Nothing is lower-cased, corrected or left out.
"""

import re
from dataclasses import dataclass

_HEADING = re.compile(r"^[ \t]*([A-Za-z][A-Za-z ,&/()'-]{1,59}?)[ \t]*(:|$)", re.MULTILINE)

_START = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE | re.IGNORECASE)

_READINGS = {
    **dict.fromkeys(("finding", "findings"), "findings"),
    **dict.fromkeys(("impression", "impressions", "conclusion", "conclusions"), "impression"),
}
"""A heading of several ("FINDINGS AND IMPRESSION") has findings below it, if it names them."""

_INDICATIONS = frozenset(
    "indication,indications,history,clinical history,clinical indication,clinical information,"
    "reason for exam,reason for examination,reason for study,indication for exam,"
    "history and indication,indication and history".split(",")
)

_OTHER_HEADINGS = frozenset(
    "addendum,comparison,comparisons,comment,exam,examination,final addendum,notification,procedure,"
    "recommendation,recommendations,recommendation(s),study,technique,type of examination,views,"
    "wet read".split(",")
)

_CHEST_WORDS = frozenset(
    "ap chest frontal lateral pa portable radiograph radiographs upright view views".split()
)
"""A heading with one of these may stand before findings, where a report names neither section."""

_FILLERS = frozenset("a and of one single the three two".split())

_PARTS = frozenset(
    "airway airways bone bones cardiac cardiomediastinal cardiovascular devices diaphragm heart hila lines "
    "lung lungs mediastinal mediastinum osseous pleura pleural pulmonary ribs silhouette skeleton soft "
    "spaces spine structures support tissues tubes vasculature vessels".split()
)
"""A heading of these alone ("LUNGS AND PLEURA:") is a part of the findings."""

_SENTENCE_END = re.compile(r"[A-Za-z]\.(?:\s|$)")


@dataclass(frozen=True, slots=True)
class ReportText:
    """The sections of one report; "" is a section that it lacks."""

    findings: str = ""
    impression: str = ""
    indication: str = ""


def tidy(text: str) -> str:
    """Return a text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def cut_sections(text: str) -> ReportText:
    """Cut a report into its sections.

    A heading is a line's beginning up to a colon, in capitals or one of the known headings in any case
    ("FINDINGS:", "Findings :", "CLINICAL HISTORY:"; "comparison:" not amid a sentence), or a known one in
    capitals that is a line of its own. What precedes a line "FINAL REPORT" (a preliminary reading) does not
    count. Sections of one name are joined. Headings of parts ("LUNGS:") within findings belong to them, as
    does one that is the view alone directly below theirs ("PA AND LATERAL VIEWS OF THE CHEST:"). A report
    without findings has them below a heading that is the view alone or, without impression too, that names it
    ("CHEST, AS REQUESTED:"), or in its last paragraph.

    Args:
        text: the file's content, lines ending in line feeds.
    """
    *_, text = _START.split(text)
    found: dict[str, list[str]] = {}
    headings = [match for match in _HEADING.finditer(text) if _is_heading(match, text)]
    starts = [match.start() for match in headings] + [len(text)]
    before = ""
    for match, end in zip(headings, starts[1:], strict=True):
        section, words = _section(match[1]), text[match.end() : end]
        if before == "findings" and section == "part":
            section, words = before, f"{match[0]}{words}"
        elif before == "findings" and section == "view" and not tidy("".join(found[before])):
            section = before
        found.setdefault(section, []).append(words)
        before = section
    joined = {name: tidy(" ".join(parts)) for name, parts in found.items()}
    if not joined.get("findings"):
        viewed = joined.get("view", "")
        if not joined.get("impression"):
            viewed = tidy(" ".join([viewed, joined.get("perhaps a view", "")]))
            joined["findings"] = viewed or _last_paragraph(text, headings)
        elif _SENTENCE_END.search(viewed):  # not the time of the picture
            joined["findings"] = viewed
    names = ("findings", "impression", "indication")
    return ReportText(*(joined.get(name, "") for name in names))


def _folded(heading: str) -> str:
    return tidy(re.sub(r"\s*[/&]\s*", " and ", heading.lower()))


def _is_heading(match: re.Match[str], text: str) -> bool:
    heading, colon = match[1], match[2]
    is_known = _section(heading) in ("findings", "impression", "indication", "other")
    if not colon:
        return heading.isupper() and is_known
    if heading.islower() and is_known:
        before = text[: match.start()]
        said = before.rstrip()
        return not said or said[-1] in ".:;?!" or before.count("\n", len(said)) > 1
    return heading.isupper() or is_known


def _section(heading: str) -> str:
    """What stands below a heading: a section, other, a part of findings, a view, perhaps one, or unknown."""
    folded = _folded(heading)
    read = [_READINGS.get(part) for part in re.split(r",? and |, ", folded)]
    if None not in read:
        return "findings" if "findings" in read else "impression"
    if folded in _INDICATIONS:
        return "indication"
    if folded in _OTHER_HEADINGS:
        return "other"
    words = set(re.findall(r"[a-z]+", folded)) - _FILLERS
    if words and words <= _PARTS:
        return "part"
    if words and words <= _CHEST_WORDS:
        return "view"
    return "perhaps a view" if words & _CHEST_WORDS else "unknown"


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
