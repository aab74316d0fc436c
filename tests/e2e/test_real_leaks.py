"""The guards on the real lists and on copies that are known: what they must find, and what they find."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dataset_scripts import ChestXray14
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.nih_mapping import read_nih_mapping
from dataset_scripts.build.records import FolderScan, ImageRecord, SourceListing
from dataset_scripts.chestxray14 import SOURCE as NIH
from dataset_scripts.covid_radiography import SOURCE as RADIOGRAPHY
from dataset_scripts.findings import no_labels
from dataset_scripts.leakage.__main__ import main
from dataset_scripts.leakage.identifiers import find_named, name_from_mapping
from dataset_scripts.leakage.label_conflicts import describe_conflict
from dataset_scripts.leakage.pairs import Located

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (SHARED / "leaks").is_dir(), reason="no real lists: ../shared/leaks is absent"),
]


def read_gzip(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def patient(name: str) -> str:
    return name.split("_")[0]


@pytest.fixture(scope="module")
def names() -> list[str]:
    table = csv.DictReader(read_gzip(SHARED / "tables" / "Data_Entry_2017_v2020.csv.gz").splitlines())
    return [row["Image Index"] for row in table]


@pytest.fixture(scope="module")
def official_test() -> set[str]:
    return set((SHARED / "tables" / "nih_test_list_official.txt").read_text().split())


def list_chestxray14(folder: Path, names: list[str], test: set[str], there: set[str]) -> list[Located]:
    """The records of ChestX-ray14 by its real label table and lists; of its files those that are `there`."""
    tables = {
        "Data_Entry_2017_v2020.csv": read_gzip(SHARED / "tables" / "Data_Entry_2017_v2020.csv.gz"),
        "test_list.txt": "\n".join(sorted(test)),
        "train_val_list.txt": "\n".join(name for name in names if name not in test),
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    files = {name: (1, 1) for name in [*tables, *(f"images/{name}" for name in names if name in there)]}
    listing = NIH.list_images(FolderScan(folder, files), SourceConfig(name="official"))
    return [Located(record, folder, split) for split, records in listing.splits.items() for record in records]


def rsna_as_radiography(tmp_path: Path) -> tuple[list[Located], dict[str, str]]:
    """RSNA's images as they stand in the Radiography database, named by the real mapping; and the mapping."""
    mapping = tmp_path / "mapping.csv"
    mapping.write_text(read_gzip(SHARED / "rsna" / "rsna_to_nih.csv.gz"))
    named = read_nih_mapping(mapping)
    listing = SourceListing(RADIOGRAPHY, tmp_path)
    listing.splits["train"] = [
        ImageRecord(identifier, RADIOGRAPHY.name, identifier, f"Lung_Opacity/{identifier}.png", no_labels())
        for identifier in named
    ]
    name_from_mapping([listing], mapping)
    return [Located(record, tmp_path, "train") for record in listing.splits["train"]], named


def test_the_identifier_guards_the_official_test_list(
    names: list[str], official_test: set[str], tmp_path: Path
) -> None:
    assert (len(names), len(official_test)) == (112_120, 25_596)
    listed = list_chestxray14(tmp_path, names, official_test, set(names))
    held_out = [item for item in listed if item.split != "train"]
    assert {item.record.nih_image for item in held_out if item.split == "test"} == official_test
    held_out_patients = {patient(item.record.nih_image) for item in held_out}
    assert not held_out_patients & {patient(i.record.nih_image) for i in listed if i.split == "train"}
    images, named = rsna_as_radiography(tmp_path)
    shown = find_named(images, held_out)
    wanted = {item.record.nih_image for item in held_out} & set(named.values())
    assert {pair.partner.record.nih_image for pair in shown.values()} == wanted
    assert {pair.guards for pair in shown.values()} == {("identifier",)}
    of_test = [pair for pair in shown.values() if pair.partner.split == "test"]
    assert len(of_test) == len([name for name in named.values() if name in official_test]) > 7_000


def test_the_patient_guards_where_the_image_itself_is_not_there(
    names: list[str], official_test: set[str], tmp_path: Path
) -> None:
    there = {name for name in names if name not in official_test or name.endswith("0.png")}
    listed = list_chestxray14(tmp_path, names, official_test, there)
    test = [item for item in listed if item.split == "test"]
    images, named = rsna_as_radiography(tmp_path)
    shown = find_named(images, test)
    by_guard = {
        guard: {identifier for identifier, pair in shown.items() if pair.guards == (guard,)}
        for guard in ("identifier", "patient")
    }
    patients = {patient(item.record.nih_image) for item in test}
    in_test = {identifier for identifier, name in named.items() if name in official_test}
    assert by_guard["identifier"] == {identifier for identifier in in_test if named[identifier] in there}
    assert by_guard["patient"] == {
        identifier
        for identifier in in_test - by_guard["identifier"]
        if patient(named[identifier]) in patients
    }
    assert all(by_guard.values())
    assert ChestXray14.SOURCES == (NIH,)
    own = [replace(item, record=replace(item.record, source=NIH.name)) for item in images]
    assert {pair.guards for pair in find_named(own, test).values()} == {("identifier",)}  # within a source


def test_normal_pictures_that_nih_calls_pneumonia_are_conflicts(
    names: list[str], official_test: set[str], tmp_path: Path
) -> None:
    shown = {a.rsplit("/", 1)[1] for a, b in known_pairs("mini_in_radiography.csv") if a.startswith("ChestX")}
    listed = list_chestxray14(tmp_path, names, official_test, shown)
    normal = ImageRecord("n", RADIOGRAPHY.name, "n", "Normal/n.png", no_labels(), class_name="Normal")
    said = [describe_conflict(item.record, normal) for item in listed]
    assert len(said) == 127
    conflicts = [words for words in said if words is not None]
    assert len(conflicts) == 58
    assert sum("Pneumonia" in words[0] for words in conflicts) == 51
    assert {words[1] for words in conflicts} == {"Normal"}


def known_pairs(file: str) -> set[tuple[str, str]]:
    with (SHARED / "leaks" / file).open(newline="") as opened:
        return {(row["a"], row["b"].rsplit(".", 1)[0]) for row in csv.DictReader(opened)}


@pytest.mark.slow
def test_every_known_copy_in_the_real_radiography_database_is_found(tmp_path: Path) -> None:
    radiography = SHARED / "radiography_128" / "COVID-19_Radiography_Dataset"
    command = [str(SHARED / "mini_cocktail"), str(radiography), "--output_dir", str(tmp_path / "out")]
    assert main(command) == 0
    with (tmp_path / "out" / "pairs.csv").open(newline="") as file:
        found = {
            (row["a"], row["b"].replace("/images/", "/").rsplit(".", 1)[0]) for row in csv.DictReader(file)
        }
    known = known_pairs("mini_in_radiography.csv")
    assert len(known) == 348
    assert known <= found
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert len(verdict["unreadable_a"]) == 9  # the MRI volumes
