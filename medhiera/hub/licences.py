"""The licence of a stage's weights: as the Hub names it, in a sentence, and as the text beside them.

Weights inherit what they were trained from (lineage.py). card_header.py, model_card.py
and publish.py stand on it.
"""

import re
from dataclasses import dataclass

from medhiera.hub.record import AnyRecord, ReportRecord
from medhiera.shipped_files import TEMPLATES

CODE_LICENCE = "apache-2.0"
LICENCE_FILE = "LICENSE"
"""Of the weights; the Hub takes a `license_link` of this name for the file in the repository."""
CODE_LICENCE_FILE = "LICENSE-CODE"

HUB_LICENCES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl "
    "gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl "
    "apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl "
    "lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 "
    "llama3.3 llama4 gemma grok2-community".split()
)
"""The names that the Hub knows; any other is `other` there.

Source: https://huggingface.co/docs/hub/repositories-licenses.
"""


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
"""NAME/MODEL, as the Hub names a repository; "the folder x" and "stage 1 (from …)" are none."""

_RANDOM = re.compile(r"((checkpoint-\d+ of )?stage \d+ \(from )*random weights(?=[;)]|$)")
"""What a lineage says of weights that no other weights came before, in this stage or before it."""


@dataclass(frozen=True)
class HubLicence:
    """The three fields of a card's metadata; `name` and `link` are there where `license` is "other"."""

    license: str
    name: str | None = None
    link: str | None = None


def decoder_of(record: AnyRecord) -> str | None:
    """The language model that a writer of reports started from."""
    return record.decoder if isinstance(record, ReportRecord) else None


def hub_licence(record: AnyRecord) -> HubLicence:
    """The weights' licence as the Hub names it: `unknown` where nobody says, `other` where it has no name."""
    licence, decoder = record.lineage.license, decoder_of(record)
    if decoder is not None:
        return HubLicence("other", "see-decoder", LICENCE_FILE)
    if licence is None or licence.casefold() == "unknown":
        return HubLicence("unknown")
    if known := _hub_name(licence):
        return HubLicence(known)
    words = "".join(letter if letter.isalnum() or letter in ".-" else " " for letter in licence.casefold())
    name = "-".join(words.split()).strip(".-")
    if name in {"", "other"}:
        name = "see-license-file"
    return HubLicence("other", name, LICENCE_FILE)


def _hub_name(licence: str) -> str | None:
    """The Hub's name of a licence as people spell it, "Apache License, Version 2.0"; None if none."""
    plain = re.sub(r"\b(the|licen[cs]e|version)\b|\bv(?=\d)|[^a-z0-9.+]", " ", licence.casefold())
    return next(
        (name for name in (licence.casefold(), "-".join(plain.split())) if name in HUB_LICENCES), None
    )


def licence_sentence(record: AnyRecord) -> str:
    """What the card says: weights inherit what they were trained from."""
    lineage, decoder = record.lineage, decoder_of(record)
    is_random = _RANDOM.match(lineage.started_from)
    teachers = "; ".join(f"{one.name}: {one.license or 'unknown licence'}" for one in lineage.teachers)
    if decoder is not None:
        of_encoder = "" if is_random and not teachers else f" and on {lineage.started_from}"
        of_encoder += f", with the teacher whose features that learned to predict ({teachers})" * bool(
            teachers
        )
        return f"It depends on the decoder that it started from, {decoder}{of_encoder}: look it up first."
    name = hub_licence(record).license
    if name == CODE_LICENCE:
        origin = f"inherited from the weights it started from ({lineage.started_from})"
        origin = "as the code: the weights started at random" if is_random else origin
        taught = f" It learned to predict the features of a teacher ({teachers})." if teachers else ""
        return f"Apache-2.0, {origin}.{taught} The images keep their own licences."
    if teachers:
        return (
            f"{lineage.license or 'Not known'}: it depends on the weights it started from "
            f"({lineage.started_from}) and on the teacher whose features it learned to predict ({teachers}). "
            "Look both up first."
        )
    if lineage.license is None:
        return f"Inherited from {lineage.started_from}, of unknown licence: look it up first."
    sentence = f"{lineage.license}: inherited from the weights it started from ({lineage.started_from})."
    if name.startswith("cc-by-nc"):
        sentence += " Weights derived from Meta's Hiera are for non-commercial use."
    return sentence


def licence_text(record: AnyRecord) -> str:
    """The file LICENSE of a published stage: its weights' licence, with its text where we hold it."""
    found = hub_licence(record)
    head = f"The weights in this repository: {licence_sentence(record)}\n"
    file = TEMPLATES / "licences" / f"{found.license}.txt"
    if file.is_file():
        return f"{head}\n{file.read_text(encoding='utf-8')}"
    if found.license == "unknown":
        return f"{head}\nNo licence is known, so nothing here grants you a right to use them.\n"
    return f"{head}\n{_where_its_text_is(record, found)}\n"


def _where_its_text_is(record: AnyRecord, licence: HubLicence) -> str:
    """Say where the text of a licence stands that we do not hold: with each of what the weights came from."""
    lineage, decoder = record.lineage, decoder_of(record)
    origins = [] if _RANDOM.match(lineage.started_from) else [lineage.started_from]
    origins += [*(one.name for one in lineage.teachers), *([decoder] if decoder else [])]
    links = [f"https://huggingface.co/{name}" for name in origins if _HUB_ID.fullmatch(name)]
    named = f", {licence.license}," if licence.name is None else ""
    if links:
        return f"The text of the licence{named} stands in the repository of what they were made from: " + (
            ", ".join(links) + "."
        )
    return (
        f"The text of the licence{named} is not here: it stands with what they were made from "
        f"({'; '.join(origins)})."
    )


def code_licence_text() -> str:
    """The file LICENSE-CODE: of the model code that is published beside the weights."""
    return (TEMPLATES / "licences" / f"{CODE_LICENCE}.txt").read_text(encoding="utf-8")
