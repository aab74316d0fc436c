"""The data of small_result: a real task, and a cocktail beside it that holds copies of its images.

Stands beside the project; nothing imports it but small_result. `kermany/` is the task, a folder of one's own:
Kermany's radiographs of children, the official test split, validation cut from train by patient. `cocktail/`
holds the task again, so that whoever is held out there is held out here, with JSRT's radiographs (without
labels) in the same folder; the COVID-19 Radiography Database; ChestX-ray14, COVIDx and BraTS as the mini
cocktail has them, with nih64's further images. Images are copied as they are; what repeats is the leakage
guard's work, in training.
"""

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path

from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import scan_folder
from dataset_scripts.image_folder import list_own_images, read_folder

RADIOGRAPHY = "COVID-19_Radiography_Dataset"
NIH = "ChestXray-NIHCC"
ENTRIES = "Data_Entry_2017_v2020.csv"
OWN = "own_images"
READY = "ready"
"""An empty file, written last: the folders are whole."""

LABEL, CLASS = "Pneumonia", "PNEUMONIA"
COLUMNS = ("image", "patient", "split", LABEL)
KERMANY_CARD = """---
pretty_name: Kermany's chest X-rays of children
license: cc-by-4.0
homepage: https://data.mendeley.com/datasets/rscbjbr9sj
---
"""
"""Names the task's data in the cards of what is trained on it."""

COCKTAIL_CARD = """---
pretty_name: Kermany's chest X-rays of children and JSRT's chest radiographs
license:
- CC BY 4.0 (Kermany et al. 2018)
- for research, citing Shiraishi et al. 2000 and van Ginneken et al. 2006 (JSRT)
homepage: https://data.mendeley.com/datasets/rscbjbr9sj
---
- Kermany's: Kermany, Goldbaum, Cai et al., "Identifying Medical Diagnoses and Treatable Diseases by
  Image-Based Deep Learning", Cell 172(5), 2018; CC BY 4.0, https://data.mendeley.com/datasets/rscbjbr9sj.
- JSRT's (`images/jsrt`, without labels or masks): Shiraishi, Katsuragawa, Ikezoe et al., "Development of a
  digital image database for chest radiographs with and without a lung nodule", AJR 174(1), 2000; van
  Ginneken, Stegmann, Loog, "Segmentation of anatomical structures in chest radiographs using supervised
  methods", Medical Image Analysis 10(1), 2006. For research; whoever uses them cites both.
"""
"""The same of the cocktail's own images, which are of two sets."""

REPEATED = ("COVID", "Normal")
"""Classes that both Radiography folders have, under the same names for other images."""


def prepare(shared: Path, output: Path, at_most: int | None = None) -> tuple[Path, Path]:
    """Write both folders, unless they are there.

    Args:
        shared: the folder with kermany/, radiography_128/, jsrt/, nih64/ and mini_cocktail/.
        output: where both go.
        at_most: of the task's images of each split and class, and of JSRT's; None for all.

    Returns:
        The folder of the task and that of the cocktail.
    """
    task, cocktail = output / "kermany", output / "cocktail"
    if (output / READY).exists():
        return task, cocktail
    for folder in (task, cocktail):
        shutil.rmtree(folder, ignore_errors=True)
    kermany = shared / "kermany" / "chest_xray"
    rows = read_rows(kermany)
    if at_most is not None:
        rows = first_of_each(rows, at_most)
    jsrt = sorted((shared / "jsrt" / "images").iterdir())[:at_most]
    write_own(task, kermany, rows)
    (task / "README.md").write_text(KERMANY_CARD, encoding="utf-8")
    write_own(cocktail / OWN, kermany, rows)
    add_unlabeled(cocktail / OWN, "jsrt", jsrt)
    (cocktail / OWN / "README.md").write_text(COCKTAIL_CARD, encoding="utf-8")
    mini = shared / "mini_cocktail"
    write_nih(cocktail / NIH, [mini / NIH, shared / "nih64" / NIH])
    write_radiography(cocktail / RADIOGRAPHY, shared / "radiography_128" / RADIOGRAPHY, mini / RADIOGRAPHY)
    for source in mini.iterdir():
        if source.is_dir() and source.name not in (NIH, RADIOGRAPHY):
            shutil.copytree(source, cocktail / source.name)
    (output / READY).touch()
    return task, cocktail


def read_rows(folder: Path) -> list[dict[str, str]]:
    """A row of labels.csv for each image of class folders, split as the builder splits them.

    The table says the same as the folders, with one label in place of two that exclude each other: a single
    probability has one threshold. And a table may have images without a label beside them.
    """
    scan = scan_folder(folder)
    column = read_folder(scan).labels.names.index(CLASS)
    return [
        {
            "image": record.path,
            "patient": record.patient_id.removeprefix(f"{record.source}/"),
            "split": split,
            LABEL: f"{record.labels[column]:.0f}",
        }
        for split, records in list_own_images(scan, SourceConfig()).splits.items()
        for record in sorted(records, key=lambda record: record.path)
    ]


def first_of_each(rows: Iterable[dict[str, str]], at_most: int) -> list[dict[str, str]]:
    """The first rows of each split and label."""
    taken: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        taken.setdefault((row["split"], row[LABEL]), []).append(row)
    return [row for group in taken.values() for row in group[:at_most]]


def write_own(folder: Path, images: Path, rows: list[dict[str, str]]) -> None:
    """A folder of one's own: images/ and labels.csv."""
    for row in rows:
        target = folder / "images" / row["image"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images / row["image"], target)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def add_unlabeled(folder: Path, name: str, files: list[Path]) -> None:
    """Further training images of such a folder, each a patient, with an empty label: not annotated."""
    (folder / "images" / name).mkdir()
    with (folder / "labels.csv").open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        for path in files:
            image = f"{name}/{path.name}"
            shutil.copyfile(path, folder / "images" / image)
            writer.writerow({"image": image, "patient": image, "split": "train", LABEL: ""})


def read_entries(folder: Path) -> dict[str, dict[str, str]]:
    """File name → row of ChestX-ray14's table, for the images that are there."""
    with (folder / ENTRIES).open(newline="", encoding="utf-8-sig") as file:
        rows = {row["Image Index"]: row for row in csv.DictReader(file)}
    return {name: row for name, row in rows.items() if (folder / "images" / name).exists()}


def write_nih(target: Path, folders: list[Path]) -> None:
    """Several folders of ChestX-ray14 as one; the first that has an image gives it.

    The test list holds every image of a patient of whom one of the lists tests an image.
    """
    (target / "images").mkdir(parents=True)
    rows: dict[str, dict[str, str]] = {}
    tested: set[str] = set()
    for folder in folders:
        entries = read_entries(folder)
        listed = set((folder / "test_list.txt").read_text(encoding="utf-8").split())
        tested |= {row["Patient ID"] for name, row in entries.items() if name in listed}
        for name in entries.keys() - rows.keys():
            shutil.copyfile(folder / "images" / name, target / "images" / name)
            rows[name] = entries[name]
    with (target / ENTRIES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(next(iter(rows.values()))), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    for list_name, is_test in (("test_list.txt", True), ("train_val_list.txt", False)):
        names = sorted(name for name, row in rows.items() if (row["Patient ID"] in tested) == is_test)
        (target / list_name).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_radiography(target: Path, real: Path, mini: Path) -> None:
    """The Radiography database with the mini cocktail's images, whose names in REPEATED get a prefix."""
    shutil.copytree(real, target)
    for path in sorted(mini.rglob("*")):
        place = path.relative_to(mini)
        if (
            path.is_dir()
            or place.parts[0].removesuffix(".metadata.xlsx") in REPEATED
            and len(place.parts) == 1
        ):
            continue
        name = f"mini-{place.name}" if place.parts[0] in REPEATED else place.name
        copy = target / place.parent / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
