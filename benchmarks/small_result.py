"""Does pre-training on the cocktail help a task with few labelled images? A small real experiment.

Stands beside the project; nothing imports it. The task is a folder in ChestX-ray14's layout, few patients.
For each seed its patients are cut anew into test, validation and training; the cocktail's other sources, the
other ChestX-ray14 images and the task's training images pre-train, and whoever is held out is kept out of
that. Then the same classifier starts from random weights, from an MAE of the ChestX-ray14 images alone and
from an MAE of the whole cocktail, both MAEs for the same number of steps, with the paper's and the modern
recipe (as *_smoke.yaml has them); and a timm ResNet-18 from random weights has the same data, augmentation,
steps and schedule. So few validation images (29 of nih64) cannot choose a checkpoint: every classifier keeps
its last weights. Differences are paired by seed.

    python -m benchmarks.small_result --task ../shared/nih64 --cocktail ../shared/mini_cocktail \
        --output_dir runs/small

A finished run is skipped, so the same command resumes where it ended. On two CPU cores: hours.
"""

import argparse
import csv
import logging
import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.splits import stratified_patients
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.data.cocktail import open_cocktail
from medhiera.experiments.arms import Arm
from medhiera.experiments.report import records_of, student_interval
from medhiera.experiments.runner import ExperimentRunner, leave_on_signals, run_all
from medhiera.hub.record import ClassificationRecord
from medhiera.shipped_files import PACKAGE

logger = logging.getLogger(__name__)

NIH = "ChestXray-NIHCC"
ENTRIES = "Data_Entry_2017_v2020.csv"
TEST_SHARE = 0.35
COUNTED = (
    "No Finding", "Effusion", "Infiltration", "Atelectasis", "Nodule", "Cardiomegaly", "Fibrosis",
    "Pleural_Thickening",
)  # fmt: skip
"""The findings with 20 images or more in the task as a whole; chosen before any result was seen."""
RECIPES = {
    "paper": ("configs/mae_smoke.yaml", "configs/cls_smoke.yaml", "--rotation_degrees", "30"),
    "modern": ("configs/mae_modern_smoke.yaml", "configs/cls_modern_smoke.yaml"),
}
BASELINE = "benchmarks/resnet_baseline.py"


def read_entries(folder: Path) -> list[dict[str, str]]:
    """The rows of ChestX-ray14's table whose images are there."""
    with (folder / NIH / ENTRIES).open(newline="", encoding="utf-8-sig") as file:
        return [
            row for row in csv.DictReader(file) if (folder / NIH / "images" / row["Image Index"]).exists()
        ]


def write_root(root: Path, images: dict[Path, dict[str, str]], held_out: set[str]) -> None:
    """ChestX-ray14's layout with the images of these files; those of held-out patients are the test list."""
    shutil.rmtree(root / NIH, ignore_errors=True)
    (root / NIH / "images").mkdir(parents=True)
    for path in images:
        shutil.copyfile(path, root / NIH / "images" / path.name)
    rows = list(images.values())
    with (root / NIH / ENTRIES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for name, is_test in (("test_list.txt", True), ("train_val_list.txt", False)):
        names = sorted(row["Image Index"] for row in rows if (row["Patient ID"] in held_out) == is_test)
        (root / NIH / name).write_text("".join(f"{each}\n" for each in names), encoding="utf-8")


def prepare(task: Path, cocktail: Path, output: Path, seed: int) -> tuple[Path, Path]:
    """The two data roots of one seed: the task with its own test list, and the cocktail that avoids it."""
    task_root, mixed_root = output / "data" / f"task{seed}", output / "data" / f"cocktail{seed}"
    if (mixed_root / "ready").exists():
        return task_root, mixed_root
    entries = read_entries(task)
    findings = sorted({name for row in entries for name in row["Finding Labels"].split("|")})
    counts: dict[str, list[float]] = {}
    for row in entries:
        has = counts.setdefault(row["Patient ID"], [0.0] * len(findings))
        for name in row["Finding Labels"].split("|"):
            has[findings.index(name)] += 1
    tested = set(stratified_patients(counts, TEST_SHARE, seed))
    write_root(task_root, {task / NIH / "images" / row["Image Index"]: row for row in entries}, tested)
    recipe = parse_config(
        ClassificationArguments,
        ["configs/cls_smoke.yaml", "--data_dir", str(task_root), "--output_dir", str(output / "none"),
         "--build_dir", str(output / "built"), "--use_cpu", "true"],
    )  # fmt: skip
    validation = open_cocktail(recipe.data).split("validation")
    by_name = {row["Image Index"]: row["Patient ID"] for row in entries}
    held_out = tested | {by_name[Path(image_id).name] for image_id in validation["image_id"]}
    everything = {cocktail / NIH / "images" / row["Image Index"]: row for row in read_entries(cocktail)}
    everything |= {task / NIH / "images" / row["Image Index"]: row for row in entries}
    everything = dict({path.name: (path, row) for path, row in everything.items()}.values())  # names once
    official = set((cocktail / NIH / "test_list.txt").read_text(encoding="utf-8").split())
    held_out |= {row["Patient ID"] for row in everything.values() if row["Image Index"] in official}
    write_root(mixed_root, everything, held_out)
    for source in cocktail.iterdir():
        if source.is_dir() and source.name != NIH:
            shutil.copytree(source, mixed_root / source.name, dirs_exist_ok=True)
    (mixed_root / "ready").touch()
    return task_root, mixed_root


def arms_of(mae_steps: int, steps: int, task_root: Path) -> list[Arm]:
    """Two pre-trainings of as many steps, three classifiers, and the baseline."""
    longer = ("--max_steps", str(mae_steps), "--eval_steps", str(mae_steps), "--save_steps", str(mae_steps))
    own = ("--data_dir", str(task_root), "--keep_checkpoint", "last", "--max_steps", str(steps))
    own += ("--eval_steps", str(steps), "--save_steps", str(steps), "--early_stopping_patience", "0")
    return [
        Arm("mae-nih", "", "train_mae.py", None, ("--sources", "ChestX-ray14", *longer)),
        Arm("mae-cocktail", "", "train_mae.py", None, longer),
        Arm("random", "Hiera, random", "train_cls.py", None, own),
        Arm("nih", "Hiera, MAE on ChestX-ray14", "train_cls.py", "mae-nih", own),
        Arm("cocktail", "Hiera, MAE on the cocktail", "train_cls.py", "mae-cocktail", own),
        Arm("resnet18", "ResNet-18, random", BASELINE, None, own),
    ]


def runner_of(options: argparse.Namespace, recipe: str, mixed_root: Path) -> ExperimentRunner:
    """Where the runs of one recipe lie."""
    mae_recipe, cls_recipe, *more = RECIPES[recipe]
    shared = ("--use_cpu", "true", "--image_size", str(options.image_size))
    arguments = {
        "train_mae.py": (mae_recipe, *shared),
        "train_cls.py": (cls_recipe, *shared, *more),
        BASELINE: (cls_recipe, *shared, *more),
    }
    return ExperimentRunner(options.output_dir / recipe, str(mixed_root), None, arguments)


def mean_of(record: ClassificationRecord) -> float:
    """Mean test AUROC of the findings that count; of those with both values in the test split."""
    findings = record.evaluation.findings
    values = [findings[name].auroc for name in COUNTED]
    return statistics.mean(value for value in values if value is not None)


def with_interval(values: Sequence[float]) -> str:
    """Mean and its 95 % interval by Student's t over seeds."""
    mean, low, high = student_interval(values)
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def report(laboratories: dict[str, ExperimentRunner], arms: Sequence[Arm], seeds: Sequence[int]) -> str:
    """The table: what each arm reached and its paired difference from random Hiera weights."""
    lines = [
        f"{len(seeds)} seeds, each with its own patients, weights and order; mean test AUROC of "
        f"{len(COUNTED)} findings; 95 % intervals over seeds.",
        "",
        "| recipe | classifier | mean AUROC | difference from random, paired | by seed |",
        "|---|---|---|---|---|",
    ]
    for recipe, runner in laboratories.items():
        scores: dict[str, list[float]] = {}
        for arm in arms:
            if arm.label:
                records = records_of(runner, arm, seeds, ClassificationRecord)
                scores[arm.name] = [mean_of(record) for record in records]
        for arm in arms:
            if arm.label:
                own = scores[arm.name]
                paired = [one - other for one, other in zip(own, scores["random"], strict=True)]
                difference = "–" if arm.name == "random" else with_interval(paired)
                each = ", ".join(f"{value:.3f}" for value in own)
                lines.append(f"| {recipe} | {arm.label} | {with_interval(own)} | {difference} | {each} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prepare, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, type=Path, help="folder that holds ChestXray-NIHCC")
    parser.add_argument("--cocktail", required=True, type=Path, help="folder that holds the sources")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--image_size", type=int, default=96, help="nih64's images are of 64 pixels")
    parser.add_argument("--mae_steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=160)
    options = parser.parse_args()
    options.output_dir = options.output_dir.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    os.environ["PYTHONPATH"] = str(PACKAGE.parent)  # the baseline is a script in benchmarks/
    laboratories: dict[str, ExperimentRunner] = {}
    arms: list[Arm] = []
    for seed in range(options.seeds):
        task_root, mixed_root = prepare(options.task, options.cocktail, options.output_dir, seed)
        for recipe in options.recipes:
            laboratories[recipe] = runner_of(options, recipe, mixed_root)
            arms = arms_of(options.mae_steps, options.steps, task_root)
            run_all(laboratories[recipe], arms, [seed])
        written = report(laboratories, arms, range(seed + 1))
        (options.output_dir / "report.md").write_text(written, encoding="utf-8")
        logger.info("%s", written)


if __name__ == "__main__":
    leave_on_signals()
    main()
