"""The chest contour: its region, its weights on chests it has not seen, and the command."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from dataset_scripts.build import chest_contour
from dataset_scripts.build.chest_region import RECTANGLE, region_of_mask, region_of_probabilities
from dataset_scripts.phantom.varied_chest import draw_varied_chest

NEW_SEED = 900  # training drew with seed 0


def write_chest(path, index=0, size=(160, 200)):
    picture, _ = draw_varied_chest(np.random.default_rng([NEW_SEED, index]))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).resize(size).save(path)
    return path


def read_mask(path):
    with Image.open(path) as mask:
        return np.asarray(mask)


def test_the_region_of_two_lungs_is_their_convex_hull():
    is_lung = np.zeros((80, 100), dtype=bool)
    is_lung[20:60, 10:30] = is_lung[20:60, 70:90] = True
    region = region_of_mask(is_lung)
    assert not region.is_fallback
    assert region.share == pytest.approx(40 / 80 * 80 / 100)
    drawn = region.draw(80, 100)
    assert set(np.unique(drawn)) == {0, 255}
    wanted = np.zeros_like(is_lung)
    wanted[20:60, 10:90] = True
    assert (drawn[wanted] == 255).all()
    assert not drawn[~wanted].any()
    assert (region.draw(160, 200) > 0).mean() == pytest.approx(region.share, abs=0.01)


def test_a_region_between_the_lungs_is_inside_and_a_corner_of_the_hull_is_not():
    rows, columns = np.mgrid[:100, :100]
    is_lung = np.hypot(rows - 50, (columns - 50) * 0.8) < 40
    is_lung &= abs(columns - 50) > 8
    drawn = region_of_mask(is_lung).draw(100, 100)
    assert drawn[50, 50] == 255
    assert drawn[12, 12] == drawn[88, 90] == 0


@pytest.mark.parametrize("share", [0.0, 0.02, 0.97])
def test_a_share_out_of_bounds_is_the_rectangle_of_the_seed(share):
    is_lung = np.zeros((100, 100), dtype=bool)
    is_lung[: round(100 * share**0.5), : round(100 * share**0.5)] = True
    region = region_of_mask(is_lung)
    assert region is RECTANGLE and region.is_fallback
    units = region.draw(20, 20) > 0
    assert units[6:16, 3:16].all() and units.sum() == 130


def test_a_speck_of_probability_beside_the_lungs_is_dropped():
    probabilities = np.zeros((64, 64))
    probabilities[16:48, 8:28] = probabilities[16:48, 36:56] = 0.9
    clean = region_of_probabilities(probabilities)
    probabilities[60:63, 60:63] = 0.9
    assert region_of_probabilities(probabilities).share == pytest.approx(clean.share)


def test_the_weights_find_chests_they_have_not_seen():
    scores = []
    for index in range(60):
        picture, is_lung = draw_varied_chest(np.random.default_rng([NEW_SEED, index]))
        wanted = region_of_mask(is_lung)
        if wanted.is_fallback:
            continue
        found = chest_contour.find_chest(picture).draw(128, 128) > 0
        wanted = wanted.draw(128, 128) > 0
        scores.append(
            [(found & wanted).sum() / (found | wanted).sum(), (found & is_lung).sum() / is_lung.sum()]
        )
    iou, coverage = np.mean(scores, axis=0)
    assert iou > 0.88 and coverage > 0.93, (iou, coverage)


def test_exposure_and_contrast_hardly_matter():
    scores = []
    for index in range(6):
        picture, _ = draw_varied_chest(np.random.default_rng([NEW_SEED, index]))
        smooth = ndimage.gaussian_filter(picture.astype(float), 2)  # or rounding decides what was noise
        plain, pale, dark = (
            chest_contour.find_chest((smooth * gain + offset).astype(np.uint8)).draw(128, 128) > 0
            for gain, offset in ((1, 0), (0.5, 120), (0.5, 0))
        )
        scores += [(plain & other).sum() / (plain | other).sum() for other in (pale, dark)]
    assert np.mean(scores) > 0.95


def test_the_command_writes_a_mask_of_each_pictures_size_and_stem(tmp_path):
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    write_chest(pictures / "tall.png", 0, (160, 200))
    write_chest(pictures / "below" / "wide one.jpg", 1, (300, 120))
    for name in ("1.2.840.1", "1.2.840.2"):  # as DICOM archives name them
        write_chest(pictures / "1.png").rename(pictures / name)
    (pictures / "notes.txt").write_text("no picture")
    done = subprocess.run(
        [sys.executable, "-m", "dataset_scripts.build.chest_contour", pictures, "--output_dir", masks],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    written = sorted(path.relative_to(masks).as_posix() for path in masks.rglob("*") if path.is_file())
    assert written == ["1.2.840.1.png", "1.2.840.2.png", "below/wide one.png", "tall.png"]
    assert read_mask(masks / "tall.png").shape == (200, 160)
    wide = read_mask(masks / "below" / "wide one.png")
    assert wide.shape == (120, 300) and set(np.unique(wide)) == {0, 255}
    assert "4 masks" in done.stdout


def test_a_corrupt_picture_is_named_and_counted_and_the_rest_is_written(tmp_path, caplog):
    whole = write_chest(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes(whole.read_bytes()[:900])
    with caplog.at_level(logging.INFO):
        assert chest_contour.main([str(tmp_path), "--output_dir", str(tmp_path / "masks")]) == 0
    assert "broken.png cannot be read: truncated" in caplog.text
    assert "1 pictures cannot be read" in caplog.text
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["whole.png"]


def test_a_picture_without_a_chest_gets_the_rectangle_and_is_counted(tmp_path, caplog):
    Image.new("L", (100, 100), 128).save(tmp_path / "blank.png")
    chest, _ = draw_varied_chest(np.random.default_rng([NEW_SEED, 1]))
    far_away = Image.new("L", (600, 600))
    far_away.paste(Image.fromarray(chest), (200, 200))
    far_away.save(tmp_path / "small.png")
    write_chest(tmp_path / "chest.png")
    with caplog.at_level(logging.INFO):
        assert chest_contour.main([str(tmp_path), "--output_dir", str(tmp_path / "masks")]) == 0
    assert "3 masks" in caplog.text and "2 of them are the rectangle" in caplog.text
    for name, side in (("blank", 100), ("small", 600)):
        assert (read_mask(tmp_path / "masks" / f"{name}.png") == RECTANGLE.draw(side, side)).all()
    assert (read_mask(tmp_path / "masks" / "chest.png") != RECTANGLE.draw(200, 160)).any()


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: None, "there is no such folder"),
        (lambda folder: folder.mkdir(), "No picture below"),
        (
            lambda folder: [write_chest(folder / name) for name in ("a.png", "a.jpg")],
            "a.jpg and a.png would have the same mask",
        ),
    ],
)
def test_folders_without_an_answer_are_refused(prepare, said, tmp_path, caplog):
    prepare(tmp_path / "pictures")
    assert chest_contour.main([str(tmp_path / "pictures"), "--output_dir", str(tmp_path / "masks")]) == 1
    assert said in caplog.text
    assert not (tmp_path / "masks").exists()


def test_what_was_written_before_is_not_read_as_a_picture(tmp_path):
    write_chest(tmp_path / "chest.png")
    for _ in range(2):
        chest_contour.main([str(tmp_path), "--output_dir", str(tmp_path / "masks")])
    assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == sorted([tmp_path.name, "masks"])
