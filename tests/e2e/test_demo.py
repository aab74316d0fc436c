"""`make demo` whole, on phantoms and on real images, twice each."""

import json
import re
import shutil
import subprocess
import sys

import pytest


def demo(root, *variables):
    return subprocess.run(
        ["make", "--no-print-directory", "demo", *variables], cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500,
    )  # fmt: skip


def summary(text):
    """The closing summary as lines."""
    return text[text.index("══ summary") :].splitlines()


@pytest.mark.slow
def test_demo_on_phantoms_learns_and_is_reused(root):
    shutil.rmtree(root / "demo" / "phantom", ignore_errors=True)
    first = demo(root)
    assert first.returncode == 0, first.stdout[-4000:]
    record = json.loads((root / "demo" / "phantom" / "stage2" / "metrics.json").read_text())
    evaluation = record["evaluation"]
    assert evaluation["mean_auroc_interval"][0] > 0.6, "clearly above chance"
    assert len(evaluation["findings_in_mean"]) == 15
    mae = json.loads((root / "demo" / "phantom" / "stage1" / "metrics.json").read_text())["evaluation"]
    assert mae["masked_loss"] < 0.9 * mae["masked_loss_before"]
    text = "\n".join(summary(first.stdout))
    assert "random weights" in text
    assert float(re.search(r"largest difference from ours (\S+)", text)[1]) < 1e-4
    again = demo(root)
    assert again.returncode == 0, again.stdout[-4000:]
    reused = [line.split()[:3] for line in summary(again.stdout) if line.endswith("reused")]
    assert len(reused) == 4, again.stdout[-3000:]


@pytest.mark.slow
def test_the_readme_works_on_what_the_demo_left(root):
    assert (root / "demo" / "phantom" / "stage2" / "README.md").is_file(), "the demo's own test comes first"
    readme = (root / "README.md").read_text()
    image = next((root / "demo" / "phantom" / "raw" / "COVIDx_CXR" / "test").glob("*.png"))
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        code = snippet.replace("IMAGE.png", image.name)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=True)
    commands = re.findall(r"^python (?:predict|evaluate_cls)\.py .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run([sys.executable, *command.split()[1:]], cwd=root, check=True)
    assert (root / "runs" / "predictions.csv").is_file()
    shutil.rmtree(root / "runs" / "demo-test")


@pytest.mark.slow
@pytest.mark.realdata
def test_demo_on_real_images(root, mini_cocktail):
    shutil.rmtree(root / "demo" / mini_cocktail.name, ignore_errors=True)
    done = demo(root, f"DATA={mini_cocktail}")
    assert done.returncode == 0, done.stdout[-4000:]
    folder = root / "demo" / mini_cocktail.name
    record = json.loads((folder / "stage2" / "metrics.json").read_text())
    assert record["data"]["is_phantom"] is False
    assert record["data"]["leakage"]["dropped"] >= 13  # the Radiography images that are NIH test images
    assert record["data"]["tested_on"] == {"ChestX-ray14": 214}
    without = [name for name, entry in record["evaluation"]["findings"].items() if entry["auroc"] is None]
    text = "\n".join(summary(done.stdout))
    for name in without:
        assert re.search(rf"{name.replace('_', ' ')}\s+–\s+no positive image", text)
