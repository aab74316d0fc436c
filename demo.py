"""The main job in one command: cohort → cocktail → stage 1 → stage 2 → pictures and cards → a prediction.

    python demo.py                       on synthetic phantoms, in ./demo/phantom
    python demo.py --data FOLDER         on real images in the sources' own layouts

Each step is the command a user would type. What a former run finished is reused, and said to be.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser, show_progress


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument("--data", type=Path, help="a folder with one or more of the sources")
    parser.add_argument("--stage0", help="weights for stage 1: a folder or a Hub id (default: random)")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch

from dataset_scripts import SOURCES, write_phantom_cohort
from dataset_scripts.build.chest_column import pack
from dataset_scripts.build.chest_contour import find_chest
from dataset_scripts.build.layout import BUILD_REPORT_FILE, COHORT_FILE
from dataset_scripts.findings import CHEST_REGION
from medhiera.data.cocktail import BuiltDataset, figure_mark, open_cocktail
from medhiera.data.dataset import RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import default_sources, sample_across_sources, select_examples
from medhiera.data.stored_images import as_picture
from medhiera.demo_stages import Demo, ask_stock, how_it_ended, say, shown
from medhiera.errors import run_script
from medhiera.evaluation.tables import format_table
from medhiera.hub.record import ClassificationRecord, PretrainingRecord, read_record
from medhiera.inference.classifier import Classifier
from medhiera.output import make_folder, one_writer
from medhiera.run import parse_run_config
from medhiera.shipped_files import RECIPES
from medhiera.stages import PRETRAINING
from medhiera.training.figures import draw_masks

STOCK_CHECK = """
import json, sys
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1], top_k=15)
print(json.dumps({"class": type(classify.model).__name__, "scores": classify(sys.argv[2])}))
"""


def main(argv: list[str]) -> None:
    """Read the command line, then run the demo where no other one runs."""
    parser = build_parser()
    options = parser.parse_args(argv)
    show_progress()
    folder = Path.cwd() / "demo" / ("phantom" if options.data is None else options.data.resolve().name)
    make_folder(folder, "the demo:")
    with one_writer(folder / "summary.txt", "the demo:"):
        run_demo(options, folder)


def run_demo(options: argparse.Namespace, folder: Path) -> None:
    """Run the whole demo in its folder and print its summary."""
    started = time.monotonic()
    demo = Demo(folder, options.data.resolve() if options.data else folder / "raw")

    if options.data is None:
        say("phantom cohort: synthetic radiographs in the sources' layouts")
        begun = time.monotonic()
        is_there = (demo.data / COHORT_FILE).is_file()
        write_phantom_cohort(demo.data)
        demo.seconds["phantom cohort"] = None if is_there else time.monotonic() - begun

    say(f"cocktail: {demo.data} → {shown(folder / 'cocktail')}")
    begun = time.monotonic()
    args = [
        "--data_dir",
        str(demo.data),
        "--build_dir",
        str(folder / "cocktail"),
        "--output_dir",
        str(folder),
    ]
    recipe = parse_run_config(PRETRAINING, [str(RECIPES / "mae_smoke.yaml"), *args])
    recipe.data.build_num_proc = os.cpu_count() or 1
    cocktail = open_cocktail(recipe.data)
    demo.seconds["cocktail"] = None if cocktail.is_reused else time.monotonic() - begun

    stage1, state = demo.stage(1, "train_mae.py", "mae_smoke.yaml", options.stage0, cocktail.folder.name)
    stage2, _ = demo.stage(2, "train_cls.py", "cls_smoke.yaml", str(stage1), state)

    say("chest contours: which units high-definition pre-training would hide (docs/high_definition.md)")
    begun = time.monotonic()
    draw_contours(cocktail, folder / "contours.png")
    demo.seconds["chest contours"] = time.monotonic() - begun

    say("a new process, stock transformers, none of this project: one test image")
    begun = time.monotonic()
    check = stock_check(cocktail, stage2)
    demo.seconds["prediction"] = time.monotonic() - begun

    summary_text = closing_summary(demo, cocktail, stage1, stage2, check, time.monotonic() - started)
    (folder / "summary.txt").write_text(summary_text, encoding="utf-8")
    print(summary_text)


def draw_contours(cocktail: BuiltDataset, path: Path) -> None:
    """Find the chest in a few held-out images, and draw the masks that would follow it."""
    rows = cocktail.rows["test"]
    chests = [source.name for source in SOURCES if source.shows_chest]
    rows = select_examples(rows, [name for name in chests if name in rows.unique("source")], None, seed=0)
    few = rows.select(sample_across_sources(rows, 6))
    regions = [find_chest(np.array(as_picture(row["image"]).convert("L"))) for row in few]
    few = few.add_column(CHEST_REGION, [pack(region) for region in regions])
    table = RadiographDataset(
        few,
        Preprocessing(image_size=256, resize_size=256, mean=cocktail.mean, std=cocktail.std),
        masks=MaskDrawing((8, 8), mask_ratio=0.75, region="contour"),
    )
    captions = [row["source"] for row in few]
    draw_masks(table, range(len(few)), captions, path, mark=figure_mark(few, is_smoke_run=False))


def stock_check(cocktail: BuiltDataset, stage2: Path) -> dict[str, Any]:
    """Classify one test image in a process that has stock transformers only, and compare with ours."""
    rows = cocktail.rows["test"]
    names = default_sources(rows) or rows.unique("source")
    row = next(row for row in rows if row["source"] in names)
    classifier = Classifier.from_pretrained(stage2)
    picture = as_picture(row["image"])
    ours = dict(zip(classifier.names, classifier.probabilities([picture])[0].tolist(), strict=True))
    with tempfile.TemporaryDirectory() as elsewhere:
        image = Path(elsewhere) / "image.png"
        picture.save(image)
        answer = json.loads(ask_stock(STOCK_CHECK, str(stage2), str(image)))
    stock = {entry["label"]: entry["score"] for entry in answer["scores"]}
    return {
        "image_id": row["image_id"],
        "class": answer["class"],
        "truth": [name for name, value in zip(cocktail.names, row["labels"], strict=True) if value == 1],
        "highest": sorted(stock.items(), key=lambda item: -item[1])[:3],
        "largest_difference": max(abs(ours[name] - stock[name]) for name in cocktail.names),
    }


def closing_summary(
    demo: Demo, cocktail: BuiltDataset, stage1: Path, stage2: Path, check: dict[str, Any], total: float
) -> str:
    """What the user takes away, as text."""
    first, second = read_record(stage1), read_record(stage2)
    assert isinstance(first, PretrainingRecord) and isinstance(second, ClassificationRecord)
    mae, test = first.evaluation, second.evaluation
    lines = ["", "══ summary " + "═" * 60, ""]
    for name, seconds in demo.seconds.items():
        lines.append(f"  {name:<16} " + ("reused" if seconds is None else f"{seconds:6.0f} s"))
    lines += [f"  {'in all':<16} {total:6.0f} s on {os.cpu_count()} CPU cores, {device_name()}", ""]
    for split, counts in first.data.images.items():
        lines.append(f"  {split:<11} " + ", ".join(f"{source} {count:,}" for source, count in counts.items()))
    report = shown(cocktail.folder / BUILD_REPORT_FILE)
    lines += [
        "",
        f"  stage 0   {first.lineage.started_from}",
        f"  stage 1   masked loss {mae.masked_loss_before:.4f} → {mae.masked_loss:.4f} "
        f"({first.training.steps} steps, {second.recipe['image_size']} px)",
        f"  stage 2   {second.training.steps} steps, the best by validation AUROC was step "
        f"{second.training.best_step}",
        "",
        *(f"  {line}" for line in format_table(test)),
        "",
        f"  stock {check['class']} on {check['image_id']}: "
        + ", ".join(f"{name} {score:.2f}" for name, score in check["highest"]),
        f"  (labeled {', '.join(check['truth']) or 'nothing'}); largest difference from ours "
        f"{check['largest_difference']:.1e}",
        "",
        f"  built data  {shown(cocktail.folder)} (report: {report})",
        f"  contours    {shown(demo.folder / 'contours.png')}",
        f"  stage 1     {shown(stage1)}: README.md, figures/reconstructions.png, figures/loss.png",
        f"  stage 2     {shown(stage2)}: README.md, figures/auroc.png, figures/roc.png",
        "  A smoke run proves the software. These weights are not trained for any medical use.",
        "",
    ]
    return "\n".join(lines)


def device_name() -> str:
    """The GPU's name, or that there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


if __name__ == "__main__":
    try:
        run_script(main, "what is finished is kept: repeat the command")
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo.py: {how_it_ended(error.returncode)}")
