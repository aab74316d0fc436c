"""The contour's benchmark, on two pictures made here and on the real sets with the goal as a floor."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import chest_contour
from dataset_scripts.phantom.varied_chest import draw_varied_chest


@pytest.fixture(scope="module")
def shared(root):
    folder = Path(os.environ.get("MEDHIERA_SHARED", root.parent / "shared"))
    if not (folder / "lung_masks").is_dir() or not (folder / "jsrt").is_dir():
        pytest.skip("no hand-drawn lungs: ../shared is absent and MEDHIERA_SHARED is not set")
    return folder


def test_the_table_and_the_figure(tmp_path):
    examples = []
    for index in range(3):
        picture, is_lung = draw_varied_chest(np.random.default_rng([901, index]))
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        Image.fromarray(is_lung).convert("L").save(tmp_path / f"{index}_mask.png")
        examples.append(
            chest_contour.make_example(tmp_path / f"{index}.png", [tmp_path / f"{index}_mask.png"])
        )
    header, _, ours, rectangle, body = chest_contour.table({"drawings": examples})
    assert header.count("|") == ours.count("|") == rectangle.count("|") == body.count("|")

    def first_number(row, column):
        return float(row.split("|")[column].split()[0])

    iou, coverage, share = 3, 4, 6
    assert first_number(ours, iou) > first_number(rectangle, iou)
    assert first_number(rectangle, share) == pytest.approx(0.33, abs=0.02)
    assert first_number(body, coverage) > 0.9
    chest_contour.draw_figure({"drawings": examples}, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width == 6 * chest_contour.SIDE


def test_a_perfect_method_scores_one():
    is_lung = np.zeros((256, 256), dtype=bool)
    is_lung[40:200, 30:100] = is_lung[40:200, 150:220] = True
    region = chest_contour.region_of_mask(is_lung)
    gray = np.zeros((50, 60), dtype=np.uint8)
    example = chest_contour.Example("a", gray, is_lung, region.draw(256, 256) > 0)
    fit = chest_contour.measure([example], lambda gray: region)
    assert fit.iou == fit.coverage == 1
    assert fit.share == pytest.approx(160 * 190 / 256**2, abs=0.01)


@pytest.mark.realdata
@pytest.mark.parametrize("read", [chest_contour.read_lung_masks, chest_contour.read_jsrt])
def test_the_contour_fits_hand_drawn_lungs(read, shared):
    torch.set_num_threads(1)
    examples = list(read(shared))
    fit = chest_contour.measure(examples, chest_contour.find_chest)
    assert fit.iou.mean() >= 0.85
    assert fit.coverage.mean() >= 0.94
    assert np.percentile(fit.coverage, 10) >= 0.87
    assert fit.share.mean() <= 0.53
    assert fit.fallbacks == 0
