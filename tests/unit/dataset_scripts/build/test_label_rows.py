"""Ages, sexes, views and labels as people write them; and rows that name one image twice."""

import math
from pathlib import Path

import pytest

from dataset_scripts.build.label_rows import (
    LabelRow,
    merge_rows,
    parse_age_years,
    parse_label,
    parse_sex,
    parse_view,
    person_column,
    read_person,
)
from dataset_scripts.build.records import SourceListing
from dataset_scripts.image_folder import SOURCE

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("58", 58.0), ("058Y", 58.0), ("45.0", 45.0), ("45,5", 45.5), ("006M", 0.5), ("18 months", 1.5),
        ("073D", 73 / 365.25), ("26W", 26 * 7 / 365.25), (" 7 years ", 7.0), ("0", 0.0), ("-4", -4.0),
        ("414", 414.0), ("", NAN), ("NaN", NAN), ("unknown", NAN),
        ("old", None), ("5x", None), ("1e3", None), ("4-5", None), ("٣", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_ages(text: str, years: float | None) -> None:
    assert parse_age_years(text) == (years if years is None else pytest.approx(years, nan_ok=True))


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("Male", "M"),
        ("m", "M"),
        ("F", "F"),
        ("female", "F"),
        ("O", "O"),
        (" f ", "F"),
        ("", ""),
        ("U", ""),
        ("1", None),
        ("W", "F"),
        ("männlich", "M"),
        ("Weiblich", "F"),
        ("Homme", "M"),
        ("mujer", "F"),
        ("maschio", "M"),
        ("h", None),  # beside it, "m" is a woman in Spanish: better unknown and said
    ],
)
def test_sexes(text: str, sex: str | None) -> None:
    assert parse_sex(text) == sex


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("pa", "PA"), ("AP ", "AP"), ("P-A", "PA"), ("antero-posterior", "AP"), ("Posteroanterior", "PA"),
        ("AP supine", "AP"), ("Chest PA (erect)", "PA"), ("LL", "LATERAL"), ("lateral", "LATERAL"), ("", ""),
        ("oblique", None), ("PA AP", None),
    ],
)  # fmt: skip
def test_views(text: str, view: str | None) -> None:
    assert parse_view(text) == view


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0), ("0", 0.0), (" 1", 1.0), ("1.0", 1.0), ("0,0", 0.0), ("1.", 1.0), ("01", 1.0),
        ("TRUE", 1.0), ("False", 0.0), ("", NAN), ("nan", NAN), ("NA", NAN),
        ("-1", None), ("2", None), ("10", None), ("0.5", None), ("1.01", None), ("yes", None), ("x", None),
    ],
)  # fmt: skip
def test_labels(text: str, value: float | None) -> None:
    assert parse_label(text) == (value if value is None else pytest.approx(value, nan_ok=True))


@pytest.mark.parametrize(
    ("column", "known"),
    [
        ("Patient Sex", "sex"), ("Patient Gender", "sex"), ("gender", "sex"), ("Patient Age", "age_years"),
        ("age", "age_years"), ("Patient_Age (years)", "age_years"), ("View Position", "view"),
        ("Mass", "Mass"),
        ("Cardiomegaly", "Cardiomegaly"),
    ],
)  # fmt: skip
def test_columns_of_persons(column: str, known: str) -> None:
    assert person_column(column) == known


@pytest.fixture
def listing(tmp_path: Path) -> SourceListing:
    return SourceListing(SOURCE, tmp_path)


def kinds(listing: SourceListing) -> list[str]:
    return [problem.kind for problem in listing.problems]


def test_what_is_not_recognised_is_unknown_and_reported(listing: SourceListing) -> None:
    good = {"age_years": "058Y", "sex": "male", "view": "pa"}
    assert read_person(good, "a.png", listing) == (58.0, "M", "PA") and not listing.problems
    age, sex, view = read_person({"age_years": "old", "sex": "?!", "view": "oblique"}, "a.png", listing)
    assert math.isnan(age) and (sex, view) == ("", "")
    assert kinds(listing) == ["unknown_age", "unknown_sex", "unknown_view"]
    for text in ("414", "-3", "1500M"):
        assert math.isnan(read_person({"age_years": text}, "a.png", listing)[0])
    assert kinds(listing)[3:] == ["implausible_age"] * 3


def test_rows_of_one_image(listing: SourceListing) -> None:
    row = LabelRow(2, "p1", (1.0, NAN), 40.0, "F", "PA")
    assert merge_rows("a.png", [row], listing) is row and not listing.problems
    assert merge_rows("a.png", [row, LabelRow(9, "p1", (1.0, NAN), 40.0, "F", "PA")], listing) == row
    merged = merge_rows("b.png", [row, LabelRow(3, "p1", (0.0, NAN), 40.0, "F", "PA")], listing)
    assert all(map(math.isnan, merged.labels)) and (merged.age_years, merged.sex) == (40.0, "F")
    merged = merge_rows("c.png", [row, row, LabelRow(4, "p1", (1.0, NAN), 41.0, "M", "PA")], listing)
    assert math.isnan(merged.age_years) and (merged.sex, merged.view, merged.labels[0]) == ("", "PA", 1.0)
    assert kinds(listing) == ["duplicate_row"] * 4
    assert "equal" in listing.problems[0].detail and "not annotated" in listing.problems[1].detail
    assert merge_rows("d.png", [row, LabelRow(5, "p2", (1.0, NAN), 40.0, "F", "PA")], listing) is None
    assert kinds(listing)[4:] == ["conflicting_row"] * 2
