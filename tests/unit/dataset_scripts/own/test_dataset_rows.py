"""A dataset of the datasets library as a user's own folder: images as stored, any columns, splits kept."""

import io
import math
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_scripts import FINDINGS, ImageFolder, label_names
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.origin import DatasetOrigin, read_origin
from dataset_scripts.cocktail import SOURCES
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import is_exclusive
from dataset_scripts.image_folder import NOT_NAMED, is_own_folder
from dataset_scripts.own.dataset_rows import extract_dataset, holds_dataset
from dataset_scripts.own.labels import Columns
from medhiera.data.build_reports import own_images_origin

KINDS = datasets.ClassLabel(names=["normal", "sick"])


def png(seed: int) -> bytes:
    """Sixteen bits deep: a copy of the bytes is what keeps them."""
    pixels = np.random.default_rng(seed).integers(0, 60_000, (24, 24)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def picture(folder: Path, name: str) -> bytes:
    """Of a training image by its number."""
    (path,) = (folder / "train").glob(f"{name}-*.png")
    return path.read_bytes()


def table_lines(folder: Path) -> list[str]:
    """The lines of labels.csv, its images without the digests in their names."""
    return re.sub(r"(?<=/\d{7})-[0-9a-f]{16}", "", (folder / "labels.csv").read_text()).splitlines()


def rows(count: int, first: int = 0, **columns: tuple[Any, list[Any]]) -> datasets.Dataset:
    features = datasets.Features(
        image=datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}
    )
    values = {name: [each[n % len(each)] for n in range(count)] for name, (_, each) in columns.items()}
    images = [{"bytes": png(first + n), "path": None} for n in range(count)]
    return datasets.Dataset.from_dict({"image": images, **values}, features=features)


def parquet(folder: Path, **splits: datasets.Dataset) -> Path:
    folder.mkdir()
    for split, part in splits.items():
        part.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def build(source: Path, place: Path, columns: Columns = NOT_NAMED) -> datasets.DatasetDict:
    found = extract_dataset(str(source), "", columns, place / "datasets")
    builder = ImageFolder(data_dir=found.folder, build_dir=place / "built", label_column=found.label_column)
    builder.download_and_prepare()
    return builder.as_dataset()


def test_parquet_with_a_class_label_is_an_exclusive_label(tmp_path: Path) -> None:
    label = (KINDS, [0, 1, 1, -1])
    source = parquet(tmp_path / "parquet", train=rows(40, label=label), test=rows(8, 40, label=label))
    assert holds_dataset(source) and not is_own_folder(source, SOURCES)
    built = build(source, tmp_path)
    assert label_names(built["test"].features) == ["normal", "sick"] and is_exclusive(built["test"].features)
    assert len(built["test"]) == 8 and len(built["train"]) + len(built["validation"]) == 40
    by_name = {row["image_id"].rpartition("-")[0]: row["labels"] for row in built["test"]}
    assert by_name["image folder/test/0000001"] == [0.0, 1.0]
    assert all(map(math.isnan, by_name["image folder/test/0000003"]))  # -1 is not labeled


def test_images_are_copied_byte_for_byte_and_once(tmp_path: Path) -> None:
    source = parquet(tmp_path / "parquet", train=rows(4, label=(KINDS, [0, 1])))
    found = extract_dataset(str(source), "", Columns(), tmp_path / "out")
    assert picture(found.folder, "0000002") == png(2)
    before = (found.folder / "labels.csv").stat().st_mtime_ns
    assert extract_dataset(str(source), "", Columns(), tmp_path / "out") == found
    assert (found.folder / "labels.csv").stat().st_mtime_ns == before
    rows(5, 9, label=(KINDS, [0, 1])).to_parquet(source / "train-00000-of-00001.parquet")
    again = extract_dataset(str(source), "", Columns(), tmp_path / "out")
    assert again.folder != found.folder and len(list((again.folder / "train").iterdir())) == 5


def test_what_save_to_disk_wrote_with_patients_people_and_a_list_of_classes(tmp_path: Path) -> None:
    value = datasets.Value
    part = rows(
        30,
        findings=(datasets.List(KINDS), [[0], [1, 0], []]), who=(value("int64"), [1, 2, 3, 4, 5, 6]),
        age=(value("int64"), [50]), sex=(value("string"), ["F"]), report=(value("string"), ["a\nb"]),
    )  # fmt: skip
    datasets.DatasetDict(train=part).save_to_disk(tmp_path / "saved")
    built = build(tmp_path / "saved", tmp_path, Columns(patient="who"))
    every = [row for split in built.values() for row in split]
    assert not is_exclusive(built["train"].features) and label_names(built["train"].features) == KINDS.names
    assert {tuple(row["labels"]) for row in every} == {(1, 0), (1, 1), (0, 0)}
    assert {row["patient_id"] for row in every} == {f"image folder/{n}" for n in range(1, 7)}
    assert {(row["age_years"], row["sex"]) for row in every} == {(50.0, "F")}


def test_the_copy_says_what_it_is_of(tmp_path: Path) -> None:
    source = parquet(tmp_path / "films", train=rows(4), test=rows(2, 9))
    (source / "README.md").write_text("---\npretty_name: Films\nlicense: [mit, cc0-1.0]\n---\n")
    found = extract_dataset(str(source), "", NOT_NAMED, tmp_path / "out")
    wanted = DatasetOrigin("films", "Films", "mit, cc0-1.0", splits=("test", "train"))
    assert read_origin(found.folder) == wanted
    builder = ImageFolder(data_dir=found.folder, build_dir=tmp_path / "built")
    builder.download_and_prepare()
    assert own_images_origin(Path(builder.cache_dir)) == wanted
    problems = read_report(builder.cache_dir)["problems"]
    assert "extracted_from.json" not in {problem["name"] for problem in problems}


def test_images_without_labels(tmp_path: Path) -> None:
    rows(30).save_to_disk(tmp_path / "saved")
    built = build(tmp_path / "saved", tmp_path)
    assert label_names(built["train"].features) == list(FINDINGS)
    assert all(math.isnan(label) for row in built["train"] for label in row["labels"])


def test_classes_in_words_and_columns_by_any_name(tmp_path: Path) -> None:
    text = (datasets.Value("string"), ["pneumonia, viral", 'a "normal" one'])
    part = rows(30, kind=text).rename_column("image", "film")
    built = build(parquet(tmp_path / "parquet", train=part), tmp_path, Columns(image="film", label="kind"))
    assert label_names(built["train"].features) == ['a "normal" one', "pneumonia, viral"]
    raw = datasets.Dataset.from_dict({"data": [png(n) for n in range(4)], "label": [0, 1, 1, 0]})
    found = extract_dataset(
        str(parquet(tmp_path / "raw", train=raw)), "", Columns(image="data"), tmp_path / "out"
    )
    assert found.label_column == "label" and picture(found.folder, "0000003") == png(3)


@pytest.mark.parametrize(
    ("part", "columns", "message"),
    [
        (lambda: rows(2), Columns(label="kind"), r"no column 'kind' \(--label_column\); it has \['image'\]"),
        (lambda: rows(2, a=(KINDS, [0]), b=(KINDS, [0])), Columns(), r"\['a', 'b'\] may each hold the label"),
        (lambda: datasets.Dataset.from_dict({"n": [1, 2]}), Columns(), "has no column of images"),
        (lambda: rows(2, n=(datasets.Value("int64"), [3])), Columns(image="n"), "'n' holds int; wanted"),
        (lambda: rows(2, s=(datasets.Value("float32"), [0.5])), Columns(label="s"), "holds numbers"),
        (lambda: rows(2, c=(datasets.List(datasets.Value("string")), [["Sex", "b"]])), Columns(label="c"),
         r"the classes \['Sex'\] are called like columns of a table"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_meant(tmp_path: Path, part: Any, columns: Columns, message: str) -> None:
    part().save_to_disk(tmp_path / "saved")
    with pytest.raises(LabelFileError, match=message):
        extract_dataset(str(tmp_path / "saved"), "", columns, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [] if (tmp_path / "out").is_dir() else True


def test_splits_that_are_none(tmp_path: Path) -> None:
    datasets.DatasetDict(fold_1=rows(2), fold_2=rows(2)).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataLayoutError, match=r"has the splits \['fold_1', 'fold_2'\]; wanted some of"):
        extract_dataset(str(tmp_path / "saved"), "", Columns(), tmp_path / "out")
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataLayoutError, match="cannot be opened as a dataset"):
        extract_dataset(str(tmp_path / "parquet"), "", Columns(), tmp_path / "out")


def with_configurations(folder: Path, default: str = "") -> str:
    """Two configurations as the Hub keeps them: the images of `films` are not those of `masks`."""
    lines = ["---", "configs:"]
    for name, first in (("films", 0), ("masks", 50)):
        (folder / name).mkdir(parents=True)
        rows(3, first).to_parquet(folder / name / "train.parquet")
        lines += [f"- config_name: {name}", f"  data_files: {name}/*.parquet"]
        lines += ["  default: true"] if name == default else []
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)


def test_one_of_several_configurations(tmp_path: Path) -> None:
    source, place = with_configurations(tmp_path / "two"), tmp_path / "out"
    found = {name: extract_dataset(source, name, NOT_NAMED, place).folder for name in ("films", "masks")}
    assert found["films"] != found["masks"]
    assert picture(found["masks"], "0000001") == png(51)
    for config, message in (
        ("", r"has several configurations: \['films', 'masks'\]; name one of them: --dataset_config"),
        ("film", r"has no configuration 'film', but \['films', 'masks'\]; name one of them"),
    ):
        with pytest.raises(DataLayoutError, match=message):
            extract_dataset(source, config, NOT_NAMED, place)
    declared = extract_dataset(with_configurations(tmp_path / "default", "masks"), "", NOT_NAMED, place)
    assert picture(declared.folder, "0000001") == png(51)
    rows(2).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataLayoutError, match="save_to_disk wrote, and has no configuration 'films'"):
        extract_dataset(str(tmp_path / "saved"), "films", NOT_NAMED, place)


@pytest.mark.parametrize("kind", ["int64", "bool", "float32"])
def test_lists_of_zeros_and_ones_without_names_are_refused(tmp_path: Path, kind: str) -> None:
    column = (datasets.List(datasets.Value(kind)), [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    source = parquet(tmp_path / "parquet", train=rows(6, labels=column))
    with pytest.raises(LabelFileError, match="4 values of 0 or 1|holds numbers"):
        extract_dataset(str(source), "", Columns(), tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "lists"),
    [
        ("int64", [[0, 1, None, 1], [1, 0, 0, 0]]),
        ("int64", [[0, 1, -1, 1], [1, 0, 0, 0]]),
        ("int64", [[0, 1, 1, 1], [], None]),
        ("string", [["0", "1", "1", "0"], ["1", "0", "0", "0"]]),
    ],
)
def test_neither_gaps_nor_text_hide_that_the_names_are_lost(
    tmp_path: Path, kind: str, lists: list[list[Any]]
) -> None:
    column = (datasets.List(datasets.Value(kind)), lists)
    source = parquet(tmp_path / "parquet", train=rows(6, labels=column))
    with pytest.raises(LabelFileError, match="4 values of 0 or 1"):
        extract_dataset(str(source), "", Columns(), tmp_path / "out")


def test_numbers_of_classes_without_names_are_their_names_and_what_is_not_annotated_is_none(
    tmp_path: Path,
) -> None:
    column = (datasets.List(datasets.Value("int64")), [[2, -1], [10, None], [2, 3, 10]])
    source = parquet(tmp_path / "parquet", train=rows(3, labels=column))
    found = extract_dataset(str(source), "", Columns(), tmp_path / "out")
    assert table_lines(found.folder) == [
        "image,10,2,3",
        "train/0000000.png,0,1,0",
        "train/0000001.png,1,0,0",
        "train/0000002.png,1,1,1",
    ]


def test_lists_of_class_numbers_without_names_are_read(tmp_path: Path) -> None:
    column = (datasets.List(datasets.Value("int64")), [[0], [1, 2], []])
    source = parquet(tmp_path / "parquet", train=rows(6, labels=column))
    found = extract_dataset(str(source), "", Columns(), tmp_path / "out")
    lines = table_lines(found.folder)
    assert lines[:4] == [
        "image,0,1,2",
        "train/0000000.png,1,0,0",
        "train/0000001.png,0,1,1",
        "train/0000002.png,0,0,0",
    ]


def saved_table(place: Path, columns: Columns = NOT_NAMED, **splits: datasets.Dataset) -> list[str]:
    """The lines of labels.csv that are made of what save_to_disk wrote."""
    datasets.DatasetDict(splits).save_to_disk(place / "saved")
    found = extract_dataset(str(place / "saved"), "", columns, place / "out")
    return table_lines(found.folder)


def test_each_split_has_its_own_numbers_for_the_classes_patients_and_people(tmp_path: Path) -> None:
    """As class_encode_column gives where a split lacks a class."""

    def part(labels: list[str], patients: list[str], sexes: list[str]) -> datasets.Dataset:
        return rows(
            3, label=(datasets.ClassLabel(names=labels), [0, 1, -1]),
            patient_id=(datasets.ClassLabel(names=patients), [0, 1, -1]),
            gender=(datasets.ClassLabel(names=sexes), [0, 1, -1]),
        )  # fmt: skip

    train = part(["effusion", "normal", "pneumonia"], ["a", "b"], ["F", "M"])
    test = part(["normal", "pneumonia"], ["c", "d"], ["M", "F"])
    assert saved_table(tmp_path, train=train, test=test) == [
        "image,patient,sex,label",
        "train/0000000.png,a,F,effusion",
        "train/0000001.png,b,M,normal",
        "train/0000002.png,,,",
        "test/0000000.png,c,M,normal",
        "test/0000001.png,d,F,pneumonia",
        "test/0000002.png,,,",
    ]


def listed(*names: str) -> datasets.Dataset:
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("string")
    return rows(2, labels=(datasets.List(kind), [[0], [1]] if names else [["Edema"], ["Mass"]]))


def test_lists_are_read_by_the_names_of_their_own_split(tmp_path: Path) -> None:
    lines = saved_table(tmp_path, train=listed("Edema", "Mass"), test=listed("Mass", "Edema"))
    assert lines == [
        "image,Edema,Mass",
        "train/0000000.png,1,0",
        "train/0000001.png,0,1",
        "test/0000000.png,0,1",
        "test/0000001.png,1,0",
    ]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (lambda: listed("Edema", "Mass"), lambda: listed("Edema", "Mass", "Gas"), "lists of other classes"),
        (lambda: listed("Edema", "Mass"), lambda: listed(), "lists of other classes"),
        (lambda: listed(), lambda: rows(2, labels=(KINDS, [0])), "lists of other classes"),
        (lambda: rows(2, label=(KINDS, [0])), lambda: rows(2, label=(datasets.Value("float32"), [0.5])),
         "'label' holds numbers"),
        (lambda: rows(2, patient=(datasets.Value("string"), ["a"])), lambda: rows(2),
         r"\(train: .*'patient_column': 'patient'\}; test: \{'image_column': 'image'\}\)"),
        (lambda: rows(2, label=(KINDS, [0])), lambda: rows(2), "not in the same columns of each split"),
        (lambda: rows(2), lambda: rows(2).rename_column("image", "film"), "not in the same columns"),
    ],
)  # fmt: skip
def test_splits_that_hold_something_else_are_refused(
    tmp_path: Path, train: Any, test: Any, message: str
) -> None:
    with pytest.raises(LabelFileError, match=message):
        saved_table(tmp_path, train=train(), test=test())


def test_a_column_that_is_asked_for_is_in_each_split(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match=r"split test has no column 'kind' \(--label_column\)"):
        saved_table(tmp_path, Columns(label="kind"), train=rows(2, kind=(KINDS, [0])), test=rows(2))


def test_age_and_sex_that_one_split_lacks_are_unknown_there(tmp_path: Path) -> None:
    text = datasets.Value("string")
    test = rows(1, sex=(text, ["M"]), age=(datasets.Value("int64"), [7]))
    assert saved_table(tmp_path, train=rows(1), test=test) == [
        "image,age_years,sex",
        "train/0000000.png,,",
        "test/0000000.png,7,M",
    ]


SEXES = datasets.ClassLabel(names=["F", "M"])


def test_a_class_label_of_people_is_no_label(tmp_path: Path) -> None:
    words = (datasets.Value("string"), ["normal", "pneumonia"])
    wanted = ["image,sex,label", "train/0000000.png,F,normal", "train/0000001.png,M,pneumonia"]
    assert saved_table(tmp_path / "a", train=rows(2, label=words, sex=(SEXES, [0, 1]))) == wanted
    assert saved_table(tmp_path / "b", train=rows(1, sex=(SEXES, [1]))) == [
        "image,sex",
        "train/0000000.png,M",
    ]
    asked = saved_table(tmp_path / "c", Columns(label="sex"), train=rows(1, label=words, sex=(SEXES, [1])))
    assert asked == ["image,label", "train/0000000.png,M"]


def test_a_class_label_beside_a_column_label_is_not_guessed(tmp_path: Path) -> None:
    train = rows(2, label=(datasets.Value("string"), ["a"]), view_quality=(KINDS, [0]))
    with pytest.raises(
        LabelFileError, match=r"\['label', 'view_quality'\] may each hold the label; name one"
    ):
        saved_table(tmp_path / "a", train=train)
    masks = (
        rows(1).add_column("label", [{"bytes": png(3), "path": None}]).cast_column("label", datasets.Image())
    )
    lines = saved_table(tmp_path / "b", Columns(image="image"), train=masks)
    assert lines == ["image", "train/0000000.png"]  # a segmentation's mask names no class


def test_of_two_columns_that_mean_one_the_first_is_read_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = datasets.Value("string")
    lines = saved_table(tmp_path, train=rows(1, sex=(text, ["F"]), patient_sex=(text, ["?"])))
    assert lines == ["image,sex", "train/0000000.png,F"]
    assert "'patient_sex' is not read, 'sex' says the sex" in caplog.text


def test_a_number_that_is_nan_names_no_patient(tmp_path: Path) -> None:
    part = rows(2, patient=(datasets.Value("float64"), [7.0, math.nan]))
    assert saved_table(tmp_path, train=part) == [
        "image,patient",
        "train/0000000.png,7.0",
        "train/0000001.png,",
    ]


def test_a_format_that_was_saved_changes_nothing(tmp_path: Path) -> None:
    train = rows(2, label=(KINDS, [1, 0]), patient=(datasets.Value("int64"), [7]))
    lines = saved_table(tmp_path, train=train.with_format("numpy", columns=["image", "label"]))
    assert lines == ["image,patient,label", "train/0000000.png,7,sick", "train/0000001.png,7,normal"]


def test_another_dataset_of_the_same_size_has_other_names(tmp_path: Path) -> None:
    names = []
    for number, first in enumerate((0, 0, 40)):
        source = parquet(tmp_path / str(number), train=rows(6, first, label=(KINDS, [0, 1])))
        found = extract_dataset(str(source), "", NOT_NAMED, tmp_path / f"{number}.extracted")
        names.append({path.name for path in (found.folder / "train").iterdir()})
    assert names[0] == names[1] and len(names[0]) == 6 and not names[0] & names[2]
