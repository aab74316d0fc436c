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
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import dataset_info, file_exists, get_session

from dataset_scripts.build.layout import BUILD_FILE
from dataset_scripts.build.origin import DatasetOrigin, read_origin, write_origin
from dataset_scripts.build.records import Source, manifest_hash, scan_folder
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.mistyped import folder_fault
from dataset_scripts.own.labels import KNOWN_COLUMNS, LABEL_COLUMN, NOT_NAMED, Columns
from dataset_scripts.own.splits import SPLIT_FOLDERS
from dataset_scripts.own.table_files import own_column
from dataset_scripts.reading.image_files import picture_format

logger = logging.getLogger(__name__)

_VERSION = "3"  # raise it when the same dataset is extracted into other files

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "DICOM": ".dcm", "TIFF": ".tif"}

_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves, of several splits and of one."""

_PERSON = ("age_years", "sex", "view")

_ZERO_OR_ONE = {"0", "1", "False", "True"}


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
        LabelFileError: its columns cannot be meant.
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
        _write(splits, _find_columns(dataset, splits, columns), whole)
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
            "dataset_config."
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
    known = {name: rows for name, rows in splits.items() if name.lower() in SPLIT_FOLDERS}
    if not known:
        raise DataLayoutError(
            f"{dataset} has the splits {sorted(splits)}; wanted some of {sorted(SPLIT_FOLDERS)}."
        )
    if passed_over := sorted(splits.keys() - known.keys()):
        logger.warning("%s: the splits %s are not read; train, validation and test are", dataset, passed_over)
    return known


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
    return f"{dataset} has {found}; name one of them: dataset_config."


def _find_columns(dataset: str, splits: dict[str, datasets.Dataset], asked: Columns) -> Columns:
    """Return the columns by their names, where they are found.

    Raises:
        LabelFileError: one that is asked for is not there or holds something else; no image is found, or
            several columns could hold it, or the labels.
    """
    features = next(iter(splits.values())).features
    for what, name in (("image", asked.image), ("label", asked.label), ("patient", asked.patient)):
        if name and name not in features:
            raise LabelFileError(
                f"{dataset} has no column {name!r} ({what}_column); it has {sorted(features)}."
            )
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if _class_names(kind) is not None]
    named = [name for name in features if name.lower() in ("label", "labels")]
    patients = [name for name in features if own_column(name) == "patient"]
    image = asked.image or _only(dataset, "image", images)
    if not image:
        raise LabelFileError(
            f"{dataset} has no column of images; it has {sorted(features)}. Name one that holds their bytes: "
            "image_column."
        )
    label = asked.label or _only(dataset, "label", labels or named)
    if not label:
        logger.info("%s has no column of classes: its images have no labels", dataset)
    return Columns(image, label, asked.patient or _only(dataset, "patient", patients))


def _only(dataset: str, what: str, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise LabelFileError(f"{dataset}: {list(names)} may each hold the {what}; name one: {what}_column.")
    return names[0] if names else ""


def _class_names(kind: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of such; None of anything else."""
    return getattr(getattr(kind, "feature", kind), "names", None)


def _write(splits: dict[str, datasets.Dataset], columns: Columns, folder: Path) -> None:
    """Write the images of each split into a folder of its name, and labels.csv."""
    features = next(iter(splits.values())).features
    kind = features[columns.label] if columns.label else None
    is_list = isinstance(kind, datasets.List | datasets.LargeList)
    names = _class_names(kind)
    value = getattr(kind, "feature", kind)
    if isinstance(value, datasets.Value) and value.dtype.startswith("float"):
        raise LabelFileError(f"the column {columns.label!r} holds numbers ({value.dtype}); wanted classes.")
    labels = [LABEL_COLUMN] if columns.label else []
    if is_list:
        lists = [cell for rows in splits.values() for cell in rows[columns.label]]
        labels = list(names) if names is not None else _listed_classes(columns.label, lists)
    reserved = (*KNOWN_COLUMNS, LABEL_COLUMN)
    taken = [name for name in labels if is_list and (own_column(name) in reserved or "\n" in name)]
    if taken:
        raise LabelFileError(f"the classes {taken} are called like columns of a table; rename them.")
    persons = {own_column(name): name for name in features if own_column(name) in _PERSON}
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(["patient"] if columns.patient else []), *persons, *labels])
        for split, rows in splits.items():
            (folder / split).mkdir()
            for name, row in _images(rows, columns.image, folder / split):
                cells = [row[columns.patient]] if columns.patient else []
                cells += [row[column] for column in persons.values()]
                if is_list:
                    cells += _present(row[columns.label], names, labels)
                elif columns.label:
                    cells.append(_class_of(row[columns.label], names))
                writer.writerow([f"{split}/{name}", *map(_one_line, cells)])


def _listed_classes(column: str, cells: Sequence[Sequence[Any] | None]) -> list[str]:
    """Return the classes that occur in lists of them.

    Raises:
        LabelFileError: the lists say 0 or 1 of classes that are not named.
    """
    found = {_class_of(value, None) for cell in cells for value in cell or ()} - {""}
    lengths = {len(cell) for cell in cells if cell}
    if found <= _ZERO_OR_ONE and len(lengths) == 1 and (length := lengths.pop()) > 1:
        raise LabelFileError(
            f"the column {column!r} holds {length} values of 0 or 1 for each image, and nothing says which "
            "finding each stands for. Wanted the list of those present, with names: "
            "List(ClassLabel(names=[…])) or the names themselves; or a folder with labels.csv, which has a "
            "column for each."
        )
    return sorted(found)


def _present(value: Sequence[Any] | None, names: Sequence[str] | None, labels: Sequence[str]) -> list[Any]:
    """Return a 1 or 0 for each label; empty of an image without a list."""
    present = {_class_of(each, names) for each in value or ()}
    return ["" if value is None else int(label in present) for label in labels]


def _class_of(value: Any, names: Sequence[str] | None) -> str:
    if value is None or value == -1:  # -1 is the datasets library's "not labeled"
        return ""
    return names[value] if names is not None and isinstance(value, int) else str(value)


def _one_line(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


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
                "image_column."
            )
        name = f"{index:07d}{_SUFFIXES.get(picture_format(content[:132]), '')}"
        (folder / name).write_bytes(content)
        yield name, row
