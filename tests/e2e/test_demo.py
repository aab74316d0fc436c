"""`make demo`: whole on phantoms, and again; in a few steps on real images; and what is done with it then."""

import json
import re
import shutil
import subprocess

import pytest
from loopback_hub import LoopbackHub
from project_copy import write_short_recipes
from stage_folders import run
from warm_python import warm_python

from medhiera.shipped_files import RECIPES

# What a stranger runs, who has the stock libraries and the names on the Hub.
FOUR_ROUTES = """
import importlib.util, json, sys
import numpy as np, torch
from datasets import load_dataset
from sklearn.metrics import roc_auc_score
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

for name in ("modeling_hiera_mae", "medhiera", "dataset_scripts"):
    assert importlib.util.find_spec(name) is None, name + " can be seen from here"
model_id, dataset_id = sys.argv[1:]
rows = load_dataset(dataset_id, "chestx_ray14", split="test")
findings = rows.features["findings"].feature.names
classify = pipeline("image-classification", model=model_id, top_k=len(findings))
answers = [{a["label"]: a["score"] for a in each} for each in classify(rows["image"][:], batch_size=16)]
scores = np.array([[answer[name] for name in findings] for answer in answers])
truth = np.array(rows["labels"][:], dtype=float)
answer = {"images": len(rows), "auroc": roc_auc_score(truth, scores, average="macro")}
images = [image.convert("RGB") for image in rows["image"][:16]]
pixels = AutoImageProcessor.from_pretrained(model_id)(images, return_tensors="pt")
for flag in (False, True):
    model = AutoModelForImageClassification.from_pretrained(model_id, trust_remote_code=flag)
    with torch.no_grad():
        chances = model(**pixels).logits.sigmoid().numpy()
    order = [model.config.label2id[name] for name in findings]
    answer[type(model).__name__] = float(abs(chances[:, order] - scores[:16]).max())
print("ANSWER" + json.dumps(answer))
"""


# demo.py with recipes of another folder.
OTHER_RECIPES = """
import runpy, sys
from pathlib import Path
from medhiera import shipped_files
shipped_files.RECIPES = Path(sys.argv[1])
sys.argv = ["demo.py", *sys.argv[2:]]
runpy.run_path("demo.py", run_name="__main__")
"""


def run_from(root, *command):
    return subprocess.run(
        [*map(str, command)], cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=1500,
    )  # fmt: skip


def demo(root, *variables):
    return run_from(root, "make", "--no-print-directory", *variables, "demo")


def summary(text):
    """The closing summary as lines."""
    return text[text.index("══ summary") :].splitlines()


@pytest.mark.slow
def test_demo_on_phantoms_learns_and_is_reused(root):
    shutil.rmtree(root / "demo" / "phantom", ignore_errors=True)
    first = demo(root, f"PY={warm_python()}")  # and what it starts; the notebook's test trains in cold ones
    assert first.returncode == 0, first.stdout[-4000:]
    record = json.loads((root / "demo" / "phantom" / "stage2" / "metrics.json").read_text())
    evaluation = record["evaluation"]
    assert evaluation["mean_auroc_interval"][0] > 0.6, "clearly above chance"
    assert len(evaluation["findings_in_mean"]) == 15
    assert 20 < evaluation["pointing_game"]["pairs"] < 120, "a quarter of the patients have boxes"
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
@pytest.mark.parametrize(("page", "snippets", "commands"), [("README.md", 1, 2), ("docs/usage.md", 3, 4)])
def test_a_page_works_on_what_the_demo_left(root, page, snippets, commands, tmp_path):
    assert (root / "demo" / "phantom" / "stage2" / "README.md").is_file(), "the demo's own test comes first"
    text = (root / page).read_text()
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(codes) == snippets
    for code in codes:
        (tmp_path / "snippet.py").write_text(code)
        subprocess.run([warm_python(), "-W", "ignore", tmp_path / "snippet.py"], cwd=root, check=True)
    scripts = r"python (?:predict|evaluate_cls|embed|probe)\.py|medhiera (?:predict|probe)"
    lines = re.findall(rf"^(?:{scripts}) .*$", text, re.MULTILINE)
    assert len(lines) == commands
    for line in lines:
        program, *words = line.split()
        words = words if program == "python" else ["-m", program, *words]
        subprocess.run([warm_python(), *words], cwd=root, check=True)
    assert (root / "runs" / "predictions.csv").is_file()
    (root / "runs" / "features.parquet").unlink(missing_ok=True)
    for name in ("demo-test", "demo-probe", "features-probe"):
        shutil.rmtree(root / "runs" / name, ignore_errors=True)


@pytest.mark.slow
def test_the_demo_goes_to_a_hub_and_comes_back_by_four_routes(root, tmp_path):
    """load_dataset, pipeline, AutoModel without and with the flag; the AUROC found there is the record's.

    The images are those of the source that is scored: test_data_hub.py pushes a whole cocktail.
    """
    folder = root / "demo" / "phantom"
    assert (folder / "stage2" / "metrics.json").is_file(), "the demo's own test comes first"
    names = ("tester/phantom-chestxray14", "tester/phantom-cocktail")
    for name in ("elsewhere", "raw"):
        (tmp_path / name).mkdir()
    scored = "ChestXray-NIHCC"
    (tmp_path / "raw" / scored).symlink_to(folder / "raw" / scored)
    with LoopbackHub() as hub:
        run(hub, tmp_path / "ours", "-m", "medhiera.hub.publish", str(folder / "stage2"), names[0])
        options = ("--output_dir", str(tmp_path / "parquet"), "--stored_size", "0", "--push_to_hub", names[1])
        merge = ("-m", "dataset_scripts", "--data_dir", str(tmp_path / "raw"))
        run(hub, tmp_path / "ours", *merge, *options)
        script = ("-I", "-W", "ignore", "-c", FOUR_ROUTES, *names)
        said = run(hub, tmp_path / "theirs", *script, cwd=tmp_path / "elsewhere")
    answer = json.loads(said.split("ANSWER")[1].splitlines()[0])
    record = json.loads((folder / "stage2" / "metrics.json").read_text())["evaluation"]
    assert answer["images"] == record["images"]
    assert answer["auroc"] == pytest.approx(record["mean_auroc"], abs=5e-3)
    assert answer["HieraForImageClassification"] < 1e-4
    assert answer["HieraMAEForImageClassification"] < 1e-4


@pytest.mark.slow
@pytest.mark.realdata
def test_demo_on_real_images(root, mini_cocktail, tmp_path):
    """A few steps: what is asked of the weights is asked of those of the phantoms."""
    assert f'demo.py --data "{mini_cocktail}"' in demo(root, "--dry-run", f"DATA={mini_cocktail}").stdout
    shutil.rmtree(root / "demo" / mini_cocktail.name, ignore_errors=True)
    script = tmp_path / "other_recipes.py"
    script.write_text(OTHER_RECIPES)
    recipes = write_short_recipes(RECIPES, tmp_path)
    done = run_from(root, warm_python(), script, recipes, "--data", mini_cocktail)
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
