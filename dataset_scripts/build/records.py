"""What a source holds before any image is opened: its files, its records and its problems.

Raw folder → `scan_folder` → `Source.list_images` → `SourceListing` → builder.
"""

import codecs
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.build.config import SourceConfig
from dataset_scripts.errors import DataLayoutError, LabelFileError
from dataset_scripts.findings import FINDINGS
from dataset_scripts.reading.image_files import is_picture, walk_folder

_TABLES = (".csv", ".csv.gz", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", "metadata.parquet")

_BYTE_ORDER_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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

    `path` is relative to the listing's root, and may hold bytes that are no text; ids and class are made
    text (`as_text`). `image_id` is unique in the whole cocktail (a volume's
    slices append to it). `nih_image` is the ChestX-ray14 file name this image is known to show, where
    the source or the user's mapping says so, and `rsna_image` the RSNA challenge's patientId. `boxes_size`
    is the (width, height) the boxes were drawn in. `chest_region` is the user's own contour
    (`chest_column.pack`, in hexadecimal digits), "" where it is to be found, None where no chest is shown.
    `view` is PA, AP, LATERAL, or FRONTAL where the source does not say which of the first
    two; "" is unknown. `study_id` and the sections of its report are "" but in sources with reports
    (findings.py).
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
    rsna_image: str = ""
    is_volume: bool = False
    chest_region: str | None = ""
    study_id: str = ""
    report_findings: str = ""
    report_impression: str = ""
    report_indication: str = ""
    class_name: str = ""

    def __post_init__(self) -> None:
        for name in ("image_id", "patient_id", "class_name"):  # columns of text, and a path may be none
            object.__setattr__(self, name, as_text(getattr(self, name)))


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
    """The regular files below one folder: relative path → (size, mtime in ns), and what was passed over.

    `parent` is the folder above by the name that was given, as `root` itself may be a link.
    """

    root: Path
    files: dict[str, tuple[int, int]]
    links_out: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    parent: Path = Path()

    def beside(self, source: "Source") -> list[Path]:
        """Return the files beside this folder that the source reads too, of those that are there."""
        return [self.parent / name for name in source.beside if (self.parent / name).is_file()]

    def images(self) -> list[str]:
        """Return the relative paths that are pictures, or say so by their suffix (`is_picture`), sorted."""
        return [path for path in self.files if is_picture(f"{self.root}/{path}")]

    def links_advice(self) -> str:
        """Return what to say of links where too few images are found; "" where none leaves the folder."""
        if not self.links_out:
            return ""
        return (
            f" {len(self.links_out)} links leave the folder and are not followed, for example "
            f"{list(self.links_out[:3])}: put the files there themselves (`cp -rL` copies what links show), "
            "or point data_dir at the folder that holds them."
        )


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
        hub_dataset: the data set's id on the Hub, whoever put it there; "" where none is known.
        hub_tags: tags of a model trained on it.
        shows_chest: whether its pictures show chests, which masks may follow.
        has_reports: its images belong to studies with a written report; data with it has REPORT_COLUMNS.
        may_be_uploaded: False where its terms forbid to pass it on, even to a private repository.
        beside: small files of other sources' folders that its lists are read with, where they are there.
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
    shows_chest: bool = True
    has_reports: bool = False
    may_be_uploaded: bool = True
    beside: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as a configuration and a folder of the exported Parquet."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())


@dataclass(slots=True)
class SourceListing:
    """What one source contributes: records by split, and what was wrong.

    `label_names` are those of the records' labels, in order. `is_split_drawn` says that validation or test,
    or both, were drawn here, not by the source or the user.
    """

    source: Source
    root: Path
    splits: dict[str, list[ImageRecord]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    label_names: tuple[str, ...] = FINDINGS
    is_split_drawn: bool = False

    def report(self, kind: str, name: str, detail: str = "", split: str = "") -> None:
        """Count and name one problem."""
        self.problems.append(Problem(self.source.name, kind, name, detail, split))

    def report_passed_over(self, scan: FolderScan) -> None:
        """Name the links that were not followed and the hidden files, unless a row's report named them."""
        named = {(problem.kind, problem.name) for problem in self.problems}
        for path in scan.links_out:
            if ("link_out_of_folder", path) not in named:
                self.report("link_out_of_folder", path, "its target lies outside the folder; not followed")
        for path in scan.hidden:
            if ("hidden_file", path) not in named:
                self.report("hidden_file", path, "a hidden or system file or folder; passed over")


def scan_folder(root: Path) -> FolderScan:
    """Walk a source folder once.

    Hidden and system files are passed over. A link whose target lies outside `root` is not followed, so that
    no file of another folder can enter a dataset by accident. `root` itself may be a link.

    Raises:
        DataLayoutError: `root` is not a folder, or a folder in it may not be listed.
    """
    if not root.is_dir():
        raise DataLayoutError(
            f"{root} is not a folder. Wanted a folder with the source's files; check data_dir for a typo."
        )
    walk = walk_folder(root)
    parent = root.absolute().parent
    return FolderScan(Path(os.path.realpath(root)), walk.files, walk.links_out, walk.hidden, parent)


def as_text(name: str) -> str:
    r"""Return a path or a part of one as text that any file can hold: a byte that is no UTF-8 as `\xe9`."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


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


def content_hash(scan: FolderScan, left_out: Path) -> str:
    """Return a hash that changes with a folder's and its sources' tables, and other files' names and sizes.

    What was copied or touched, and has other times, has the same.

    Args:
        scan: of the folder.
        left_out: a folder whose files do not count where it lies in that one.
    """
    digest = hashlib.sha256()
    for path, (size, _) in sorted(scan.files.items()):
        if (scan.root / path).is_relative_to(left_out.resolve()):
            continue
        digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
        if path.count("/") <= 1 and path.lower().endswith(_TABLES):
            digest.update((scan.root / path).read_bytes())
    return digest.hexdigest()[:16]


def read_text(path: Path, advice: str = "") -> str:
    """Read a text file: UTF-8, or UTF-16 with its byte-order mark; every line ends in a line feed.

    Args:
        path: the file; it is decompressed where its name ends in .gz.
        advice: what to do where it cannot be read.

    Raises:
        LabelFileError: it is no such text; the message names the line.
    """
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:  # gzip's own error is an OSError without a strerror
        fault = getattr(error, "strerror", None) or error
        raise LabelFileError(f"Cannot read {path.name} ({fault}). {advice}".rstrip()) from error
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = (
            f"a byte (0x{content[error.start]:02x}) that is not UTF-8: the file may be Excel's plain CSV "
            "(Windows-1252 or Latin-1)"
            if encoding.startswith("utf-8")
            else f"what is not {encoding.upper()}, though the file begins as such"
        )
        raise LabelFileError(
            f"{path.name}, line {line} holds {what}. Wanted UTF-8 text: in Excel choose "
            f'"CSV UTF-8 (comma delimited)" in Save As. {advice}'.rstrip()
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise LabelFileError(
            f"{path.name}, line {line} holds a NUL byte: it is damaged, or no text (UTF-16 without its "
            f"byte-order mark looks like this). Wanted UTF-8 text. {advice}".rstrip()
        )
    return text


def read_lines(path: Path, advice: str = "") -> list[str]:
    """Return the stripped, non-empty lines of a list file."""
    return [line.strip() for line in read_text(path, advice).split("\n") if line.strip()]
