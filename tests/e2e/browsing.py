"""What a reader does with the page in headless Chromium."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Without the last three Chromium calls home at every start.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)"
)
DONE = "#result table, #result [role=alert], #result .triptych"


def upload(page, path):
    """Send a file and wait for a result that was not there before."""
    page.evaluate("(done) => document.querySelectorAll(done).forEach((each) => each.dataset.seen = '')", DONE)
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_function(
        "(done) => [...document.querySelectorAll(done)].some((each) => !('seen' in each.dataset))", arg=DONE
    )


def probabilities(page):
    return {
        row.get_attribute("data-finding"): float(row.locator(".probability").inner_text())
        for row in page.locator("#result tbody tr").all()
    }


def choose_finding(page, name):
    page.click("#finding input")
    page.get_by_role("option", name=name, exact=True).click()
