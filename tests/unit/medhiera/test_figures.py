"""What every figure has: the mark of a run that proves nothing; and what some of them are read by."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from stage_records import SOME_REPORT

from medhiera.evaluation import figures, label_figures
from medhiera.evaluation.localization import HeatMapExample
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.experiments import figures as experiment_figures
from medhiera.formatting import mark_of
from medhiera.inference.reconstruction import Reconstruction
from medhiera.plotting import ORANGE
from medhiera.training import figures as training_figures

MARK = mark_of(is_smoke_run=True, has_phantoms=True, has_images=False)
EXAMPLE = HeatMapExample(
    image_id="i0", patient_id="p0", finding="Edema", probability=0.5,
    pixels=np.full((32, 32), 0.5, dtype=np.float32), heat=np.eye(32, dtype=np.float32),
    boxes=[(8.0, 8.0, 20.0, 20.0)], is_hit=True, is_center_hit=True, covered_share=0.14,
)  # fmt: skip
GAME = LocalizationReport(hit_rate=0.5, interval=[0.2, 0.8], chance=0.003, center=0.2, pairs=2)
HALF = torch.full((2, 32, 32), 0.5)
PICTURES = Reconstruction(
    original=HALF, masked=HALF, filled=HALF, note="of each patch the original's contrast"
)
LOG = [{"step": 1, "loss": 0.5, "learning_rate": 1e-3}, {"step": 2, "eval_loss": 0.4}]
SEEDS = {"from ImageNet": [{1: 0.6, 2: 0.7}, {1: 0.5, 2: 0.8}]}
LABELS = np.array([[1.0], [0.0], [1.0], [0.0]])
PREDICTIONS = Predictions(np.array([[0.9], [0.2], [0.4], [0.6]]), LABELS, ["Edema"], list("abcd"))


def draw_roc(path, **options):
    figures.roc_curves(PREDICTIONS, SOME_REPORT, path, title="Test", **options)


def draw_auroc(path, **options):
    figures.auroc_points(SOME_REPORT, path, title="Test", **options)


def draw_heat_maps(path, **options):
    figures.heat_map_rows([EXAMPLE], GAME, path, title="Test", **options)


def draw_reliability(path, **options):
    figures.reliability(SOME_REPORT.calibration, path, title="Test", **options)


def draw_subgroups(path, **options):
    figures.subgroup_dots(SOME_REPORT.subgroups, path, title="Test", **options)


def draw_reconstructions(path, **options):
    training_figures.reconstruction_rows(PICTURES, ["A", "B"], path, **options)


def draw_training(path, **options):
    training_figures.training_curves(LOG, path, loss_name="loss", **options)


def draw_masks(path, **options):
    pictures = [np.zeros((40, 40), dtype=np.uint8)] * 2
    kept = torch.ones(2, 2, 2, dtype=torch.bool)
    training_figures.mask_rows(pictures, [None, None], HALF, kept, ["A", "B"], path, **options)


def draw_labels(path, **options):
    label_figures.label_efficiency(
        {"A": {0.1: [0.7], 1.0: [0.8]}}, {"A": {0.1: None, 1.0: None}}, {0.1: "10 %", 1.0: "100 %"}, path,
        title="Test", **options,
    )  # fmt: skip


def draw_arms(path, **options):
    experiment_figures.arm_curves(SEEDS, path, title="Fig. 1", value="AUROC", **options)


def draw_influence(path, **options):
    experiment_figures.influence_bars({"rate": 0.3}, {"rate": 1.0}, path, title="Fig. 3", **options)


DRAWN = [
    draw_roc,
    draw_auroc,
    draw_heat_maps,
    draw_reliability,
    draw_subgroups,
    draw_reconstructions,
    draw_training,
    draw_masks,
    draw_labels,
    draw_arms,
    draw_influence,
]


def rows_of_orange(path, first):
    """How many pixels of the mark's color stand below a row of a PNG."""
    orange = np.array([int(ORANGE[at : at + 2], 16) for at in (1, 3, 5)])
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)[first:]
    return int((np.abs(pixels - orange).max(axis=-1) < 40).sum())


@pytest.mark.parametrize("draw", DRAWN)
def test_a_run_that_proves_nothing_says_so_below_the_figure(draw, tmp_path):
    draw(tmp_path / "full.png")
    draw(tmp_path / "smoke.png", mark=MARK)
    with Image.open(tmp_path / "full.png") as full, Image.open(tmp_path / "smoke.png") as smoke:
        (width, height), (same, taller) = full.size, smoke.size
    assert abs(width - same) <= 1 and taller > height + 20
    assert rows_of_orange(tmp_path / "smoke.png", height) > 200  # some words


def test_a_figure_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "loss.png"
    draw_training(path)
    before = path.read_bytes()

    def torn(self, file, **options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(KeyboardInterrupt):
        draw_training(path)
    assert path.read_bytes() == before


def test_the_words_of_the_mark():
    assert MARK == "synthetic phantoms · smoke run, not a trained model"
    both = mark_of(is_smoke_run=False, has_phantoms=True, has_images=True)
    assert both == "synthetic phantoms among real images"
    assert mark_of(is_smoke_run=False, has_phantoms=False, has_images=True) == ""


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are handed over to be saved."""
    found = []
    for module in (figures, training_figures):
        monkeypatch.setattr(module, "save", lambda figure, path, mark: found.append(figure))
    return found


@pytest.mark.parametrize(("interval", "left"), [([0.8, 0.9], 0.48), ([0.41, 0.9], 0.39)])
def test_auroc_is_points_with_intervals_from_chance_to_one(drawn, tmp_path, interval, left):
    findings = {name: replace(entry, auroc=0.85, auroc_interval=interval)
                for name, entry in SOME_REPORT.findings.items()}  # fmt: skip
    figures.auroc_points(replace(SOME_REPORT, findings=findings), tmp_path / "a.png", title="Test")
    [axis] = drawn[0].axes
    assert axis.get_xlim() == pytest.approx((left, 1.0))
    assert not [patch for patch in axis.patches if isinstance(patch, Rectangle)], "bars are read from 0"
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [0.85] * len(findings)
    limits = [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "None"]
    assert limits.count(interval) == len(findings)


def test_heat_maps_have_a_color_bar_and_say_a_small_chance(drawn, tmp_path):
    draw_heat_maps(tmp_path / "a.png")
    [bar] = [axis for axis in drawn[0].axes if "logit" in axis.get_ylabel()]
    assert bar.get_ylim() == (0, 100)
    assert "a random point would in 0.3 %" in drawn[0].get_supxlabel()


def test_reconstructions_say_what_they_show(drawn, tmp_path):
    draw_reconstructions(tmp_path / "a.png")
    assert drawn[0].get_supxlabel() == PICTURES.note
