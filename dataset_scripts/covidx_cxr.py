"""COVIDx CXR-3: chest X-rays for COVID-19 detection, collected from eight public sets.

Raw folder → `list_images` → builder. What it holds, its terms and whom to cite stand in `SOURCE` below.

Layout: `train.txt`, `test.txt` (`patient file class source`, file names may hold spaces), `train/`, `test/`.
"""

from pathlib import Path

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.label_rows import LabelRow, merge_rows
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing, read_text
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import no_labels

_ADVICE = "Download the list again."

_RSNA_ROWS = "rsna"  # in the lists' last column; their files bear RSNA's patientId

_CLASS_NAMES = {"positive": "COVID-19 positive", "negative": "COVID-19 negative"}

SPLITS = ("test", "train")  # test first: its patients are kept out of train


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the images of a COVIDx folder: its own test list, everything else train.

    Raises:
        DataLayoutError: no list, or no image.
        LabelFileError: a list holds no line of four parts.
    """
    lists = [split for split in SPLITS if f"{split}.txt" in scan.files]
    images = scan.images()
    if not lists or not images:
        raise DataLayoutError(
            f"{SOURCE.folder}: wanted train.txt and test.txt beside train/ and test/ with jpg or png files; "
            f"found {len(images)} images and {sorted({path.split('/', 1)[0] for path in scan.files})[:12]}. "
            f"Point data_dir at the unpacked dataset.{scan.links_advice()}"
        )
    listing = SourceListing(SOURCE, scan.root)
    test_patients: set[str] = set()
    listed: set[str] = set()
    for split in lists:
        named = _read_list(scan.root / f"{split}.txt", listing, split)
        files = match_names((name for name, *_ in named), images, scan, scan.files, f"{split}.txt")
        rows: dict[str, list[LabelRow]] = {}
        classes: dict[str, set[str]] = {}
        for name, row, class_name in named:
            file = files[name]
            key = name if isinstance(file, NoFile) else file
            rows.setdefault(key, []).append(row)
            classes.setdefault(key, set()).add(class_name)
        for path, several in rows.items():
            file, merged = files.get(path, path), merge_rows(path, several, listing)
            listed.add(path)
            if merged is None:
                continue
            if split == "test":
                test_patients.add(merged.patient)
            elif merged.patient in test_patients:
                listing.report("patient_in_test", path, "its patient is in test.txt", split)
                continue
            if isinstance(file, NoFile):
                listing.report(file.kind, file.path or path, file.detail, split)
                continue
            is_rsna = merged.patient.startswith(f"{SOURCE.name}/{_RSNA_ROWS}/")
            record = ImageRecord(
                f"{SOURCE.name}/{path}", SOURCE.name, merged.patient, path, merged.labels,
                rsna_image=Path(path).stem if is_rsna else "",
                class_name=classes[path].pop() if len(classes[path]) == 1 else "",
            )  # fmt: skip
            listing.splits.setdefault(split, []).append(record)
    for path in sorted(set(images) - listed):
        listing.report("not_listed", path, "in the folder, in no list")
    listing.report_passed_over(scan)
    return listing


def _read_list(path: Path, listing: SourceListing, split: str) -> list[tuple[str, LabelRow, str]]:
    """Read `patient file class source` lines, where the file name may hold spaces: (file, row, class)."""
    rows = []
    numbered = enumerate(read_text(path, _ADVICE).split("\n"), start=1)
    lines = [(number, line.strip()) for number, line in numbered if line.strip()]
    for number, line in lines:
        words = line.rsplit(None, 2)
        head = words[0].split(None, 1) if len(words) == 3 else []
        if len(head) == 2:
            patient = f"{SOURCE.name}/{words[2]}/{head[0]}"
            class_name = _CLASS_NAMES.get(words[1], words[1])
            rows.append((f"{split}/{head[1]}", LabelRow(number, patient, no_labels()), class_name))
        else:
            listing.report(
                "bad_line",
                path.name,
                f"line {number} is not 'patient file class source': {line[:80]!r}",
                split,
            )
    if lines and not rows:
        raise LabelFileError(
            f"{path.name}: none of {len(lines)} lines reads 'patient file class source'; the first is "
            f"{lines[0][1][:80]!r}. {_ADVICE}"
        )
    return rows


SOURCE = Source(
    name="COVIDx CXR-3",
    folder="COVIDx_CXR",
    list_images=list_images,
    title="COVIDx CXR-3",
    description="Chest X-rays for COVID-19 detection, collected from eight public sets: 30,386 images of "
    "about 16,600 patients, JPEG and PNG of many sizes, classes positive and negative for COVID-19. Its "
    "negatives are largely RSNA images, which are NIH ChestX-ray14 images. COVID-19 is none of the 15 "
    "findings.",
    license="Each of its parts keeps its own licence, CC BY-NC-SA among them; the whole is for research.",
    homepage="https://www.kaggle.com/datasets/andyczhao/covidx-cxr2",
    citation='Wang, Lin, Wong, "COVID-Net: a tailored deep convolutional neural network design for detection '
    'of COVID-19 cases from chest X-ray images", Scientific Reports 2020; Pavlova, Terhljan, Chung, Zhao, '
    'Surana, Aboutalebi, Gunraj, Sabri, Alaref, Wong, "COVID-Net CXR-2: An Enhanced Deep Convolutional '
    'Neural Network Design for Detection of COVID-19 Cases from Chest X-ray Images", Frontiers in Medicine '
    "2022.",
    held_out_splits=("test",),
    hub_tags=("chest-x-ray",),
)


class CovidxCxr(SourceBuilder):
    """Builder of COVIDx CXR-3; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
