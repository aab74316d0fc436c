"""What a stage was trained on is known again in another build, under the names that other sets give it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from mini_iu import IuFolder
from mini_mimic import MimicFolder
from mini_rsna import SOURCE as RSNA
from mini_rsna import RsnaFolder
from raw_folders import CHEST, gray

from dataset_scripts.build.phantom_mark import mark_as_drawn
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import count_without_patient, open_cocktail
from medhiera.data.training_images import (
    check_unseen,
    list_images,
    read_training_images,
    unite,
    write_training_images,
)
from medhiera.errors import UserError


def rows_of(raw: Path, split: str, **options: object) -> Dataset:
    """A split of a folder, built for itself."""
    data = open_cocktail(DataArguments(str(raw), build_dir=f"{raw}-built", **options))
    return data.split(split)


def stage(folder: Path, *trained: Dataset) -> Path:
    """A folder with the list of a stage that was trained on some rows."""
    folder.mkdir()
    write_training_images(folder, unite([list_images(rows, "train") for rows in trained]))
    return folder


def text_of(folder: Path) -> str:
    """All that the file says, and its own bytes."""
    file = folder / "training_images.parquet"
    return read_training_images(folder).to_csv() + file.read_bytes().decode("latin-1")


@pytest.fixture
def rsna(tmp_path: Path) -> RsnaFolder:
    """Forty images of forty patients, in a folder of their own."""
    folder = RsnaFolder(tmp_path / "rsna" / RSNA.folder)
    for number in range(40):
        row = "256,512,128,64,1" if number % 3 == 0 else ",,,,0"
        folder.add(f"uuid-{number}", row, pixels=np.asarray(gray(number)), nih=f"{number + 1:08d}_000.png")
    folder.finish()
    return folder


def test_an_rsna_image_that_an_earlier_stage_saw_as_chestxray14s(rsna, chest, tmp_path):
    """The stages' data were built apart, and no pixel is compared: the pictures here are others."""
    nih = rows_of(chest.finish().parent, "train")
    before = stage(tmp_path / "stage1", nih)
    mapped = rows_of(tmp_path / "rsna", "test", nih_mapping=rsna.mapping_file())
    known = set(nih["nih_image"])
    shared = [row for row, name in enumerate(mapped["nih_image"]) if name in known]
    assert 0 < len(shared) <= len(mapped)
    first = mapped[shared[0]]
    told = f"{len(shared)} of the {len(mapped)} test images, such as '{first['image_id']}', which is "
    with pytest.raises(UserError, match=f"{told}ChestX-ray14's {first['nih_image']}.*RSNA with nih_mapping"):
        check_unseen(before, test=mapped)
    others = [row for row in range(len(mapped)) if row not in shared]
    check_unseen(before, test=mapped.select(others))


def test_a_missing_patient_is_written_as_the_count_of_such_images_reads_it(
    rsna, chest, monkeypatch: pytest.MonkeyPatch
):
    def nobody(name: str) -> str:
        return f"nobody, {name}"

    for reader in ("dataset_scripts.chestxray14", "dataset_scripts.rsna_pneumonia", "medhiera.data.cocktail"):
        monkeypatch.setattr(f"{reader}.patient_of_one_image", nobody)
    chest.rows[0] = chest.rows[0].replace("0,1,50", "0,,50")
    for raw, count in ((rsna.root.parent, 40), (chest.finish().parent, 1)):
        splits = open_cocktail(DataArguments(str(raw), build_dir=f"{raw}-built")).rows
        assert count_without_patient(splits) == count


def test_the_other_way_round(rsna, chest, tmp_path):
    before = stage(tmp_path / "stage1", rows_of(tmp_path / "rsna", "train", nih_mapping=rsna.mapping_file()))
    nih = rows_of(chest.finish().parent, "train")
    with pytest.raises(UserError, match="such as 'ChestX-ray14/.*png', which is ChestX-ray14's"):
        check_unseen(before, test=nih)


def test_covidx_names_rsnas_images_itself(rsna, tmp_path):
    """Its lists say which files are RSNA's, so this needs no mapping."""
    root = tmp_path / "covid" / "COVIDx_CXR"
    test = rows_of(tmp_path / "rsna", "test")
    name = test[0]["image_id"].removeprefix(f"{RSNA.name}/")
    lines = [f"1 {name}.png negative rsna", "2 own.png positive cohen", "3 uuid.png negative rsna"]
    (root / "train").mkdir(parents=True)
    (root / "train.txt").write_text("\n".join(lines) + "\n")
    for number, line in enumerate(lines):
        gray(900 + number).save(root / "train" / line.split()[1])
    covid = rows_of(tmp_path / "covid", "train")
    assert sorted(covid["rsna_image"]) == ["", "uuid", name]
    with pytest.raises(UserError, match=rf"1 of the {len(test)} test images, .*which is RSNA's {name}"):
        check_unseen(stage(tmp_path / "stage1", covid), test=test)


def test_a_study_of_iu_x_ray_in_another_layout(tmp_path):
    """R2Gen renumbered the pictures; the study is the same, and its report too."""
    kaggle = IuFolder(tmp_path / "kaggle" / "iu_xray")
    numbers = range(1, 31)
    kaggle.kaggle(
        [(number, "Cough.", f"Clear lungs {number}.", "Normal.") for number in numbers],
        [(number, f"{number}_IM-{number:04d}-1001.dcm.png", "Frontal") for number in numbers],
    )
    kaggle.draw(*(f"images/{number}_IM-{number:04d}-1001.dcm.png" for number in numbers))
    r2gen = IuFolder(tmp_path / "r2gen" / "iu_xray")
    entries = [
        {"id": f"CXR{number}_IM-{number:04d}", "report": f"clear lungs {number} .",
         "image_path": [f"CXR{number}_IM-{number:04d}/0.png"]}
        for number in numbers
    ]  # fmt: skip
    r2gen.annotation(train=entries[:10], test=entries[10:])
    r2gen.draw(*(f"images/{entry['image_path'][0]}" for entry in entries))
    before = rows_of(tmp_path / "kaggle", "train")
    test = rows_of(tmp_path / "r2gen", "test", split_scheme="r2gen")
    assert not set(before["image_id"]) & set(test["image_id"])
    shared = set(before["study_id"]) & set(test["study_id"])
    told = f"{len(shared)} of the 20 test images, such as 'IU X-Ray/CXR.*/0', of the study iu_x_ray/CXR"
    with pytest.raises(UserError, match=told):
        check_unseen(stage(tmp_path / "stage2", before), test=test)


def test_no_name_of_own_or_restricted_images_is_told_and_they_are_known_again(tmp_path):
    mimic = MimicFolder(tmp_path / "raw" / "mimic-cxr-jpg")
    mimic.add("0a1b-frontal", 10000032, 50414267, "PA", "train", gray(400))
    mimic.report(10000032, 50414267)
    mimic.finish()
    own = tmp_path / "raw" / "own_images"
    (own / "images").mkdir(parents=True)
    for number in range(4):
        gray(300 + number).save(own / "images" / f"Müller Anna {number}.png")
    lines = [f"Müller Anna {number}.png,Anna,train,1" for number in range(4)]
    (own / "labels.csv").write_text("\n".join(["image,patient,split,Edema", *lines]) + "\n")
    rows = rows_of(tmp_path / "raw", "train")
    assert set(rows["source"]) == {"MIMIC-CXR", "image folder"}
    folder = stage(tmp_path / "stage1", rows)
    told = text_of(folder)
    for secret in ("ller", "Anna", "0a1b", "frontal", "10000032", "50414267"):
        assert secret not in told
    assert told.count("image folder,blake2b:") == 4 and "MIMIC-CXR,blake2b:" in told
    for source, text in (("image folder", "Müller Anna [0-3].png'"), ("MIMIC-CXR", "0a1b-frontal'")):
        some = rows.filter(lambda name, wanted=source: name == wanted, input_columns="source")
        with pytest.raises(UserError, match=f"of the {len(some)} test images, such as '{source}/{text}"):
            check_unseen(folder, test=some)


def test_phantoms_bear_the_names_of_real_images_and_are_none_of_them(chest, tmp_path):
    raw = chest.finish().parent
    drawn = shutil.copytree(raw, tmp_path / "drawn")
    mark_as_drawn(drawn / CHEST)
    phantoms, real = rows_of(drawn, "train"), rows_of(raw, "train")
    assert phantoms["image_id"] == real["image_id"]
    folder = stage(tmp_path / "stage1", phantoms)
    check_unseen(folder, test=real)
    seen = read_training_images(folder)
    assert all(name.startswith("phantom ") for name in seen["image_id"])
    assert not set(seen["nih_image"].dropna()) & set(real["nih_image"])
    with pytest.raises(UserError, match="was trained on"):
        check_unseen(folder, test=phantoms)
