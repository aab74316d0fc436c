"""What the page says of a picture: probabilities, thresholds, heat, pictures; and that it keeps nothing."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from page_fixtures import NAMES, phantom, write_stage1, write_stage2
from PIL import Image
from safetensors.torch import load_file, save_file
from stage_records import SOME_REPORT, pretraining_record
from transformers import pipeline
from warm_python import warm_python

from medhiera.data.preprocessing import CenterCrop, Preprocessing
from medhiera.errors import UserError
from medhiera.evaluation.pointing_game import HitRate, LocalizationReport
from medhiera.evaluation.results import (
    FindingOperatingPoints,
    OperatingPoint,
    OperatingPoints,
    ReconstructionReport,
    Rescaling,
)
from medhiera.hub.operation import Finding
from medhiera.inference.heat_maps import METHOD
from medhiera.plotting import heat_on_mid_gray
from medhiera.space import page
from medhiera.space.examples import Example, draw_examples, is_called_right
from medhiera.space.pictures import RefusedError, color_heat, what_the_model_sees
from medhiera.space.reader import ChestReader, MaskedReader, open_folder

GRAY = phantom()


@pytest.fixture(scope="module")
def reader(stage2):
    return open_folder(stage2)


def test_a_stage_without_pixels_has_no_page(tmp_path):
    report = ReconstructionReport(1.0, 0.5, 0.6, target="features")
    write_stage1(tmp_path)
    pretraining_record(evaluation=report).write(tmp_path)
    with pytest.raises(UserError, match="nothing to fill in"):
        open_folder(tmp_path)
    pretraining_record(evaluation=replace(report, target="both")).write(tmp_path)
    assert isinstance(open_folder(tmp_path), MaskedReader)


def test_the_same_probabilities_as_the_stock_pipeline(reader, stage2):
    assert isinstance(reader, ChestReader)
    stock = pipeline("image-classification", str(stage2), top_k=len(NAMES))(Image.fromarray(GRAY))
    found = reader.findings(GRAY)
    assert [row.name for row in found] == [row["label"] for row in stock]
    assert [row.probability for row in found] == pytest.approx([row["score"] for row in stock], abs=1e-5)


def test_without_a_record_it_says_so(reader):
    rows = reader.findings(GRAY)
    assert {(row.calibrated, row.threshold, row.is_above) for row in rows} == {(None, None, None)}
    calibration, thresholds = reader.operation.notes(NAMES)
    assert "uncalibrated" in calibration
    assert "There is no threshold" in thresholds
    table = page.findings_table(rows, [], 0.1)
    assert "Calibrated" not in table and "Threshold" not in table and 'class="above"' not in table
    assert reader.operation.is_demo


def test_thresholds_and_calibration_of_the_folder(reader, tmp_path):
    youden, other = (
        OperatingPoint(threshold=threshold, sensitivity=0.8, sensitivity_interval=None, specificity=0.7,
                       specificity_interval=None)
        for threshold in (0.2, 0.1)
    )  # fmt: skip
    both = FindingOperatingPoints(youden=youden, sensitivity_90=other, positives=40, positive_patients=40)
    points = OperatingPoints(findings=dict.fromkeys(NAMES, both), validation_images=90)
    fit = Rescaling(slope=2.0, intercept=-1.0)
    fits = dict.fromkeys(NAMES[:3], fit) | {NAMES[3]: None}
    folder = write_stage2(tmp_path, evaluation=replace(SOME_REPORT, operating_points=points, rescaling=fits))
    plain = {row.name: row for row in reader.findings(GRAY)}
    rows = open_folder(folder).findings(GRAY)
    for row in rows:
        raw = plain[row.name].probability
        assert (row.probability, row.threshold) == (pytest.approx(raw), 0.2)
        assert row.is_above == (raw >= 0.2)
        if row.name == NAMES[3]:
            assert row.calibrated is None
            continue
        odds = np.exp(-1.0) * (raw / (1 - raw)) ** 2
        assert row.calibrated == pytest.approx(odds / (1 + odds), abs=1e-6)
    calibration, thresholds = open_folder(folder).operation.notes(NAMES)
    assert "model's own" in calibration and "3 of 4" in calibration
    assert "model's own" in thresholds and "validation" in thresholds
    table = page.findings_table(rows, [], 0.1)
    assert "0 to 1 (line: threshold)" in table
    assert table.count('class="number calibrated"') == table.count('class="number threshold"') == 4
    assert f'calibrated">{rows[0].calibrated:.3f}<' in table and 'calibrated">–<' in table


def test_of_exclusive_labels_the_most_probable_is_called(stage2, tmp_path):
    shutil.copytree(stage2, tmp_path / "exclusive")
    config = tmp_path / "exclusive" / "config.json"
    stored = json.loads(config.read_text()) | {"problem_type": "single_label_classification"}
    config.write_text(json.dumps(stored))
    reader = open_folder(tmp_path / "exclusive")
    rows = reader.findings(GRAY)
    stock = pipeline("image-classification", str(tmp_path / "exclusive"), top_k=len(NAMES))(
        Image.fromarray(GRAY)
    )
    assert [row.probability for row in rows] == pytest.approx([row["score"] for row in stock], abs=1e-5)
    assert [row.is_marked for row in rows] == [True, False, False, False]
    shown = page.findings_table(rows, reader.operation.notes(NAMES, is_exclusive=True), 0.1)
    assert "most probable label is called" in shown and "sum to 1" in shown and "hreshold" not in shown
    assert shown.count('class="above"') == 1


def test_heat_differs_by_finding_and_lies_in_range(reader):
    heats = {name: reader.heat(GRAY, name) for name in NAMES}
    for heat in heats.values():
        assert heat.shape == (64, 64)
        assert heat.min() >= 0
        assert heat.max() in (0, pytest.approx(1))
    assert any(heat.max() > 0 for heat in heats.values())
    assert not np.array_equal(heats["Edema"], heats["Mass"])


def test_a_map_is_shown_only_where_it_may_be_believed(reader, tmp_path):
    """Beside a map stands how far it was checked; maps that are no better than chance are not shown."""
    first, second, third = NAMES[:3]
    numbers = {"interval": [0.2, 0.3], "center": 0.0, "pairs": 40}
    good = HitRate(**numbers, hit_rate=0.25, chance=0.1, above_chance_interval=[0.1, 0.2], patients=30)
    bad = HitRate(**numbers, hit_rate=0.19, chance=0.2, above_chance_interval=[-0.1, 0.1], patients=30)

    def views(folder, **game):
        report = replace(SOME_REPORT, pointing_game=LocalizationReport(**game))
        opened = open_folder(write_stage2(folder, evaluation=report))
        return [page.heat_view(opened, GRAY, name) for name in (first, second, third)]

    findings = {first: good, second: bad}
    shown, withheld, unchecked = views(tmp_path / "1", **vars(good), method=METHOD, findings=findings)
    assert (
        "Heat map for" in shown
        and "highest point lay in the box in 25 %, a random point would in 10 %" in shown
    )
    assert withheld.count("<img") == 1 and "not better than chance" in withheld and "19 %" in withheld
    assert "Heat map for" in unchecked and "may point to the wrong place" in unchecked
    for text in views(tmp_path / "2", **vars(bad), method=METHOD, findings={first: good}):
        assert "No heat map: those of this model are not better than chance" in text
        assert text.count("<img") == 1
        assert "Brighter" not in text
    few = replace(good, pairs=4, patients=3)
    text, without, _ = views(tmp_path / "6", **vars(good), method=METHOD, findings={first: few})
    assert "compared with no boxes" in without
    assert "compared with boxes in 4 cases of Edema alone, of fewer than 10 patients" in text
    missed = replace(bad, hit_rate=0.0, chance=0.004)
    for text in views(tmp_path / "7", **vars(missed), method=METHOD):
        assert "lay in the box in 0 %, a random point would in 0.4 %" in text
    # What Grad-CAM's maps scored, good or bad, says nothing of these.
    for number, game in enumerate((vars(bad), vars(good), {"reason": "no image has a box"}), 3):
        for text in views(tmp_path / str(number), **game):
            assert text.count("<img") == 3 and "Unchecked" in text
    assert "Unchecked" in page.heat_view(reader, GRAY, first), "no record at all"


CONTROLS = """
import sys
from pathlib import Path
from medhiera.space import app
for folder in sys.argv[1:]:
    parts = [each["props"] for each in app.build_page(app.open_folder(Path(folder))).config["components"]]
    print(*(each["visible"] for each in parts if each.get("elem_id") in ("finding", "opacity")))
"""


@pytest.mark.slow
def test_controls_of_maps_are_there_only_where_a_map_may_come(root, tmp_path):
    """In a process of its own: gradio leaves its loops and sockets to the end."""
    numbers = {"interval": [0.2, 0.3], "center": 0.0, "pairs": 40, "patients": 30, "hit_rate": 0.2}
    bad = HitRate(**numbers, chance=0.2, above_chance_interval=[-0.1, 0.1])
    good = HitRate(**numbers, chance=0.1, above_chance_interval=[0.1, 0.2])
    none, some, each = {}, {NAMES[0]: bad}, dict.fromkeys(NAMES, bad)
    games = [
        vars(overall) | {"findings": findings}
        for overall, findings in ((bad, none), (good, some), (good, each))
    ]
    folders = []
    for number, game in enumerate(games):
        report = replace(SOME_REPORT, pointing_game=LocalizationReport(**game, method=METHOD))
        folders.append(write_stage2(tmp_path / str(number), evaluation=report))
    (tmp_path / "controls.py").write_text(CONTROLS)
    done = subprocess.run(
        [warm_python(), "-W", "ignore", tmp_path / "controls.py", *folders],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False False", "True True", "False False"]


def test_the_table_escapes_and_marks_what_is_above():
    rows = [Finding("<script>", 0.7, None, 0.5), Finding("Pleural_Thickening", 0.2, None, 0.5)]
    text = page.findings_table(rows, ["a & b"], 0.1)
    assert "<script>" not in text
    assert "a &amp; b" in text
    assert 'class="above" data-finding="&lt;script&gt;"' in text
    assert "Pleural Thickening" in text
    assert "1 of 2 above" in text
    assert "<b>" not in page.refusal("<b>")


def test_heat_is_transparent_where_there_is_none():
    heat = np.zeros((8, 8), np.float32)
    heat[:, 4:] = 1
    colored = color_heat(heat, 80)
    assert colored.shape == (80, 80, 4)
    assert not colored[:, :30, 3].any()
    assert (colored[:, 50:, 3] == 255).all()


def test_the_view_shows_what_is_cut_out():
    wide = np.tile(np.arange(0, 200, dtype=np.uint8), (100, 1))
    seen = what_the_model_sees(wide, CenterCrop(256, 224))
    side = 100 * 224 / 256
    assert seen[:, 0].mean() == pytest.approx(100 - side / 2, abs=1.5)
    assert seen[:, -1].mean() == pytest.approx(100 + side / 2, abs=1.5)


def test_the_view_is_the_models_input_where_halves_are_rounded():
    wide = np.tile(np.arange(0, 203, dtype=np.uint8), (160, 1))
    pixels = Preprocessing(64, 80, 0.5, 0.25).pixels(Image.fromarray(wide))
    seen = what_the_model_sees(wide, CenterCrop(80, 64))
    assert seen.mean() == pytest.approx(pixels.float().mean().item(), abs=0.6)


def test_a_crop_larger_than_the_picture_shows_all_of_it():
    assert what_the_model_sees(GRAY, CenterCrop(64, 96)).shape == (640, 640)


def test_pictures_are_inside_the_page(reader):
    text = page.heat_view(reader, GRAY, "Mass")
    sources = [part.split('"')[0] for part in text.split('src="')[1:]]
    pictures = []
    for source in sources:
        head, content = source.split(",")
        assert head == "data:image/png;base64"
        pictures.append(Image.open(io.BytesIO(base64.b64decode(content))))
    assert [picture.size for picture in pictures] == [(640, 640), (640, 640), (256, 1)]


def test_the_strip_below_a_map_has_its_colors(root, reader):
    """On the gray and with the opacity that style.css gives both: as the figures' color bar."""
    [strip] = re.findall(
        r'class="strip"><img class="heat" .*?base64,(.*?)"', page.heat_view(reader, GRAY, "Mass")
    )
    colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))[0]
    heat = np.broadcast_to(np.linspace(0, 1, 256, dtype=np.float32), (256, 256))
    assert np.array_equal(colors, color_heat(heat, 256)[0])
    style = (root / "medhiera" / "space" / "style.css").read_text()
    [opacity] = re.findall(r"^img.heat {\s*opacity: var\(--heat-opacity, (.*?)\)", style, re.MULTILINE)
    [gray] = re.findall(r"^.strip {[^}]*background: #(..)\1\1;", style, re.MULTILINE)
    opacity = float(opacity) * colors[:, 3:] / 255
    seen = opacity * colors[:, :3] / 255 + (1 - opacity) * int(gray, 16) / 255
    assert seen == pytest.approx(heat_on_mid_gray(), abs=0.01)


def test_a_stage_1_fills_in(tmp_path):
    reader = open_folder(write_stage1(tmp_path))
    assert isinstance(reader, MaskedReader)
    one, same, other = (reader.fill_in(GRAY, 0.5, seed) for seed in (0, 0, 1))
    assert one.original.shape == (1, 64, 64)
    assert one.masked.equal(same.masked)
    assert not one.masked.equal(other.masked)
    assert page.filled_view(one, [], 0.1).count("<figure>") == 3


def test_folders_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match=r"there is no such folder.*train-cls.*make demo"):
        open_folder(tmp_path / "nowhere")


def test_an_upload_is_gone_whatever_came_of_it(tmp_path, monkeypatch):
    app = pytest.importorskip("medhiera.space.app")
    for content, is_read in ((b"rubbish", False), (_png(GRAY), True)):
        folder = tmp_path / str(is_read)
        folder.mkdir()
        (folder / "a.png").write_bytes(content)
        if is_read:
            assert np.array_equal(app.take_upload(str(folder / "a.png")).gray, GRAY)
        else:
            with pytest.raises(RefusedError):
                app.take_upload(str(folder / "a.png"))
        assert not list(folder.iterdir())
    (tmp_path / "b.png").write_bytes(_png(GRAY))
    monkeypatch.setattr(app, "read_upload", lambda path: 1 / 0)
    with pytest.raises(RefusedError, match="nothing of it was kept"):
        app.take_upload(str(tmp_path / "b.png"))
    assert not (tmp_path / "b.png").exists()


def some(**probabilities):
    return [Finding(name.replace("_", " "), value) for name, value in probabilities.items()]


@pytest.mark.parametrize(
    ("drawn", "findings", "said"),
    [
        ("Mass", some(Mass=0.6, Edema=0.5, No_Finding=0.9), True),  # No Finding is no rival
        ("Mass", some(Mass=0.4, Edema=0.5, No_Finding=0.1), False),
        ("Mass", [Finding("Mass", 0.6, None, 0.7), Finding("Edema", 0.5, None, 0.1)], False),  # too low
        ("Mass", [Finding("Mass", 0.6, None, 0.5), Finding("Edema", 0.5, None, 0.1)], True),
        ("Mass", [Finding("Mass", 0.6, None, 0.5), Finding("No Finding", 0.7, None, 0.8)], True),
        ("Mass", [Finding("Mass", 0.6, None, 0.5), Finding("No Finding", 0.5, None, 0.4)], False),  # denied
        ("", some(No_Finding=0.6, Mass=0.5), True),
        ("", some(No_Finding=0.4, Mass=0.5), False),
        ("Mass", [Finding("Mass", 0.3, is_called=False), Finding("No Finding", 0.7, is_called=True)], False),
    ],
)
def test_what_it_means_to_call_a_phantom_right(drawn, findings, said):
    assert is_called_right(Example(Image.fromarray(GRAY), drawn), findings) is said


def labels_of(folder, **new_names):
    """A copy of the folder in which labels have other names, opened."""
    config = json.loads((folder / "config.json").read_text())
    names = [new_names.get(name, name) for name in NAMES]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    return open_folder(folder)


def test_only_phantoms_of_the_models_own_labels_are_examples(reader, stage2, tmp_path):
    assert [example.finding for example in draw_examples(reader)] == ["", "Mass"]
    assert len(draw_examples(open_folder(write_stage1(tmp_path / "stage1")))) == 6
    shutil.copytree(stage2, tmp_path / "own")
    own = labels_of(tmp_path / "own", **{"Mass": "SICK", "No Finding": "NORMAL"})
    assert draw_examples(own) == []


def with_biases(stage2, folder, **biases):
    """The same model, whose answer hardly depends on the picture: one finding's logit is raised."""
    shutil.copytree(stage2, folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][:] *= 0.01
    for name, bias in biases.items():
        weights["classifier.bias"][NAMES.index(name)] = bias
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return open_folder(folder)


def test_the_page_opens_with_an_example_that_the_model_calls_right(stage2, tmp_path):
    app = pytest.importorskip("medhiera.space.app")
    healthy, mass = examples = draw_examples(open_folder(stage2))
    assert (healthy.finding, mass.finding) == ("", "Mass")
    opening, opened = app.open_with(with_biases(stage2, tmp_path / "mass", Mass=3.0), examples)
    assert opening.example is mass
    assert "calls 1 of the 2 example phantoms right" in opening.note
    assert np.array_equal(opened[1], mass.gray)
    assert opening.note in opened[2] and 'data-finding="Mass"' in opened[2] and opened[4] == "Mass"
    both = with_biases(stage2, tmp_path / "both", **{"Mass": 2.0, "No Finding": 3.0})
    opening, _ = app.open_with(both, examples)
    assert opening.example is mass and "2 of the 2" in opening.note  # not the first, without a finding
    opening, opened = app.open_with(with_biases(stage2, tmp_path / "edema", Edema=3.0), examples)
    assert opening.example is None and opened is None
    assert opening.note == "This model calls none of the 2 example phantoms right."
    assert app.open_with(open_folder(write_stage1(tmp_path / "stage1")), examples)[1] is None


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def test_a_folder_without_a_record_or_with_another_projects_is_read(tmp_path):
    folder = write_stage2(tmp_path)
    (folder / "metrics.json").write_text(json.dumps({"accuracy": 0.9}))
    assert open_folder(folder).operation.thresholds == {}
    (folder / "metrics.json").unlink()
    assert not open_folder(folder).operation.is_demo


def test_a_damaged_record_is_refused_in_words(tmp_path):
    folder = write_stage2(tmp_path)
    record = json.loads((folder / "metrics.json").read_text())
    del record["training"]["steps"]
    (folder / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"not the record of a stage that this .*training.steps: Field req"):
        open_folder(folder)
