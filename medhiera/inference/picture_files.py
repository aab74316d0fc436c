"""The user's own picture files: found, told apart by what they hold, read ahead of the model.

`predict.py` and `embed.py` → here → read_ahead.py. A file is known by its place, not by its name as typed,
and by what it holds.
"""

import contextlib
import functools
import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from dataset_scripts.errors import BadImageError
from dataset_scripts.mistyped import no_folder
from dataset_scripts.reading.decoding import decoding
from dataset_scripts.reading.image_files import is_picture, is_system_file, walk_folder
from dataset_scripts.reading.images import exif_orientation, read_image
from medhiera.errors import UserError
from medhiera.inference.read_ahead import read_ahead

logger = logging.getLogger(__name__)

Prepared = TypeVar("Prepared")


def find_images(paths: list[Path]) -> dict[Path, Path]:
    """The files among `paths`, and the pictures below its folders, behind links too: place → as named.

    Pictures of a kind that cannot be read are among them, so that they are named. Hidden files, files of the
    operating system and files that are no pictures are skipped; the log counts them.

    Raises:
        UserError: a path that is neither a file nor a folder, or a folder that may not be listed; or there is
            no picture.
    """
    files: dict[Path, Path] = {}
    for path in _walk(paths):
        files.setdefault(canonical_path(path), path)
    if not files:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        raise UserError(
            f"no image in {', '.join(map(str, paths[:3]))}{more}; wanted PNG, JPEG, TIFF, BMP, WebP, GIF, "
            "JPEG 2000, PNM or DICOM files, or folders of them"
        )
    return files


def _walk(paths: list[Path]) -> Iterator[Path]:
    skipped: dict[str, list[str]] = {"hidden or system files": [], "files that are no images": []}
    for path in paths:
        if is_system_file(path.name):
            skipped["hidden or system files"].append(path.name)
        elif path.is_dir():
            walk = walk_folder(path, follow_links_out=True)
            skipped["hidden or system files"] += walk.hidden
            for name in walk.files:
                if is_picture(path / name):
                    yield path / name
                else:
                    skipped["files that are no images"].append(name)
        elif path.is_file():
            yield path
        else:
            raise UserError(f"{path}: {no_folder(path, or_file=True)}")
    for what, names in skipped.items():
        if names:
            logger.info("skipped %s: %d, for example %s", what, len(names), ", ".join(names[:3]))


@dataclass(frozen=True)
class Reading(Generic[Prepared]):
    """What came of one file.

    Attributes:
        path: as it was named.
        content: a digest of the file's bytes.
        pixels: prepared for each model; None where it could not be read.
        fault: why not.
        remarks: what a user should know of a picture that was read, such as a window that shows nothing.
    """

    path: Path
    content: str
    pixels: Prepared | None
    fault: str
    remarks: list[str]


def read_file(path: Path, prepare: Callable[[Image.Image], Prepared]) -> Reading[Prepared]:
    """What came of one file; called in threads, see read_ahead.

    Args:
        path: what to read.
        prepare: a picture → what a model is given of it.
    """
    remarks: list[str] = []
    try:
        with decoding(path):
            content = file_digest(path)
        gray = read_image(path, note=lambda kind, detail: remarks.append(f"{kind}: {detail}"))
    except BadImageError as error:
        return Reading(path, "", None, str(error), remarks)
    return Reading(path, content, prepare(Image.fromarray(gray)), "", remarks)


def read_pictures(
    paths: list[Path], prepare: Callable[[Image.Image], Prepared], batch_size: int
) -> Generator[list[Reading[Prepared]], None, None]:
    """What came of the files, a batch at a time in their order; threads read ahead of the model.

    Args:
        paths: what to read.
        prepare: a picture → what a model is given of it.
        batch_size: files at a time.
    """

    def read(path: Path) -> Reading[Prepared]:
        return read_file(path, prepare)

    with warnings.catch_warnings(), contextlib.closing(read_ahead(read, paths, batch_size)) as batches:
        warnings.simplefilter("ignore")  # read_image does too, but its filter is shared by all threads
        yield from batches


Picture = Image.Image | str | Path
Pictures = Picture | Iterable[Picture]


def as_list(pictures: Pictures) -> list[Picture]:
    """One picture or file as a list of one, several as a list."""
    return [pictures] if isinstance(pictures, Picture) else list(pictures)


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation → what turns it upright. ImageOps.exif_transpose also writes EXIF anew, which can fail."""


def open_picture(image: Picture) -> Image.Image:
    """A picture, or the one that a file holds: upright, with 8 bits a channel; of a file it is gray.

    Args:
        image: the picture, turned as its EXIF says where that can be read (one that was turned by hand must
            have lost it, as by ImageOps.exif_transpose); or a file, windowed where it has more than 8 bits.

    Raises:
        UserError: it is neither, the file cannot be read, or the picture has more than 8 bits a channel.
    """
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise UserError(
                f"a picture of mode {image.mode} has more than 8 bits, and its brightness would be cut off; "
                "give its file's path, which is read as a viewer shows it (windowed), or window it to mode L"
            )
        turn = _UPRIGHT.get(exif_orientation(image))
        if turn is None:
            return image
        upright = image.transpose(turn)
        upright.info.pop("exif", None)  # or it would be turned again
        return upright
    if not isinstance(image, str | os.PathLike):
        raise UserError(
            f"{type(image).__name__} is no picture; give files or pictures of Pillow (Image.fromarray makes "
            "one of an array of bytes); tensors go through transformers' AutoModel and processor"
        )
    try:
        return Image.fromarray(read_image(Path(image)))
    except BadImageError as error:
        raise UserError(f"{image} cannot be read: {error}") from error


def canonical_path(path: Path) -> Path:
    """The same path however the file's folder is named; a link counts as a file of its own."""
    return path.parent.resolve() / path.name


def file_digest(path: Path) -> str:
    """64 bits of a hash of the file's bytes, as hex: which picture a row is of, whatever its file's date."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=8)).hexdigest()


def changed_files(before: Mapping[Path, str], files: Collection[Path]) -> set[Path]:
    """Files that hold another picture than the one that has a row: copied over, whatever their date says.

    Args:
        before: file → `file_digest` when its row was written.
        files: those asked for; the others are not looked at.
    """

    def is_changed(file: Path) -> bool:
        try:
            return file_digest(file) != before[file]
        except OSError:
            return True  # it is read again, and named

    asked = [file for file in files if file in before]
    with ThreadPoolExecutor() as pool:
        return {file for file, changed in zip(asked, pool.map(is_changed, asked), strict=True) if changed}
