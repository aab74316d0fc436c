"""Writes the RSNA challenge's folder as Kaggle has it, of given pixels or the mini cocktail's pictures."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from PIL import Image

from dataset_scripts.rsna_pneumonia import SOURCE

OPACITY, OTHER, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"


class RsnaFolder:
    """A folder of the challenge; each row of an image is "x,y,width,height,Target", none for its test set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[str] = []
        self.classes: list[str] = []
        self.mapping: dict[str, str] = {}
        (root / "stage_2_train_images").mkdir(parents=True)
        (root / "stage_2_test_images").mkdir()

    def add(self, name: str, *rows: str, pixels: np.ndarray, nih: str = "", found: str = "") -> None:
        """An image as DICOM; the class that fits its rows unless one is given."""
        folder = "stage_2_train_images" if rows else "stage_2_test_images"
        write_dicom(self.root / folder / f"{name}.dcm", pixels)
        self.rows += [f"{name},{row}" for row in rows]
        found = found or (OPACITY if rows and rows[0].endswith(",1") else NORMAL)
        self.classes += [f"{name},{found}" for _ in rows]
        if nih:
            self.mapping[name] = nih

    def finish(self) -> Path:
        """Write the two tables."""
        labels = ["patientId,x,y,width,height,Target", *self.rows]
        (self.root / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")
        classes = ["patientId,class", *self.classes]
        (self.root / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
        return self.root

    def mapping_file(self) -> str:
        """Write what `nih_mapping` names, and return its path."""
        path = self.root.parent.parent / "mapping.csv"
        rows = [f"{name},{nih},1.5" for name, nih in self.mapping.items()]
        path.write_text("\n".join(["patientId,nih_image,mse", *rows]) + "\n")
        return str(path)


def write_real_rsna(mini_cocktail: Path, raw: Path) -> RsnaFolder:
    """The 350 pictures of the mini cocktail and of nih64 that RSNA holds, with its labels and boxes.

    Beside them stands the mini cocktail's ChestX-ray14.
    """
    tables, nih = mini_cocktail.parent / "rsna", mini_cocktail / "ChestXray-NIHCC"
    smaller = mini_cocktail.parent / "nih64" / nih.name
    if not tables.is_dir() or not smaller.is_dir():
        pytest.skip("no RSNA tables: ../shared/rsna or ../shared/nih64 is absent")
    raw.mkdir()
    (raw / nih.name).symlink_to(nih)
    pictures = {path.name: path for each in (nih, smaller) for path in (each / "images").iterdir()}
    rows: dict[str, list[str]] = {}
    for row in _read(tables / "stage_2_train_labels.csv.gz"):
        rows.setdefault(row["patientId"], []).append(",".join(list(row.values())[1:]))
    classes = {row["patientId"]: row["class"] for row in _read(tables / "stage_2_detailed_class_info.csv.gz")}
    rsna = RsnaFolder(raw / SOURCE.folder)
    for row in _read(tables / "rsna_to_nih.csv.gz"):
        if row["nih_image"] in pictures:
            name = row["patientId"]
            with Image.open(pictures[row["nih_image"]]) as picture:
                pixels = np.asarray(picture.convert("L"))
            rsna.add(name, *rows[name], pixels=pixels, nih=row["nih_image"], found=classes[name])
    rsna.finish()
    return rsna


def _read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_mrm_lists(mini_cocktail: Path, rsna: RsnaFolder) -> None:
    """The rows of the published lists that this folder holds.

    It holds none of their test list, so the last forty of the training list take its place.
    """
    lines = {
        split: [
            line
            for line in (mini_cocktail.parent / "rsna" / f"{split}_list.txt").read_text().splitlines()
            if Path(line.rpartition(" ")[0]).stem in rsna.mapping
        ]
        for split in ("train", "val")
    }
    lists = {"train": lines["train"][:-40], "val": lines["val"], "test": lines["train"][-40:]}
    for split, rows in lists.items():
        (rsna.root / f"{split}_list.txt").write_text("\n".join(rows) + "\n")
