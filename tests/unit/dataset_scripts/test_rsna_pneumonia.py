"""RSNA's source: labels, boxes, patients, both split schemes, and what is odd; then on real pictures."""

import csv
import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from mini_rsna import NORMAL, OPACITY, OTHER, RsnaFolder, write_real_rsna
from raw_folders import ChestFolder, gray, read_leakage_report, said

from dataset_scripts import FINDINGS, Cocktail
from dataset_scripts.build.build_log import note_lines, read_report
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import SourceListing, scan_folder
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.rsna_pneumonia import SOURCE, RsnaPneumonia
from medhiera.data.selection import take_label_fraction

FOLDER = SOURCE.folder
PNEUMONIA = FINDINGS.index("Pneumonia")
ALONE = {"nih_split_unknown": 1}  # said of a folder without ChestX-ray14's lists


def drawn(seed: int) -> np.ndarray:
    return np.asarray(gray(seed))


BOX, NONE = "256,512,128,64,1", ",,,,0"


@pytest.fixture
def rsna(tmp_path: Path) -> RsnaFolder:
    """Sixty images of thirty patients, one in three with an opacity."""
    folder = RsnaFolder(tmp_path / "raw" / FOLDER)
    for number in range(60):
        row = BOX if number % 3 == 0 else NONE
        folder.add(
            f"image-{number}",
            row,
            pixels=drawn(1000 + number),
            nih=f"{100 + number // 2:08d}_{number % 2:03d}.png",
        )
    return folder


def listed(folder: Path, **options: object) -> SourceListing:
    (listing,) = RsnaPneumonia(
        data_dir=folder, build_dir=folder.parent.parent / "cache", **options
    ).list_records(None)
    return listing


def split_of(listing: SourceListing) -> dict[str, str]:
    return {Path(r.path).stem: split for split, records in listing.splits.items() for r in records}


def test_labels_and_boxes_as_the_builder_stores_them(rsna: RsnaFolder) -> None:
    rsna.add("two", "0,0,512,1024,1", "512,256,256,256,1", pixels=drawn(5))
    builder = RsnaPneumonia(data_dir=rsna.finish(), build_dir=rsna.root.parent.parent / "cache")
    builder.download_and_prepare()
    rows = {row["image_id"]: row for part in builder.as_dataset().values() for row in part}
    assert len(rows) == 61
    row = rows["RSNA Pneumonia/two"]
    assert row["image"].size == (64, 64)
    assert [value for value in row["labels"] if value == value] == [1.0]
    assert row["labels"][PNEUMONIA] == 1.0 and row["findings"] == [PNEUMONIA]
    assert [tuple(box.values()) for box in row["boxes"]] == [
        (PNEUMONIA, 0, 0, 32, 64), (PNEUMONIA, 32, 16, 16, 16),
    ]  # fmt: skip
    healthy = rows["RSNA Pneumonia/image-1"]
    assert healthy["labels"][PNEUMONIA] == 0.0 and healthy["boxes"] == []
    assert np.array_equal(np.asarray(row["image"]), np.asarray(gray(5)))


def test_without_a_mapping_the_split_is_by_image_and_the_report_says_so(rsna: RsnaFolder) -> None:
    builder = RsnaPneumonia(data_dir=rsna.finish(), build_dir=rsna.root.parent.parent / "cache")
    builder.download_and_prepare()
    assert read_report(builder.cache_dir)["problem_counts"] == {SOURCE.name: {"patients_unknown": 1}}
    (problem,) = read_report(builder.cache_dir)["problems"]
    assert "patients may straddle" in problem["detail"]
    assert "give nih_mapping" in "; ".join(note_lines(Path(builder.cache_dir)))
    splits = builder.as_dataset()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 48, "validation": 6, "test": 6}
    assert {sum(row[PNEUMONIA] for row in splits[name]["labels"]) for name in ("validation", "test")} == {2}


def test_with_a_mapping_no_patient_straddles(rsna: RsnaFolder) -> None:
    rsna.add("stranger", BOX, pixels=drawn(6))
    listing = listed(rsna.finish(), nih_mapping=rsna.mapping_file())
    assert said(listing) == ALONE | {"no_patient": 1}
    parts = {split: {record.patient_id for record in records} for split, records in listing.splits.items()}
    assert set(parts) == {"train", "validation", "test"}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values())) == 31
    assert "ChestX-ray14/100" in set.union(*parts.values())  # the name that ChestX-ray14's source gives
    positives = {
        split: sum(record.labels[PNEUMONIA] for record in records)
        for split, records in listing.splits.items()
    }
    assert positives["validation"] >= 2 and positives["test"] >= 2


def nih_beside(chest: ChestFolder) -> None:
    """Most of RSNA's patients in ChestX-ray14's lists, six of them on the test list."""
    for patient in range(100, 125):
        chest.add("test" if patient < 106 else "train_val", f"{patient:08d}_007.png", "Mass", patient)
    chest.finish()


def test_chestxray14s_split_of_a_patient_holds(rsna: RsnaFolder, chest: ChestFolder) -> None:
    nih_beside(chest)
    root = rsna.finish()
    options = {"build_dir": root.parent.parent / "cache", "nih_mapping": rsna.mapping_file()}
    builder = Cocktail(data_dir=root.parent, **options)
    nih, own = builder.list_records(None)
    held = {record.patient_id: split for split, records in nih.splits.items() for record in records}
    found = [(record.patient_id, split) for split, records in own.splits.items() for record in records]
    assert {split for patient, split in found if patient in held} == {"train", "validation", "test"}
    assert all(held.get(patient, split) == split for patient, split in found)
    assert said(nih) == said(own) == {}  # so nothing is dropped of either
    alone = split_of(listed(root, nih_mapping=options["nih_mapping"]))
    assert alone == split_of(own)
    (root.parent / chest.root.name).rename(root / chest.root.name)  # the small files within RSNA's folder
    for picture in (root / chest.root.name / "images").iterdir():
        picture.unlink()
    assert split_of(listed(root, nih_mapping=options["nih_mapping"])) == alone


def test_a_list_beside_that_changes_is_another_build(rsna: RsnaFolder, chest: ChestFolder) -> None:
    def place() -> str:
        return RsnaPneumonia(data_dir=root, build_dir=root.parent.parent / "cache").cache_dir

    root = rsna.finish()
    before = place()
    nih_beside(chest)
    with_lists = place()
    assert with_lists != before
    with (chest.root / "test_list.txt").open("a") as file:
        file.write("00000003_000.png\n")
    assert place() not in (before, with_lists)


def test_held_out_pictures_stay_out_of_the_other_sets_training(rsna: RsnaFolder, chest: ChestFolder) -> None:
    """By identifier first; where the user has no mapping, by pixels."""
    chest.finish()
    seeds = {
        name: seed for name, seed in chest.seeds.items() if not name.startswith(("00000039", "00000040"))
    }
    for number, (name, seed) in enumerate(seeds.items()):
        rsna.add(f"film-{number}", BOX if number % 2 else NONE, nih=name, pixels=drawn(seed))
    rsna.add("film-test", NONE, nih="00000039_000.png", pixels=drawn(chest.seeds["00000039_000.png"]))
    root = rsna.finish().parent
    by_pixels = Cocktail(data_dir=root, build_dir=root.parent / "cache")
    by_pixels.download_and_prepare()
    dropped = read_leakage_report(by_pixels.cache_dir)["dropped"]
    built = by_pixels.as_dataset()
    of_split = {
        split: {name.replace("RSNA Pneumonia/", "") for name in rows["image_id"]}
        for split, rows in built.items()
    }
    held = of_split["validation"] | of_split["test"]
    twins = {name: f"film-{number}" for number, name in enumerate(seeds)} | {"00000039_000.png": "film-test"}
    for nih, film in twins.items():
        assert not (f"ChestX-ray14/{nih}" in held and film in of_split["train"]), film
        assert not (film in held and f"ChestX-ray14/{nih}" in of_split["train"]), nih
    assert {guard for leak in dropped for guard in leak["guards"]} == {"pixels"}
    assert {leak["held_out_source"] for leak in dropped} == {"ChestX-ray14", SOURCE.name}
    # With the mapping, ChestX-ray14's split holds and there is nothing to drop.
    named = Cocktail(data_dir=root, build_dir=root.parent / "cache", nih_mapping=rsna.mapping_file())
    named.download_and_prepare()
    report = read_leakage_report(named.cache_dir)
    assert report["dropped"] == []
    assert report["compared_images"] == len(named.as_dataset()["train"])


def test_the_seeds_lists_leak_and_the_report_counts_the_patients(
    rsna: RsnaFolder, chest: ChestFolder
) -> None:
    rsna.add("later", pixels=drawn(77))
    for name, images, word in (
        ("train_list.txt", range(0, 31), None), ("val_list.txt", range(31, 40), None),
        ("test_list.txt", ["later"], "1"),
    ):  # fmt: skip
        lines = [
            f"stage_2_test_images/{image}.dcm 1 "
            if word
            else f"stage_2_train_images/image-{image}.dcm {int(image % 3 == 0)} "
            for image in images
        ]
        (rsna.root / name).write_text("\n".join(lines) + "\n")
    listing = listed(rsna.finish(), split_scheme="mrm", nih_mapping=rsna.mapping_file())
    splits = split_of(listing)
    assert Counter(splits.values()) == {"train": 31, "validation": 9, "test": 1}
    assert splits["later"] == "test"
    (later,) = listing.splits["test"]
    assert later.labels[PNEUMONIA] == 1.0 and later.boxes == ()
    straddling = [problem.name for problem in listing.problems if problem.kind == "straddling_patient"]
    assert straddling == ["115"]  # images 30 and 31
    assert said(listing) == {"straddling_patient": 1, "no_patient": 1, "not_listed": 20}
    (rsna.root / "val_list.txt").unlink()
    with pytest.raises(DataLayoutError, match=r"val_list\.txt is missing.*split_scheme mrm"):
        listed(rsna.root, split_scheme="mrm")


@pytest.mark.parametrize(
    ("rows", "found", "label", "boxes", "kinds"),
    [
        ([BOX, BOX], OPACITY, 1.0, 1, {"duplicate_row": 1}),
        ([BOX, NONE], OPACITY, None, 0, {"conflicting_findings": 1}),
        (["256,512,128,64,0"], NORMAL, None, 0, {"conflicting_findings": 1}),
        ([BOX], OTHER, None, 0, {"conflicting_findings": 1}),
        ([NONE], "Lung opacity?", 0.0, 0, {"bad_metadata": 1}),
        (["1000,512,128,64,1"], OPACITY, 1.0, 0, {"bad_box": 1}),
        (["a,b,c,d,1", BOX], OPACITY, 1.0, 1, {"bad_box": 1}),
        ([",,,,1"], OPACITY, 1.0, 0, {"bad_box": 1}),
        ([",,,,2"], NORMAL, None, 0, {"unknown_finding": 1}),
        ([",,,,"], NORMAL, None, 0, {}),
    ],
)
def test_rows_that_contradict_or_make_no_sense(
    rsna: RsnaFolder, rows: list[str], found: str, label: float | None, boxes: int, kinds: dict[str, int]
) -> None:
    rsna.add("odd", *rows, pixels=drawn(7), found=found, nih="00000999_000.png")
    listing = listed(rsna.finish(), nih_mapping=rsna.mapping_file())
    (record,) = [r for records in listing.splits.values() for r in records if r.path.endswith("odd.dcm")]
    value = record.labels[PNEUMONIA]
    assert (None if value != value else value) == label
    assert len(record.boxes) == boxes
    repeats = {"bad_metadata": len(rows)} if "bad_metadata" in kinds else {}
    assert said(listing) == ALONE | kinds | repeats | ({"conflicting_findings": 1} if found == OTHER else {})


def test_files_rows_and_names_that_do_not_match(rsna: RsnaFolder) -> None:
    root = rsna.finish()
    images = root / "stage_2_train_images"
    gray(3).save(images / "image-0.png")  # beside its DICOM
    (images / "image-1.dcm").unlink()
    gray(4).save(images / "IMAGE-1.PNG")
    (images / "image-2.dcm").unlink()
    gray(5).save(root / "stage_2_test_images" / "unlabeled.png")
    with (root / "stage_2_train_labels.csv").open("a") as file:
        file.write(",1,1,1,1,1\n")
    listing = listed(root, nih_mapping=rsna.mapping_file())
    assert said(listing) == ALONE | {"same_name": 1, "absent": 1, "not_listed": 1, "bad_line": 1}
    paths = [record.path for records in listing.splits.values() for record in records]
    assert "stage_2_train_images/IMAGE-1.PNG" in paths
    assert "stage_2_train_images/image-0.dcm" in paths


def test_a_folder_that_is_not_the_challenges(rsna: RsnaFolder) -> None:
    root = rsna.finish()
    (root / "stage_2_train_labels.csv").rename(root / "labels.csv")
    with pytest.raises(DataLayoutError, match=r"stage_2_train_labels\.csv is missing.*labels\.csv"):
        listed(root)
    (root / "labels.csv").rename(root / "stage_2_train_labels.csv")
    for picture in (root / "stage_2_train_images").iterdir():
        picture.unlink()
    with pytest.raises(DataLayoutError, match="no image found among 2 files"):
        listed(root)


@pytest.fixture
def real(mini_cocktail: Path, tmp_path: Path) -> RsnaFolder:
    return write_real_rsna(mini_cocktail, tmp_path / "raw")


@pytest.mark.realdata
def test_real_pictures_beside_chestxray14(real: RsnaFolder) -> None:
    root = real.root.parent
    builder = Cocktail(
        data_dir=root, build_dir=root.parent / "cache", stored_size=64, nih_mapping=real.mapping_file()
    )
    builder.download_and_prepare()
    report = read_report(builder.cache_dir)
    assert sum(report["images"][SOURCE.name].values()) == 350
    assert set(report["images"][SOURCE.name]) == {"train", "validation", "test"}
    assert report["problem_counts"] == {}
    assert read_leakage_report(builder.cache_dir)["dropped"] == []
    splits = builder.as_dataset()
    of = [(row["patient_id"], split, row) for split, rows in splits.items() for row in rows]
    placed = {(patient, split) for patient, split, _ in of}
    assert len({patient for patient, _ in placed}) == len(placed)
    own = [row for _, _, row in of if row["source"] == SOURCE.name]
    assert sum(row["labels"][PNEUMONIA] for row in own) == 59
    assert all(bool(row["boxes"]) == (row["labels"][PNEUMONIA] == 1) for row in own)
    assert all(
        0 <= box["x"] and box["x"] + box["width"] <= row["image"].width + 1e-3
        for row in own for box in row["boxes"]
    )  # fmt: skip


@pytest.mark.realdata
def test_real_pictures_are_known_by_their_pixels_without_the_mapping(real: RsnaFolder) -> None:
    root = real.root.parent
    builder = Cocktail(data_dir=root, build_dir=root.parent / "cache", stored_size=64)
    builder.download_and_prepare()
    splits = builder.as_dataset()
    nih_of = {f"{SOURCE.name}/{name}": f"ChestX-ray14/{nih}" for name, nih in real.mapping.items()}
    trained = set(splits["train"]["image_id"])
    held = set(splits["validation"]["image_id"]) | set(splits["test"]["image_id"])
    crossing = [
        name for name, nih in nih_of.items()
        if (name in trained and nih in held) or (name in held and nih in trained)
    ]  # fmt: skip
    assert crossing == []
    dropped = read_leakage_report(builder.cache_dir)["dropped"]
    assert len(dropped) > 40
    assert (
        json.loads((Path(builder.cache_dir) / "build_report.json").read_text())["problem_counts"][
            SOURCE.name
        ]["patients_unknown"]
        == 1
    )


@pytest.fixture
def tables(mini_cocktail: Path, tmp_path: Path) -> tuple[Path, str]:
    """The challenge's whole tables with one picture, ChestX-ray14's small files within; and the mapping."""
    shared, root = mini_cocktail.parent, tmp_path / "raw" / FOLDER
    if not (shared / "rsna").is_dir() or not (shared / "tables").is_dir():
        pytest.skip("no tables: ../shared/rsna or ../shared/tables is absent")
    (root / "ChestXray-NIHCC").mkdir(parents=True)
    for place, folder in (("rsna", root), ("tables", root / "ChestXray-NIHCC")):
        for packed in (shared / place).glob("*.csv.gz"):
            (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        for names in (shared / place).glob("*.txt"):
            (folder / names.name).write_bytes(names.read_bytes())
    nih = root / "ChestXray-NIHCC"
    (nih / "nih_test_list_official.txt").rename(nih / "test_list.txt")
    test = set((nih / "test_list.txt").read_text().split())
    rows = (nih / "Data_Entry_2017_v2020.csv").read_text().splitlines()[1:]
    rest = [row.split(",", 1)[0] for row in rows if row.split(",", 1)[0] not in test]
    (nih / "train_val_list.txt").write_text("\n".join(rest) + "\n")
    gray(1).save(root / "0004cfab-14fd-4e49-80ba-63a80b6bddd6.png")
    return root, str((root / "rsna_to_nih.csv").rename(tmp_path / "mapping.csv"))


@pytest.mark.realdata
def test_the_whole_challenge_follows_chestxray14s_split(tables: tuple[Path, str]) -> None:
    listing = SOURCE.list_images(scan_folder(tables[0]), SourceConfig(nih_mapping=tables[1]))
    assert said(listing) == {"absent": 26_683}
    placed = Counter(problem.split for problem in listing.problems)
    assert [placed[split] for split in ("train", "validation", "test")] == [17_562, 1_929, 7_192]
    assert {split: len(records) for split, records in listing.splits.items()} == {"test": 1}


@pytest.mark.realdata
def test_few_labels_of_the_whole_challenge(tables: tuple[Path, str]) -> None:
    """The counts of docs/data.md; each seed's hundredth lies in its tenth and is another one."""
    listing = SOURCE.list_images(scan_folder(tables[0]), SourceConfig(nih_mapping=tables[1]))
    with (tables[0] / "stage_2_train_labels.csv").open() as file:
        target = {row["patientId"]: float(row["Target"]) for row in csv.DictReader(file)}
    with Path(tables[1]).open() as file:
        patient_of = {row["patientId"]: row["nih_image"].split("_")[0] for row in csv.DictReader(file)}
    names = [p.name for p in listing.problems if p.kind == "absent" and p.split == "train"]
    rows = Dataset.from_dict(
        {
            "image_id": names,
            "patient_id": [patient_of.get(name, name) for name in names],
            "labels": [[target[name]] for name in names],
        }
    )
    counts: dict[float, list[tuple[int, int, int]]] = {0.01: [], 0.1: []}
    hundredths = []
    for seed in range(5):
        parts = {fraction: take_label_fraction(rows, fraction, seed) for fraction in counts}
        ids = {fraction: set(part["image_id"]) for fraction, part in parts.items()}
        assert ids[0.01] < ids[0.1]
        hundredths.append(ids[0.01])
        for fraction, part in parts.items():
            positives = sum(label[0] for label in part["labels"])
            counts[fraction].append((len(part), len(set(part["patient_id"])), int(positives)))
    assert all(len(a & b) < 0.1 * len(a) for a, b in itertools.combinations(hundredths, 2))
    columns = {fraction: list(zip(*found, strict=True)) for fraction, found in counts.items()}
    ranges = {fraction: [(min(each), max(each)) for each in found] for fraction, found in columns.items()}
    assert ranges == {0.01: [(160, 177), (89, 90), (23, 32)], 0.1: [(1705, 1775), (903, 906), (298, 313)]}


@pytest.mark.realdata
def test_how_many_patients_the_seeds_lists_share(tables: tuple[Path, str]) -> None:
    """What docs/data.md and the model card say of `split_scheme: mrm`."""
    listing = SOURCE.list_images(scan_folder(tables[0]), SourceConfig("mrm", nih_mapping=tables[1]))
    assert said(listing) == {"straddling_patient": 886, "no_patient": 3000, "absent": 29_683}
    straddling = {problem.name for problem in listing.problems if problem.kind == "straddling_patient"}
    with Path(tables[1]).open() as file:
        patient_of = {row["patientId"]: row["nih_image"][:8].lstrip("0") for row in csv.DictReader(file)}
    held_out = [p.name for p in listing.problems if p.kind == "absent" and p.split == "validation"]
    assert len(held_out) == 1500
    assert sum(patient_of[name] in straddling for name in held_out) == 1055
