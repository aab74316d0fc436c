"""Phantom studies with reports: what the texts say is what is drawn, on the side where it is drawn."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts import IuXray
from dataset_scripts.build.build_log import read_report
from dataset_scripts.phantom import __main__
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.cohort import write_phantom_cohort
from dataset_scripts.phantom.films import keyed_generator
from dataset_scripts.phantom.findings import ONE_SIDED, draw_radiograph
from dataset_scripts.phantom.report_sentences import DRAWN, read_signs, write_report
from dataset_scripts.phantom.reports import ReportsSummary, write_phantom_reports
from medhiera.evaluation.report_content import named_sides

STUDIES = 150
WORDS = {
    "Cardiomegaly": ("cardiomegaly", "heart is enlarged", "enlargement of the cardiac"),
    "Consolidation": ("upper lobe consolidation", "consolidation of the", "consolidation is seen"),
    "Edema": ("pulmonary edema",),
    "Effusion": ("pleural effusion",),
    "Mass": ("mass",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, ReportsSummary]:
    root = tmp_path_factory.mktemp("reports") / "phantom"
    return root, write_phantom_reports(root, studies=STUDIES, image_size=64)


def read_table(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "iu_xray" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def affirmed(report: str) -> str:
    """The sentences that deny nothing, in lower case."""
    sentences = report.lower().split(". ")
    return ". ".join(s for s in sentences if not {"no", "clear", "normal"} & set(s.split()))


def test_the_folder_builds_without_a_problem_and_studies_stay_whole(written, tmp_path):
    root, summary = written
    builder = IuXray(data_dir=root / "iu_xray", build_dir=tmp_path / "cache", stored_size=32)
    builder.download_and_prepare()
    assert read_report(builder.cache_dir)["problem_counts"] == {}
    studies = defaultdict(list)
    for split, rows in builder.as_dataset().items():
        names = rows["study_id"]
        assert len(
            {name for name, before in zip(names, ["", *names], strict=False) if name != before}
        ) == len(set(names))
        for name, view in zip(names, rows["view"], strict=True):
            studies[name].append((split, view))
    assert {name.split("/")[1] for name in studies} == summary["studies"].keys()
    assert all(len({split for split, _ in rows}) == 1 for rows in studies.values())
    views = Counter(tuple(view for _, view in rows) for rows in studies.values())
    assert views.keys() == {("FRONTAL",), ("FRONTAL", "LATERAL"), ("FRONTAL", "LATERAL", "LATERAL")}
    assert views[("FRONTAL", "LATERAL")] > STUDIES / 2


def test_a_report_affirms_what_is_drawn_names_its_side_and_nothing_else(written):
    root, summary = written
    for row in read_table(root, "indiana_reports.csv"):
        signs = summary["studies"][f"CXR{row['uid']}"]
        if not row["findings"]:
            assert int(row["uid"]) % 25 == 0
            continue
        said = affirmed(row["findings"])
        for name, words in WORDS.items():
            assert any(word in said for word in words) == (name in signs), (row["findings"], name)
        for sign in signs.values():
            assert sign["grade"] in said
        assert named_sides(row["findings"]) == {sign["side"] for sign in signs.values()} - {""}
        assert named_sides(row["impression"]) == named_sides(row["findings"])


def test_no_label_stands_for_one_text_and_negations_occur(written):
    root, summary = written
    texts = defaultdict(set)
    for row in read_table(root, "indiana_reports.csv"):
        texts[json.dumps(summary["studies"][f"CXR{row['uid']}"])].add(row["findings"])
    normal = texts[json.dumps({})]
    assert len(normal) > 20
    assert any("No pleural effusion or pneumothorax." in text for text in normal)
    assert {name for signs in summary["studies"].values() for name in signs} == set(DRAWN)


@pytest.mark.parametrize("finding", ONE_SIDED)
def test_the_side_is_where_the_pixels_change(finding):
    """The patient's left is on the image's right: there the picture is denser, or darker with air."""
    differences = defaultdict(list)
    for number in range(24):
        body = draw_body(keyed_generator(5, number), is_female=False)
        drawn = draw_radiograph(body, [finding], 96, keyed_generator(6, number))
        ((x, _, width, _),) = drawn.boxes[finding]
        assert drawn.sides == {finding: "left" if x + width / 2 > 0.5 else "right"}
        halves = [
            np.where(drawn.is_lung, drawn.pixels, np.nan)[:, part] for part in (slice(48), slice(48, 96))
        ]
        differences[drawn.sides[finding]].append(np.nanmean(halves[1]) - np.nanmean(halves[0]))
    denser = np.mean(differences["left"]) - np.mean(differences["right"])
    assert denser < -20 if finding == "Pneumothorax" else denser > 10


def test_a_larger_sign_has_the_larger_grade():
    extents = defaultdict(list)
    for number in range(40):
        rng = keyed_generator(7, number)
        drawn = draw_radiograph(draw_body(rng, is_female=False), ["Effusion"], 64, rng)
        extents[read_signs(drawn)["Effusion"].grade].append(drawn.extents["Effusion"])
    assert extents.keys() == {"small", "moderate", "large"}
    assert max(extents["small"]) < min(extents["moderate"]) < max(extents["moderate"]) < min(extents["large"])


def test_a_lateral_view_tells_no_side(written):
    root, _ = written
    laterals = [
        row["filename"]
        for row in read_table(root, "indiana_projections.csv")
        if row["projection"] == "Lateral"
    ]
    assert len(laterals) >= 20
    for name in laterals[:20]:
        with Image.open(root / "iu_xray" / "images" / "images_normalized" / name) as picture:
            pixels = np.asarray(picture).astype(int)
        assert np.abs(pixels - pixels[:, ::-1]).max() <= 2  # resampling rounds


def test_studies_are_the_same_however_many_there_are_and_another_seed_draws_others(written, tmp_path):
    root, summary = written
    few = write_phantom_reports(tmp_path / "few", studies=8, image_size=64)
    assert list(few["studies"].items()) == list(summary["studies"].items())[:8]
    name = "iu_xray/images/images_normalized/3_IM-0003-1001.dcm.png"
    assert (tmp_path / "few" / name).read_bytes() == (root / name).read_bytes()
    assert (
        write_phantom_reports(tmp_path / "other", studies=8, image_size=64, seed=1)["studies"]
        != few["studies"]
    )


def test_a_report_of_given_signs_is_the_same_for_the_same_generator():
    drawn = draw_radiograph(
        draw_body(keyed_generator(0, 1), is_female=True), ["Mass"], 64, keyed_generator(0, 2)
    )
    one, two = (write_report(read_signs(drawn), keyed_generator(0, 3), is_female=True) for _ in range(2))
    assert one == two and "mass" in one.impression


def test_it_is_reused_begun_afresh_or_refused(tmp_path, capsys):
    root = tmp_path / "phantom"
    arguments = [str(root), "--reports", "8", "--image_size", "32"]
    __main__.main(arguments)
    assert not (root / "ChestXray-NIHCC").exists() and (root / "iu_xray" / "phantom_files.json").is_file()
    stamp = (root / "iu_xray" / "indiana_reports.csv").stat().st_mtime_ns
    __main__.main(arguments)
    assert (root / "iu_xray" / "indiana_reports.csv").stat().st_mtime_ns == stamp
    for change in (["--seed", "1"], ["--reports", "9"], ["--image_size", "33"]):
        with pytest.raises(SystemExit):
            __main__.main([*arguments, *change])
        assert "delete it or name another folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main([str(tmp_path / "none"), "--reports", "3"])
    assert "give at least 8 reports" in capsys.readouterr().err
    truth = root / "iu_xray" / "phantom_reports.json"
    truth.rename(truth.with_name("phantom_reports.json.unfinished"))
    __main__.main(arguments)
    assert truth.is_file() and (root / "iu_xray" / "indiana_reports.csv").stat().st_mtime_ns != stamp


def test_reports_join_a_cohort_and_leave_it_as_it_is(tmp_path):
    root = tmp_path / "phantom"
    first = write_phantom_cohort(root, patients=8, image_size=32)
    write_phantom_reports(root, studies=8, image_size=32)
    assert write_phantom_cohort(root, patients=8, image_size=32) == first
