"""The pages of docs/: each is in the site and in README's index, no link is dead, and the site builds."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
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


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/questions.md", "docs/comparison.md"])
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


def test_the_answers_in_python_do_what_they_say(root, tmp_path, monkeypatch, capsys):
    """Each fold tests other patients, all of one on one side, beside a table that stays as it was; seeds have
    Student's interval; a patient's score is the mean of the films'."""
    page = (root / "docs" / "questions.md").read_text(encoding="utf-8")
    answers = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    _, folds, seeds, mean, finding, classes = answers
    monkeypatch.chdir(tmp_path)
    patients = [f"00{number // 2}" for number in range(40)]
    (tmp_path / "mine").mkdir()
    table = pd.DataFrame({"image": [f"{row}.png" for row in range(40)], "patient": patients, "label": "a"})
    table.to_csv("mine/data.csv", index=False)
    (tmp_path / "mine" / "0.png").write_bytes(b"a film")
    before = (tmp_path / "mine" / "data.csv").read_bytes()
    seen = []

    def launch(words, check):
        assert words[:4] == [sys.executable, "-m", "medhiera", "train-cls"] and words[3] in COMMANDS
        fold = Path(words[words.index("--data_dir") + 1])
        assert (fold / "0.png").samefile("mine/0.png")
        seen.append(pd.read_csv(fold / "data.csv", dtype=str))

    monkeypatch.setattr(subprocess, "run", launch)
    exec(folds, {})
    assert len(seen) == 5 and (tmp_path / "mine" / "data.csv").read_bytes() == before
    for each in seen:
        assert (each.groupby("patient")["split"].nunique() == 1).all()
        assert set(each["split"]) == {"train", "validation", "test"}
    tested = [set(each.loc[each["split"] == "test", "patient"]) for each in seen]
    assert sum(map(len, tested)) == 20 == len(set.union(*tested))

    for number, score in enumerate((0.70, 0.72, 0.74, 0.76, 0.78)):
        (tmp_path / "runs" / f"seed{number}").mkdir(parents=True)
        record = json.dumps({"evaluation": {"mean_auroc": score}})
        (tmp_path / "runs" / f"seed{number}" / "metrics.json").write_text(record, encoding="utf-8")
    exec(seeds, {})  # 0.74 ± 2.776 × 0.0316 / √5
    assert capsys.readouterr().out == "0.740 (0.701 to 0.779)\n"

    (tmp_path / "runs" / "evaluation").mkdir(parents=True)
    columns = {
        "patient_id": ["a", "a", "b"],
        "Effusion": [0.2, 0.6, 0.9],
        "Effusion (label)": [0.0, 1.0, 1.0],
    }
    pd.DataFrame(columns).to_parquet("runs/evaluation/predictions.parquet")
    found = {}
    exec(mean, found)
    assert found["by_patient"]["score"].tolist() == pytest.approx([0.4, 0.9])
    assert found["by_patient"]["label"].tolist() == [1, 1]

    columns |= {"image_id": ["i0", "i1", "i2"], "Effusion": [0.95, 0.6, 0.9]}
    columns |= {"Mass": [0.05, 0.4, 0.1], "Mass (label)": [1.0, 0.0, 0.0]}
    pd.DataFrame(columns).to_parquet("runs/evaluation/predictions.parquet")
    points = {"findings": {"Effusion": {"youden": {"threshold": 0.7}}}}
    record = {"evaluation": {"operating_points": points}}
    Path("runs/evaluation/metrics.json").write_text(json.dumps(record), encoding="utf-8")
    exec(finding, found)
    wrong = found["wrong"].sort_values("by", ascending=False)
    assert wrong["image_id"].tolist() == ["i0", "i1"]
    exec(classes, found)
    table = found["table"]
    assert table["true"].tolist() == ["Mass", "Effusion", "Effusion"]
    assert table["called"].tolist() == ["Effusion"] * 3
