"""The page in headless Chromium, by its DOM: upload, result, error, heat, mask; nothing kept or fetched."""

import json
import re
import subprocess

import numpy as np
import pytest
from browsing import choose_finding, needs_chromium, probabilities, upload
from page_fixtures import NAMES, Site, phantom, photograph, write_dicom, write_stage1, write_stage2
from PIL import Image
from warm_python import warm_python

from medhiera.inference.classifier import Classifier
from medhiera.space.guard import LARGEST_UPLOAD

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))


@pytest.fixture(scope="module")
def site(root, stage2, tmp_path_factory):
    served = Site(root, stage2, tmp_path_factory.mktemp("site"))
    yield served
    served.end()


def test_from_upload_to_heat(site, stage2, visit, tmp_path):
    gray = phantom()
    Image.fromarray(gray).save(tmp_path / "chest.png")
    page = visit(site.address)
    assert "Not for clinical use" in page.inner_text("body")
    upload(page, tmp_path / "chest.png")
    [wanted] = Classifier.from_pretrained(stage2).probabilities([Image.fromarray(gray)]).tolist()
    assert probabilities(page) == pytest.approx(dict(zip(NAMES, wanted, strict=True)), abs=6e-4)
    assert "uncalibrated" in page.inner_text("#result")

    page.wait_for_selector("#view .viewer")
    likeliest = max(
        (name for name in NAMES if name != "No Finding"), key=lambda name: wanted[NAMES.index(name)]
    )
    assert page.get_attribute("#view .viewer", "data-finding") == likeliest
    other = next(name for name in NAMES if name != likeliest)
    choose_finding(page, other.replace("_", " "))
    page.wait_for_selector(f'#view .viewer[data-finding="{other}"]')

    page.locator("#opacity input[type=number]").fill("0.25")
    page.locator("#opacity input[type=number]").press("Enter")
    opacity = "getComputedStyle(document.querySelector('#view img.heat')).opacity"
    page.wait_for_function(f"{opacity} == '0.25'")
    assert page.faults == []


def test_sixteen_bit_monochrome1_dicom_is_the_same_chest(site, visit, tmp_path):
    gray = phantom()
    Image.fromarray(gray).save(tmp_path / "chest.png")
    deep = (4080 - gray.astype(np.uint16) * 16).astype(np.uint16)
    write_dicom(tmp_path / "IM0001.dcm", deep, PhotometricInterpretation="MONOCHROME1", WindowCenter=2040,
                WindowWidth=4080)  # fmt: skip
    found = []
    for name in ("chest.png", "IM0001.dcm"):
        page = visit(site.address)  # a page of its own: an equal result would not be drawn anew
        upload(page, tmp_path / name)
        found.append(probabilities(page))
    assert found[1] == pytest.approx(found[0], abs=0.02)
    assert len(found[0]) == len(NAMES)


def test_what_is_no_chest_gets_a_sentence(site, visit, tmp_path):
    photograph().save(tmp_path / "holiday.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page = visit(site.address)
    for name, sentence in (("holiday.jpg", "color picture"), ("broken.png", "damaged|no image")):
        upload(page, tmp_path / name)
        assert re.search(sentence, page.inner_text("#result [role=alert]"))
        assert page.locator("#result table").count() == 0
        assert page.locator("#view img").count() == 0
    assert "Traceback" not in page.content()
    Image.fromarray(phantom()).save(tmp_path / "chest.png")
    upload(page, tmp_path / "chest.png")  # the next file is read as ever
    assert probabilities(page)


def test_content_decides_not_the_suffix(site, visit, tmp_path):
    gray = phantom()
    write_dicom(tmp_path / "IM0001", gray)
    (tmp_path / "letter.txt").write_text("a letter, not a picture")
    page = visit(site.address)
    upload(page, tmp_path / "IM0001")
    assert len(probabilities(page)) == len(NAMES)
    upload(page, tmp_path / "letter.txt")
    assert "This is no image that can be read here" in page.inner_text("#result [role=alert]")
    assert site.kept() == []


def test_it_opens_with_an_example_that_the_model_calls_right(root, sees_a_mass, visit, tmp_path):
    site = Site(root, sees_a_mass, tmp_path)
    try:
        page = visit(site.address)
        page.wait_for_selector('#view .viewer[data-finding="Mass"]')
        assert max(probabilities(page), key=probabilities(page).get) == "Mass"
        assert "This model calls 1 of the 2 example phantoms right" in page.inner_text("#result")
        before = page.get_attribute("#view .viewer img", "src")
        choose_finding(page, "Edema")
        page.wait_for_selector('#view .viewer[data-finding="Edema"]')
        assert page.get_attribute("#view .viewer img", "src") == before
        assert page.faults == []
    finally:
        site.end()


def test_an_example_on_a_phone(site, visit):
    for scheme in ("light", "dark"):
        page = visit(site.address, width=390, scheme=scheme)
        page.locator("#examples .thumbnail-item").nth(1).click()
        page.wait_for_selector("#view .viewer")
        assert len(probabilities(page)) == len(NAMES)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(float, re.findall(r"[\d.]+", shade)[:3])) < 200) == (scheme == "dark")


def test_nothing_is_kept_and_nothing_fetched(site, visit, tmp_path):
    gray = phantom()
    Image.fromarray(gray).save(tmp_path / "private name.png")
    (tmp_path / "letter.png").write_bytes(b"nobody's business" * 100)
    page = visit(site.address)
    for name in ("private name.png", "letter.png"):
        upload(page, tmp_path / name)
    assert site.kept() == []
    assert not [path for path in site.temporary.rglob("*") if "private" in path.name or "letter" in path.name]
    outside = [url for url in page.requested if not url.startswith((site.address, "data:", "blob:"))]
    assert outside == []
    assert page.requested


def test_a_masked_autoencoder_fills_in(root, visit, tmp_path):
    site = Site(root, write_stage1(tmp_path / "stage1"), tmp_path)
    try:
        page = visit(site.address)
        Image.fromarray(phantom()).save(tmp_path / "chest.png")
        upload(page, tmp_path / "chest.png")
        pictures = page.locator("#result .triptych img")
        assert [pictures.nth(number).get_attribute("alt") for number in range(3)] == [
            "Original",
            "Masked",
            "Filled in",
        ]
        before = pictures.nth(1).get_attribute("src")
        page.click("#again")
        page.wait_for_function(
            "(before) => document.querySelectorAll('#result .triptych img')[1].src != before", arg=before
        )
        assert site.kept() == []
    finally:
        site.end()
    assert not list(site.temporary.glob("medhiera-page-*"))  # an ended page takes its folder along


def test_names_of_findings_and_files_are_text(root, visit, tmp_path):
    names = ['<img src=x onerror="window.harmed=1">', "${window.harmed=2}", "{{constructor}}", "a'b\"c&amp;"]
    folder = write_stage2(tmp_path / "stage2")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config["label2id"] = {name: number for number, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    site = Site(root, folder, tmp_path)
    try:
        page = visit(site.address, has_examples=False)
        assert page.locator("#examples .thumbnail-item").count() == 0, "it knows no phantom's finding"
        chest = tmp_path / "<img src=x onerror=window.harmed=3>.png"
        Image.fromarray(phantom()).save(chest)
        upload(page, chest)
        shown = page.locator("#result tbody td.name").all_inner_texts()
        assert sorted(shown) == sorted(name.replace("_", " ") for name in names)
        page.wait_for_selector("#view .viewer")
        page.click("#finding input")
        options = page.get_by_role("option").all_inner_texts()
        assert all(any(name in option for option in options) for name in names)
        for name in names:
            choose_finding(page, name)
            page.wait_for_function(
                "(name) => document.querySelector('#view .viewer').dataset.finding == name", arg=name
            )
            assert f"speaks more for {name}" in page.inner_text("#view")
        assert page.evaluate("window.harmed === undefined")
        assert page.locator("#result img, #view img[src=x]").count() == 0
        assert page.faults == []
    finally:
        site.end()


def test_a_file_too_large_gets_words(site, visit, tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(LARGEST_UPLOAD + 1)
    page = visit(site.address)
    page.set_input_files("#upload input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=/exceed the maximum allowed size/")
    assert site.kept() == []


def test_an_absent_model_is_one_sentence(root, tmp_path):
    done = subprocess.run(
        [warm_python(), "medhiera/space/app.py", str(tmp_path / "nowhere")],
        cwd=root, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("app.py: ")
    assert "make demo" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


ASK = """
import json, sys
from pathlib import Path
from medhiera.space import app
blocks = app.build_page(app.open_folder(Path(sys.argv[1])))
keys = ("concurrency_id", "concurrency_limit", "api_visibility")
print(json.dumps([[each.name, *(getattr(each, key) for key in keys)] for each in blocks.fns.values()]))
"""


def test_one_picture_at_a_time_goes_through_the_model(root, stage2, tmp_path):
    (tmp_path / "ask.py").write_text(ASK)
    done = subprocess.run([warm_python(), "-W", "ignore", str(tmp_path / "ask.py"), str(stage2)], cwd=root,
                          text=True, capture_output=True, check=True)  # fmt: skip
    events = [event[1:] for event in json.loads(done.stdout.splitlines()[-1])]
    assert events.count(["model", 1, "private"]) == 3  # upload, example, another finding
    assert {visibility for *_, visibility in events} == {"private"}
