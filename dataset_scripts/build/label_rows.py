"""What a row of a label table says of one image, and what several rows of one image say together.

Cells → `parse_age_years`, `parse_sex`, `parse_view`, `parse_label` → `LabelRow` → `merge_rows` → a source's
records. Every source reads people, views and double rows by these rules.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset_scripts.build.file_names import fold
from dataset_scripts.build.records import SourceListing
from dataset_scripts.findings import NOT_ANNOTATED

_WANTED_AGE = "wanted years, or a number with Y, M, W or D behind it"

_WANTED_SEX = "wanted M, F or O, or a word for it (male, female, weiblich, homme, …)"

OLDEST_AGE_YEARS = 120  # ChestX-ray14's first table holds ages up to 414

_MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})
"""What programs write into an empty cell."""

_UNKNOWN_PATIENT = _MISSING | {"none", "unknown", "unk", "-", "?"}

_UNKNOWN = _UNKNOWN_PATIENT | {"u"}

_AGE = re.compile(r"([+-]?\d{1,6}(?:[.,]\d{0,6})?)\s*([a-z]*)\.?", re.ASCII)

_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}

_UNITS = {
    **dict.fromkeys(("", "y", "yr", "yrs", "yo", "year", "years"), "y"),
    **dict.fromkeys(("m", "mo", "mos", "month", "months"), "m"),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), "w"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}

# English, German, French, Spanish, Italian. "h" (hombre) is no key: beside it, "m" means mujer, a woman.
_MALE = (
    "m male man boy männlich maennlich mann junge masculin homme garçon masculino hombre varón maschio uomo"
)
_FEMALE = "f female woman girl w weiblich frau mädchen féminin femme fille femenino mujer femmina donna"

_SEXES = {
    **dict.fromkeys(_MALE.split(), "M"),
    **dict.fromkeys(_FEMALE.split(), "F"),
    **dict.fromkeys(("o", "other", "x", "d", "diverse"), "O"),
}

_VIEW_WORDS = frozenset("view projection chest erect semierect upright supine sitting portable".split())

_VIEWS = {
    **dict.fromkeys(("PA", "POSTEROANTERIOR", "POSTERIORANTERIOR", "POSTERIORTOANTERIOR"), "PA"),
    **dict.fromkeys(("AP", "ANTEROPOSTERIOR", "ANTERIORPOSTERIOR", "ANTERIORTOPOSTERIOR"), "AP"),
    **dict.fromkeys(
        ("L", "LL", "RL", "LAT", "LLAT", "RLAT", "LATERAL", "LEFTLATERAL", "RIGHTLATERAL"), "LATERAL"
    ),
}

_LABEL = re.compile(r"\+?0*([01])(?:[.,]0*)?", re.ASCII)

_WHOLE_NUMBER = re.compile(r"(\d+)\.0*", re.ASCII)

_PADDING = re.compile(r"\s+|(?<!\d)0+(?=\d)")  # what another system may write before a number, or leave out

_LABEL_WORDS = {**dict.fromkeys(_MISSING, NOT_ANNOTATED), "true": 1.0, "false": 0.0}

_COLUMNS = {
    **dict.fromkeys(("age", "ageyears", "ageinyears", "patientage", "patientageyears"), "age_years"),
    **dict.fromkeys(("sex", "gender", "patientsex", "patientgender"), "sex"),
    **dict.fromkeys(("view", "viewposition", "projection"), "view"),
}


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a label table, parsed; `labels` in the order that the source gives its records."""

    line: int
    patient: str
    labels: tuple[float, ...]
    age_years: float = math.nan
    sex: str = ""
    view: str = ""


def spelling(name: str) -> str:
    """Return what all spellings of a class share: `PLEURAL THICKENING` is Pleural_Thickening."""
    return fold(name).replace("_", " ")


def person_column(column: str) -> str:
    """Return `age_years`, `sex` or `view` for a column that holds it by any usual name, else the column."""
    return _COLUMNS.get(re.sub(r"[^a-z]", "", column.lower()), column)


def parse_label(text: str) -> float | None:
    """Return 1.0, 0.0 or NaN for a label's cell (`1`, `1.0`, `TRUE`, empty); None if it is none of these."""
    word = text.strip().lower()
    if word in _LABEL_WORDS:
        return _LABEL_WORDS[word]
    match = _LABEL.fullmatch(word)
    return None if match is None else float(match[1])


def parse_age_years(text: str) -> float | None:
    """Return "58", "058Y", "45.0", "006M" or "11 days" in years, NaN for unknown; None if it is no age."""
    word = text.strip().lower()
    if word in _UNKNOWN:
        return math.nan
    match = _AGE.fullmatch(word)
    if match is None or match[2] not in _UNITS:
        return None
    return float(match[1].replace(",", ".")) / _PER_YEAR[_UNITS[match[2]]]


def parse_sex(text: str) -> str | None:
    """Return M, F or O (other, as in DICOM), "" for unknown; None if it is none of these."""
    word = text.strip().lower()
    return "" if word in _UNKNOWN else _SEXES.get(word)


def parse_view(text: str) -> str | None:
    """Return PA, AP or LATERAL, "" for unknown; None if it is none of these. "AP supine" is AP."""
    word = text.strip().lower()
    if word in _UNKNOWN:
        return ""
    words = re.findall(r"[a-z]+", word)
    return _VIEWS.get("".join(part for part in words if part not in _VIEW_WORDS).upper())


def read_person(cells: Mapping[str, str], image: str, listing: SourceListing) -> tuple[float, str, str]:
    """Return (age in years, sex, view) of a row; what cannot be recognised is reported and unknown."""
    age_text, sex_text, view_text = (cells.get(column, "") for column in ("age_years", "sex", "view"))
    age, sex, view = parse_age_years(age_text), parse_sex(sex_text), parse_view(view_text)
    if age is None:
        listing.report("unknown_age", image, f"{age_text[:40]!r}: {_WANTED_AGE}; set to unknown")
    elif not math.isnan(age) and not 0 <= age <= OLDEST_AGE_YEARS:
        listing.report("implausible_age", image, f"{age_text[:40]}: set to unknown")
        age = None
    if sex is None:
        listing.report("unknown_sex", image, f"{sex_text[:40]!r}: {_WANTED_SEX}; set to unknown")
    if view is None:
        listing.report("unknown_view", image, f"{view_text[:40]!r}: wanted PA, AP or LATERAL; set to unknown")
    return math.nan if age is None else age, sex or "", view or ""


def read_patient(text: str) -> str:
    """Return a patient's identifier; "" where the cell names nobody (`NA`, `unknown`)."""
    return "" if text.lower() in _UNKNOWN_PATIENT else read_identifier(text)


def read_identifier(text: str) -> str:
    """Return a name or a class, "" for `NA` and `NaN`; a number that a spreadsheet wrote as `7.0` is `7`."""
    if text.lower() in _MISSING:
        return ""
    number = _WHOLE_NUMBER.fullmatch(text)
    return text if number is None else number[1]


def patient_of_one_image(key: str) -> str:
    """Return the patient of an image that names none: one of its own, by which it is known again.

    Args:
        key: of the image; its image_id is SOURCE/KEY.
    """
    return f"image {key}"


def report_similar_patients(split_of: Mapping[str, str], listing: SourceListing) -> None:
    """Name patients whose identifiers differ little and whose splits differ: perhaps they are one person.

    Args:
        split_of: the split of each patient, by identifier.
        listing: takes the reports.
    """
    alike: dict[str, list[str]] = {}
    for patient in split_of:
        plain = unicodedata.normalize("NFKC", patient).casefold()
        alike.setdefault(_PADDING.sub("", plain), []).append(patient)
    for first, *others in alike.values():
        for other in others:
            if split_of[first] != split_of[other]:
                listing.report(
                    "similar_patients",
                    first,
                    f"{first!r} in {split_of[first]} and {other!r} in {split_of[other]} differ only in "
                    "letter case, spaces or leading zeros: if they are one patient, write them alike",
                )


def merge_rows(image: str, rows: Sequence[LabelRow], listing: SourceListing) -> LabelRow | None:
    """Return what the rows of one image say together; each row after the first is reported.

    Equal rows count once. Where rows disagree on labels the image is not annotated (all NaN); on age, sex or
    view, that is unknown; on the patient the image is left out, because it could stand in another split than
    the rest of its patient.

    Returns:
        One row, or None if the image is left out.
    """
    first = merged = rows[0]
    is_left_out = False
    for row in rows[1:]:
        differing = [name for name in _COMPARED if not _is_same(getattr(first, name), getattr(row, name))]
        at = f"lines {first.line} and {row.line}"
        if "patient" in differing:
            is_left_out = True
            listing.report("conflicting_row", image, f"{at} name two patients: the image is left out")
        elif differing:
            unknown = "counts as not annotated" if "labels" in differing else "is built without these"
            listing.report("duplicate_row", image, f"{at} disagree on {differing}: the image {unknown}")
        else:
            listing.report("duplicate_row", image, f"{at} are equal: counted once")
        nothing = {**_NOTHING, "labels": (NOT_ANNOTATED,) * len(first.labels)}
        merged = replace(merged, **{name: nothing[name] for name in differing if name in nothing})
    if is_left_out:  # so that every row is either built or reported
        listing.report("conflicting_row", image, f"line {first.line} is left out with the lines below")
    return None if is_left_out else merged


_COMPARED = ("patient", "labels", "age_years", "sex", "view")

_NOTHING: dict[str, Any] = {"age_years": math.nan, "sex": "", "view": ""}


def _is_same(one: object, other: object) -> bool:
    """Whether two values are equal, where not annotated equals not annotated."""
    return repr(one) == repr(other)
