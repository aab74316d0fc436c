"""MIMIC-CXR's source, on drawn pictures in its layout: split, views, labels, reports, and what is odd."""

import math
from pathlib import Path

import pytest
from mini_mimic import REPORT, MimicFolder
from raw_folders import gray, said

from dataset_scripts import FINDINGS, MimicCxr
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import ImageRecord, SourceListing, scan_folder
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.mimic_cxr import SOURCE, list_images


@pytest.fixture
def mimic(tmp_path: Path) -> MimicFolder:
    """Three patients: one of each split, the first with two studies."""
    folder = MimicFolder(tmp_path / "raw" / SOURCE.folder)
    folder.add("bb-frontal", 10000032, 50414267, "PA", "train")
    folder.add("aa-lateral", 10000032, 50414267, "LL", "train")
    folder.add("cc", 10000032, 50000001, "AP", "train")
    folder.add("dd", 11000011, 51000000, "LATERAL", "validate")
    folder.add("ee", 12000012, 52000000, "SWIMMERS", "test")
    for patient, study in (
        (10000032, 50414267),
        (10000032, 50000001),
        (11000011, 51000000),
        (12000012, 52000000),
    ):
        folder.report(patient, study)
    return folder


def listed(mimic: MimicFolder) -> SourceListing:
    return list_images(scan_folder(mimic.finish()), SourceConfig())


def by_name(listing: SourceListing) -> dict[str, ImageRecord]:
    return {Path(record.path).stem: record for part in listing.splits.values() for record in part}


def test_split_views_patients_and_texts(mimic):
    listing = listed(mimic)
    assert said(listing) == {"unknown_view": 1}
    names = {split: [Path(record.path).stem for record in part] for split, part in listing.splits.items()}
    assert names == {"train": ["cc", "bb-frontal", "aa-lateral"], "validation": ["dd"], "test": ["ee"]}
    found = by_name(listing)
    assert [found[name].view for name in ("bb-frontal", "aa-lateral", "cc", "dd", "ee")] == [
        "PA", "LATERAL", "AP", "LATERAL", "",
    ]  # fmt: skip
    first = found["bb-frontal"]
    assert (first.patient_id, first.study_id) == ("MIMIC-CXR/p10000032", "mimic_cxr/s50414267")
    assert first.report_findings == "There is a small left pleural effusion. No pneumothorax."
    assert first.report_impression == "Small left pleural effusion."
    assert first.report_indication == "___F with cough // eval for infection"
    assert all(math.isnan(label) for label in first.labels)


def test_chexperts_labels_are_taken_where_they_are_certain(mimic):
    header = ("subject_id", "study_id", "Cardiomegaly", "Edema", "Fracture", "Pleural Effusion", "Pneumonia")
    rows = [
        (10000032, 50414267, "1.0", "0.0", "1.0", "1.0", "-1.0"),
        (12000012, 52000000, "", "maybe", "", "", ""),
    ]
    mimic.table("chexpert", header, rows)
    listing = listed(mimic)
    found = by_name(listing)
    labels = {
        name: value
        for name, value in zip(FINDINGS, found["aa-lateral"].labels, strict=True)
        if value == value
    }
    assert labels == {"Cardiomegaly": 1.0, "Edema": 0.0, "Effusion": 1.0}
    assert set(labels) <= set(SOURCE.label_names)
    assert all(math.isnan(value) for name in ("ee", "dd") for value in found[name].labels)
    assert said(listing) == {"unknown_view": 1, "unknown_finding": 1}


def test_what_is_missing_or_odd_is_counted_and_named(mimic):
    mimic.study(12000012, 52000000).with_suffix(".txt").unlink()
    mimic.study(11000011, 51000000).with_suffix(".txt").write_bytes(b"FINDINGS: \xff")
    (mimic.study(10000032, 50000001) / "cc.jpg").unlink()
    stranger = mimic.study(10000032, 50414267) / "stranger.jpg"
    stranger.touch()
    mimic.add("ff", 13000013, 53000000, "PA", "train")
    mimic.splits.pop()  # in no split
    mimic.metadata += [
        ("bb-frontal", 10000032, 50414267, "", "AP", 64),
        ("aa-lateral", 10000032, 50000001, "", "LL", 64),
        ("", 1, 2, "", "PA", 64),
    ]
    listing = listed(mimic)
    assert said(listing) == {
        "no_report": 1,
        "bad_report": 1,
        "absent": 1,
        "not_listed": 2,
        "duplicate_row": 1,
        "conflicting_row": 1,
        "bad_line": 1,
        "unknown_view": 1,
    }
    found = by_name(listing)
    assert found.keys() == {"bb-frontal", "dd", "ee"} and found["bb-frontal"].view == "PA"
    assert found["ee"].report_findings == found["dd"].report_findings == ""


def test_text_below_unknown_headings_is_not_left_out_without_a_word(mimic):
    report = mimic.study(10000032, 50414267).with_suffix(".txt")
    report.write_text("IMPRESSION: Clear.\nNOTE: left is right.")
    listing = listed(mimic)
    assert said(listing)["unknown_section"] == 1
    assert any("text below other headings is left out: NOTE" in one.detail for one in listing.problems)


def test_of_two_reports_of_a_study_that_differ_neither_is_used(mimic):
    report = mimic.study(10000032, 50414267).with_suffix(".txt")
    other = mimic.study(12000012, 52000000).with_suffix(".txt")
    for file in (report, other):
        copy = mimic.root / "old" / file.relative_to(mimic.root)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(file.read_bytes())
    (mimic.root / "old" / report.relative_to(mimic.root)).write_text("FINDINGS: Of another study.")
    listing = listed(mimic)
    found = by_name(listing)
    assert found["aa-lateral"].report_findings == "" and found["ee"].report_findings != ""
    assert said(listing) == {"same_name": 2, "no_report": 1, "unknown_view": 1}
    (mimic.root / "old" / report.relative_to(mimic.root)).write_bytes(b"FINDINGS: \xff")
    assert said(listed(mimic)) == {"bad_report": 1, "same_name": 1, "no_report": 1, "unknown_view": 1}


@pytest.mark.parametrize(
    "row, message",
    [
        (("xx", 1, 10000032, "test"), "patient 10000032 stands in train and in test"),
        (("xx", 1, 9, "val"), "split 'val'; wanted an image and one of"),
    ],
)
def test_a_split_that_is_not_the_official_one_is_refused(mimic, row, message):
    mimic.splits.append(row)
    with pytest.raises(LabelFileError, match=message):
        listed(mimic)


def test_a_table_that_is_missing_or_cut_off_is_named(mimic):
    root = mimic.finish()
    split = root / "mimic-cxr-2.0.0-split.csv.gz"
    split.write_bytes(split.read_bytes()[:-9])
    with pytest.raises(
        LabelFileError, match=r"Cannot read mimic-cxr-2\.0\.0-split\.csv\.gz \(.*end-of-stream"
    ):
        list_images(scan_folder(root), SourceConfig())
    split.unlink()
    with pytest.raises(DataLayoutError, match=r"mimic-cxr-2\.0\.0-split\.csv\.gz is missing"):
        list_images(scan_folder(root), SourceConfig())


def test_it_builds_with_pictures(tmp_path):
    folder = MimicFolder(tmp_path / "raw" / SOURCE.folder)
    for number, split in enumerate(["train"] * 4 + ["validate", "test"]):
        folder.add(f"image-{number}", 10000000 + number, 50000000 + number, "PA", split, gray(number))
        folder.report(10000000 + number, 50000000 + number, REPORT)
    builder = MimicCxr(data_dir=folder.finish(), build_dir=tmp_path / "cache", split_scheme="r2gen")
    builder.download_and_prepare()
    assert read_report(builder.cache_dir)["images"] == {SOURCE.name: {"test": 1, "train": 4, "validation": 1}}
    (row,) = builder.as_dataset(split="test")
    assert row["study_id"] == "mimic_cxr/s50000005"
    assert row["report_impression"] == "Small left pleural effusion."
