"""Tables beside own images as the datasets library's imagefolder has them, and classes in a column."""

import json
import math
from pathlib import Path

import pytest
from own_listings import labels, listed
from raw_folders import gray

from dataset_scripts import FINDINGS, ImageFolder, label_names
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import is_exclusive
from dataset_scripts.image_folder import missing_splits
from dataset_scripts.own.labels import Columns


def write(root: Path, files: dict[str, str | list[dict[str, object]]], images: list[str]) -> Path:
    """Tables by name, as text or as objects of JSON lines; and pictures."""
    for seed, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        gray(seed, 24).save(root / name)
    for name, content in files.items():
        text = content if isinstance(content, str) else "\n".join(map(json.dumps, content)) + "\n"
        (root / name).write_text(text)
    return root


def test_metadata_csv_names_files_in_file_name(tmp_path: Path) -> None:
    table = "file_name,patient_id,fracture\n0.png,a,1\nsub/1.png,b,0\n"
    root = write(tmp_path / "own", {"metadata.csv": table, "notes.csv": "x\n"}, ["0.png", "sub/1.png"])
    assert labels(listed(root)) == {"0.png": (1.0,), "sub/1.png": (0.0,)}


def test_metadata_jsonl_is_a_table_too(tmp_path: Path) -> None:
    rows = [
        {"file_name": "0.png", "patient": 7, "fracture": True, "age": 61},
        {"file_name": "1.png", "patient": 8, "fracture": None, "sex": "F"},
        {"file_name": "2.png", "patient": 9, "fracture": 0},
    ]
    listing = listed(write(tmp_path / "own", {"metadata.jsonl": rows}, ["0.png", "1.png", "2.png"]))
    found = labels(listing)
    assert found["0.png"] == (1.0,) and found["2.png"] == (0.0,) and math.isnan(found["1.png"][0])
    records = {record.path: record for part in listing.splits.values() for record in part}
    assert records["0.png"].patient_id == "image folder/7" and records["0.png"].age_years == 61
    assert records["1.png"].sex == "F"


def test_each_split_may_have_its_own_metadata(tmp_path: Path) -> None:
    rows = {split: [{"file_name": f"{n}.png", "label": ["sick", "well"][n % 2]} for n in range(count)]
            for split, count in (("train", 60), ("test", 6))}  # fmt: skip
    files = {f"{split}/metadata.jsonl": lines for split, lines in rows.items()}
    images = [f"{split}/{row['file_name']}" for split, lines in rows.items() for row in lines]
    builder = ImageFolder(data_dir=write(tmp_path / "own", files, images), build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    built = builder.as_dataset()
    assert label_names(built["test"].features) == ["sick", "well"] and is_exclusive(built["test"].features)
    assert len(built["test"]) == 6 and len(built["train"]) + len(built["validation"]) == 60
    assert len(built["validation"]) > 0  # cut from train, which the report says


def test_a_table_beside_split_folders_keeps_them(tmp_path: Path) -> None:
    images = [f"{split}/{n}.png" for split, count in (("train", 40), ("test", 5)) for n in range(count)]
    table = "file_name,fracture\n" + "".join(f"{path},{n % 2}\n" for n, path in enumerate(images))
    listing = listed(write(tmp_path / "own", {"metadata.csv": table}, images))
    assert {record.path for record in listing.splits["test"]} == {f"test/{n}.png" for n in range(5)}
    assert "split_cut" in {problem.kind for problem in listing.problems}


@pytest.mark.parametrize(
    ("cells", "advice"),
    [
        (["1", "0", "-1"], r"no other column is allowed. If -1 says uncertain, as in CheXpert, empty these"),
        (["1", "0", "maybe"], r"names each image's one class, add --label_column mass"),
        (
            ["Effusion|Mass", "Mass", ""],
            r"hold several findings: give each a column of its own name, with 1 and",
        ),
        (["yes", "no", ""], r"Write 1 for yes and 0 for no\.$"),
        (["1", "0", "The heart is enlarged; no effusion. " * 3], r"no other column is allowed\.$"),
    ],
)
def test_a_cell_that_is_no_label_is_refused_with_advice_that_fits(
    tmp_path: Path, cells: list[str], advice: str
) -> None:
    rows = "".join(f"{n}.png,{cells[n % 3]}\n" for n in range(30))
    root = write(tmp_path / "own", {"labels.csv": "image,mass\n" + rows}, [f"{n}.png" for n in range(30)])
    with pytest.raises(LabelFileError, match=advice):
        listed(root)


def test_a_column_of_classes_is_one_exclusive_label(tmp_path: Path) -> None:
    lines = [f"{n}.png,{['virus', 'none', 'bacteria', ''][n % 4]},{n}" for n in range(40)]
    root = write(tmp_path / "own", {"labels.csv": "image,kind,patient\n" + "\n".join(lines)},
                 [f"{n}.png" for n in range(40)])  # fmt: skip
    with pytest.raises(LabelFileError, match=r"names each image's one class, add --label_column kind"):
        listed(root)
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache", label_column="kind")
    builder.download_and_prepare()
    train = builder.as_dataset()["train"]
    assert label_names(train.features) == ["bacteria", "none", "virus"] and is_exclusive(train.features)
    by_image = {row["image_id"].split("/")[1]: row for row in train}
    known = {f"{n}.png": n % 4 for n in range(40)}
    for name, row in by_image.items():
        if known[name] == 3:  # its row names no class: the image is there, not annotated
            assert all(map(math.isnan, row["labels"])) and row["findings"] == [None]
        else:
            assert row["labels"].index(1) == row["findings"][0] == [2, 1, 0][known[name]]
    assert any(known[name] == 3 for name in by_image)


def test_a_table_without_labels_takes_the_classes_of_the_folders_or_has_none(tmp_path: Path) -> None:
    images = [f"{name}/{n}.png" for name in ("NORMAL", "SICK") for n in range(12)]
    table = "image,patient\n" + "".join(f"{path},p{n % 8}\n" for n, path in enumerate(images))
    found = listed(write(tmp_path / "own", {"patients.csv": table}, images))
    assert labels(found)["SICK/3.png"] == (0.0, 1.0)
    assert len({record.patient_id for part in found.splits.values() for record in part}) == 8
    flat = listed(
        write(tmp_path / "flat", {"p.csv": "image,patient\n0.png,a\n1.png,b\n"}, ["0.png", "1.png"])
    )
    assert all(len(values) == len(FINDINGS) and math.isnan(values[0]) for values in labels(flat).values())


def test_images_in_class_folders_that_a_table_with_labels_does_not_name(tmp_path: Path) -> None:
    images = ["train/A/0.png", "train/B/1.png"]
    root = write(tmp_path / "own", {"labels.csv": "image,m\ntrain/A/0.png,1\n"}, images)
    assert [(p.kind, p.name) for p in listed(root).problems if p.kind == "not_listed"] == [
        ("not_listed", "train/B/1.png")
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"metadata.jsonl": "{no json\n"}, "line 1 is no JSON"),
        ({"metadata.jsonl": "[1]\n"}, "line 1 is no object"),
        ({"metadata.jsonl": '{"file_name": "0.png", "labels": [1]}\n'}, "'labels' holds .*several labels"),
        ({"metadata.jsonl": '{"file_name": {"a": 1}, "m": 1}\n'}, r"line 1: 'file_name' holds"),
        ({"metadata.parquet": "no parquet"}, "metadata.parquet cannot be read as Parquet"),
        ({"metadata.jsonl": '{"file": "0.png"}\n'}, "no key 'file_name' or 'image'"),
        ({"metadata.jsonl": '{"file_name": "0.png", "image": "1.png"}\n'}, "'image' is there twice"),
        ({"labels.csv": "image,file_name,m\n0.png,0.png,1\n"}, "mean the same"),
        ({"labels.csv": "image,label\n0.png,A\n1.png,a\n"}, "differ only in letter case"),
        ({"labels.csv": "image,label\n0.png,A\n1.png,A\n"}, "holds 1 classes"),
        ({"metadata.csv": "image,m\n", "metadata.jsonl": "{}\n"}, "wanted one CSV beside images/"),
        ({"train/metadata.csv": "image,m\n0.png,1\n", "train/metadata.jsonl": "{}\n"}, "one metadata file"),
        ({"train/metadata.csv": "image,m\n0.png,1\n"}, r"\['train'\] have a metadata file and \['test'\]"),
        ({"train/metadata.csv": "image,m\n0.png,1\n", "test/metadata.csv": "image,n\n2.png,1\n"},
         "Wanted the same in each split"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant(tmp_path: Path, files: dict[str, str], message: str) -> None:
    root = write(tmp_path / "own", {}, ["train/0.png", "train/1.png", "test/2.png"])
    write(root, files, [])
    with pytest.raises((LabelFileError, DataLayoutError), match=message):
        listed(root)


def test_columns_are_what_they_are_named_for(tmp_path: Path) -> None:
    table = "path,image,subject,finding\n0.png,front,a,fracture\n1.png,side,b,none\n"
    root = write(tmp_path / "own", {"labels.csv": table}, ["0.png", "1.png"])
    with pytest.raises(LabelFileError, match="mean the same"):
        listed(root, image_column="path", label_column="finding")
    (root / "labels.csv").write_text(table.replace("image", "view"))
    found = listed(root, image_column="path", label_column="finding", patient_column="subject")
    assert labels(found) == {"0.png": (1.0, 0.0), "1.png": (0.0, 1.0)}
    patients = {record.patient_id for part in found.splits.values() for record in part}
    assert patients == {"image folder/a", "image folder/b"}
    with pytest.raises(LabelFileError, match="no column 'who', the --patient_column"):
        listed(root, image_column="path", label_column="finding", patient_column="who")


def test_a_class_column_is_asked_for_by_its_name(tmp_path: Path) -> None:
    root = write(tmp_path / "own", {"labels.csv": "image,kind\n0.png,A\n1.png,B\n"}, ["0.png", "1.png"])
    with pytest.raises(LabelFileError, match=r"no column 'sort' of classes; it has \['kind'\]"):
        listed(root, label_column="sort")
    (fault,) = missing_splits(root, ["train", "validation", "test"], Columns(label="kind"))
    assert "2 patients of labels.csv are too few" in fault
    folders = write(tmp_path / "classes", {}, ["A/0.png", "B/1.png"])
    with pytest.raises(DataLayoutError, match="has no table"):
        listed(folders, label_column="kind")


def test_several_findings_in_one_cell_are_no_class(tmp_path: Path) -> None:
    table = "image,found\n0.png,Mass|Effusion\n1.png,Mass\n2.png,Effusion\n"
    root = write(tmp_path / "own", {"labels.csv": table}, [f"{n}.png" for n in range(3)])
    with pytest.raises(
        LabelFileError, match=r"line 2: column 'found' holds several labels in one cell, 'Mass"
    ):
        listed(root, label_column="found")


def class_table(root: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A table of (image, split, class); without the column split where no row has one."""
    has_split = any(split for _, split, _ in rows)
    lines = [f"{name},{label}" + f",{split}" * has_split for name, split, label in rows]
    header = "image,label" + ",split" * has_split
    table = {"labels.csv": "\n".join([header, *lines, ""])}
    return write(root, table, [name for name, _, _ in rows])


def alternating(folder: str, split: str, count: int) -> list[tuple[str, str, str]]:
    return [(f"{folder}{n}.png", split, ["normal", "sick"][n % 2]) for n in range(count)]


@pytest.mark.parametrize(
    "rare",
    [
        [("y.png", "test", "rare"), ("z.png", "test", "normal")],
        [("y.png", "val", "rare"), ("z.png", "test", "sick")],
        [("test/y.png", "", "rare"), ("test/z.png", "", "sick")],
    ],
)
def test_a_class_that_train_lacks_is_refused_as_class_folders_do(
    tmp_path: Path, rare: list[tuple[str, str, str]]
) -> None:
    split, folder = (rare[0][1] and "train", "" if rare[0][1] else "train/")
    root = class_table(tmp_path / "own", [*alternating(folder, split, 30), *rare])
    with pytest.raises(
        DataLayoutError, match=r"labels.csv: \['rare'\] have pictures in .*, and none in train"
    ):
        listed(root)
    assert len(
        listed(class_table(tmp_path / "own", [*alternating(folder, split, 30), rare[1]])).splits["test"]
    )


def test_a_row_whose_picture_is_not_there_teaches_nothing(tmp_path: Path) -> None:
    rows = [*alternating("", "train", 30), ("x.png", "train", "rare"), ("y.png", "test", "rare")]
    root = class_table(tmp_path / "own", rows)
    assert len(listed(root).splits["train"]) == 31
    (root / "x.png").unlink()
    with pytest.raises(DataLayoutError, match=r"\['rare'\] have pictures in test, and none in train"):
        listed(root)


def test_classes_of_folders_whose_splits_a_table_says(tmp_path: Path) -> None:
    images = [f"{kind}/{n}.png" for kind in ("A", "B") for n in range(6)]
    table = "image,split\n" + "".join(f"{path},{'train' if path[0] == 'A' else 'test'}\n" for path in images)
    with pytest.raises(DataLayoutError, match=r"p.csv: \['B'\] have pictures in test, and none in train"):
        listed(write(tmp_path / "own", {"p.csv": table}, images))


def test_a_rare_class_is_no_fault_where_splits_are_drawn_or_nothing_is_to_be_learnt(tmp_path: Path) -> None:
    for one in range(12):  # whichever patient it is, and wherever the draw puts them
        rows = alternating("", "", 12)
        rows[one] = (rows[one][0], "", "rare")
        assert listed(class_table(tmp_path / "drawn", rows)).label_names == ("normal", "rare", "sick")
    test = listed(
        class_table(tmp_path / "test", [*alternating("", "test", 4), ("y.png", "validation", "rare")])
    )
    assert len(test.splits["test"]) == 4
    findings = "image,split,fracture\n0.png,train,0\n1.png,test,1\n"
    assert listed(write(tmp_path / "findings", {"labels.csv": findings}, ["0.png", "1.png"])).splits["test"]


@pytest.mark.parametrize(("column", "values"), [("sex", ["F", "M"]), ("view", ["frontal", "oblique"])])
def test_sex_or_view_may_be_the_class_that_is_asked_for(
    tmp_path: Path, column: str, values: list[str]
) -> None:
    table = f"image,{column}\n" + "".join(f"{n}.png,{values[n % 2]}\n" for n in range(30))
    root = write(tmp_path / "own", {"labels.csv": table}, [f"{n}.png" for n in range(30)])
    found = listed(root, label_column=column)
    assert found.label_names == tuple(values) and labels(found)["1.png"] == (0.0, 1.0)
    assert not {"unknown_sex", "unknown_view"} & {problem.kind for problem in found.problems}
    with pytest.raises(LabelFileError, match=rf"no column 'image' of classes; it has \['{column}'\]"):
        listed(root, label_column="image")
