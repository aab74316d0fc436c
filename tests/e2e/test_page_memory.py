"""Where the page has no picture any more, or its model fails: words, and never another picture's result."""

import shutil

import pytest
from browsing import choose_finding, needs_chromium, probabilities, upload
from page_fixtures import Site, phantom, write_stage1
from PIL import Image

pytestmark = [pytest.mark.slow, needs_chromium]


def test_no_other_picture_stands_in_for_one_that_is_forgotten(root, sees_a_mass, visit, tmp_path):
    """When its time in memory is up a session has no memory either, as after a new start."""
    Image.fromarray(phantom()).save(tmp_path / "chest.png")
    Image.fromarray(255 - phantom()).save(tmp_path / "other.png")
    site = Site(root, sees_a_mass, tmp_path)
    try:
        page = visit(site.address)
        page.wait_for_selector('#view .viewer[data-finding="Mass"]')
        opened = page.inner_text("#result")
        upload(page, tmp_path / "chest.png")
        page.wait_for_function("(old) => document.querySelector('#result').innerText != old", arg=opened)
        mine = page.inner_text("#result")
        site.end()
        site.start()
        choose_finding(page, "Edema")
        page.wait_for_selector("#view [role=alert]")
        assert page.inner_text("#view") == "The picture is no longer in memory; drop it again."
        assert page.locator("#view img").count() == 0
        assert page.inner_text("#result") == mine
        upload(page, tmp_path / "other.png")
        page.wait_for_selector("#view img.heat")
    finally:
        site.end()


FAIL = """
import sys
from medhiera.space import app
from medhiera.space.reader import ChestReader, MaskedReader

def failing(method, fails):
    def call(*arguments):
        if fails(*arguments[1:]):
            raise RuntimeError("out of memory")
        return method(*arguments)
    return call

ChestReader.findings = failing(ChestReader.findings, lambda gray: gray.mean() > 200)
ChestReader.heat = failing(ChestReader.heat, lambda gray, name: name == "Edema")
MaskedReader.fill_in = failing(MaskedReader.fill_in, lambda gray, ratio, seed: seed > 0)
if "full" in sys.argv[1]:
    app.LONGEST_QUEUE = 0
app.main()
"""


def assert_is_empty(page, site):
    page.wait_for_selector("#result [role=alert]")
    assert "was not analysed, and nothing of it was kept" in page.inner_text("#result")
    assert page.locator("#result table, #result img, #view img").count() == 0
    assert not page.is_visible("#controls")
    assert site.kept() == []


def test_nothing_of_an_earlier_picture_stays_where_the_model_fails(root, sees_a_mass, visit, tmp_path):
    (tmp_path / "fail.py").write_text(FAIL)
    Image.fromarray(phantom()).save(tmp_path / "chest.png")
    Image.fromarray(phantom() // 8 + 220).save(tmp_path / "bright.png")
    site = Site(root, sees_a_mass, tmp_path, tmp_path / "fail.py")
    try:
        page = visit(site.address)
        upload(page, tmp_path / "chest.png")
        assert probabilities(page)
        upload(page, tmp_path / "bright.png")
        assert_is_empty(page, site)
        upload(page, tmp_path / "chest.png")
        choose_finding(page, "Edema")
        assert_is_empty(page, site)
    finally:
        site.end()


def test_nothing_of_an_earlier_picture_stays_where_the_queue_is_full(root, sees_a_mass, visit, tmp_path):
    (tmp_path / "fail.py").write_text(FAIL)
    Image.fromarray(phantom()).save(tmp_path / "chest.png")
    shutil.copytree(sees_a_mass, tmp_path / "full")
    site = Site(root, tmp_path / "full", tmp_path, tmp_path / "fail.py")
    try:
        page = visit(site.address)
        page.wait_for_selector("#view .viewer")
        upload(page, tmp_path / "chest.png")
        assert_is_empty(page, site)
    finally:
        site.end()


def test_a_masked_autoencoder_says_that_a_picture_is_forgotten_or_failed(root, visit, tmp_path):
    (tmp_path / "fail.py").write_text(FAIL)
    Image.fromarray(phantom()).save(tmp_path / "chest.png")
    site = Site(root, write_stage1(tmp_path / "stage1"), tmp_path, tmp_path / "fail.py")
    try:
        page = visit(site.address)
        upload(page, tmp_path / "chest.png")
        page.click("#again")
        assert_is_empty(page, site)
        page = visit(site.address)
        upload(page, tmp_path / "chest.png")
        site.end()
        site.start()
        page.click("#again")
        page.wait_for_selector("#result [role=alert]")
        assert page.inner_text("#result") == "The picture is no longer in memory; drop it again."
    finally:
        site.end()
