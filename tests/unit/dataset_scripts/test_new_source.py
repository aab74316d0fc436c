"""A fifth source is one new file and one line in cocktail.py; everything else finds it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from raw_folders import ChestFolder, gray, read_leakage_report

ROOT = Path(__file__).parents[3]
TOY = '''
"""Toy set: PNG files and `list.txt`, a line `file split finding` an image."""

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing, read_lines
from dataset_scripts.findings import FINDINGS, NOT_ANNOTATED


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    listing = SourceListing(SOURCE, scan.root)
    for line in read_lines(scan.root / "list.txt"):
        name, split, finding = line.split()
        labels = [NOT_ANNOTATED] * len(FINDINGS)
        labels[FINDINGS.index("Mass")] = float(finding == "Mass")
        image_id = f"{SOURCE.name}/{name}"
        record = ImageRecord(image_id, SOURCE.name, image_id, name, tuple(labels))
        listing.splits.setdefault(split, []).append(record)
    return listing


SOURCE = Source(
    name="Toy Set",
    folder="TOY",
    list_images=list_images,
    title="The toy set",
    description="Three smooth pictures.",
    license="Public domain.",
    homepage="the toy shop",
    citation="Toymaker 2026.",
    label_names=("Mass",),
    held_out_splits=("validation", "test"),
    hub_dataset="toy-set",
    hub_tags=("toy",),
)


class ToySet(SourceBuilder):
    """Builder of the toy set alone."""

    SOURCES = (SOURCE,)
'''
ASK = """
import json, sys
from pathlib import Path
from huggingface_hub import ModelCard
from medhiera.data.cocktail import missing_validation
from medhiera.hub.model_card import TEMPLATES, render_card
from medhiera.hub.record import read_record
record = read_record(TEMPLATES / "examples" / "stage1")
record.data.is_phantom, record.data.trained_on = False, {"Toy Set": 3}
card = ModelCard(render_card(record, []))
missing = [missing_validation(Path(folder)) for folder in sys.argv[1:]]
print(json.dumps({"missing": missing, "tags": card.data.tags,
                  "datasets": card.data.datasets, "is_cited": "- Toymaker 2026." in card.text}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the new file and the new line, and nothing else."""
    copy = tmp_path / "project"
    for package in ("dataset_scripts", "medhiera", "modeling_hiera_mae", "model_cards"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "dataset_scripts" / "toy.py").write_text(TOY)
    cocktail = copy / "dataset_scripts" / "cocktail.py"
    text = cocktail.read_text()
    assert text.count('    "image_folder",\n') == 1
    cocktail.write_text(text.replace('    "image_folder",\n', '    "image_folder",\n    "toy",\n'))
    return copy


def run(project: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_toy(raw: Path, pictures: dict[str, int]) -> None:
    """Draws TOY/NAME.png by seed; the split is the name's first word."""
    (raw / "TOY").mkdir(parents=True)
    for name, seed in pictures.items():
        gray(seed, 80).save(raw / "TOY" / f"{name}.png")
    lines = [
        f"{name}.png {name.split('-')[0]} {'Mass' if seed % 2 else 'none'}\n"
        for name, seed in pictures.items()
    ]
    (raw / "TOY" / "list.txt").write_text("".join(lines))


def test_its_images_arrive_and_what_it_holds_out_is_guarded(
    project: Path, chest: ChestFolder, tmp_path: Path
) -> None:
    chest.add("test", "00000052_000.png", "Edema", 52, seed=901)
    raw, trained = chest.finish().parent, chest.trained()
    pictures = {"train-new": 903, "train-leak": 901, "validation-new": 904, "test-twin": chest.seeds[trained]}
    write_toy(raw, pictures)
    out = tmp_path / "out"
    command = ["-m", "dataset_scripts", "--data_dir", str(raw), "--output_dir", str(out), "--num_proc", "2"]
    run(project, *command)
    rows = load_dataset(str(out), "toy_set", cache_dir=str(tmp_path / "hf"))
    assert {split: part["image_id"][:] for split, part in rows.items()} == {
        "train": ["Toy Set/train-new.png"],
        "validation": ["Toy Set/validation-new.png"],
        "test": ["Toy Set/test-twin.png"],
    }
    report = read_leakage_report(out)
    assert report["reference"] == ["ChestX-ray14", "Toy Set"]
    assert {leak["image_id"]: leak["held_out_image_id"] for leak in report["dropped"]} == {
        f"ChestX-ray14/{trained}": "Toy Set/test-twin.png",
        "Toy Set/train-leak.png": "ChestX-ray14/00000052_000.png",
    }
    card = (out / "README.md").read_text()
    for text in (
        "| Toy Set | 1 | 1 | 1 |",
        "### Toy Set",
        "Public domain.",
        "Cite: Toymaker 2026.",
        "toy_set",
    ):
        assert text in card
    assert "Labels: Mass annotated; the others are NaN." in card
    alone = (
        "from dataset_scripts.toy import ToySet; import sys; b = ToySet(sys.argv[2], data_dir=sys.argv[1]); "
    )
    alone += "b.download_and_prepare(num_proc=2); print(sorted(b.as_dataset()))"
    printed = run(project, "-c", alone, str(raw / "TOY"), str(tmp_path / "cache"))
    assert "['test', 'train', 'validation']" in printed


def test_the_recipe_check_and_the_model_card_know_it(project: Path, tmp_path: Path) -> None:
    for name in ("raw", "with it"):
        (tmp_path / name / "COVIDx_CXR").mkdir(parents=True)
    write_toy(tmp_path / "with it", {"train-a": 1})
    folders = (str(tmp_path / "raw"), str(tmp_path / "with it"))
    answer = json.loads(run(project, "-c", ASK, *folders).splitlines()[-1])
    [fault], none = answer["missing"]
    assert "mimic-cxr-jpg or chexpert or own_images or TOY" in fault and none == []
    assert (answer["datasets"], answer["is_cited"]) == (["toy-set"], True)
    assert "toy" in answer["tags"] and "chest-x-ray" not in answer["tags"]
