"""Drawn folders are known as drawn, file by file: what is added to them later is not."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dataset_scripts import Cocktail, IuXray, write_phantom_cohort, write_phantom_reports
from dataset_scripts.build.build_log import note_lines, read_report
from dataset_scripts.build.builder import SourceBuilder

CHEST, IU = "ChestX-ray14", "IU X-Ray"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort and studies with reports."""
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    write_phantom_cohort(folder, patients=8, image_size=32)
    write_phantom_reports(folder, studies=12, image_size=32)
    return folder


def named(raw: Path) -> set[str]:
    """The sources that a build of this folder would take for drawn."""
    return set(Cocktail(data_dir=raw, build_dir=raw.parent / "built").config.phantoms)


def build(builder: SourceBuilder) -> dict[str, set[bool]]:
    """What the built rows of each source say."""
    builder.download_and_prepare()
    found: dict[str, set[bool]] = {}
    for rows in builder.as_dataset().values():
        for row in rows.select_columns(["source", "is_phantom"]):
            found.setdefault(row["source"], set()).add(row["is_phantom"])
    return found


def test_every_drawn_source_is_known_wherever_it_is_copied(drawn, tmp_path):
    raw = Path(shutil.copytree(drawn, tmp_path / "raw", copy_function=shutil.copyfile))  # other times
    (raw / "phantom.json").unlink()  # the cohort's summary is no mark
    for picture in sorted((raw / "ChestXray-NIHCC" / "images").iterdir())[:2]:
        picture.unlink()  # a part of the drawn is drawn
    assert {CHEST, IU, "COVIDx CXR-3", "BraTS 2020", "COVID-19 Radiography"} == named(raw)
    assert build(IuXray(data_dir=raw / "iu_xray", build_dir=tmp_path / "built")) == {IU: {True}}


def add_picture(folder: Path) -> None:
    Image.effect_noise((80, 90), 60).save(
        folder / "images" / "images_normalized" / "999_IM-2479-1001.dcm.png"
    )


def add_study(folder: Path) -> None:
    """A picture with its report, in the tables that were drawn."""
    add_picture(folder)
    with (folder / "indiana_projections.csv").open("a", newline="") as file:
        csv.writer(file).writerow([999, "999_IM-2479-1001.dcm.png", "Frontal"])
    with (folder / "indiana_reports.csv").open("a", newline="") as file:
        csv.writer(file).writerow(
            [999, "normal", "normal", "PA", "Cough.", "None.", "The lungs are clear.", "Normal."]
        )


def change_report(folder: Path) -> None:
    table = folder / "indiana_reports.csv"
    table.write_text(table.read_text().replace("None.", "Film of 1999.", 1))


def take_a_place(folder: Path) -> None:
    picture = sorted((folder / "images" / "images_normalized").iterdir())[0]
    Image.effect_noise((80, 90), 60).save(picture)


def damage_the_mark(folder: Path) -> None:
    (folder / "phantom_files.json").write_text('{"indiana')


@pytest.mark.parametrize("change", [add_picture, add_study, change_report, take_a_place, damage_the_mark])
def test_a_source_that_holds_anything_else_is_real_and_its_neighbours_stay_drawn(drawn, tmp_path, change):
    raw = Path(shutil.copytree(drawn, tmp_path / "raw"))
    change(raw / "iu_xray")
    assert IU not in named(raw) and CHEST in named(raw)
    builder = IuXray(data_dir=raw / "iu_xray", build_dir=tmp_path / "built")
    assert build(builder) == {IU: {False}}
    assert read_report(builder.cache_dir)["problem_counts"][IU]["not_drawn"] == 1
    assert "so it counts as real" in "; ".join(note_lines(builder.cache_dir))


def test_real_data_beside_drawn_studies_is_real(drawn, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(drawn / "ChestXray-NIHCC", raw / "ChestXray-NIHCC")
    (raw / "ChestXray-NIHCC" / "phantom_files.json").unlink()
    write_phantom_reports(raw, studies=12, image_size=32)
    assert named(raw) == {IU}


def test_a_folder_drawn_by_an_earlier_version_gets_its_marks(drawn, tmp_path):
    raw = Path(shutil.copytree(drawn, tmp_path / "raw"))
    for mark in raw.glob("*/phantom_files.json"):
        mark.unlink()
    assert named(raw) == set()
    write_phantom_cohort(raw, patients=8, image_size=32)
    write_phantom_reports(raw, studies=12, image_size=32)
    assert {CHEST, IU} <= named(raw)
