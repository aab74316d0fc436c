"""Tiny raw folders in the sources' layouts, written by the tests; no file is downloaded."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from dataset_scripts import ChestXray14
from dataset_scripts.build.records import SourceListing

CHEST = "ChestXray-NIHCC"
HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"


def read_leakage_report(folder: Path | str) -> dict[str, Any]:
    return json.loads((Path(folder) / "leakage_report.json").read_text())


def gray(seed: int, side: int = 64) -> Image.Image:
    """A random picture: distinct seeds correlate little, however one is turned; of 8 × 8 blobs some did."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


class ChestFolder:
    """Writes a ChestX-ray14 folder: rows (name, findings, patient, age, sex, view) by list."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[str] = []
        self.seeds: dict[str, int] = {}
        (root / "images").mkdir(parents=True)

    def add(self, split: str, name: str, findings: str, patient: int, age: str = "50", seed: int = 0) -> None:
        self.seeds[name] = seed or len(self.rows) + 1
        gray(self.seeds[name]).save(self.root / "images" / name)
        self.rows.append(f"{name},{findings},0,{patient},{age},M,PA")
        with (self.root / f"{split}_list.txt").open("a") as file:
            file.write(name + "\n")

    def finish(self) -> Path:
        for split in ("train_val", "test"):
            (self.root / f"{split}_list.txt").touch()
        (self.root / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER, *self.rows]) + "\n")
        return self.root

    def trained(self) -> str:
        """The name of an image of the official training split; adding to the test list does not move it."""
        (listing,) = ChestXray14(data_dir=self.root, build_dir=self.root.parent / "unused").list_records(None)
        return listing.splits["train"][0].nih_image


def write_volume(path: Path, affine: np.ndarray | None = None, voxels: np.ndarray | None = None) -> None:
    """Writes a small head: an ellipsoid of random tissue in a black box, int16."""
    if voxels is None:
        shape = (24, 20, 18)
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
        tissue = np.random.default_rng(len(path.name)).integers(100, 900, shape)
        voxels = np.where((grid**2).sum(axis=0) < 0.8, tissue, 0).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def write_shard(path: Path, seeds: list[int]) -> None:
    """Write pictures as WebDataset's tar; the seeds are their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for seed in seeds:
            data = io.BytesIO()
            gray(seed, 96).save(data, "PNG")
            entry = tarfile.TarInfo(f"{seed}.png")
            entry.size = data.tell()
            data.seek(0)
            tar.addfile(entry, data)


def said(listing: SourceListing) -> dict[str, int]:
    """How many problems of each kind a listing reports."""
    return dict(Counter(problem.kind for problem in listing.problems))
