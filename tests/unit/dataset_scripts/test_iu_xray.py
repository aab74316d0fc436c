"""IU X-Ray's source: three layouts of one set, its splits, what is odd in it; then the real texts."""

import json
from collections import Counter
from pathlib import Path

import pytest
from mini_iu import FOLDER, IuFolder, real_rows, real_texts, write_real
from raw_folders import ChestFolder, read_leakage_report, said

from dataset_scripts import Cocktail, IuXray
from dataset_scripts.build.build_log import read_report, summary_lines
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import ImageRecord, SourceListing, scan_folder
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS, REPORT_COLUMNS
from dataset_scripts.iu_xray import SOURCE, list_images

STUDIES = {
    1: ("Positive TB test", "The heart is normal.  Lungs are clear.", "Normal chest."),
    22: ("", "There is a left pleural effusion.", "Left effusion."),
    333: ("Cough.", "", "No acute disease."),
}
PICTURES = {1: ("1_IM-0001-4001", "1_IM-0001-3001"), 22: ("22_IM-0840-1001",), 333: ("333_IM-1594-1001",)}


def listed(root: Path, name: str = "official", **options: object) -> SourceListing:
    return list_images(scan_folder(root), SourceConfig(name=name, **options))


def records(listing: SourceListing) -> list[ImageRecord]:
    return [record for part in listing.splits.values() for record in part]


def by_study(listing: SourceListing) -> dict[str, tuple[str, str, str, str]]:
    """Split and sections of each study; its images must agree."""
    found: dict[str, set[tuple[str, str, str, str]]] = {}
    for split, part in listing.splits.items():
        for record in part:
            sections = (record.report_findings, record.report_impression, record.report_indication)
            found.setdefault(record.study_id, set()).add((split, *sections))
    assert all(len(several) == 1 for several in found.values())
    return {study: next(iter(several)) for study, several in found.items()}


@pytest.fixture
def iu(tmp_path: Path) -> IuFolder:
    return IuFolder(tmp_path / "raw" / FOLDER)


def write_kaggle(iu: IuFolder) -> None:
    views = ["Frontal", "Lateral"]
    projections = [
        (uid, f"{name}.dcm.png", view)
        for uid, names in PICTURES.items()
        for name, view in zip(names, views, strict=False)
    ]
    iu.kaggle([(uid, *texts) for uid, texts in STUDIES.items()], projections)
    iu.draw(*(f"images/images_normalized/{name}" for _, name, _ in projections))


def write_openi(iu: IuFolder) -> None:
    for uid, (indication, findings, impression) in STUDIES.items():
        names = [f"CXR{uid}_{'1_' if uid == 1 else ''}{name.split('_')[1]}" for name in PICTURES[uid]]
        iu.xml(uid, {"INDICATION": indication, "FINDINGS": findings, "IMPRESSION": impression}, names)
        iu.draw(*(f"NLMCXR_png/{name}.png" for name in names))


def write_r2gen(iu: IuFolder, split: str = "train") -> None:
    entries = [
        {
            "id": f"CXR{uid}_IM-0001",
            "report": texts[1],
            "image_path": [f"CXR{uid}_IM-0001/{n}.png" for n in (0, 1)],
        }
        for uid, texts in STUDIES.items()
        if texts[1]
    ]
    iu.annotation(**{split: [{**entry, "split": split} for entry in entries]})
    iu.draw(*(f"images/{name}" for entry in entries for name in entry["image_path"]))


def test_kaggles_layout_becomes_rows_with_reports(iu):
    write_kaggle(iu)
    builder = IuXray(data_dir=iu.root, build_dir=iu.root.parent.parent / "cache")
    builder.download_and_prepare()
    assert read_report(builder.cache_dir)["problem_counts"] == {}
    rows = [row for part in builder.as_dataset().values() for row in part]
    first = [row for row in rows if row["study_id"] == "iu_x_ray/CXR1"]
    assert [row["view"] for row in first] == ["FRONTAL", "LATERAL"]
    assert [row["image_id"] for row in first] == [
        "IU X-Ray/CXR1_IM-0001-4001",
        "IU X-Ray/CXR1_IM-0001-3001",
    ]
    assert {row["report_findings"] for row in first} == {"The heart is normal. Lungs are clear."}
    assert {row["report_indication"] for row in first} == {"Positive TB test"}
    assert {row["patient_id"] for row in first} == {"IU X-Ray/CXR1"}
    assert all(value != value for row in rows for value in row["labels"])
    assert [row["report_findings"] for row in rows if row["study_id"] == "iu_x_ray/CXR333"] == [""]


def test_all_layouts_give_one_study_the_same_name_text_and_split(tmp_path):
    found = {}
    for write in (write_kaggle, write_openi, write_r2gen):
        folder = IuFolder(tmp_path / write.__name__ / FOLDER)
        write(folder)
        listing = listed(folder.root)
        assert said(listing) == {}
        found[write] = by_study(listing), {r.image_id for r in records(listing)}
    assert found[write_openi] == found[write_kaggle]
    studies, images = found[write_r2gen]
    assert studies.keys() == {"iu_x_ray/CXR1", "iu_x_ray/CXR22"}
    assert all(found[write_kaggle][0][study][:2] == texts[:2] for study, texts in studies.items())
    assert "IU X-Ray/CXR22_IM-0001/1" in images


def test_dicom_of_openi_takes_views_from_kaggles_projections(iu):
    iu.xml(1, {"FINDINGS": "Clear lungs."}, ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"])
    iu.table("indiana_projections.csv", ("uid", "filename", "projection"),
             [(1, "1_IM-0001-4001.dcm.png", "Frontal"),
              (1, "1_IM-0001-3001.dcm.png", "Lateral")])  # fmt: skip
    for name in ("1_IM-0001-3001", "1_IM-0001-4001"):
        (iu.root / f"{name}.dcm").touch()
    found = {record.path: (record.view, record.report_findings) for record in records(listed(iu.root))}
    assert found == {
        "1_IM-0001-3001.dcm": ("LATERAL", "Clear lungs."),
        "1_IM-0001-4001.dcm": ("FRONTAL", "Clear lungs."),
    }


def test_r2gens_split_holds_for_kaggles_pictures_and_needs_its_file(iu):
    write_kaggle(iu)
    with pytest.raises(DataLayoutError, match=r"r2gen needs annotation\.json.*copy it into this folder"):
        listed(iu.root, "r2gen")
    iu.annotation(
        val=[{"id": "CXR22_IM-0840", "report": "x", "image_path": ["CXR22_IM-0840/0.png"]}],
        test=[{"id": "CXR1_IM-0001", "report": "x", "image_path": ["CXR1_IM-0001/0.png"]}],
    )
    listing = listed(iu.root, "r2gen")
    assert {study: split for study, (split, *_) in by_study(listing).items()} == {
        "iu_x_ray/CXR22": "validation",
        "iu_x_ray/CXR1": "test",
    }
    assert [(problem.kind, problem.name.rsplit("/", 1)[-1]) for problem in listing.problems] == [
        ("not_listed", "333_IM-1594-1001.dcm.png")
    ]


def test_kaggles_tables_beside_r2gens_pictures_add_what_these_lack(iu):
    write_r2gen(iu)
    iu.kaggle(
        [(uid, *texts) for uid, texts in STUDIES.items()],
        [(1, "1_IM-0001-4001.dcm.png", "Frontal"), (22, "22_IM-0840-1001.dcm.png", "Frontal")],
    )
    for scheme in ("official", "r2gen"):
        listing = listed(iu.root, scheme)
        assert said(listing) == {}
        found = {record.image_id: record for record in records(listing)}
        assert found.keys() == {f"IU X-Ray/CXR{uid}_IM-0001/{place}" for uid in (1, 22) for place in (0, 1)}
        first = found["IU X-Ray/CXR1_IM-0001/0"]
        assert (first.report_impression, first.report_indication, first.view) == (
            "Normal chest.",
            "Positive TB test",
            "",
        )


def test_a_section_that_kaggles_table_lacks_comes_from_openis_report(iu):
    iu.kaggle([(1, "#NAME?", "Clear lungs.", "")], [(1, "1_IM-0001-4001.dcm.png", "Frontal")])
    iu.xml(1, {"INDICATION": "+PPD", "FINDINGS": "Other words.", "IMPRESSION": "Normal."}, [])
    iu.draw("images/1_IM-0001-4001.dcm.png")
    (record,) = records(listed(iu.root))
    sections = (record.report_indication, record.report_findings, record.report_impression)
    assert sections == ("+PPD", "Clear lungs.", "Normal.")


def test_rows_are_ordered_by_study_then_by_projection(iu):
    numbers = [200, 3, 1000, 20]
    names = {uid: [f"{uid}_IM-0001-{view}001.dcm.png" for view in (4, 3)] for uid in numbers}
    iu.kaggle(
        [(uid, "", "Clear.", "") for uid in numbers],
        [(uid, names[uid][index], "") for index in (0, 1) for uid in numbers],
    )
    iu.annotation(train=[{"id": f"CXR{uid}_IM", "report": "", "image_path": []} for uid in numbers])
    iu.draw(*(f"images/{name}" for uid in numbers for name in names[uid]))
    (train,) = listed(iu.root, "r2gen").splits.values()
    wanted = [f"images/{name}" for uid in sorted(numbers) for name in names[uid]]
    assert [record.path for record in train] == wanted


def test_what_is_missing_or_odd_is_counted_and_named(iu):
    iu.kaggle(
        [(1, "#NAME?", "Clear.", "Normal."), (1, "Cough", "Clear.", "Normal."), (2, "", "Mass.", ""),
         (2, "", "No mass.", ""), (4, "", "Nobody's.", ""), ("", "", "Lost.", "")],
        [(1, "1_IM-0001-1001.dcm.png", "Frontal"), (1, "1_IM-0001-1001.dcm.png", "Lateral"),
         (1, "1_IM-0001-2001.dcm.png", "Lateral"), (2, "1_IM-0001-2001.dcm.png", "Lateral"),
         (2, "2_IM-0002-1001.dcm.png", "sideways"), (2, "2_IM-0002-2001.dcm.png", "Lateral"),
         (3, "3_IM-0003-1001.dcm.png", "Frontal"), (3, "", "Frontal")],
    )  # fmt: skip
    there = ["1_IM-0001-1001", "1_IM-0001-2001", "2_IM-0002-1001", "3_IM-0003-1001", "9_IM-0009-1001"]
    iu.draw(*(f"images/{name}.dcm.png" for name in there))
    listing = listed(iu.root)
    assert said(listing) == {
        "bad_metadata": 1,  # the spreadsheet's error
        "duplicate_row": 3,  # studies 1 and 2, and a picture with two views
        "conflicting_row": 1,  # a picture of two studies
        "bad_line": 2,
        "unknown_view": 1,
        "absent": 1,
        "no_report": 1,  # study 3
        "no_image": 1,  # study 4
        "not_listed": 1,  # 9
    }
    found = {record.path.split("/")[1][:14]: record for record in records(listing)}
    assert {name: record.view for name, record in found.items()} == {
        "1_IM-0001-1001": "",
        "2_IM-0002-1001": "",
        "3_IM-0003-1001": "FRONTAL",
    }
    assert found["1_IM-0001-1001"].report_findings == "Clear."
    assert found["1_IM-0001-1001"].report_indication == ""  # the two rows disagree
    assert found["2_IM-0002-1001"].report_findings == ""


def test_a_damaged_xml_is_named_and_the_others_are_read(iu):
    write_openi(iu)
    path = iu.root / "ecgen-radiology" / "22.xml"
    path.write_text(path.read_text()[:80])
    (iu.root / "ecgen-radiology" / "23.xml").write_text("<other/>")
    listing = listed(iu.root)
    assert said(listing) == {"bad_report": 2, "not_listed": 1}
    assert {record.study_id for record in records(listing)} == {"iu_x_ray/CXR1", "iu_x_ray/CXR333"}


@pytest.mark.parametrize("content", ["{}", "[1]", '{"train": [{"id": 1}], "val": [], "test": []}', "{"])
def test_another_annotation_is_refused(iu, content):
    (iu.root / "annotation.json").write_text(content)
    with pytest.raises(LabelFileError, match="Wanted lists of studies under"):
        listed(iu.root)


def test_a_study_in_two_of_r2gens_parts_is_left_out_of_its_split(iu):
    entry = {"id": "CXR1_IM-0001", "report": "x", "image_path": ["CXR1_IM-0001/0.png"]}
    other = {"id": "CXR2_IM-0002", "report": "y", "image_path": ["CXR2_IM-0002/0.png"]}
    iu.annotation(train=[entry, other, other], test=[entry])
    iu.draw("images/CXR1_IM-0001/0.png", "images/CXR2_IM-0002/0.png")
    listing = listed(iu.root, "r2gen")
    assert said(listing) == {"conflicting_row": 1, "duplicate_row": 1, "not_listed": 1}
    assert [record.study_id for record in records(listing)] == ["iu_x_ray/CXR2"]


def test_a_folder_without_lists_or_pictures_says_what_is_wanted(iu):
    (iu.root / "notes.txt").touch()
    with pytest.raises(DataLayoutError, match=r"three layouts: .*; found \['notes.txt'\]"):
        listed(iu.root)
    iu.xml(1, {"FINDINGS": "Clear."}, ["CXR1_1_IM-0001-3001"])
    with pytest.raises(DataLayoutError, match="none of the pictures that the reports name"):
        listed(iu.root)


def test_beside_chestxray14_the_columns_are_there_for_both_and_held_out_copies_go(chest: ChestFolder, iu):
    chest.finish()
    write_kaggle(iu)
    splits = {record.path: split for split, part in listed(iu.root).splits.items() for record in part}
    held_out, trained = (
        next(p for p, s in splits.items() if (s == "train") == is_t) for is_t in (False, True)
    )
    picture = (iu.root / held_out).read_bytes()
    copy = chest.root / "images" / chest.trained()
    copy.write_bytes(picture)
    builder = Cocktail(data_dir=iu.root.parent, build_dir=iu.root.parent.parent / "cache")
    builder.download_and_prepare()
    (leak,) = read_leakage_report(builder.cache_dir)["dropped"]
    assert leak["image_id"].endswith(copy.name) and leak["held_out_source"] == SOURCE.name
    train = builder.as_dataset()["train"]
    of_chest = train.filter(lambda row: row["source"] == "ChestX-ray14", load_from_cache_file=False)
    assert {row[column] for row in of_chest for column in REPORT_COLUMNS} == {""}
    assert any(
        row["report_findings"] or row["report_impression"] for row in train if row["source"] == SOURCE.name
    )
    assert any("IU X-Ray" in line for line in summary_lines(builder.cache_dir)) and trained


def test_builds_without_reports_have_no_such_column(chest: ChestFolder):
    builder = Cocktail(data_dir=chest.finish().parent, build_dir=chest.root.parent.parent / "cache")
    assert not set(REPORT_COLUMNS) & set(builder.info.features)
    assert "has_reports" not in builder.cache_dir


@pytest.mark.realdata
@pytest.mark.parametrize(
    "layout, studies, images, problems",
    [
        ("kaggle", 3851, 7466, {"bad_metadata": 3}),
        ("openi", 3851, 7470, {"no_image": 104}),
        ("r2gen", 2955, 5910, {}),
    ],
)
def test_the_real_texts_of_each_layout(root, tmp_path, layout, studies, images, problems):
    texts = real_texts(root)
    listing = listed(write_real(layout, texts, tmp_path / FOLDER))
    assert said(listing) == problems
    found = by_study(listing)
    assert (len(found), len(records(listing))) == (studies, images)
    expected = real_rows(texts)
    for study, (_, findings, impression, indication) in found.items():
        row = {
            name: " ".join(text.split())
            for name, text in expected[study.removeprefix("iu_x_ray/CXR")].items()
        }
        assert findings == row["findings"], study
        if layout != "r2gen":
            assert impression == row["impression"], study
            assert indication in (row["indication"], "") or row["indication"] == "#NAME?", study
    if layout == "kaggle":
        assert Counter(record.view for record in records(listing)) == {"FRONTAL": 3818, "LATERAL": 3648}
        assert sum(not findings for _, findings, _, _ in found.values()) == 514
        assert Counter(split for split, *_ in found.values()) == {
            "train": 2741,
            "validation": 324,
            "test": 786,
        }


@pytest.mark.parametrize("unknown", ["", "No Indexing", "Technical Quality of Image Unsatisfactory "])
def test_normal_is_what_either_annotation_says(unknown, tmp_path):
    kaggle, openi = IuFolder(tmp_path / "kaggle" / FOLDER), IuFolder(tmp_path / "openi" / FOLDER)
    write_kaggle(kaggle)
    table = kaggle.root / "indiana_reports.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    said_of = zip(rows, ("normal", "Cardiomegaly;normal", unknown), strict=True)
    lines = [f"{header},Problems", *(f"{row},{problems}" for row, problems in said_of)]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_openi(openi)
    said_of_openi = {1: "normal", 22: "Effusion/left", 333: unknown}
    for uid, majors in ((uid, f"<major>{word}</major>") for uid, word in said_of_openi.items()):
        file = next(openi.root.rglob(f"{uid}.xml"))
        text = file.read_text(encoding="utf-8").replace("</eCitation>", f"<MeSH>{majors}</MeSH></eCitation>")
        file.write_text(text, encoding="utf-8")
    column = FINDINGS.index("No Finding")
    for folder in (kaggle, openi):
        labels = {record.study_id: record.labels for record in records(listed(folder.root))}
        assert labels["iu_x_ray/CXR1"][column] == 1 and labels["iu_x_ray/CXR22"][column] == 0
        assert all(value != value for value in labels["iu_x_ray/CXR333"])
        assert sum(value == value for value in labels["iu_x_ray/CXR1"]) == 1


@pytest.mark.realdata
def test_r2gens_real_split(root, tmp_path):
    texts = real_texts(root)
    folder = write_real("kaggle", texts, tmp_path / FOLDER)
    content = (texts / "annotation.json").read_text(encoding="utf-8")
    (folder / "annotation.json").write_text(content, encoding="utf-8")
    listing = listed(folder, "r2gen")
    found = by_study(listing)
    assert Counter(split for split, *_ in found.values()) == {"train": 2069, "validation": 296, "test": 590}
    test = {f"iu_x_ray/{entry['id'].split('_')[0]}": entry["report"] for entry in json.loads(content)["test"]}
    assert all(
        found[study][0] == "test" and found[study][1] == " ".join(text.split())
        for study, text in test.items()
    )
    assert said(listing) == {"bad_metadata": 3, "not_listed": 7466 - len(records(listing))}
    labels = {record.study_id: record.labels[FINDINGS.index("No Finding")] for record in records(listing)}
    annotated = [labels[study] for study in test if labels[study] == labels[study]]
    assert Counter(annotated) == {1.0: 307, 0.0: 257}
    assert len(test) - len(annotated) == 26  # 25 that nobody indexed, one of bad quality alone
