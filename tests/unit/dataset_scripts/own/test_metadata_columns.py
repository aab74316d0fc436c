"""Which columns of a metadata file hold labels, and what is said of it."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
from own_listings import labels, listed
from raw_folders import gray

from dataset_scripts.build.records import SourceListing
from dataset_scripts.errors import LabelFileError

NAMES = [f"{number}.png" for number in range(12)]


def pictures(root: Path) -> Path:
    root.mkdir()
    for seed, name in enumerate(NAMES):
        gray(seed, 24).save(root / name)
    return root


def said(listing: SourceListing, kind: str) -> list[str]:
    return [problem.detail for problem in listing.problems if problem.kind == kind]


def test_metadata_parquet_is_a_table_and_its_classes_have_their_names(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own")
    kinds = datasets.ClassLabel(names=["well", "sick"])
    columns = {"file_name": NAMES, "label": [0, 1, -1] * 4, "age": [50.0, None, 7] * 4}
    features = datasets.Features(
        file_name=datasets.Value("string"), label=kinds, age=datasets.Value("float64")
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / "metadata.parquet")
    (root / "notes.csv").write_text("x\n")
    listing = listed(root)
    assert listing.label_names == ("sick", "well")
    found = labels(listing)
    assert found["0.png"] == (0, 1) and found["1.png"] == (1, 0) and found["2.png"][0] != found["2.png"][0]
    ages = {record.path: record.age_years for part in listing.splits.values() for record in part}
    assert ages["0.png"] == 50 and ages["2.png"] == 7
    datasets.Dataset.from_dict({"file_name": NAMES, "Edema": [0, 1] * 6}).to_parquet(
        root / "metadata.parquet"
    )
    assert labels(listed(root))["1.png"] == (1,) and listed(root).label_names == ("Edema",)


def test_columns_of_lists_are_passed_over_and_named(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own")
    rows = [
        {"file_name": name, "label": "ab"[number % 2], "labels": [1], "objects": {"bbox": [[1, 2, 3, 4]]}}
        for number, name in enumerate(NAMES)
    ]
    del rows[3]["objects"]
    rows[4]["objects"] = None
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(LabelFileError, match=r"'labels' holds \[1\]; wanted a text or a number"):
        listed(root)
    listing = listed(root, label_column="label")
    assert labels(listing)["1.png"] == (0, 1)
    (sentence,) = said(listing, "column_passed_over")
    assert "['labels', 'objects'] hold lists, objects or bytes and are not read" in sentence
    assert not said(listing, "class_column")  # it was named
    with pytest.raises(LabelFileError, match="'labels' holds"):
        listed(root, label_column="labels")


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["0", "1"], ("0", "1")),
        (["0.0", "1.0", "", "1"], ("0", "1")),
        (["0", "1", "2"], ("0", "1", "2")),
        (["2", "10", "9"], ("2", "9", "10")),
    ],
)
def test_one_column_called_label_holds_classes_whatever_their_names(
    tmp_path: Path, cells: list[str], classes: tuple[str, ...]
) -> None:
    root = pictures(tmp_path / "own")
    rows = [f"{name},{cells[number % len(cells)]}" for number, name in enumerate(NAMES)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    listing = listed(root)
    assert listing.label_names == classes
    assert labels(listing)["1.png"] == tuple(float(name == f"{float(cells[1]):.0f}") for name in classes)
    (sentence,) = said(listing, "class_column")
    assert f"the column 'label' holds each image's one class ({', '.join(classes)})" in sentence
    (root / "metadata.csv").write_text("\n".join(["file_name,Edema", *(f"{name},1" for name in NAMES)]))
    assert listed(root).label_names == ("Edema",)  # another name: a finding


def test_a_text_beside_a_column_of_classes_gets_advice_about_that_column(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own")
    rows = [f"{name},a film,{number % 2}" for number, name in enumerate(NAMES)]
    (root / "metadata.csv").write_text("\n".join(["file_name,text,label", *rows]))
    with pytest.raises(
        LabelFileError, match=r"If 'label' names each image's one class, add --label_column lab"
    ):
        listed(root)
    assert listed(root, label_column="label").label_names == ("0", "1")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("options", [{}, {"label_column": "dx"}, {"image_column": "file"}])
def test_an_index_without_a_name_means_nothing(tmp_path: Path, kind: str, options: dict[str, str]) -> None:
    root = pictures(tmp_path / "own")
    order = [*range(5, 12), *range(5)]  # row 0 is of 5.png: its index is not its file's name
    dx = "dx" if options.get("label_column") else "label"
    table = pd.DataFrame(
        {options.get("image_column", "image"): [NAMES[n] for n in order], dx: ["ab"[n % 2] for n in order]},
        index=order[::-1],
    )
    if kind == "csv":
        table.to_csv(root / "labels.csv")
    elif kind == "parquet":
        table.to_parquet(root / "metadata.parquet")
    else:
        rows = table.reset_index(names="").to_dict("records")
        (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = listed(root, **options)
    assert labels(listing) == {f"{n}.png": (1.0 - n % 2, float(n % 2)) for n in range(12)}
    assert len(said(listing, "no_patient")) == 12


@pytest.mark.parametrize("word", ["NA", "nan", "<NA>", "null", "None", "unknown", "-"])
def test_a_word_for_no_patient_is_no_patient(tmp_path: Path, word: str) -> None:
    root = pictures(tmp_path / "own")
    rows = [f"{name},{word if number < 9 else 'n' + str(number)},1" for number, name in enumerate(NAMES)]
    (root / "labels.csv").write_text("\n".join(["image,patient,Edema", *rows]))
    listing = listed(root)
    assert len(said(listing, "no_patient")) == 9
    patients = [record.patient_id for part in listing.splits.values() for record in part]
    assert len(set(patients)) == 12


def test_a_cell_that_a_program_left_empty_is_no_class(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own")
    cells = ["NA", "none", "sick", "nan"] * 3
    rows = [f"{name},{cell}" for name, cell in zip(NAMES, cells, strict=True)]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]))
    listing = listed(root)
    assert listing.label_names == ("none", "sick")
    found = labels(listing)
    assert found["1.png"] == (1, 0) and found["2.png"] == (0, 1)
    assert all(value != value for name in ("0.png", "3.png") for value in found[name])
