"""ChestX-ray14 as it is downloaded: both label files, packed parts, ages, boxes, splits."""

import math
from pathlib import Path

import numpy as np
import pytest
from raw_folders import ChestFolder, gray

from dataset_scripts import FINDINGS, ChestXray14, label_names
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.records import Box
from dataset_scripts.errors import DataLayoutError, LabelFileError


def build(root: Path, **options: object) -> ChestXray14:
    builder = ChestXray14(data_dir=root, build_dir=root.parent.parent / "cache", **options)
    builder.download_and_prepare()
    return builder


def kinds(builder: ChestXray14) -> dict[str, int]:
    return read_report(builder.cache_dir)["problem_counts"].get("ChestX-ray14", {})


def test_splits_columns_and_labels(chest: ChestFolder) -> None:
    builder = build(chest.finish())
    built = builder.as_dataset()
    assert builder.config.name == "official"
    assert {split: len(rows) for split, rows in built.items()} == {"train": 34, "validation": 4, "test": 2}
    patients = {split: set(rows["patient_id"]) for split, rows in built.items()}
    assert not patients["train"] & patients["validation"]
    row = next(row for row in built["train"] if row["image_id"].endswith("00000002_000.png"))
    assert label_names(built["train"].features) == list(FINDINGS)
    assert [FINDINGS[index] for index in row["findings"]] == ["Effusion", "Mass"]
    assert row["labels"] == [1.0 if name in ("Effusion", "Mass") else 0.0 for name in FINDINGS]
    assert (row["age_years"], row["sex"], row["view"], row["source"]) == (50, "M", "PA", "ChestX-ray14")
    assert row["image"].mode == "L"
    original = np.asarray(gray(2))
    assert np.array_equal(np.asarray(row["image"]), original)
    assert kinds(builder) == {}


def test_parts_in_numbered_folders_and_the_old_label_file(chest: ChestFolder) -> None:
    root = chest.finish()
    for index, path in enumerate(sorted((root / "images").iterdir())):
        part = root / f"images_{index % 12 + 1:03d}" / "images"
        part.mkdir(parents=True, exist_ok=True)
        path.rename(part / path.name)
    (root / "images").rmdir()
    text = (root / "Data_Entry_2017_v2020.csv").read_text().replace(",50,", ",058Y,")
    (root / "Data_Entry_2017_v2020.csv").unlink()
    with_bom = "\ufeff" + text.replace("\n", ",\r\n")  # the old file has a trailing comma; Windows ends
    (root / "Data_Entry_2017.csv").write_bytes(with_bom.encode())
    built = build(root).as_dataset()
    assert sum(len(rows) for rows in built.values()) == 40
    assert set(built["train"]["age_years"]) == {58.0}


@pytest.mark.parametrize(("text", "years"), [("414", math.nan), ("", math.nan), ("006M", 0.5), ("090", 90.0)])
def test_ages(chest: ChestFolder, text: str, years: float) -> None:
    chest.add("test", "00000041_000.png", "Mass", 41, age=text)
    builder = build(chest.finish())
    row = next(row for row in builder.as_dataset()["test"] if row["image_id"].endswith("41_000.png"))
    assert row["age_years"] == pytest.approx(years, nan_ok=True)
    assert kinds(builder) == ({"implausible_age": 1} if text == "414" else {})


def test_boxes_are_scaled_to_the_stored_image(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000039_000.png,Infiltrate,512,256,128,64,,,\n"
        "00000040_000.png,Edema,a,b,c,d\n"
    )
    builder = build(root)
    rows = {row["image_id"][-16:]: row["boxes"] for row in builder.as_dataset()["test"]}
    infiltration = FINDINGS.index("Infiltration")
    box = {"finding": infiltration, "x": 32.0, "y": 16.0, "width": 8.0, "height": 4.0}
    assert rows == {"00000039_000.png": [box], "00000040_000.png": []}
    assert kinds(builder) == {"bad_box": 1}


def box_lines(*lines: str, header: str = "Image Index,Finding Label,Bbox [x,y,w,h],,,") -> str:
    return "".join(f"{line}\n" for line in (header, *lines) if line)


BOX = "00000039_000.png,Mass,512,256,128,64"


@pytest.mark.parametrize(
    "text",
    [
        box_lines(BOX),
        box_lines(BOX + ",,,", header='Image Index,Finding Label,"Bbox [x,y,w,h]",,,,,,'),
        box_lines(BOX, header=""),
        box_lines(BOX).replace(",", ";"),
        box_lines(BOX.replace(",", ";"), header="Image Index;Finding Label;Bbox [x,y,w,h];;;"),
        box_lines("00000039_000.png;Mass;512,0;256,0;128,0;64,0", header=""),
        box_lines(BOX).replace(",", "\t"),
        "sep=;\n" + box_lines(BOX).replace(",", ";"),
        box_lines(BOX.replace(".png", ".PNG")),
        box_lines("images/" + BOX),
        box_lines("images_001\\images\\" + BOX),
        box_lines(BOX.replace(".png", "")),
    ],
)
def test_a_box_file_in_other_dress_is_read(chest: ChestFolder, text: str) -> None:
    root = chest.finish()
    (root / "BBox_List_2017.csv").write_text(text)
    (listing,) = ChestXray14(data_dir=root, build_dir=root.parent / "cache").list_records(None)
    boxes = {record.nih_image: record.boxes for record in listing.splits["test"]}
    assert boxes["00000039_000.png"] == (Box(FINDINGS.index("Mass"), 512.0, 256.0, 128.0, 64.0),)
    assert listing.problems == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("00000099_000.png,Mass,1,1,9,9", "names an image that is not in the label file"),
        ("00000039_000.png,Mass,512,256,-100,64", "width -100"),
        ("00000039_000.png,Mass,512,256,128,0", "height 0"),
        ("00000039_000.png,Mass,512,256,1e9,64", "1024×1024"),
        ("00000039_000.png,Mass,-5,256,128,64", "1024×1024"),
        ("00000039_000.png,Mass,512,1000,128,64", "1024×1024"),
        ("00000039_000.png,Mass,512,256,128", "not four numbers"),
        ("00000039_000.png,Mass,512,256,nan,64", "not four finite numbers"),
        ("00000039_000.png,Measles,512,256,128,64", "unknown finding 'Measles'"),
        (",Mass,512,256,128,64", "names no image"),
    ],
)
def test_a_box_that_cannot_be_meant_is_reported(chest: ChestFolder, line: str, said: str) -> None:
    root = chest.finish()
    (root / "BBox_List_2017.csv").write_text(box_lines(BOX, line))
    (listing,) = ChestXray14(data_dir=root, build_dir=root.parent / "cache").list_records(None)
    (problem,) = listing.problems
    assert (problem.kind, problem.name) == ("bad_box", line.split(",")[0] or "BBox_List_2017.csv")
    assert "line 3" in problem.detail and said in problem.detail
    assert sum(len(record.boxes) for record in listing.splits["test"]) == 1


def test_no_finding_beside_a_finding_is_not_annotated(chest: ChestFolder) -> None:
    chest.add("test", "00000041_000.png", "No Finding|Effusion", 41)
    chest.add("test", "00000042_000.png", "No Finding|No Finding", 42)
    (listing,) = ChestXray14(data_dir=chest.finish(), build_dir=chest.root.parent / "cache").list_records(
        None
    )
    labels = {record.nih_image: record.labels for record in listing.splits["test"]}
    assert all(math.isnan(value) for value in labels["00000041_000.png"])
    assert labels["00000042_000.png"][FINDINGS.index("No Finding")] == 1.0
    (problem,) = listing.problems
    assert (problem.kind, problem.name) == ("conflicting_findings", "00000041_000.png")


def test_a_patient_named_in_both_lists_stays_out_of_training(chest: ChestFolder) -> None:
    chest.add("train_val", "00000040_001.png", "Mass", 40)
    builder = build(chest.finish())
    assert kinds(builder) == {"patient_in_test": 1}
    assert "ChestX-ray14/40" not in builder.as_dataset()["train"]["patient_id"]


def test_the_split_does_not_depend_on_what_was_downloaded(chest: ChestFolder) -> None:
    root = chest.finish()
    whole = set(build(root).as_dataset()["validation"]["image_id"])
    absent = sorted((root / "images").iterdir())[:20]
    for path in absent:
        path.unlink()
    builder = build(root)
    part = builder.as_dataset()
    assert set(part["validation"]["image_id"]) == whole - {f"ChestX-ray14/{path.name}" for path in absent}
    assert kinds(builder) == {"absent": 20}


def test_unknown_labels_and_double_rows_are_named(chest: ChestFolder) -> None:
    chest.add("test", "00000041_000.png", "Mass|Measles", 41)
    chest.rows.append(chest.rows[0])
    chest.rows.append("00000039_000.png,Hernia,0,39,50,M,PA")
    builder = build(chest.finish())
    report = read_report(builder.cache_dir)
    named = {(problem["kind"], problem["name"]) for problem in report["problems"]}
    assert named == {
        ("unknown_finding", "00000041_000.png"),
        ("duplicate_row", "00000001_000.png"),
        ("duplicate_row", "00000039_000.png"),
    }
    labels = {row["image_id"][-16:]: row["labels"] for row in builder.as_dataset()["test"]}
    assert all(math.isnan(value) for value in labels["00000041_000.png"] + labels["00000039_000.png"])
    assert labels["00000040_000.png"][FINDINGS.index("Edema")] == 1.0


def test_two_files_of_one_name_use_the_first(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "more").mkdir()
    gray(99).save(root / "more" / "00000001_000.png")
    builder = build(root)
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert (problem["kind"], problem["name"]) == ("same_name", "more/00000001_000.png")
    rows = [row for part in builder.as_dataset().values() for row in part]
    (row,) = [row for row in rows if row["image_id"].endswith("00000001_000.png")]
    assert np.array_equal(np.asarray(row["image"]), np.asarray(gray(1)))


def test_a_file_in_no_list_is_named_and_left_out(chest: ChestFolder) -> None:
    root = chest.finish()
    gray(99).save(root / "images" / "00000099_000.png")
    with (root / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write("00000098_000.png,Mass,0,98,50,M,PA\n")
    builder = build(root)
    problems = read_report(builder.cache_dir)["problems"]
    assert [(problem["kind"], problem["name"]) for problem in problems] == [
        ("not_listed", "00000098_000.png"),
        ("not_listed", "images/00000099_000.png"),
    ]
    assert sum(len(rows) for rows in builder.as_dataset().values()) == 40


def test_a_missing_column_is_named(chest: ChestFolder) -> None:
    root = chest.finish()
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace("Finding Labels", "Labels", 1))
    with pytest.raises(LabelFileError, match=r"column \['Finding Labels'\] is missing.*Download"):
        build(root)


@pytest.mark.parametrize("name", ["test_list.txt", "Data_Entry_2017_v2020.csv"])
def test_a_missing_file_is_named(chest: ChestFolder, name: str) -> None:
    root = chest.finish()
    (root / name).unlink()
    with pytest.raises(DataLayoutError, match=name):
        build(root)


def test_packed_images_get_the_command_that_unpacks_them(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in (root / "images").iterdir():
        path.unlink()
    (root / "images_001.tar.gz").write_bytes(b"packed")
    with pytest.raises(DataLayoutError, match="tar -xzf"):
        build(root)


def test_lists_that_name_nothing_here_say_so(chest: ChestFolder) -> None:
    root = chest.finish()
    for path in list((root / "images").iterdir()):
        path.rename(path.with_name("other_" + path.name))
    with pytest.raises(DataLayoutError, match="nothing to build"):
        build(root)


def test_the_papers_split_keeps_and_names_its_straddling_patient(chest: ChestFolder) -> None:
    for patient, follow_up in [(39, 1), (41, 0), (41, 1), (41, 2), (42, 0), (42, 1)]:
        chest.add("test", f"{patient:08d}_{follow_up:03d}.png", "Mass", patient)
    builder = build(chest.finish(), split_scheme="medtransformer")
    built = {split: [name[-16:] for name in rows["image_id"]] for split, rows in builder.as_dataset().items()}
    assert {split: len(names) for split, names in built.items()} == {
        "train": 38,
        "validation_mae": 2,
        "validation": 3,
        "test": 3,
    }
    assert built["validation_mae"] == ["00000039_000.png", "00000040_000.png"]
    assert built["test"] == ["00000041_002.png", "00000042_000.png", "00000042_001.png"]
    problems = read_report(builder.cache_dir)["problems"]
    assert [(problem["kind"], problem["name"]) for problem in problems] == [
        ("straddling_patient", "39"),
        ("straddling_patient", "41"),
    ]


@pytest.mark.parametrize("column", ["Patient Sex", "Patient Gender", "PatientSex"])
def test_both_headers_of_the_sheet(chest: ChestFolder, column: str) -> None:
    root = chest.finish()
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace("Patient Gender", column).replace("Patient Age", "PatientAge"))
    rows = build(root).as_dataset()["train"]
    assert set(rows["sex"]) == {"M"} and set(rows["age_years"]) == {50.0}


@pytest.mark.parametrize(("count", "line"), [(40, 5), (3000, 5), (40, 41)])
def test_a_stray_quote_is_refused_with_its_line(chest: ChestFolder, count: int, line: int) -> None:
    chest.rows += [f"{n:08d}_000.png,Mass,0,{n},50,M,PA" for n in range(50, 10 + count)]
    chest.rows[line - 2] = '"' + chest.rows[line - 2]
    with pytest.raises(LabelFileError, match=rf"v2020\.csv, line {line}: a double quote opens.*Download"):
        build(chest.finish())


def test_people_and_views_as_other_tables_write_them(chest: ChestFolder) -> None:
    root = chest.finish()
    path = root / "Data_Entry_2017_v2020.csv"
    text = path.read_text().replace("50,M,PA", "050Y,male,pa", 1).replace("50,M,PA", "045.0,O,oblique", 1)
    path.write_text(text)
    builder = build(root)
    rows = {row["image_id"][-16:]: row for part in builder.as_dataset().values() for row in part}
    first, second = rows["00000001_000.png"], rows["00000002_000.png"]
    assert (first["age_years"], first["sex"], first["view"]) == (50.0, "M", "PA")
    assert (second["age_years"], second["sex"], second["view"]) == (45.0, "O", "")
    assert kinds(builder) == {"unknown_view": 1}


def test_names_and_files_in_other_spellings_meet(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "images" / "00000001_000.png").rename(root / "images" / "00000001_000.PNG")
    gray(2).save(root / "images" / "00000002_000.jpg")
    (root / "images" / "00000002_000.png").unlink()
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace("00000003_000.png", "images\\00000003_000.png"))
    path = root / "train_val_list.txt"
    path.write_text(
        path.read_text()
        .replace("00000004_000.png", "images/00000004_000.png")
        .replace("00000005_000.png", "00000005_000")
    )
    builder = build(root)
    rows = [row for part in builder.as_dataset().values() for row in part["image_id"]]
    assert sorted(rows) == [f"ChestX-ray14/{n:08d}_000.png" for n in range(1, 41)]
    assert kinds(builder) == {}


def test_rows_that_name_two_patients_leave_their_image_out(chest: ChestFolder) -> None:
    chest.rows.append(chest.rows[0].replace(",0,1,", ",0,39,"))
    builder = build(chest.finish())
    assert kinds(builder) == {"conflicting_row": 2}
    assert sum(map(len, builder.as_dataset().values())) == 39


def test_hidden_files_are_counted_and_neither_built_nor_bad(chest: ChestFolder) -> None:
    root = chest.finish()
    (root / "images" / "._00000001_000.png").write_bytes(bytes(4096))
    (root / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX" / "images").mkdir(parents=True)
    gray(1).save(root / "__MACOSX" / "images" / "00000001_000.png")
    builder = build(root)
    assert kinds(builder) == {"hidden_file": 3}
    assert sum(map(len, builder.as_dataset().values())) == 40
