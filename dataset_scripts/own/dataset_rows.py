"""A dataset of the datasets library, on the Hub or here, as a user's own folder of images and a table.

A Hub id, a folder of Parquet, or what `save_to_disk` wrote → `extract_dataset` → a folder that ImageFolder
builds like any other. Images are copied byte for byte, so the readers of this project see what was uploaded:
16 bits, DICOM and all.
"""

import csv
import hashlib
import importlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import dataset_info, file_exists, get_session

from dataset_scripts.build.atomic_files import write_json
from dataset_scripts.build.layout import BUILD_FILE, NOT_READ_FILE
from dataset_scripts.build.origin import DatasetOrigin, read_origin, write_origin
from dataset_scripts.build.records import Source, manifest_hash, scan_folder
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.mistyped import folder_fault
from dataset_scripts.own.dataset_columns import (
    class_names,
    class_of,
    columns_not_read,
    find_columns,
    find_findings,
    in_words,
    label_columns,
    person_columns,
    present_labels,
    split_by_column,
)
from dataset_scripts.own.labels import LABEL_COLUMN, NOT_NAMED, PERSON_COLUMNS, Columns
from dataset_scripts.own.splits import SPLIT_FOLDERS
from dataset_scripts.own.table_files import cell_text
from dataset_scripts.reading.image_files import picture_format

logger = logging.getLogger(__name__)

_VERSION = "5"  # raise it when the same dataset is extracted into other files

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "DICOM": ".dcm", "TIFF": ".tif"}

_EXTRACTED = re.compile(r"/\d{7}-([0-9a-f]{16})(?:\.[a-z]+)?$")

_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves, of several splits and of one."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """An own folder made of a dataset.

    Attributes:
        folder: with a folder for each split, and labels.csv.
        label_column: of labels.csv, with each image's class; "" where it has columns of 0 and 1, or none.
    """

    folder: Path
    label_column: str


def holds_dataset(folder: Path) -> bool:
    """Whether a folder holds Parquet or what `save_to_disk` wrote, and no picture."""
    if any((folder / name).is_file() for name in _SAVED):
        return True
    scan = scan_folder(folder)
    return any(path.lower().endswith(".parquet") for path in scan.files) and not scan.images()


def refuse_mistyped(data_dir: str) -> None:
    """Refuse at once what can be no dataset of the Hub and is no folder here.

    Args:
        data_dir: as the user typed it.

    Raises:
        DataLayoutError: it is a file; or, with the nearest folder, a path where nothing is.
    """
    fault = "is a file; wanted a folder" if Path(data_dir).is_file() else folder_fault(data_dir)
    if fault:
        raise DataLayoutError(f"--data_dir {data_dir}: {fault}")


def is_dataset(data_dir: str, config: str, columns: Columns, place: Path, sources: Sequence[Source]) -> bool:
    """Whether data_dir is a dataset that this project did not write: images and labels in some columns.

    Args:
        data_dir: a folder that this project has not built, or a Hub id.
        config: as for `extract_dataset`.
        columns: as for `extract_dataset`.
        place: as for `extract_dataset`.
        sources: every source that is known; a folder above theirs is no dataset.

    Raises:
        DataLayoutError: see refuse_mistyped.
    """
    refuse_mistyped(data_dir)
    folder = Path(data_dir)
    if folder.is_dir():
        return not any((folder / source.folder).is_dir() for source in sources) and holds_dataset(folder)
    try:
        return not file_exists(data_dir, BUILD_FILE, repo_type="dataset")
    except opening_errors():  # it cannot be reached, or is no id: loading says which
        if config or columns != NOT_NAMED:
            return True
        return bool(was_extracted(data_dir, "", NOT_NAMED, place))


def extract_dataset(dataset: str, config: str, columns: Columns, place: Path) -> Extracted:
    """Copy a dataset's images and labels into a folder, unless it is there already.

    Args:
        dataset: a Hub id, or a folder for which `holds_dataset` is true.
        config: which of its configurations; "" for the only one, or the one that it declares as default.
        columns: what its columns mean.
        place: where the folder goes, in one whose name changes with the dataset's content and the columns.

    Raises:
        DataLayoutError: it cannot be reached or opened, or has no such configuration, or several; a split's
            name is none that is known.
        LabelFileError: its columns cannot be meant, a column `split` of its only split among them.
    """
    hub_id, revision = _find(dataset)
    name = _name(dataset, config, columns)
    if revision is None and (found := was_extracted(dataset, config, columns, place)):
        logger.warning("%s cannot be reached: what was extracted of it before is read", dataset)
        return _opened(found[-1])
    folder = place / f"{name}-{revision}"
    if folder.is_dir():
        return _opened(folder)
    splits = _load(dataset, config, revision if not Path(dataset).is_dir() else None)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".extracting-") as scratch:
        whole = Path(scratch) / "dataset"
        whole.mkdir()
        _write(dataset, splits, find_columns(dataset, splits, columns), whole)
        own = tuple(sorted({SPLIT_FOLDERS[split.lower()] for split in splits}))
        if hub_id:
            origin = DatasetOrigin(hub_id=hub_id, config=config, revision=revision or "", splits=own)
        else:
            origin = replace(read_origin(Path(dataset)), splits=own)
        write_origin(whole, origin)
        shutil.move(whole, folder)
    logger.info("%s: its images lie in %s", dataset, folder)
    return _opened(folder)


def was_extracted(dataset: str, config: str, columns: Columns, place: Path) -> list[Path]:
    """Return what was made of a dataset before, the newest last."""
    return sorted(place.glob(f"{_name(dataset, config, columns)}-*"), key=os.path.getmtime)


def _name(dataset: str, config: str, columns: Columns) -> str:
    asked = f"{_VERSION}\x1f{dataset}\x1f{columns}" + (f"\x1f{config}" if config else "")
    return f"dataset-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"


def _opened(folder: Path) -> Extracted:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    return Extracted(folder, LABEL_COLUMN if LABEL_COLUMN in header else "")


def _find(dataset: str) -> tuple[str, str | None]:
    """Return its id on the Hub and what changes when the dataset does.

    The id is "" of a folder here; the other is None where the Hub cannot be reached.
    """
    if Path(dataset).is_dir():
        return "", manifest_hash([scan_folder(Path(dataset))])
    try:
        info = dataset_info(dataset)
    except opening_errors():  # offline, no such repository, no valid id: loading says which
        return dataset, None
    return info.id, str(info.sha)


def opening_errors() -> tuple[type[Exception], ...]:
    """Return what opening a dataset raises; which HTTP library is below the client depends on its version."""
    library = importlib.import_module(type(get_session()).__module__.split(".")[0])
    return (library.HTTPError, OSError, ValueError, RuntimeError)


def _load(dataset: str, config: str, revision: str | None) -> dict[str, datasets.Dataset]:
    is_saved = any((Path(dataset) / name).is_file() for name in _SAVED)
    if is_saved and config:
        raise DataLayoutError(
            f"{dataset} is what save_to_disk wrote, and has no configuration {config!r}; leave out "
            "--dataset_config."
        )
    try:
        if is_saved:
            loaded = datasets.load_from_disk(dataset)
        else:
            loaded = datasets.load_dataset(dataset, config or None, revision=revision)
    except opening_errors() as error:
        fault = "" if is_saved else _config_fault(dataset, config, revision)
        absent = "" if Path(dataset).is_dir() else "is no folder here, and "
        raise DataLayoutError(
            fault
            or f"{dataset} {absent}cannot be opened as a dataset ({str(error).strip()[:300]}). Wanted the id "
            "of a dataset on the Hub, a folder of Parquet, or what save_to_disk wrote."
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    known = {  # without a format, which save_to_disk keeps: tensors in place of numbers, or columns hidden
        name: rows.with_format(None) for name, rows in splits.items() if name.lower() in SPLIT_FOLDERS
    }
    if not known:
        raise DataLayoutError(
            f"{dataset} has the splits {sorted(splits)}; wanted some of {sorted(SPLIT_FOLDERS)}."
        )
    if passed_over := sorted(splits.keys() - known.keys()):
        logger.warning("%s: the splits %s are not read; train, validation and test are", dataset, passed_over)
    return (split_by_column(dataset, *known.values()) if len(known) == 1 else {}) or known


def _config_fault(dataset: str, config: str, revision: str | None) -> str:
    """Say which configurations there are, where none is named or another one; else ""."""
    try:
        names = datasets.get_dataset_config_names(dataset, revision=revision)
        chosen = config or datasets.get_dataset_default_config_name(dataset, revision=revision)
    except opening_errors():  # then its configurations are not what is wrong
        return ""
    if chosen in names:
        return ""
    found = f"no configuration {config!r}, but {names}" if config else f"several configurations: {names}"
    return f"{dataset} has {found}; name one of them: --dataset_config."


def _write(dataset: str, splits: dict[str, datasets.Dataset], columns: Columns, folder: Path) -> None:
    """Write the images of each split into a folder of its name, and labels.csv."""
    labels, is_list = label_columns(dataset, splits, columns.label)
    findings = find_findings(dataset, splits, columns)
    labels = [*labels, *findings]
    if not labels:
        logger.warning("%s has no column of classes, and none of 1 and 0: its images have no labels", dataset)
    if passed_over := columns_not_read(splits, columns, findings):
        write_json(folder / NOT_READ_FILE, passed_over)
    persons = {split: person_columns(dataset, rows.features, columns) for split, rows in splits.items()}
    known = [name for name in PERSON_COLUMNS if any(name in found for found in persons.values())]
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(["patient"] if columns.patient else []), *known, *labels])
        for split, rows in splits.items():
            names = {column: class_names(kind) for column, kind in rows.features.items()}
            read = [columns.patient] if columns.patient else []
            read += [persons[split].get(name, "") for name in known]
            (folder / split).mkdir()
            for name, row in _images(rows, columns.image, folder / split):
                cells = [in_words(row[column], names[column]) if column else "" for column in read]
                if is_list:
                    cells += present_labels(row[columns.label], names[columns.label], labels)
                elif columns.label:
                    cells.append(class_of(row[columns.label], names[columns.label]))
                cells += [cell_text(row[name]) for name in findings]
                writer.writerow([f"{split}/{name}", *map(_one_line, cells)])


def content_name(path: str) -> str:
    """The digest in the name that an extracted image got (`_images`); another path as it is."""
    found = _EXTRACTED.search(path)
    return path if found is None else found[1]


def _one_line(value: Any) -> str:
    return "" if value is None or value != value else " ".join(str(value).split())  # NaN is not known


def _images(rows: datasets.Dataset, column: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write each row's image as it is stored, and yield (file name, row)."""
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        content = row[column]
        if isinstance(content, dict):
            content = content["bytes"] if content["bytes"] is not None else Path(content["path"]).read_bytes()
        if not isinstance(content, bytes):
            raise LabelFileError(
                f"the column {column!r} holds {type(content).__name__}; wanted images, or their bytes: "
                "--image_column."
            )
        # By its content too: it is known again in a later revision, and an image of another dataset is not.
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{index:07d}-{digest}{_SUFFIXES.get(picture_format(content[:132]), '')}"
        (folder / name).write_bytes(content)
        yield name, row
