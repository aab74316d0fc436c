"""The phantom cohort: the layouts of its sources, what it draws, and what it refuses to overwrite."""

import json
import logging
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataset_scripts.phantom import __main__
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.cohort import CohortSummary, write_phantom_cohort
from dataset_scripts.phantom.films import plan_films
from dataset_scripts.phantom.findings import SIGNS, draw_radiograph
from dataset_scripts.phantom.head import draw_head, write_nifti

CHEST = "ChestXray-NIHCC"
RADIOGRAPHY = "COVID-19_Radiography_Dataset"
COVIDX = "COVIDx_CXR"
BRATS = "MICCAI_BraTS2020_TrainingData"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, CohortSummary]:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    return root, write_phantom_cohort(root, patients=32, image_size=64)


def read_entries(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / CHEST / "Data_Entry_2017_v2020.csv", index_col=False)


def pixels(root: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in {".png", ".jpg", ".jpeg"}:
            with Image.open(path) as image:
                found[path.relative_to(root).as_posix()] = image.tobytes()
    return found


def test_chestxray14_has_the_original_headers_and_one_file_a_row(cohort):
    root, summary = cohort
    entries = (root / CHEST / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    assert entries[0] == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    assert (root / CHEST / "BBox_List_2017.csv").read_text().splitlines()[0] == (
        "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    )
    table = read_entries(root)
    files = {path.name for path in (root / CHEST / "images").iterdir()}
    assert set(table["Image Index"]) == files
    assert len(table) == len(files) == summary["images"][CHEST]
    known = {*SIGNS, "No Finding"}
    labels = Counter(label for cell in table["Finding Labels"] for label in cell.split("|"))
    assert set(labels) <= known
    assert {name: labels[name] for name in known} == summary["findings"]
    assert {412, 148} <= set(table["Patient Age"])
    assert set(table["View Position"]) == {"AP", "PA"}
    for index, patient, follow_up in zip(
        table["Image Index"], table["Patient ID"], table["Follow-up #"], strict=True
    ):
        assert index == f"{patient:08d}_{follow_up:03d}.png"


def test_chestxray14_images_have_the_size_asked_for_and_several_modes(cohort):
    root, _ = cohort
    modes = set()
    for path in (root / CHEST / "images").iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.size == (64, 64)
            modes.add(image.mode)
    assert modes == {"L", "RGB", "RGBA"}


def test_the_lists_part_the_patients(cohort):
    root, _ = cohort
    train, test = (
        (root / CHEST / name).read_text().splitlines() for name in ("train_val_list.txt", "test_list.txt")
    )
    assert sorted(train + test) == sorted(read_entries(root)["Image Index"])
    train_patients, test_patients = ({name[:8] for name in names} for names in (train, test))
    assert not train_patients & test_patients
    assert len(test_patients) == 8


def test_boxes_lie_in_the_image_and_belong_to_its_labels(cohort):
    root, _ = cohort
    labels = read_entries(root).set_index("Image Index")["Finding Labels"]
    boxes = pd.read_csv(root / CHEST / "BBox_List_2017.csv")
    assert len(boxes) > 10
    for row in boxes.itertuples(index=False):
        index, finding, x, y, width, height = row[:6]
        assert {"Infiltrate": "Infiltration"}.get(finding, finding) in labels[index].split("|")
        assert 0 <= x < x + width <= 1024
        assert 0 <= y < y + height <= 1024


def test_default_plan_has_the_prevalences_it_promises():
    films = plan_films(600, seed=0)
    assert 1100 <= len(films) <= 1350
    counted = Counter(finding for film in films for finding in film.findings)
    for finding in SIGNS:
        assert 0.08 <= counted[finding] / len(films) <= 0.15, finding
    assert 0.3 <= sum(not film.findings for film in films) / len(films) <= 0.4
    assert max(Counter(film.patient for film in films).values()) >= 6
    in_test = Counter(finding for film in films if film.is_test for finding in film.findings)
    assert min(in_test[finding] for finding in SIGNS) >= 15


def test_radiography_has_metadata_and_masks_beside_its_images(cohort):
    root, summary = cohort
    counted = 0
    for name in ("COVID", "Normal", "Viral Pneumonia", "Lung_Opacity"):
        table = pd.read_excel(root / RADIOGRAPHY / f"{name}.metadata.xlsx")
        assert list(table.columns) == ["FILE NAME", "FORMAT", "SIZE", "URL"]
        assert set(table["SIZE"]) == {"299*299"}
        images = {path.stem for path in (root / RADIOGRAPHY / name / "images").iterdir()}
        assert set(table["FILE NAME"]) == images
        assert images == {path.stem for path in (root / RADIOGRAPHY / name / "masks").iterdir()}
        for stem in images:
            with (
                Image.open(root / RADIOGRAPHY / name / "images" / f"{stem}.png") as image,
                Image.open(root / RADIOGRAPHY / name / "masks" / f"{stem}.png") as mask,
            ):
                assert image.size == (299, 299)
                assert set(np.unique(np.asarray(mask))) == {0, 255}
        counted += len(images)
    assert counted == summary["images"][RADIOGRAPHY]


def test_planted_leakage_is_true_and_complete(cohort):
    """Only the images that are named look like the ChestX-ray14 image that they name."""
    root, summary = cohort
    leaks = summary["planted_leakage"]
    assert {leak["split"] for leak in leaks} == {"test", "train_val"}
    assert {leak["path"].split("/")[0] for leak in leaks} == {RADIOGRAPHY, COVIDX}

    def small(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            values = np.asarray(
                image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=float
            ).ravel()
        return (values - values.mean()) / values.std() / len(values) ** 0.5

    chests = {path.name: small(path) for path in (root / CHEST / "images").iterdir()}
    named = {leak["path"]: leak["image_index"] for leak in leaks}
    others = [*(root / RADIOGRAPHY).glob("*/images/*"), *(root / COVIDX).glob("t*/*")]
    for path in others:
        seen = small(path)
        likeness = {index: float(seen @ chest) for index, chest in chests.items()}
        nearest = max(likeness, key=lambda index: likeness[index])
        relative = path.relative_to(root).as_posix()
        if relative in named:
            assert nearest == named[relative]
            assert likeness[nearest] > 0.99
        else:
            assert likeness[nearest] < 0.985, relative
    urls = pd.read_excel(root / RADIOGRAPHY / "Lung_Opacity.metadata.xlsx")["URL"]
    told = {url.split()[1] for url in urls if url.startswith("NIH ")}
    assert told == {leak["image_index"] for leak in leaks if leak["path"].startswith(RADIOGRAPHY)}


def test_covidx_lines_name_the_files(cohort):
    root, _ = cohort
    suffixes = set()
    for split in ("train", "test"):
        names = []
        for line in (root / COVIDX / f"{split}.txt").read_text().splitlines():
            match = re.fullmatch(r"(\S+) (.+) (positive|negative) (cohen|sirm|actmed|rsna)", line)
            assert match, line
            names.append(match[2])
        assert sorted(names) == sorted(path.name for path in (root / COVIDX / split).iterdir())
        assert any(" " in name for name in names)
        suffixes |= {Path(name).suffix for name in names}
    assert suffixes == {".png", ".jpg", ".jpeg"}


def test_brats_volumes_are_like_the_originals(cohort):
    root, summary = cohort
    subjects = sorted(path.name for path in (root / BRATS).iterdir() if path.is_dir())
    assert subjects == ["BraTS20_Training_001", "BraTS20_Training_002"]
    assert summary["images"][BRATS] == 8
    mapping = pd.read_csv(root / BRATS / "name_mapping.csv", keep_default_na=False)
    assert list(mapping["BraTS_2020_subject_ID"]) == subjects
    folder = root / BRATS / subjects[0]
    volumes = {}
    for kind in ("flair", "t1", "t1ce", "t2", "seg"):
        image = nibabel.load(folder / f"{subjects[0]}_{kind}.nii.gz")
        assert image.shape == (240, 240, 155)
        assert image.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
        assert image.get_data_dtype() == (np.uint8 if kind == "seg" else np.int16)
        volumes[kind] = np.asarray(image.dataobj)
    assert set(np.unique(volumes["seg"])) == {0, 1, 2, 4}
    brain = volumes["t1"] > 0
    edema, rim = volumes["seg"] == 2, volumes["seg"] == 4
    assert 0.1 < brain.mean() < 0.25
    assert volumes["flair"][edema].mean() > 1.5 * volumes["flair"][brain].mean()
    assert volumes["t1"][edema].mean() < 0.8 * volumes["t1"][brain].mean()
    assert volumes["t1ce"][rim].mean() > 1.5 * volumes["t1"][rim].mean()


def test_settings_decide_the_pixels(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_phantom_cohort(tmp_path / name, patients=8, image_size=48, seed=seed)
    one, same, other = (pixels(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    shared = one.keys() & other.keys()
    assert len(shared) > 20
    assert not any(one[path] == other[path] for path in shared if "/masks/" not in path)
    for name in ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "test_list.txt"):
        assert (tmp_path / "one" / CHEST / name).read_bytes() == (
            tmp_path / "same" / CHEST / name
        ).read_bytes()


def test_head_bytes_are_the_same_for_a_seed(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        kind, volume = next(draw_head(np.random.default_rng(seed)))
        assert kind == "seg"
        write_nifti(tmp_path / name, volume)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_a_complete_cohort_is_reused_and_said_so(cohort, caplog):
    root, summary = cohort
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with caplog.at_level(logging.INFO, logger="dataset_scripts.phantom.cohort"):
        assert write_phantom_cohort(root, patients=32, image_size=64) == summary
    assert "Reusing the phantom cohort" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_unfinished_cohort_is_started_afresh(root, tmp_path):
    command = [sys.executable, "-m", "dataset_scripts.phantom", str(tmp_path), "--patients", "200"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob(f"{CHEST}/images/*.png"))) < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "phantom.json").exists()
    summary = write_phantom_cohort(tmp_path, patients=8, image_size=32)
    assert len(list((tmp_path / CHEST / "images").iterdir())) == summary["images"][CHEST]
    assert json.loads((tmp_path / "phantom.json").read_text()) == summary
    assert [path.name for path in tmp_path.glob("*.json")] == ["phantom.json"]


def test_foreign_other_and_damaged_folders_are_refused(cohort, tmp_path):
    root, _ = cohort
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no phantom cohort"):
        write_phantom_cohort(tmp_path, patients=8, image_size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileExistsError, match="is a file"):
        write_phantom_cohort(tmp_path / "thesis.txt")
    with pytest.raises(FileExistsError, match=r"'seed': 0.*'seed': 5"):
        write_phantom_cohort(root, patients=32, image_size=64, seed=5)
    with pytest.raises(ValueError, match="patients=1"):
        write_phantom_cohort(tmp_path / "new", patients=1)
    lost = root / CHEST / "images" / "00000001_000.png"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(FileExistsError, match="damaged"):
        write_phantom_cohort(root, patients=32, image_size=64)
    lost.write_bytes(kept)


def draw(findings: list[str], seed: int, size: int = 128):
    rng = np.random.default_rng(seed)
    return draw_radiograph(draw_body(rng, is_female=seed % 2 == 0), findings, size, rng)


def in_box(drawn, finding: str) -> np.ndarray:
    x, y, width, height = (round(value * 128) for value in drawn.boxes[finding][0])
    return drawn.pixels[y : y + height, x : x + width].astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_signs_look_like_what_they_stand_for(seed):
    healthy = draw([], seed)
    lung = healthy.pixels[healthy.is_lung].mean()
    assert healthy.boxes == {}
    assert 0.15 < healthy.is_lung.mean() < 0.45
    assert np.median(in_box(draw(["Mass"], seed), "Mass")) > lung + 70
    assert np.median(in_box(draw(["Nodule"], seed), "Nodule")) > lung + 70
    assert np.quantile(in_box(draw(["Atelectasis"], seed), "Atelectasis"), 0.8) > lung + 45
    assert in_box(draw(["Pneumothorax"], seed), "Pneumothorax").min() < lung - 40
    assert in_box(draw(["Effusion"], seed), "Effusion")[-20:].mean() > lung + 50
    assert in_box(draw(["Hernia"], seed), "Hernia").std() > 50
    emphysema = draw(["Emphysema"], seed)
    assert emphysema.is_lung.sum() > 1.15 * healthy.is_lung.sum()
    assert emphysema.pixels[emphysema.is_lung].mean() < lung - 10
    columns = np.flatnonzero(healthy.is_lung.any(axis=0))
    chest_width = (columns[-1] - columns[0]) / 128
    assert draw(["Cardiomegaly"], seed).boxes["Cardiomegaly"][0][2] > 0.5 * chest_width
    assert len(draw(["Edema"], seed).boxes["Edema"]) == 2


@pytest.mark.parametrize("finding", sorted(SIGNS))
def test_every_sign_has_a_box_with_pixels_at_any_size(finding):
    for size in (32, 100):
        drawn = draw([finding], 1, size)
        assert drawn.pixels.shape == drawn.is_lung.shape == (size, size)
        assert drawn.pixels.dtype == np.uint8
        for x, y, width, height in drawn.boxes[finding]:
            assert 0 <= x < x + width <= 1
            assert 0 <= y < y + height <= 1


def test_an_unknown_finding_is_refused():
    with pytest.raises(ValueError, match="Gout"):
        draw(["Gout"], 0)


def test_command_line_refuses_a_foreign_folder_in_one_line(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        __main__.main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "it is no phantom cohort" in capsys.readouterr().err


def test_command_line_writes_and_sums_up(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        __main__.main([str(tmp_path / "cohort"), "--patients", "8", "--image_size", "32", "--seed", "4"])
    assert "findings (ChestX-ray14): Atelectasis" in caplog.text
    assert json.loads((tmp_path / "cohort" / "phantom.json").read_text())["settings"]["seed"] == 4
