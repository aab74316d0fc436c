"""The text of a report: its white space, and its sections where the report is one text with headings.

A source's report files → `cut_sections` → its records. Nothing is lower-cased, corrected or left out.
"""

import re
from dataclasses import dataclass

_HEADING = re.compile(r"^[ \t]*([A-Za-z][A-Za-z ,&/()'-]{1,59}?)[ \t]*:", re.MULTILINE)

_START = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE | re.IGNORECASE)

_SECTIONS = {
    **dict.fromkeys(
        ("findings", "finding", "findings and impression", "findings/impression", "impression and findings"),
        "findings",
    ),
    **dict.fromkeys(("impression", "impressions", "conclusion", "conclusions"), "impression"),
    **dict.fromkeys(
        "indication,indications,history,clinical history,clinical indication,clinical information,"
        "reason for exam,reason for examination,reason for study,indication for exam,"
        "history and indication,indication/history".split(","),
        "indication",
    ),
}

_OTHER_HEADINGS = frozenset(
    "addendum,comparison,comparisons,comment,exam,examination,final addendum,notification,procedure,"
    "recommendation,recommendations,study,technique,type of examination,views,wet read".split(",")
)

_CHEST_WORDS = frozenset(
    "ap chest frontal lateral pa portable radiograph radiographs upright view views".split()
)
"""An unknown heading of these ("PA AND LATERAL VIEWS OF THE CHEST:") stands before findings."""


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
    ("FINDINGS:", "Findings :", "CLINICAL HISTORY:"). What precedes a line "FINAL REPORT" (a preliminary
    reading) does not count. Sections of one name are joined. A report without findings and impression has its
    findings below a heading that names the view ("PORTABLE CHEST RADIOGRAPH:") or, where there is none, in
    its last paragraph.

    Args:
        text: the file's content, lines ending in line feeds.
    """
    *_, text = _START.split(text)
    found: dict[str, list[str]] = {}
    headings = [match for match in _HEADING.finditer(text) if _is_heading(match[1])]
    starts = [match.start() for match in headings] + [len(text)]
    for match, end in zip(headings, starts[1:], strict=True):
        found.setdefault(_section(match[1]), []).append(text[match.end() : end])
    joined = {name: tidy(" ".join(parts)) for name, parts in found.items()}
    if not joined.get("findings") and not joined.get("impression"):
        joined["findings"] = joined.get("view", "") or _last_paragraph(text, headings)
    names = ("findings", "impression", "indication")
    return ReportText(*(joined.get(name, "") for name in names))


def _folded(heading: str) -> str:
    return re.sub(r"\s*/\s*", "/", tidy(heading.lower()))


def _is_heading(heading: str) -> bool:
    return heading.isupper() or _folded(heading) in _SECTIONS or _folded(heading) in _OTHER_HEADINGS


def _section(heading: str) -> str:
    folded = _folded(heading)
    if folded in _SECTIONS:
        return _SECTIONS[folded]
    words = set(re.findall(r"[a-z]+", folded))
    return "view" if folded not in _OTHER_HEADINGS and words & _CHEST_WORDS else "other"


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
