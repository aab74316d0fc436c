"""The pages of docs/: each is in the site and in README's index, no link is dead, and the site builds."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medhiera.__main__ import COMMANDS

LINK = re.compile(r"(?:\]\(|src=\")([^)\"\s]+)[)\"]")


def pages_of(nav):
    """The files that a navigation names, at any depth."""
    for entry in nav:
        for value in entry.values():
            yield from pages_of(value) if isinstance(value, list) else [value]


def faults_of(text: str, folder: Path, root: Path) -> list[str]:
    """Links out of `text`, which lies in `folder`, to files that are not there or outside the repository."""
    faults = []
    for target in LINK.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"https?://|#", target):
            continue
        path = (folder / target.split("#")[0]).resolve()
        if not (path.exists() and path.is_relative_to(root)):
            faults.append(target)
    return faults


def test_every_page_is_in_the_site_and_in_the_index(root):
    nav = set(pages_of(yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = {path.relative_to(root / "docs").as_posix() for path in (root / "docs").rglob("*.md")}
    assert nav == pages | {"index.md"}, "mkdocs.yml, nav"
    readme = set(LINK.findall((root / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page}" for page in pages} <= readme, "README.md, its list of pages"


def test_every_link_leads_to_a_file(root):
    places = [root / "README.md", *(root / "docs").rglob("*.md")]
    faults = {path.name: faults_of(path.read_text(encoding="utf-8"), path.parent, root) for path in places}
    assert not any(faults.values()), faults


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    text = "[a](there.md#x) [b](gone.md) [c](../out.md) [d](https://example.org)\n```\n[e](code.md)\n```\n"
    (tmp_path.parent / "out.md").touch()
    assert faults_of(text, tmp_path, tmp_path) == ["gone.md", "../out.md"]


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/comparison.md"])
def test_commands_and_recipes_that_a_page_names_exist(root, page):
    text = (root / page).read_text(encoding="utf-8")
    named = re.findall(r"^(?:accelerate launch -m )?medhiera ([a-z-]+)", text, re.MULTILINE)
    named += re.findall(r"`medhiera ([a-z-]+)", text)
    assert set(named) <= COMMANDS.keys() and (named or page == "docs/usage.md")
    recipes = set(re.findall(r"\b(?:mae|cls|report)_\w+\.yaml", text))
    assert recipes <= {path.name for path in (root / "configs").glob("*.yaml")}


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    pytest.importorskip("mkdocs", reason="make setup brings it")
    copy = tmp_path_factory.mktemp("pages")
    for name in ("docs", "medhiera", "modeling_hiera_mae", "dataset_scripts"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy2(root / name, copy / name)
    return copy


def build(site):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict"],
        cwd=site, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_the_docstrings(site):
    done = build(site)
    assert done.returncode == 0, done.stderr
    reference = (site / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "One vector an image" in reference and "bool_masked_pos" in reference
    home = (site / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="data/"' in home and "](" not in re.sub(r"<code>.*?</code>", "", home, flags=re.DOTALL)
    assert 'href="../data/"' in (site / "site" / "evaluation" / "index.html").read_text(encoding="utf-8")

    with (site / "docs" / "app.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](gone.md)\n")
    refused = build(site)
    assert refused.returncode != 0 and "gone.md" in refused.stderr
