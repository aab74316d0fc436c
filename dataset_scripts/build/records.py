"""What a source holds before any image is opened: its files, its records and its problems.

Raw folder → `scan_folder` → `Source.list_images` → `SourceListing` → builder.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.build.config import SourceConfig
from dataset_scripts.errors import DataLayoutError, LabelFileError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm")


@dataclass(frozen=True, slots=True)
class Box:
    """A finding's box; left, top, width and height in pixels of `ImageRecord.boxes_size`."""

    finding: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One file to build: an image, or a volume that becomes several images.

    `path` is relative to the listing's root; `image_id` is unique in the whole cocktail (a volume's
    slices append to it). `nih_image` is the ChestX-ray14 file name this image is known to show, where
    the source says so. `boxes_size` is the (width, height) the boxes were drawn in.
    """

    image_id: str
    source: str
    patient_id: str
    path: str
    labels: tuple[float, ...]
    age_years: float = float("nan")
    sex: str = ""
    view: str = ""
    boxes: tuple[Box, ...] = ()
    boxes_size: tuple[int, int] = (1, 1)
    nih_image: str = ""
    is_volume: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something counted and named in the build report. `name` is relative to the source's folder."""

    source: str
    kind: str
    name: str
    detail: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The regular files below one folder and the links that were not followed."""

    root: Path
    files: dict[str, tuple[int, int]]
    links_out: tuple[str, ...]

    def images(self) -> list[str]:
        """Return the relative paths that are image files by their suffix, sorted."""
        return [path for path in self.files if path.lower().endswith(IMAGE_SUFFIXES)]


ListImages = Callable[[FolderScan, SourceConfig], "SourceListing"]


@dataclass(frozen=True, slots=True)
class Source:
    """What this software knows of one source of images; cocktail.py holds the tuple of all.

    Attributes:
        name: the value of the `source` column, and the start of image and patient ids.
        folder: where its files lie below the cocktail's data_dir.
        list_images: reads the lists and labels of a scanned folder; it opens no image.
        title: the name as a model card's results give it.
        description: what it holds and how it was labeled, in Markdown, for the dataset card.
        license: its terms, in words.
        homepage: where to get it; "" for the user's own.
        citation: whom to cite; "" for nobody.
        label_names: the labels it annotates, of those in findings.py; every other is NaN (not annotated).
            None: what its own label file names.
        held_out_splits: the splits other than train that its listing may hold. No image of them is trained
            on under another source's name.
        is_default_task: stage 2 reads it by default.
        hub_dataset: the data set's name in a model card's metadata, which has no spaces; "" leaves it out.
        hub_tags: tags of a model trained on it.
    """

    name: str
    folder: str
    list_images: ListImages
    title: str
    description: str
    license: str
    homepage: str = ""
    citation: str = ""
    label_names: tuple[str, ...] | None = ()
    held_out_splits: tuple[str, ...] = ()
    is_default_task: bool = False
    hub_dataset: str = ""
    hub_tags: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as a configuration and a folder of the exported Parquet."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())


@dataclass(slots=True)
class SourceListing:
    """What one source contributes: records by split, and what was wrong."""

    source: Source
    root: Path
    splits: dict[str, list[ImageRecord]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, kind: str, name: str, detail: str = "", split: str = "") -> None:
        """Count and name one problem."""
        self.problems.append(Problem(self.source.name, kind, name, detail, split))


def scan_folder(root: Path) -> FolderScan:
    """Walk a source folder once: relative path → (size, mtime in ns), in sorted order.

    Hidden files are skipped. A link whose target lies outside `root` is not followed, so that no file
    of another folder can enter a dataset by accident; it is returned in `links_out`. `root` itself may
    be a link.

    Raises:
        DataLayoutError: `root` is not a folder, or a folder in it may not be listed.
    """
    if not root.is_dir():
        raise DataLayoutError(
            f"{root} is not a folder. Wanted a folder with the source's files; check data_dir for a typo."
        )
    top = os.path.realpath(root)
    files: dict[str, tuple[int, int]] = {}
    links_out: list[str] = []
    seen = {top}
    pending = [top]
    while pending:
        folder = pending.pop()
        for entry in _list_folder(folder, top):
            if entry.name.startswith("."):
                continue
            relative = os.path.relpath(entry.path, top).replace(os.sep, "/")
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if os.path.commonpath([top, target]) != top:
                    links_out.append(relative)
                    continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    pending.append(entry.path)
            elif entry.is_file():
                status = entry.stat()
                files[relative] = (status.st_size, status.st_mtime_ns)
    return FolderScan(Path(top), dict(sorted(files.items())), tuple(sorted(links_out)))


def _list_folder(folder: str, top: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        relative = os.path.join(os.path.basename(top), os.path.relpath(folder, top))
        raise DataLayoutError(
            f"{os.path.normpath(relative)} may not be listed ({error.strerror}). Make the source folder "
            "readable for the user who builds."
        ) from error


def manifest_hash(scans: Iterable[FolderScan], extra_files: Iterable[Path] = ()) -> str:
    """Return a hash that changes when any source file is added, removed or changed.

    Args:
        scans: source folders; a file is known by its relative path, size and time of change.
        extra_files: small files that are known by their content.
    """
    digest = hashlib.sha256()
    for scan in scans:
        for path, (size, mtime_ns) in scan.files.items():
            digest.update(f"{scan.root.name}\0{path}\0{size}\0{mtime_ns}\n".encode(errors="surrogateescape"))
    for file in extra_files:
        digest.update(read_text(file).encode())
    return digest.hexdigest()[:16]


def read_text(path: Path) -> str:
    """Read a text file that may carry a byte-order mark or Windows line ends.

    Raises:
        LabelFileError: the file cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelFileError(
            f"Cannot read {path.name} as UTF-8 text ({type(error).__name__}). Download it again from its "
            "source."
        ) from error


def read_lines(path: Path) -> list[str]:
    """Return the stripped, non-empty lines of a list file."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
