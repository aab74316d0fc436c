"""A small real task with its pre-training data, in layouts that the project reads.

Stands beside the project; nothing imports it. Kermany's chest X-rays of children (train, val and test, each
with NORMAL and PNEUMONIA) become `own_images` with one label; the COVID-19 Radiography Database stands beside
them as it is. The official test split stays; the 16 images of val are too few to choose anything by, so they
join train, of whose patients a tenth validates.

    python -m benchmarks.kermany_folder ../shared/kermany/chest_xray ../shared/radiography_128 runs/raw
    python -m dataset_scripts --data_dir runs/raw --output_dir runs/built --stored_size 192 --contours learned

1,341 Normal images of the Radiography database are Kermany's: the second command's leakage guard leaves out
those that show a held-out one.
"""

import argparse
import csv
import re
import shutil
import sys
from pathlib import Path

from dataset_scripts.splits import stratified_patients

LABEL = "Pneumonia"
RADIOGRAPHY = "COVID-19_Radiography_Dataset"
_SICK = re.compile(r"(person\d+_(?:bacteria|virus))_\d+")
_WELL = re.compile(r"((?:NORMAL2-)?IM-\d+)(?:-\d+)+")


def patient_of(name: str) -> str:
    """Whose image it is, by its file name: numbers of bacterial and viral pneumonia are counted apart.

    Raises:
        ValueError: a name of another form.
    """
    match = _SICK.match(name) or _WELL.match(name)
    if match is None:
        raise ValueError(f"{name}: not a file name of Kermany's chest X-rays")
    return match[1]


def find_rows(folder: Path) -> list[dict[str, str]]:
    """A row of labels.csv for each image, its file still by its place below the folder."""
    rows = []
    for path in sorted(folder.rglob("*.jp*g")):
        split, label = path.relative_to(folder).parts[:2]
        rows.append(
            {
                "image": path.relative_to(folder).as_posix(),
                "patient": patient_of(path.name),
                "split": "test" if split == "test" else "train",
                LABEL: "1" if label == "PNEUMONIA" else "0",
            }
        )
    counts: dict[str, list[float]] = {}
    for row in rows:
        if row["split"] == "train":
            has = counts.setdefault(row["patient"], [0.0, 0.0])
            has[int(row[LABEL])] += 1
    validating = stratified_patients(counts)
    for row in rows:
        if row["split"] == "train" and row["patient"] in validating:
            row["split"] = "validation"
    return rows


def main() -> None:
    """Copy the images, write labels.csv, link the other source."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kermany", type=Path, help="the folder chest_xray")
    parser.add_argument("radiography", type=Path, help=f"the folder that holds {RADIOGRAPHY}")
    parser.add_argument("output", type=Path, help="a new folder")
    options = parser.parse_args()
    rows = find_rows(options.kermany)
    own = options.output / "own_images"
    for row in rows:
        target = own / "images" / row["image"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.kermany / row["image"], target)
    with (own / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (options.output / RADIOGRAPHY).symlink_to((options.radiography / RADIOGRAPHY).resolve())
    for split in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == split]
        sick = sum(row[LABEL] == "1" for row in chosen)
        patients = len({row["patient"] for row in chosen})
        sys.stdout.write(f"{split}: {len(chosen)} images of {patients} patients, {sick} with {LABEL}\n")


if __name__ == "__main__":
    main()
