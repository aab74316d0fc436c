"""Write a synthetic cohort in the exact layouts of the sources: the demo and the tests run on it.

It stands before the builders: what is written here has the folders, file names and label tables of the real
downloads, so the builders cannot tell the difference, and no patient's image is needed. `films` plans
the cohort, `anatomy` and `findings` draw the chests, `head` the heads. The same
settings give the same pixels.

    python -m dataset_scripts.phantom data/phantom
    python -m dataset_scripts.phantom data/phantom-small --patients 40 --image_size 128
"""

import csv
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from PIL import Image

from dataset_scripts import brats2020, chestxray14, covid_radiography, covidx_cxr
from dataset_scripts.build.layout import COHORT_FILE, PHANTOM_FILES
from dataset_scripts.build.phantom_mark import mark_as_drawn
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.films import Film, choose_leaks, draw_film, keyed_generator, plan_films
from dataset_scripts.phantom.findings import SIGNS, draw_radiograph
from dataset_scripts.phantom.head import draw_head, write_nifti

logger = logging.getLogger(__name__)


CHESTXRAY14 = chestxray14.SOURCE.folder

RADIOGRAPHY = covid_radiography.SOURCE.folder

COVIDX = covidx_cxr.SOURCE.folder

BRATS = brats2020.SOURCE.folder

UNFINISHED_FILE = "phantom.unfinished.json"

_RADIOGRAPHY_SIGNS: dict[str, list[list[str]]] = {
    "COVID": [["Infiltration", "Edema"]],
    "Normal": [[]],
    "Viral Pneumonia": [["Infiltration"]],
    "Lung_Opacity": [["Pneumonia"], ["Consolidation"], ["Effusion"], ["Infiltration"]],
}

# NIH's box list names eight findings, one of them in its own spelling.
_BOXED = {
    **{name: name for name in ("Atelectasis", "Cardiomegaly", "Effusion", "Mass", "Nodule", "Pneumonia")},
    "Infiltration": "Infiltrate",
    "Pneumothorax": "Pneumothorax",
}

# And it names few images: heat maps, which are drawn of each of them, are most of the demo's scoring.
_BOXED_PATIENTS = 150


class CohortSummary(TypedDict):
    """What stands in `phantom.json`.

    `images` counts the 2-D images of a source, or the volumes of BraTS without segmentations. `findings`
    counts ChestX-ray14 images. `planted_leakage` lists images of other sources that are ChestX-ray14 images,
    each as {"path", "image_index", "split"}, the path relative to the cohort.
    """

    settings: dict[str, int]
    images: dict[str, int]
    findings: dict[str, int]
    planted_leakage: list[dict[str, str]]
    files: int


def write_phantom_cohort(
    root: str | Path, *, patients: int = 600, image_size: int = 256, seed: int = 0
) -> CohortSummary:
    """Write the cohort under a folder, or reuse the one that stands there.

    The default is some 1,250 ChestX-ray14 images, 160 of the Radiography database, 75 of COVIDx and 3 BraTS
    subjects; a cohort of fewer patients is smaller in every source. Findings of the first 150 patients have
    boxes.

    Args:
        root: absent, empty, an unfinished cohort (started afresh) or a cohort of the same settings (reused).
        patients: patients of ChestX-ray14, at least 8.
        image_size: side of the ChestX-ray14 images in pixels, at least 32.
        seed: everything random follows from it.

    Raises:
        ValueError: `patients`, `image_size` or `seed` is out of its range.
        FileExistsError: the folder holds anything else.
    """
    if not 8 <= patients <= 1_000_000 or not 32 <= image_size <= 4096 or not 0 <= seed < 2**32:
        raise ValueError(
            f"patients={patients}, image_size={image_size}, seed={seed}: give at least 8 patients and 32 "
            "pixels, at most 1000000 and 4096, and a seed from 0 to 4294967295."
        )
    root = Path(root)
    settings = {"version": 1, "patients": patients, "image_size": image_size, "seed": seed}
    found = _existing_cohort(root, settings)
    if found is not None:
        logger.info("Reusing the phantom cohort in %s (%d files).", root, found["files"])
        return found
    root.mkdir(parents=True, exist_ok=True)
    for name in (CHESTXRAY14, RADIOGRAPHY, COVIDX, BRATS):  # left by a run that was cut off
        shutil.rmtree(root / name, ignore_errors=True)
    (root / UNFINISHED_FILE).write_text(json.dumps(settings))
    started = time.perf_counter()
    films = plan_films(patients, seed)
    _write_chestxray14(root / CHESTXRAY14, films, image_size, seed)
    leaked = _write_radiography(root / RADIOGRAPHY, films, image_size, seed, min(40, max(4, patients // 15)))
    leaked += _write_covidx(root / COVIDX, films, image_size, seed, min(75, max(10, patients // 8)))
    subjects = min(3, max(2, patients // 200))
    _write_brats(root / BRATS, subjects, seed)
    present = Counter(finding for film in films for finding in film.findings or ("No Finding",))
    summary: CohortSummary = {
        "settings": settings,
        "images": {
            CHESTXRAY14: len(films),
            RADIOGRAPHY: len(list((root / RADIOGRAPHY).glob("*/images/*.png"))),
            COVIDX: len(list((root / COVIDX).glob("*/*"))),
            BRATS: 4 * subjects,
        },
        "findings": {finding: present[finding] for finding in [*sorted(SIGNS), "No Finding"]},
        "planted_leakage": leaked,
        "files": _count_files(root),
    }
    for name in (CHESTXRAY14, RADIOGRAPHY, COVIDX, BRATS):
        mark_as_drawn(root / name)
    (root / UNFINISHED_FILE).unlink()
    (root / COHORT_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    logger.info("Wrote %d files to %s in %.0f s.", summary["files"], root, time.perf_counter() - started)
    return summary


def _count_files(root: Path) -> int:
    return sum(
        path.is_file() and path.name != PHANTOM_FILES
        for name in (CHESTXRAY14, RADIOGRAPHY, COVIDX, BRATS)
        for path in (root / name).rglob("*")
    )


def _existing_cohort(root: Path, settings: dict[str, int]) -> CohortSummary | None:
    if root.is_file():
        raise FileExistsError(f"{root} is a file; name a folder for the phantom cohort.")
    if not root.exists() or not any(root.iterdir()) or (root / UNFINISHED_FILE).is_file():
        return None
    if not (root / COHORT_FILE).is_file():
        raise FileExistsError(
            f"{root} is not empty and holds no {COHORT_FILE}: it is no phantom cohort; name another folder."
        )
    found: CohortSummary = json.loads((root / COHORT_FILE).read_text())
    if found["settings"] != settings:
        raise FileExistsError(
            f"{root} holds a phantom cohort with {found['settings']}, not {settings}; "
            "delete it or name another folder."
        )
    files = _count_files(root)
    if files != found["files"]:
        raise FileExistsError(
            f"the phantom cohort in {root} is damaged: {files} of {found['files']} files are left; delete it."
        )
    for name in (CHESTXRAY14, RADIOGRAPHY, COVIDX, BRATS):
        if not (root / name / PHANTOM_FILES).is_file():  # drawn by an earlier version
            mark_as_drawn(root / name)
    return found


def _write_chestxray14(folder: Path, films: Sequence[Film], image_size: int, seed: int) -> None:
    images = folder / "images"
    images.mkdir(parents=True)
    entries: list[list[object]] = []
    boxes: list[list[object]] = []
    for number, film in enumerate(films):
        if number % 200 == 0:
            logger.info("Drawing ChestX-ray14: %d of %d images.", number, len(films))
        drawn = draw_film(film, image_size, seed)
        rng = keyed_generator(seed, 2, number)
        mode = {7: "RGBA", 17: "RGBA", 27: "RGB"}.get(number % 40, "L")
        Image.fromarray(drawn.pixels).convert(mode).save(images / film.image_index, compress_level=1)
        sex = "F" if film.body.is_female else "M"
        size = rng.choice([(2500, 2048), (2048, 2500), (2992, 2991), (3056, 2544)]).tolist()
        spacing = 0.143 if max(size) > 2500 else 0.168
        labels = "|".join(film.findings) or "No Finding"
        view = "AP" if film.is_ap else "PA"
        entries.append(
            [
                film.image_index,
                labels,
                film.follow_up,
                film.patient,
                film.age,
                sex,
                view,
                *size,
                spacing,
                spacing,
            ]
        )
        for finding in film.findings:
            is_boxed = finding in _BOXED and film.patient <= _BOXED_PATIENTS
            for box in drawn.boxes[finding] if is_boxed else []:
                boxes.append(
                    [film.image_index, _BOXED[finding], *(1024 * value for value in box), "", "", ""]
                )
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    _write_csv(folder / "Data_Entry_2017_v2020.csv", header, entries)
    _write_csv(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    for name, is_test in (("train_val_list.txt", False), ("test_list.txt", True)):
        _write_lines(folder / name, [film.image_index for film in films if film.is_test == is_test])


def _write_csv(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """The header goes out as it stands: NIH's has a comma inside its column names."""
    with path.open("w", newline="") as file:
        file.write(header + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _note_leak(path: Path, film: Film) -> dict[str, str]:
    relative = path.relative_to(path.parents[3 if path.parent.name == "images" else 2])
    split = "test" if film.is_test else "train_val"
    return {"path": relative.as_posix(), "image_index": film.image_index, "split": split}


def _write_radiography(
    folder: Path, films: Sequence[Film], image_size: int, seed: int, per_class: int
) -> list[dict[str, str]]:
    """Four classes at 299 pixels, with lung masks; as in life, some Lung_Opacity are ChestX-ray14 images."""
    leaks = []
    side = 299
    for class_number, (name, choices) in enumerate(_RADIOGRAPHY_SIGNS.items()):
        logger.info("Drawing the Radiography database: %s.", name)
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        rows, taken = [], []
        if name == "Lung_Opacity":
            taken = choose_leaks(films, max(3, per_class // 3), keyed_generator(seed, 3))
        for number in range(1, per_class + 1):
            path = folder / name / "images" / f"{name}-{number}.png"
            rng = keyed_generator(seed, 4, class_number, number)
            if number <= len(taken):
                film = taken[number - 1]
                drawn = draw_film(film, image_size, seed)
                url = f"NIH {film.image_index} {'|'.join(film.findings)}"
                leaks.append(_note_leak(path, film))
            else:
                body = draw_body(rng, is_female=bool(rng.random() < 0.5))
                drawn = draw_radiograph(body, choices[number % len(choices)], side, rng)
                url = f"phantom {name} {number}"
            picture, mask = (
                Image.fromarray(drawn.pixels),
                Image.fromarray(drawn.is_lung.astype(np.uint8) * 255),
            )
            picture.resize((side, side), Image.Resampling.BICUBIC).save(path, compress_level=1)
            mask.resize((256, 256), Image.Resampling.NEAREST).save(folder / name / "masks" / path.name)
            rows.append({"FILE NAME": path.stem, "FORMAT": "PNG", "SIZE": "299*299", "URL": url})
        pd.DataFrame(rows).to_excel(folder / f"{name}.metadata.xlsx", index=False)
    return leaks


def _write_covidx(
    folder: Path, films: Sequence[Film], image_size: int, seed: int, number: int
) -> list[dict[str, str]]:
    """COVIDx with its lines `patient file class source`; three images are ChestX-ray14's, renamed."""
    logger.info("Drawing COVIDx.")
    taken = choose_leaks(films, 3, keyed_generator(seed, 5))
    leaks = []
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for index in range(number):
        rng = keyed_generator(seed, 6, index)
        split = "test" if index % 5 == 4 else "train"
        (folder / split).mkdir(parents=True, exist_ok=True)
        is_positive = bool(rng.random() < 0.5)
        width, height = (int(side) for side in rng.integers(280, 420, size=2))
        body = draw_body(rng, is_female=bool(rng.random() < 0.5))
        signs = ["Infiltration", "Edema"] if is_positive else [[], ["Pneumonia"], ["Effusion"]][index % 3]
        name = (
            f"covid-phantom-{index}-day{index % 9}.jpg",
            f"COVID-19 ({index}).png",
            f"PHANTOM{index:05d}.jpeg",
        )[index % 3]
        source = ("cohen", "sirm", "actmed")[index % 3]
        drawn = None
        if split == "train" and len(lines["train"]) < len(taken):
            film = taken[len(lines["train"])]
            drawn, is_positive, name, source = (
                draw_film(film, image_size, seed),
                False,
                f"phantom-{index}.png",
                "rsna",
            )
            leaks.append(_note_leak(folder / split / name, film))
        drawn = drawn or draw_radiograph(body, signs, 256, rng)
        picture = Image.fromarray(drawn.pixels).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / split / name, quality=92, compress_level=1)  # one for JPEG, one for PNG
        lines[split].append(f"{index + 1} {name} {'positive' if is_positive else 'negative'} {source}")
    for split, rows in lines.items():
        _write_lines(folder / f"{split}.txt", rows)
    return leaks


def _write_brats(folder: Path, subjects: int, seed: int) -> None:
    rows = []
    for number in range(1, subjects + 1):
        logger.info("Drawing BraTS: subject %d of %d.", number, subjects)
        name = f"BraTS20_Training_{number:03d}"
        (folder / name).mkdir(parents=True)
        for kind, volume in draw_head(keyed_generator(seed, 7, number)):
            write_nifti(folder / name / f"{name}_{kind}.nii.gz", volume)
        rows.append([("HGG", "LGG")[number % 2], "NA", "NA", "NA", "NA", name])
    header = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,"
    _write_csv(folder / "name_mapping.csv", header + "BraTS_2020_subject_ID", rows)
