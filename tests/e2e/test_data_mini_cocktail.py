"""The merge on real images: counts, splits and the leakage whose answer is known."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image

from dataset_scripts import Cocktail
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.layout import LEAKAGE_REPORT_FILE
from dataset_scripts.build.pixel_statistics import read_statistics

REAL = Path(os.environ.get("MEDHIERA_REALDATA", Path(__file__).parents[3] / "shared" / "mini_cocktail"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REAL.is_dir(), reason="no real images: set MEDHIERA_REALDATA to their folder"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Cocktail:
    builder = Cocktail(data_dir=REAL, build_dir=tmp_path_factory.mktemp("cache"), stored_size=224)
    builder.download_and_prepare(num_proc=2)
    return builder


def leakage_report(built: Cocktail) -> dict[str, Any]:
    return json.loads((Path(built.cache_dir) / LEAKAGE_REPORT_FILE).read_text())


def test_every_file_is_built_or_named(built: Cocktail) -> None:
    report = read_report(built.cache_dir)
    dropped = sum(count for kinds in report["problem_counts"].values() for count in kinds.values())
    images = report["images"]
    assert sum(images["ChestX-ray14"].values()) == 1104
    assert images["BraTS 2020"] == {"train": 80}
    assert images["COVIDx CXR-3"]["test"] == 24
    assert sum(sum(splits.values()) for splits in images.values()) + dropped == 1104 + 340 + 136 + 80
    assert {kind for kinds in report["problem_counts"].values() for kind in kinds} == {"leak"}


def test_ids_are_unique_and_patients_do_not_cross(built: Cocktail) -> None:
    splits = built.as_dataset()
    ids = [image_id for rows in splits.values() for image_id in rows["image_id"]]
    assert len(ids) == len(set(ids))
    patients = [set(rows["patient_id"]) for rows in splits.values()]
    assert len(set.union(*patients)) == sum(len(part) for part in patients)


def test_the_known_leaks_and_no_other_radiography_image_are_dropped(built: Cocktail) -> None:
    sheet = pandas.read_excel(REAL / "COVID-19_Radiography_Dataset" / "Lung_Opacity.metadata.xlsx")
    shown = {
        f"COVID-19 Radiography/Lung_Opacity/images/{name}.png": re.search(r"\d{8}_\d{3}\.png", url)[0]
        for name, url in zip(sheet["FILE NAME"], sheet["URL"], strict=True)
    }
    splits = built.as_dataset()
    held_out = {
        image_id.removeprefix("ChestX-ray14/"): split
        for split in ("validation", "test")
        for image_id, source in zip(splits[split]["image_id"], splits[split]["source"], strict=True)
        if source == "ChestX-ray14"
    }
    wanted = {image_id: held_out[name] for image_id, name in shown.items() if name in held_out}
    report = leakage_report(built)
    dropped = report["dropped"]
    radiography = [leak for leak in dropped if leak["image_id"].startswith("COVID-19 Radiography")]
    assert {leak["image_id"]: leak["held_out_split"] for leak in radiography} == wanted
    assert sum(split == "test" for split in wanted.values()) == 13
    assert all(leak["guards"] == ["identifier", "pixels"] for leak in radiography)
    assert all(leak["held_out_image_id"].endswith(shown[leak["image_id"]]) for leak in radiography)
    # One COVIDx "COVID-19 positive" image is an NIH image too: seen by eye, correlation .9995.
    others = [leak["image_id"] for leak in dropped if leak not in radiography]
    assert others == ["COVIDx CXR-3/train/COVID-00048.png"]
    kept = report["training_duplicates"]
    assert {leak["image_id"] for leak in kept} == shown.keys() - wanted.keys()


def test_each_held_out_image_is_compared_with_all_training_images(built: Cocktail) -> None:
    report = leakage_report(built)
    assert report["reference"] == ["ChestX-ray14", "COVIDx CXR-3"]
    assert report["held_out"] == {
        "ChestX-ray14": {"images": 305, "compared": 799 + 340 + 112, "shown": 25},
        "COVIDx CXR-3": {
            "images": 24,
            "compared": 799 + 340 + 112,
            "shown": 0,
        },  # the highest pair is a stranger's
    }
    assert report["compared_images"] == 799 + 340 + 112


def test_copies_of_covidx_test_images_are_dropped_without_chestxray14(tmp_path: Path) -> None:
    shutil.copytree(REAL / "COVIDx_CXR", tmp_path / "raw" / "COVIDx_CXR")
    copies = tmp_path / "raw" / "COVID-19_Radiography_Dataset" / "COVID" / "images"
    copies.mkdir(parents=True)
    for number, path in enumerate(sorted((REAL / "COVIDx_CXR" / "test").iterdir())):
        with Image.open(path) as image:
            image.convert("L").resize((299, 299)).save(copies / f"COVID-{number}.jpg", quality=60)
    builder = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "cache")
    listings = {listing.source.name: listing for listing in builder.list_records(tmp_path, 2)}
    assert listings["COVID-19 Radiography"].splits["train"] == []
    report = json.loads((tmp_path / LEAKAGE_REPORT_FILE).read_text())
    assert report["held_out"] == {"COVIDx CXR-3": {"images": 24, "compared": 24 + 112, "shown": 24}}
    shown = {leak["held_out_image_id"] for leak in report["dropped"]}
    assert len(shown) == 24 and min(leak["correlation"] for leak in report["dropped"]) > 0.75


def test_statistics_are_those_of_the_training_images(built: Cocktail) -> None:
    statistics = read_statistics(built.cache_dir)
    assert statistics["images"] == len(built.as_dataset()["train"])
    assert 0.4 < statistics["mean"] < 0.6
    assert 0.2 < statistics["mean_of_stds"] < statistics["std"] < 0.3
