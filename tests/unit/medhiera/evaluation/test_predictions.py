"""Predictions are refused when they are made, not by each scorer; and go to a file and back."""

import re
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataset_scripts.findings import make_features
from medhiera.errors import UserError
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.predictions_files import known_ids, load_predictions, read_predictions

NAMES = ["Edema", "No Finding"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((3, 1))}, "do not fit"),
        ({"scores": np.zeros(3), "labels": np.zeros(3)}, "do not fit"),
        ({"finding_names": ["Edema"]}, "1 names do not fit"),
        ({"scores": np.full((3, 2), np.nan)}, "6 scores are NaN or infinite"),
        ({"scores": np.full((3, 2), np.inf)}, "6 scores are NaN or infinite"),
        ({"labels": np.full((3, 2), 2.0)}, "other than 0, 1 and NaN"),
        ({"patient_ids": ["a", "b"]}, "2 patient_ids for 3 images"),
        ({"rows": pd.DataFrame({"image_id": ["a"]})}, "1 rows for 3 images"),
    ],
)
def test_bad_input_is_refused(changes, message):
    good = {"scores": np.zeros((3, 2)), "labels": np.zeros((3, 2)), "finding_names": NAMES}
    assert len(Predictions(**good)) == 3
    with pytest.raises(ValueError, match=message):
        Predictions(**good | changes)


@pytest.fixture
def predictions():
    rows = [
        {
            "image": Image.new("L", (8, 8)), "image_id": f"i{n}", "source": "s", "patient_id": f"p{n // 2}",
            "labels": [1.0, np.nan if n == 3 else 0.0], "findings": [], "boxes": [], "view": "PA",
            "nih_image": "", "rsna_image": "", "is_phantom": False,
            "age_years": None if n else 40.0, "sex": "F",
        }
        for n in range(4)
    ]  # fmt: skip
    dataset = datasets.Dataset.from_list(rows, features=make_features(NAMES))
    return Predictions.of(dataset, np.linspace(0, 1, 8).reshape(4, 2), NAMES)


def test_rows_and_outputs_are_joined(predictions):
    assert list(predictions.patient_ids) == ["p0", "p0", "p1", "p1"] and predictions.patient_count == 2
    assert predictions.values("age_years") == [40.0, None, None, None]
    edema, no_finding = predictions.columns()
    assert (edema.positives, edema.positive_patients, edema.negatives) == (4, 2, 0)
    assert len(no_finding.scores) == 3 and no_finding.one_sided_reason == "no positive image"


def test_a_part_keeps_its_patients_and_findings(predictions):
    part = predictions.select(np.array([False, True, True, True]), ["No Finding"])
    assert part.patient_ids == ["p0", "p1", "p1"] and part.finding_names == ["No Finding"]
    np.testing.assert_array_equal(part.scores[:, 0], predictions.scores[1:, 1])
    assert part.rows["image_id"].tolist() == ["i1", "i2", "i3"]
    assert len(part.table()) == 3


def test_predictions_go_there_and_back_in_any_order(predictions, tmp_path):
    path = tmp_path / "predictions.parquet"
    predictions.table().sample(frac=1, random_state=0).to_parquet(path)
    truth = (predictions.rows["image_id"].tolist(), predictions.patient_ids, predictions.labels)
    np.testing.assert_array_equal(read_predictions(path, NAMES, *truth), predictions.scores)
    spelled = [name.replace(" ", "_").lower() for name in NAMES]
    np.testing.assert_array_equal(read_predictions(path, spelled, *truth), predictions.scores)
    with pytest.raises(ValueError, match="no column 'Sex'"):
        read_predictions(path, ["Sex"], *truth)  # the patients' is no finding
    with pytest.raises(ValueError, match="lacks 1 of 5 images, such as other"):
        read_predictions(path, NAMES, [*truth[0], "other"], *truth[1:])
    with pytest.raises(ValueError, match="no column 'Mass'"):
        read_predictions(path, ["Mass"], *truth)
    with pytest.raises(ValueError, match="no such file"):
        read_predictions(tmp_path / "absent.parquet", NAMES, *truth)


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("image_id", ["image folder/a/01.png", "image folder/b/01.png", "image folder/02.png"]),
        ("image_id", ["a/01.png", "b/01.png", "02.png"]),
        ("path", ["../films/a/01.png", "../films/b/01.png", "../films/02.png"]),
        ("path", ["/x/a/images/a/01.png", "/x/a/images/b/01.png", "/x/a/images/02.png"]),
    ],
)
def test_a_csv_names_the_images_of_a_folder(column, names, tmp_path):
    ids = ["image folder/a/01.png", "image folder/b/01.png", "image folder/02.png"]
    path, labels = tmp_path / "other.csv", np.array([[1.0], [0.0], [0.0]])
    table = pd.DataFrame({column: names, "Edema": [0.9, 0.2, 0.1], "predicted": "Edema"})
    others = table[:1].assign(**{column: table[column].str.replace("01.png", "c/02.png")})
    pd.concat([others, table[::-1]]).to_csv(path, index=False, encoding="utf-8-sig")
    read = read_predictions(path, ["edema"], ids, ["p0", "p1", "p2"], labels)
    assert read[:, 0].tolist() == [0.9, 0.2, 0.1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"image_id;Edema\ni0;0.5\n",
            "no column 'image_id'; wanted .* a column image_id and a column of prob",
        ),
        (
            b"\x89PNG\r\n\x1a\n\x00\xff",
            "cannot be read .* wanted a predictions.parquet of `medhiera evaluate`",
        ),
        (b"PAR1 and no more", "cannot be read .* wanted a predictions.parquet"),
        (b"", "cannot be read"),
        (b"image_id,Edema\ni0,high\n", "holds something else than probabilities"),
        (b"image_id,Edema\ni0,\n", "an image without a probability for each finding: i0"),
    ],
)
def test_a_table_of_something_else_is_refused_in_words(content, said, tmp_path):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_predictions(path, ["Edema"], ["i0"], ["p0"], np.array([[1.0]]))


def test_predictions_of_other_images_of_these_names_are_refused(predictions, tmp_path):
    path, table = tmp_path / "predictions.parquet", predictions.table()
    images, patients = predictions.rows["image_id"].tolist(), list(predictions.patient_ids)

    def read(changed, patients=patients, labels=predictions.labels):
        changed.to_parquet(path)
        return read_predictions(path, NAMES, images, patients, labels)

    for column, place, value, said in [
        ("Edema (label)", 1, 0.0, "image 'i1' has Edema absent there and present here"),
        ("No Finding (label)", 3, 1.0, "image 'i3' has No Finding present there and not annotated here"),
        ("No Finding (label)", 2, np.nan, "image 'i2' has No Finding not annotated there and absent here"),
        ("patient_id", 2, "p0", "image 'i2' has patient 'p0' there and 'p1' here"),
    ]:
        other = table.copy()
        other.loc[place, column] = value
        expected = rf"{said} \(1 of 4 images differ\); score both models .* on the same data"
        with pytest.raises(ValueError, match=expected):
            read(other.iloc[::-1])
    with pytest.raises(ValueError, match=r"\(4 of 4 images differ\)"):
        read(table, patients=["p2", "p3", "p4", "p5"])
    with pytest.raises(ValueError, match="two rows of image 'i0'; name a file with one row an image"):
        read(pd.concat([table, table[:1]]))
    for kept in (["image_id", *NAMES], ["image_id", "patient_id", *NAMES]):  # what it lacks is not compared
        np.testing.assert_array_equal(read(table[kept]), predictions.scores)
    more = pd.concat([table, table.assign(image_id="other", patient_id="p9", **{"Edema (label)": 0.0})])
    np.testing.assert_array_equal(read(more), predictions.scores)  # of images that are not wanted


@pytest.mark.parametrize("names", [["sex", "Edema"], ["Edema", "Edema (label)"], ["Edema", "Edema"]])
def test_no_two_columns_of_the_table_have_one_name(predictions, names):
    twice = {"sex": "sex"}.get(names[0], names[1])
    with pytest.raises(UserError, match=re.escape(f"two columns {twice!r}")):
        replace(predictions, finding_names=names).table()


def test_a_written_table_is_read_as_it_was(predictions, tmp_path):
    path = tmp_path / "predictions.parquet"
    predictions.table().to_parquet(path)
    again = load_predictions(path)
    np.testing.assert_array_equal(again.scores, predictions.scores)
    np.testing.assert_array_equal(again.labels, predictions.labels)
    assert again.finding_names == NAMES and again.patient_ids == predictions.patient_ids
    assert again.values("age_years") == predictions.values("age_years")
    pd.DataFrame({"image_id": ["a"], "Edema": [0.5]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"no column NAME \(label\)"):
        load_predictions(path)
    with pytest.raises(ValueError, match="no such file"):
        load_predictions(tmp_path / "absent.parquet")


def test_two_folders_that_fit_equally_well_are_refused():
    """Films with marks burnt in beside those without: the wrong ones would be compared in silence."""
    ids = ["image folder/0.png", "image folder/1.png"]
    both = [f"films/{folder}/{number}.png" for folder in ("annotated", "images") for number in (0, 1)]
    with pytest.raises(
        ValueError, match="below 'films/annotated' and below 'films/images' fits equally many"
    ):
        known_ids(both, ids)
    assert known_ids(both[2:], ids) == ids
