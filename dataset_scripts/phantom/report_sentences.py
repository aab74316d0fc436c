"""Write the report of a phantom: what is drawn, where and how large, and what is absent, in varied words.

Stands between `findings`, which draws and says what it drew, and `reports`, which writes the folder. Choices
among phrasings are drawn from a generator of the study's own, and a sentence about something absent may be
missing, so neither can a text be told from the labels alone nor the labels from the text's length. A sentence
about something present names its side as the patient has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataset_scripts.phantom.findings import Radiograph

DRAWN = ("Cardiomegaly", "Consolidation", "Edema", "Effusion", "Mass", "Pneumonia", "Pneumothorax")
"""The findings of studies with reports: those whose signs are still plain at 64 pixels."""

# The least extent of each grade: thirds, or halves, of what is drawn.
_GRADES: dict[str, tuple[tuple[float, str], ...]] = {
    "Cardiomegaly": ((0.0, "mild"), (0.393, "marked")),
    "Effusion": ((0.0, "small"), (0.070, "moderate"), (0.087, "large")),
    "Mass": ((0.0, "small"), (0.086, "large")),
}

_PRESENT: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        "There is {grade} cardiomegaly.",
        "The heart is enlarged, to a {grade} degree.",
        "{grade} enlargement of the cardiac silhouette.",
    ),
    "Consolidation": (
        "There is dense consolidation of the {side} upper lobe.",
        "{side} upper lobe consolidation.",
        "Consolidation is seen in the upper lobe on the {side}.",
    ),
    "Edema": (
        "There is pulmonary edema with a perihilar distribution.",
        "Perihilar opacities are consistent with pulmonary edema.",
        "Pulmonary edema is present.",
    ),
    "Effusion": (
        "There is a {grade} {side} pleural effusion.",
        "{grade} pleural effusion on the {side}.",
        "A {grade} {side}-sided pleural effusion is present.",
    ),
    "Mass": (
        "There is a {grade} mass in the {side} lung.",
        "{grade} round mass projecting over the {side} lung.",
        "A {grade} {side} lung mass is seen.",
    ),
    "Pneumonia": (
        "There is a patchy opacity in the {side} lower lung, concerning for pneumonia.",
        "{side} lower lung airspace opacity with air bronchograms, suspicious for pneumonia.",
        "Airspace disease in the lower lung on the {side}, compatible with pneumonia.",
    ),
    "Pneumothorax": (
        "There is a {side} pneumothorax.",
        "{side}-sided pneumothorax with a visible pleural line.",
        "A pneumothorax is present on the {side}.",
    ),
}

_ABSENT: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (  # said where none of these is drawn
    (
        frozenset({"Cardiomegaly"}),
        ("The heart is normal in size.", "Heart size within normal limits.", "The heart size is normal."),
    ),
    (
        frozenset(DRAWN) - {"Cardiomegaly"},
        (
            "The lungs are clear.",
            "The lungs are clear bilaterally.",
            "Lungs are clear without focal opacity.",
        ),
    ),
    (
        frozenset({"Consolidation", "Pneumonia", "Mass"}),
        ("No focal consolidation.", "There is no focal airspace disease.", "No focal infiltrate or mass."),
    ),
    (
        frozenset({"Effusion", "Pneumothorax"}),
        (
            "No pleural effusion or pneumothorax.",
            "There is no pneumothorax or pleural effusion.",
            "No evidence of pneumothorax or effusion.",
        ),
    ),
    (frozenset({"Edema"}), ("No pulmonary edema.", "Pulmonary vascularity is within normal limits.")),
    (frozenset(), ("No acute bony abnormality.", "The osseous structures are intact.")),
)

_SINGLE_ABSENT = {"Effusion": "No pleural effusion.", "Pneumothorax": "No pneumothorax."}

_NORMAL = (
    "No acute cardiopulmonary abnormality.",
    "No acute disease.",
    "Normal chest.",
    "No acute cardiopulmonary findings.",
)

_IMPRESSIONS = {
    "Cardiomegaly": "Cardiomegaly.",
    "Consolidation": "{side} upper lobe consolidation.",
    "Edema": "Pulmonary edema.",
    "Effusion": "{grade} {side} pleural effusion.",
    "Mass": "{side} lung mass, recommend CT.",
    "Pneumonia": "{side} lower lung pneumonia.",
    "Pneumothorax": "{side} pneumothorax.",
}

_INDICATIONS = (
    "Chest pain.",
    "Shortness of breath.",
    "Cough and fever.",
    "Preop evaluation.",
    "XXXX-year-old {sex} with dyspnea.",
    "XXXX-year-old {sex}, rule out pneumonia.",
    "Follow-up.",
    "",
)

_SAID = 0.85  # probability of a sentence about something absent


@dataclass(frozen=True, slots=True)
class Sign:
    """What is drawn of one finding: the patient's side and the grade, "" where it has none."""

    side: str = ""
    grade: str = ""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The sections of a phantom's report."""

    findings: str
    impression: str
    indication: str


def read_signs(drawn: Radiograph) -> dict[str, Sign]:
    """Return the sign of each finding that a film shows, sorted by name."""
    return {
        name: Sign(drawn.sides.get(name, ""), _grade(name, extent))
        for name, extent in sorted(drawn.extents.items())
    }


def _grade(name: str, extent: float) -> str:
    return next((word for least, word in reversed(_GRADES.get(name, ())) if extent >= least), "")


def write_report(signs: Mapping[str, Sign], rng: np.random.Generator, *, is_female: bool) -> WrittenReport:
    """Write the report of a film with these signs, all of them among `DRAWN`."""
    present = [_fill(_pick(_PRESENT[name], rng), sign) for name, sign in signs.items()]
    absent = [
        _pick(phrasings, rng)
        for names, phrasings in _ABSENT
        if not names & signs.keys() and rng.random() < _SAID
    ]
    pleural = _SINGLE_ABSENT.keys() & signs.keys()
    if len(pleural) == 1:
        absent += [
            text for name, text in _SINGLE_ABSENT.items() if name not in pleural and rng.random() < _SAID
        ]
    sentences = [*(present[index] for index in rng.permutation(len(present))), *absent]
    if absent and rng.random() < 0.3:  # the heart, or whatever comes first, before what was found
        sentences = [absent[0], *present, *absent[1:]]
    summary = [_fill(_IMPRESSIONS[name], sign) for name, sign in signs.items()]
    numbered = [f"{number}. {text}" for number, text in enumerate(summary, start=1)]
    impression = " ".join(numbered if len(summary) > 1 else summary) or _pick(_NORMAL, rng)
    indication = _pick(_INDICATIONS, rng).format(sex="female" if is_female else "male")
    return WrittenReport(" ".join(sentences), impression, indication)


def _pick(phrasings: Sequence[str], rng: np.random.Generator) -> str:
    return phrasings[int(rng.integers(len(phrasings)))]


def _fill(phrasing: str, sign: Sign) -> str:
    text = phrasing.format(side=sign.side, grade=sign.grade)
    return text[0].upper() + text[1:]
