"""Who is held out of your own images is the same whether they are built alone or join the cocktail."""

from pathlib import Path

import datasets
import pytest
from raw_folders import ChestFolder, gray
from test_dataset_rows import rows

from dataset_scripts import Cocktail, ImageFolder
from dataset_scripts.image_folder import NOT_NAMED
from dataset_scripts.own.dataset_rows import extract_dataset

KINDS = ("bacteria", "NORMAL", "PNEUMONIA")


def class_folders(root: Path, top: str = "") -> Path:
    for n in range(60):
        folder = root / top / KINDS[n % 7 % 3]
        folder.mkdir(parents=True, exist_ok=True)
        gray(1000 + n, 24).save(folder / f"{n}.png")
    return root


def table(root: Path, header: str, *columns: list[str]) -> Path:
    root.mkdir(parents=True)
    lines = [header]
    for n in range(60):
        gray(1000 + n, 24).save(root / f"{n}.png")
        lines.append(",".join([f"{n}.png", f"p{n // 2}", *(each[n // 2 % len(each)] for each in columns)]))
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def copy_of_a_dataset(root: Path) -> Path:
    kind = datasets.ClassLabel(names=[*KINDS])
    patients = (datasets.Value("string"), [f"p{n}" for n in range(25)])
    part = rows(60, 1000, label=(kind, [0, 1, 2, 1]), mrn=patients)
    part.save_to_disk(root.parent / "saved")
    found = extract_dataset(str(root.parent / "saved"), "", NOT_NAMED, root.parent / "copies")
    return found.folder.rename(root)


LAYOUTS = {
    "class folders": class_folders,
    "a dataset": copy_of_a_dataset,
    "training folder alone": lambda root: class_folders(root, "train"),
    "classes in a table": lambda root: table(root, "image,patient,label", [*"abcdaab"]),
    "findings": lambda root: table(
        root, "image,patient,Mass,fracture", ["0", "1", "0"], ["1", "0", "", "0", "0"]
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_draw_is_the_same_alone_and_beside_another_source(
    layout: str, chest: ChestFolder, tmp_path: Path
) -> None:
    root = LAYOUTS[layout](chest.finish().parent / "own_images")
    alone = ImageFolder(data_dir=root, build_dir=tmp_path / "cache").list_records(None)
    beside = Cocktail(data_dir=root.parent, build_dir=tmp_path / "cache").list_records(None)
    splits = [
        {split: {record.path for record in records} for split, records in listing.splits.items()}
        for listing in (*alone, *beside)
        if listing.source.name == "image folder"
    ]
    assert splits[0] == splits[1] and set(splits[0]) == {"train", "validation", "test"}
