"""Contours that the user has: CheXmask's table, or a folder of lung masks → the region of each picture.

`chest_contour --contours FILE_OR_FOLDER` → here → one `ChestRegion` for each picture that is named there.
"""

import csv
import gzip
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_scripts.build.chest_region import ChestRegion, region_of_mask
from dataset_scripts.errors import BadImageError, DataLayoutError, LabelFileError
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES, is_picture, walk_folder
from dataset_scripts.reading.images import read_image, read_mask

ID_COLUMNS = ("Image Index", "Path", "dicom_id", "ImageID", "image_id", "Image ID")
"""What CheXmask calls a picture: ChestX-ray8, CheXpert, MIMIC-CXR, PadChest, VinDr-CXR, its manual."""

_LUNGS = ("Left Lung", "Right Lung")

_QUALITY = "Dice RCA (Mean)"

_LEAST_QUALITY = 0.7  # CheXmask's own advice

_MOST_PIXELS = 1 << 28

_DIFFERENT_ASPECT = 0.03

_MOST_LABELS = 3  # the background, the left and the right lung

_FEWEST_GRAYS = 32  # between the ends of a mask with soft edges; values closer together are labels

_LARGEST_EDGE = 0.05  # of the pixels of a mask with soft edges, that are nearly as dark as bright

_NAMED_AT_MOST = 5

_LONGEST_CELL = min(sys.maxsize, 1 << 26)


@dataclass(slots=True)
class Contours:
    """What a file or folder of contours says.

    Attributes:
        regions: picture → its region.
        refused: (picture, why) of those that have a contour which is not to be used.
    """

    regions: dict[str, ChestRegion] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


def read_contours(source: Path, root: Path, pictures: Sequence[str]) -> Contours:
    """Read the contours of pictures.

    Args:
        source: a CSV of CheXmask (also as .csv.gz), or a folder of masks named as the pictures, perhaps with
            `_mask` behind, with any suffix of a picture (`lungs_of_mask` says what is lung). Two masks of one
            picture are united where their paths differ only in `left` and `right` (leftMask/1.png,
            rightMask/1.png); where others fit one picture, or one of the two is missing or empty, the picture
            is refused.
        root: the folder of the pictures.
        pictures: their paths below it, with `/`.

    Raises:
        DataLayoutError: there is no such file or folder.
        LabelFileError: it is not CheXmask's table, a row cannot be read, or it names none of the pictures.
    """
    if not source.exists():
        raise DataLayoutError(
            f"--contours {source} is not there. Name a CSV of CheXmask or a folder of lung masks."
        )
    contours = Contours()
    if source.is_dir():
        _read_masks(source, root, pictures, contours)
    else:
        _read_chexmask(source, pictures, contours)
    if not contours.regions and not contours.refused:
        raise LabelFileError(
            f"--contours {source} names none of the {len(pictures)} pictures, of which the first is "
            f"{pictures[0]}. A mask is named as its picture, and a row's id is its name or path."
        )
    return contours


def _read_masks(folder: Path, root: Path, pictures: Sequence[str], contours: Contours) -> None:
    masks = [path for path in walk_folder(folder).files if is_picture(folder / path)]
    matched = list(_match(masks, pictures))
    rest = {_without_mask(mask): mask for mask in set(masks) - {mask for mask, _ in matched}}
    matched += [(rest[name], picture) for name, picture in _match(rest, pictures)]
    of_picture: dict[str, list[str]] = {}
    for mask, picture in sorted(matched):
        if (folder / mask).resolve() != (root / picture).resolve():  # where the folder holds both
            of_picture.setdefault(picture, []).append(mask)
    of_one_side = {
        _parts(mask)[:-1] for fitting in of_picture.values() if _are_sides(fitting) for mask in fitting
    }
    for picture, fitting in of_picture.items():
        try:
            if len(fitting) > 1 and not _are_sides(fitting):
                raise BadImageError(
                    "several_masks",
                    f"{' and '.join(fitting[:_NAMED_AT_MOST])} fit it; wanted one, or the left and the right "
                    "lung's in folders that differ in these words",
                )
            if len(fitting) == 1 and _parts(fitting[0])[:-1] in of_one_side:
                raise BadImageError("one_lung", f"beside mask {fitting[0]} there is none of the other lung")
            contours.regions[picture] = region_of_mask(_read_lungs(folder, fitting, root / picture))
        except BadImageError as error:
            contours.refused.append((picture, error.detail))


def _without_mask(path: str) -> str:
    """The path without what some sets (Shenzhen's, say) write behind a picture's name."""
    stem = without_suffix(path)
    return stem.removesuffix("_mask") + path.removeprefix(stem)


def _are_sides(masks: Sequence[str]) -> bool:
    """Whether masks are one of each lung: two whose paths differ only in `left` and `right`."""
    names = {without_suffix(mask).lower() for mask in masks}
    return len(masks) == len(names) == 2 and len({name.replace("left", "right") for name in names}) == 1


def _read_lungs(folder: Path, masks: Sequence[str], picture: Path) -> npt.NDArray[np.bool_]:
    """What is lung in any of a picture's masks, (height, width) of the masks.

    Raises:
        BadImageError: a mask or the picture cannot be read, or a mask is no mask, has another aspect than
            the picture or another size than the other mask; or one of two is empty.
    """
    try:
        own_height, own_width = read_image(picture, needs_contrast=False).shape
    except BadImageError as error:
        raise BadImageError(error.kind, f"the picture cannot be read: {error}") from error
    lungs = []
    for mask in masks:
        try:
            lungs.append(lungs_of_mask(read_mask(folder / mask)))
        except BadImageError as error:
            raise BadImageError(error.kind, f"mask {mask}: {error}") from error
        height, width = lungs[-1].shape
        if abs(width * own_height / (height * own_width) - 1) > _DIFFERENT_ASPECT:
            why = f"mask {mask} is {width}×{height}, the picture {own_width}×{own_height}: another aspect"
            raise BadImageError("other_size", why)
        if lungs[0].shape != lungs[-1].shape:
            raise BadImageError("other_size", f"masks {' and '.join(masks)} differ in size")
    empty = [mask for mask, is_lung in zip(masks, lungs, strict=True) if not is_lung.any()]
    if 0 < len(empty) < len(masks):
        raise BadImageError("one_lung", f"mask {empty[0]} is empty, and that of the other lung is not")
    return np.logical_or.reduce(lungs)


def lungs_of_mask(drawn: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell lung from background, which is the lowest value, whatever numbers stand for them.

    Of up to three values the others are lung: 0 and 1, 0 and 255, or 0, 1 and 2 (left and right lung). More
    are a mask with soft edges (JPEG, another size): lung is what is brighter than half.

    Args:
        drawn: (height, width), as `read_mask` gives it.

    Returns:
        (height, width); False everywhere where there is one value.

    Raises:
        BadImageError: kind "not_a_mask", of a picture or of a map of more labels, whose lungs nobody names.
    """
    values, counts = np.unique(drawn, return_counts=True)
    low, high = float(values[0]), float(values[-1])
    if values.size <= _MOST_LABELS:
        return drawn > values[0]
    edge = counts[abs(values - (low + high) / 2) < (high - low) / 4].sum() / drawn.size
    if high - low < _FEWEST_GRAYS or edge > _LARGEST_EDGE:
        raise BadImageError(
            "not_a_mask",
            f"it holds {values.size} values from {low:g} to {high:g}; wanted one for the background and one "
            "for lung, or one for each lung",
        )
    return drawn > (low + high) / 2


def _read_chexmask(file: Path, pictures: Sequence[str], contours: Contours) -> None:
    known = {_parts(picture)[-1] for picture in pictures}
    found: dict[str, list[tuple[float, ChestRegion]]] = {}
    limit = csv.field_size_limit(_LONGEST_CELL)  # of the whole process: other tables keep theirs
    try:
        for line, name, cells in _read_rows(file):
            if _parts(name)[-1] in known:
                found.setdefault(name, []).append(_read_row(f"{file.name}, line {line}", cells))
    finally:
        csv.field_size_limit(limit)
    of_picture: dict[str, list[tuple[float, ChestRegion]]] = {}
    for name, picture in _match(found, pictures):
        of_picture.setdefault(picture, []).extend(found[name])
    for picture, rows in of_picture.items():
        good = [region for quality, region in rows if quality >= _LEAST_QUALITY]
        if not good:
            why = f"{_QUALITY} {max(quality for quality, _ in rows):g} is below {_LEAST_QUALITY}"
            contours.refused.append((picture, why))
        elif any(not np.array_equal(region.outline, good[0].outline) for region in good):
            contours.refused.append((picture, f"{len(good)} rows name it, with different contours"))
        else:
            contours.regions[picture] = good[0]


def _read_rows(file: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Yield (line, name of the picture, cells by column) of each row; the table may be of gigabytes."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or []
            id_column = next((column for column in ID_COLUMNS if column in columns), None)
            missing = [column for column in (*_LUNGS, "Height", "Width", _QUALITY) if column not in columns]
            if id_column is None or missing:
                wanted = f"{', '.join(missing)}" if missing else f"the picture's id ({', '.join(ID_COLUMNS)})"
                raise LabelFileError(
                    f"--contours {file} is not a table of CheXmask: its columns are {list(columns)[:12]}, "
                    f"and {wanted} is missing. Name a CSV as it is downloaded, or a folder of lung masks."
                )
            for row in reader:
                yield reader.line_num, row[id_column] or "", row
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise LabelFileError(
            f"--contours {file} cannot be read as a CSV ({error}). Download it again."
        ) from error


def _read_row(where: str, cells: dict[str, str]) -> tuple[float, ChestRegion]:
    """How good a row's contour is, and the region of its runs, which count pixels by rows and from 1."""
    try:
        height, width = round(float(cells["Height"])), round(float(cells["Width"]))
        quality = float(cells[_QUALITY])
        runs = [np.array(cells[lung].split(), dtype=np.int64).reshape(-1, 2) for lung in _LUNGS]
    except (ValueError, AttributeError, OverflowError) as error:  # a cell that is not there is None
        raise LabelFileError(
            f"{where}: {error}. Wanted {_LUNGS[0]} and {_LUNGS[1]} as pairs of start and length, Height, "
            f"Width and {_QUALITY} as numbers. Download the table again."
        ) from error
    if not 0 < height * width <= _MOST_PIXELS:
        raise LabelFileError(f"{where}: Height {height} and Width {width} are no size of a picture.")
    starts, lengths = np.concatenate(runs).T
    if (starts < 1).any() or (lengths < 1).any() or (starts + lengths - 1 > height * width).any():
        raise LabelFileError(
            f"{where}: a run leaves the picture of {height}×{width} pixels. Download the table again."
        )
    is_lung = np.zeros(height * width, dtype=np.bool_)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        is_lung[start - 1 : start - 1 + length] = True
    return quality, region_of_mask(is_lung.reshape(height, width))


def _match(names: Iterable[str], pictures: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair names with pictures: as much as both have of a path is the same, and no other picture fits."""
    whole: dict[tuple[str, ...], list[str]] = {}
    ends: dict[tuple[str, ...], list[str]] = {}  # of longer paths; CheXpert has 190,000 of one file name
    for picture in pictures:
        parts = _parts(picture)
        whole.setdefault(parts, []).append(picture)
        for first in range(1, len(parts)):
            ends.setdefault(parts[first:], []).append(picture)
    for name in names:
        parts = _parts(name)
        fitting = ends.get(parts, []).copy()
        for first in range(len(parts)):
            fitting += whole.get(parts[first:], [])
        if len(fitting) == 1:
            yield name, fitting[0]


def without_suffix(path: str) -> str:
    """A path without the suffix of a picture: the last number of a DICOM identifier is none."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else path


def _parts(path: str) -> tuple[str, ...]:
    """The folders of a path and its file's name without the suffix of a picture."""
    return PurePosixPath(without_suffix(path.replace("\\", "/"))).parts
