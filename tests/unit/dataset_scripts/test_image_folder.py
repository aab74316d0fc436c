"""Your own folder: its labels, its splits, and its place in the cocktail."""

import math
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from raw_folders import ChestFolder, gray

from dataset_scripts import FINDINGS, Cocktail, ImageFolder, label_names
from dataset_scripts.build.build_log import read_report, summary_lines
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.image_folder import missing_splits


def write(root: Path, text: str, images: int = 40) -> Path:
    (root / "images").mkdir(parents=True)
    for index in range(images):
        gray(800 + index).save(root / "images" / f"{index}.png")
    (root / "labels.csv").write_text(text)
    return root


def build(root: Path, tmp_path: Path) -> ImageFolder:
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    return builder


def test_labels_are_ones_own(tmp_path: Path) -> None:
    header = "image,patient,split,fracture,metal,age_years,sex"
    rows = ["0.png,a,train,1,,61,F", "1.png,b,test,0,1,,", "2.png,c,train,,0,x,M"]
    text = "\n".join([header, *rows]) + "\n"
    built = build(write(tmp_path / "own", text, 3), tmp_path).as_dataset()
    assert label_names(built["train"].features) == ["fracture", "metal"]
    first, second = built["train"]
    assert first["labels"][0] == 1.0 and math.isnan(first["labels"][1])
    assert math.isnan(second["labels"][0]) and second["labels"][1] == 0.0
    assert (first["findings"], first["age_years"], first["sex"]) == ([0], 61.0, "F")
    assert math.isnan(second["age_years"])
    assert built["test"][0]["findings"] == [1]


def test_a_csv_as_excel_saves_it(tmp_path: Path) -> None:
    root = write(tmp_path / "own", "", 2)
    (root / "labels.csv").write_bytes(
        b"\xef\xbb\xbfimage,split,fracture\r\n0.png,train,1\r\n1.png,train,\r\n"
    )
    built = build(root, tmp_path).as_dataset()["train"]
    assert label_names(built.features) == ["fracture"]
    assert built["labels"][0] == [1.0] and math.isnan(built["labels"][1][0])


def test_without_splits_patients_are_shared_out(tmp_path: Path) -> None:
    rows = [f"{index}.png,{index // 2},{index // 2 % 2}" for index in range(40)]
    built = build(
        write(tmp_path / "own", "image,patient,fracture\n" + "\n".join(rows)), tmp_path
    ).as_dataset()
    patients = [set(rows["patient_id"]) for rows in built.values()]
    assert set(built) == {"train", "validation", "test"}
    assert len(set.union(*patients)) == sum(map(len, patients)) == 20
    assert all(any(row["findings"] for row in built[split]) for split in built)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,fracture\n0.png,1\n", "wanted a column 'image'"),
        ("image,fracture\n0.png,yes\n", "line 2: column 'fracture' holds 'yes'"),
        ("image,split,fracture\n0.png,dev,1\n", r"split holds \['dev'\]"),
        ("image,split,fracture\n0.png,train,1\n1.png,,1\n", r"split holds \[''\]"),
        ("image,patient,split,fracture\n0.png,a,train,1\n1.png,a,test,1\n", "more than one split"),
    ],
)
def test_a_csv_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelFileError, match=message):
        build(write(tmp_path / "own", text), tmp_path)


def test_files_and_rows_that_do_not_meet(tmp_path: Path) -> None:
    lines = [f"{index}.png,p{index},1\n" for index in [*range(1, 40), 39, 99]]
    text = "image,patient,fracture\n" + "".join(lines)
    report = read_report(build(write(tmp_path / "own", text), tmp_path).cache_dir)
    assert {(problem["kind"], problem["name"]) for problem in report["problems"]} == {
        ("absent", "99.png"),
        ("duplicate_row", "39.png"),
        ("not_listed", "images/0.png"),
        ("split_cut", "splits"),
    }


def test_images_without_a_patient_are_counted_and_what_that_costs_is_said(tmp_path: Path) -> None:
    rows = ["0.png,,1,", "1.png,p1,0,", "2.png,,1,weird", "0.png,,1,", "9.png,,1,"]
    text = "image,patient,fracture,sex\n" + "\n".join(rows)
    builder = build(write(tmp_path / "own", text, 3), tmp_path)
    named = [p["name"] for p in read_report(builder.cache_dir)["problems"] if p["kind"] == "no_patient"]
    assert named == ["0.png", "2.png"]  # once an image, whatever its rows; an absent one is no patient
    said = summary_lines(Path(builder.cache_dir))
    named = " (named in build_report.json)"
    assert f"left out: image folder 1 absent{named}" in said
    kinds = "image folder 1 duplicate_row, image folder 2 no_patient, image folder 1 unknown_sex"
    assert f"noted: {kinds}{named}" in said
    assert any("films of one person may stand in training and test" in line for line in said)
    known = build(write(tmp_path / "all", "image,patient,fracture\n0.png,p,1\n", 1), tmp_path)
    assert summary_lines(Path(known.cache_dir))[-1].endswith("no file left out")


@pytest.mark.parametrize(("there", "said"), [(70, True), (95, False)])
def test_many_names_without_a_file_and_splits_without_an_image_have_a_line(
    tmp_path: Path, there: int, said: bool
) -> None:
    lines = [f"{n}.png,{n % 2},{'train' if n % 3 else 'test'}\n" for n in range(100)]
    text = "image,fracture,split\n" + "".join(lines)
    builder = build(write(tmp_path / "own", text, there), tmp_path)
    lines = summary_lines(Path(builder.cache_dir))
    absent = f"image folder: {100 - there} of 100 images that a list names are not in the folder"
    assert (absent in lines) == said
    assert any(line.startswith("no image in validation: training wants train and val") for line in lines)


def test_drawn_splits_are_said_with_how_many_they_hold_out(tmp_path: Path) -> None:
    lines = [f"{index}.png,p{index // 2},{index // 2 % 2}\n" for index in range(40)]
    builder = build(write(tmp_path / "own", "image,patient,fracture\n" + "".join(lines)), tmp_path)
    said = [line for line in summary_lines(Path(builder.cache_dir)) if line.startswith("no split is named")]
    assert said == [
        "no split is named, so some were drawn by patient and label: of 40 images of 20 patients 4 of 2 "
        "patients for test and 4 of 2 patients for validation. A "
        "column split, or a folder for each, chooses them"
    ]


@pytest.mark.parametrize("column", ["Alter", "accession", "report"])
def test_a_column_that_is_no_label_has_a_way_out(tmp_path: Path, column: str) -> None:
    root = write(tmp_path / "own", f"image,fracture,{column}\n0.png,1,006M\n", 1)
    with pytest.raises(
        LabelFileError, match=f"'{column}' holds '006M'.*delete it, or rename it .*'age_years'"
    ):
        build(root, tmp_path)


def test_one_folder_is_one_build_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "own", "image,patient,fracture\n0.png,p,1\n", 1)
    first = build(root, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(root)
    for name in ("../own", "../own/", "../link"):
        again = ImageFolder(data_dir=name, build_dir=tmp_path / "cache")
        assert again.cache_dir == first.cache_dir, name


def test_no_csv_or_no_images(tmp_path: Path) -> None:
    root = write(tmp_path / "own", "image,fracture\n0.png,1\n", 0)
    with pytest.raises(DataLayoutError, match="no image found"):
        build(root, tmp_path)
    (root / "labels.csv").rename(root / "a.csv")
    (root / "b.csv").touch()
    with pytest.raises(DataLayoutError, match=r"found \['a.csv', 'b.csv'\]"):
        build(root, tmp_path)


def test_it_joins_the_cocktail_with_the_labels_they_share(chest: ChestFolder, tmp_path: Path) -> None:
    raw = chest.finish().parent
    rows = ["0.png,a,train,1,1", "1.png,,train,,0"]
    write(raw / "own_images", "image,patient,split,Hernia,fracture\n" + "\n".join(rows), 2)
    builder = Cocktail(data_dir=raw, build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    rows = [row for row in builder.as_dataset()["train"] if row["source"] == "image folder"]
    assert [row["findings"] for row in rows] == [[FINDINGS.index("Hernia")], []]
    assert all(math.isnan(row["labels"][0]) for row in rows)
    assert read_report(builder.cache_dir)["problem_counts"] == {
        "image folder": {"no_patient": 1, "unknown_finding": 1}
    }


def read(builder: ImageFolder) -> tuple[dict[str, dict], dict[str, int]]:
    """Rows by their name below images/, and the report's counts."""
    rows = {row["image_id"].split("/", 1)[1]: row for part in builder.as_dataset().values() for row in part}
    counts = read_report(builder.cache_dir)["problem_counts"].get("image folder", {})
    counts.pop("split_cut", None)  # of tables without splits
    return rows, counts


def test_rows_that_disagree_are_not_annotated(tmp_path: Path) -> None:
    lines = [
        "0.png,p0,0,1",
        "1.png,p1,1,0",
        "images/1.png,p1,1.0,FALSE",
        "0.png,p0,1,1",
        "2.png,p2,1,1",
        "2.PNG,p3,1,1",
    ]
    text = (
        "image,patient,fracture,metal\n"
        + "\n".join([*lines, *(f"{n}.png,p{n},1,0" for n in range(3, 20))])
        + "\n"
    )
    rows, counts = read(build(write(tmp_path / "own", text, 20), tmp_path))
    assert all(map(math.isnan, rows["0.png"]["labels"])) and rows["1.png"]["labels"] == [1.0, 0.0]
    assert "2.png" not in rows and len(rows) == 19
    assert counts == {"duplicate_row": 2, "conflicting_row": 2}


def test_people_are_read_as_in_every_source(tmp_path: Path) -> None:
    lines = [
        "0.png;045Y;Male;antero-posterior;1",
        "1.png;30,5;f;PA ;0",
        "2.png;414;?!;LL;",
        "3.png;-1;O;front;1",
    ]
    rows, counts = read(
        build(
            write(tmp_path / "own", "Image;Age;Gender;View Position;fracture\n" + "\n".join(lines), 4),
            tmp_path,
        )
    )
    assert [rows[f"{n}.png"]["age_years"] for n in range(4)] == pytest.approx(
        [45, 30.5, math.nan, math.nan], nan_ok=True
    )
    assert [rows[f"{n}.png"]["sex"] for n in range(4)] == ["M", "F", "", "O"]
    assert [rows[f"{n}.png"]["view"] for n in range(4)] == ["AP", "PA", "LATERAL", ""]
    assert counts == {"implausible_age": 2, "no_patient": 4, "unknown_sex": 1, "unknown_view": 1}


def test_names_meet_their_files_or_are_named_for_what_they_are(tmp_path: Path) -> None:
    files = ["b.PNG", "sub/d.png", "Case.png", "case.png", "f.jpg", "notes.txt", "scan.heic"]
    names = [
        "images/b.png",
        "sub\\d.png",
        "CASE.png",
        "f.png",
        "notes.txt",
        "scan.heic",
        "gone.png",
        "._b.png",
    ]
    root = write(tmp_path / "own", "image,fracture\n" + "".join(f"{name},1\n" for name in names), 0)
    for file in files:
        (root / "images" / file).parent.mkdir(exist_ok=True)
        gray(1).save(root / "images" / file, "JPEG" if file == "f.jpg" else "PNG")
    for file in ("notes.txt", "scan.heic", "._b.png"):
        (root / "images" / file).write_bytes(b"no picture")
    builder = build(root, tmp_path)
    rows, _ = read(builder)
    assert set(rows) == {"b.PNG", "sub/d.png", "f.jpg"}
    named = {(problem["kind"], problem["name"]) for problem in read_report(builder.cache_dir)["problems"]}
    assert named == {
        *(("no_patient", name) for name in ["b.PNG", "sub/d.png", "f.jpg", "notes.txt", "scan.heic"]),
        *(("not_an_image", f"images/{name}") for name in ("notes.txt", "scan.heic")),
        *(("not_listed", f"images/{name}") for name in ("Case.png", "case.png")),
        *(("ambiguous_name", "CASE.png"), ("absent", "gone.png"), ("hidden_file", "images/._b.png")),
        ("split_cut", "splits"),
    }


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (
            "image,split,m\n0.png,train,1\n1.png,test,1\n",
            ["validation"],
            "labels.csv has no row with split validation",
        ),
        (
            "image,split,m\n0.png,train,1\n9.png,val,1\n",
            ["validation"],
            "none of their images is in the folder",
        ),
        ("image,split,m\n0.png,test,1\n", ["train"], "labels.csv has no row with split train"),
        ("image,patient,m\n0.png,p1,1\n1.png,p1,0\n", ["validation"], "one patient cannot be split.*'p1'"),
        ("image,m\n0.png,1\n1.png,0\n", ["validation", "test"], "2 patients of labels.csv are too few"),
    ],
)
def test_a_split_without_images_is_named_before_building(
    tmp_path: Path, rows: str, wanted: list[str], message: str
) -> None:
    (fault,) = missing_splits(write(tmp_path / "own", rows, 2), wanted)
    assert re.search(message, fault)


def test_a_table_beside_spreadsheets_and_in_other_cases(tmp_path: Path) -> None:
    root = write(tmp_path / "own", "image\tfracture\n0.png\t1\n", 1)
    (root / "labels.csv").rename(root / "Labels.CSV")
    (root / "old.csv").touch()
    assert build(root, tmp_path).as_dataset()["train"]["labels"][:] == [[1.0]]
    for name in ("Labels.CSV", "old.csv"):
        (root / name).unlink()
    (root / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(DataLayoutError, match=r"\['labels.xlsx'\] is a spreadsheet: save it as CSV UTF-8"):
        build(root, tmp_path)


def test_dicom_without_pydicom_is_refused_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "own", "image,fracture\n1.2.840.5,1\n0.png,0\n", 1)
    (root / "images" / "1.2.840.5").write_bytes(bytes(128) + b"DICM" + bytes(200))
    monkeypatch.setitem(sys.modules, "pydicom", None)  # as where it is not installed
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        build(root, tmp_path)


def test_a_patients_number_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    rows = [f"{index}.png,{index // 2}{'.0' * (index % 2)},{index % 2}" for index in range(40)]
    root = write(tmp_path / "mine", "image,patient,mass\n" + "\n".join(rows))
    (listing,) = ImageFolder(data_dir=root, build_dir=tmp_path / "cache").list_records(None)
    assert {record.patient_id for part in listing.splits.values() for record in part} == {
        f"image folder/{index}" for index in range(20)
    }
    parts = [{record.patient_id for record in part} for part in listing.splits.values()]
    assert len(parts) == 3 and sum(map(len, parts)) == 20
    assert [problem for problem in listing.problems if problem.kind != "split_cut"] == []


def test_a_patient_in_two_splits_under_two_spellings_of_a_number_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", "image,patient,split,mass\n0.png,7,train,1\n1.png,7.0,test,0\n", images=2)
    with pytest.raises(LabelFileError, match="1 patients stand in more than one split, for example .'7'"):
        build(root, tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [("7", "007"), ("P1", "p1"), ("P 1", "P1"), ("P01", "P1"), ("Mü", unicodedata.normalize("NFD", "MÜ"))],
)
def test_patients_that_differ_little_are_named_where_splits_part_them(
    tmp_path: Path, one: str, other: str
) -> None:
    text = f"image,patient,split,mass\n0.png,{one},train,1\n1.png,{other},test,0\n2.png,Q,train,1\n"
    root = write(tmp_path / "parted", text, images=3)
    (listing,) = ImageFolder(data_dir=root, build_dir=tmp_path / "cache").list_records(None)
    (problem,) = listing.problems
    assert (problem.kind, problem.name) == ("similar_patients", one)
    assert problem.detail.startswith(f"{one!r} in train and {other!r} in test")
    together = write(tmp_path / "together", text.replace("test", "train"), images=3)
    (listing,) = ImageFolder(data_dir=together, build_dir=tmp_path / "cache").list_records(None)
    assert [problem for problem in listing.problems if problem.kind != "split_cut"] == []
