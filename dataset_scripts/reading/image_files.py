"""Which files below a folder are pictures: one answer for the build and for predict.py.

A folder → `walk_folder` → `is_picture` → the files that `images.read_image` is asked to read. A suffix that
names a kind of picture is believed without opening the file: if the content is something else, reading it
says so, and the file is reported as unreadable instead of passed over. Any other name (none, a DICOM
identifier with its dots, `.IMA` of some archives, `.bak`) is decided by the first bytes.
"""

import os
import re
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from dataset_scripts.errors import DataLayoutError

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM")
"""What Pillow may open, by its own names: still pictures, no format that runs a program (PostScript)."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".jp2", ".j2k", ".pgm", ".ppm", ".pbm", ".pnm", *DICOM_SUFFIXES),
)

OTHER_PICTURE_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jxr", ".svg", ".psd", ".eps", ".ps", ".ico", ".tga", ".exr"),
    *(".dng", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"),
)
"""Pictures and volumes that `read_image` does not read: it names them as unreadable."""

SYSTEM_NAMES = frozenset(
    (
        *(".ds_store", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"),
        *("lost+found", ".ipynb_checkpoints", "dicomdir"),
    )
)
"""What systems and archives leave beside pictures, in lower case; DICOMDIR holds no pixels."""

_HEAD_BYTES = 132  # a DICOM file's preamble and its "DICM"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51\0", "JPEG2000"),
    (b"8BPS\0\x01", "PSD"),
)

_PNM = re.compile(rb"P[14]\s(?:#[^\n]*\n|\s)*\d+\s+\d+\s|P[2356]\s(?:#[^\n]*\n|\s)*\d+\s+\d+\s+\d+\s")

# A dataset that begins without preamble: the file meta group with its VR, or group 8 with its VR; or group 8
# in implicit VR, where only its usual first elements count: group length, character set, image type, UIDs.
_BARE_DICOM = re.compile(
    rb"\x02\0[\0\x01\x02\x03\x10]\0(?:UL|OB|UI)"
    rb"|\x08\0[\0-\x80]\0(?:UL|CS|UI|DA|TM|DT|SH|LO)"
    rb"|\x08\0\0\0\x04\0\0\0....\x08\0"
    rb"|\x08\0[\x05\x08]\0[\x02-\x40]\0\0\0[A-Z][A-Z0-9_\\ ]"
    rb"|\x08\0[\x12-\x18]\0[\x02-\x40]\0\0\0\d[\d.]",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class FolderWalk:
    """What lies below one folder, each sorted and relative to it, with `/`.

    Attributes:
        files: regular file → (size, time of change in ns).
        hidden: hidden files, files of the operating system and folders of both, which are not looked into.
        links_out: links whose target lies outside the folder and that were not followed.
    """

    files: dict[str, tuple[int, int]]
    hidden: tuple[str, ...]
    links_out: tuple[str, ...]


def walk_folder(root: Path, follow_links_out: bool = False) -> FolderWalk:
    """Walk a folder once.

    Args:
        root: the folder; it may itself be a link, or hidden.
        follow_links_out: also take what a link shows that leaves the folder. Each folder is taken once,
            whatever links lead to it.

    Raises:
        DataLayoutError: a folder may not be listed.
    """
    top = os.path.realpath(root)
    files: dict[str, tuple[int, int]] = {}
    hidden: list[str] = []
    links_out: list[str] = []
    seen = {top}
    pending = deque([top])
    while pending:
        for entry in _list_folder(pending.popleft(), top):
            relative = os.path.relpath(entry.path, top).replace(os.sep, "/")
            if is_hidden(entry.name):
                hidden.append(relative)
                continue
            if entry.is_symlink() and not follow_links_out:
                target = os.path.realpath(entry.path)
                if os.path.commonpath([top, target]) != top:
                    links_out.append(relative)
                    continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                leads_up = os.path.commonpath([real, top]) == real  # or the whole disk could be walked
                if real not in seen and not leads_up:
                    seen.add(real)
                    pending.append(entry.path)
            elif entry.is_file():
                status = entry.stat()
                files[relative] = (status.st_size, status.st_mtime_ns)
    return FolderWalk(dict(sorted(files.items())), tuple(sorted(hidden)), tuple(sorted(links_out)))


def _list_folder(folder: str, top: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        relative = os.path.join(os.path.basename(top), os.path.relpath(folder, top))
        raise DataLayoutError(
            f"{os.path.normpath(relative)} may not be listed ({error.strerror}). Make the folder readable "
            "for the user who runs this."
        ) from error


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or the operating system's: `._x.png`, `Thumbs.db`."""
    return name.startswith(".") or is_system_file(name)


def is_system_file(name: str) -> bool:
    """Whether the operating system or an archive wrote it: nobody means it where they name `images/*`."""
    return name.startswith("._") or name.lower() in SYSTEM_NAMES


def has_picture_suffix(path: str | Path) -> bool:
    """Whether a name says by its suffix that it is a picture's, of a kind that can be read or not."""
    return str(path).lower().endswith((*IMAGE_SUFFIXES, *OTHER_PICTURE_SUFFIXES))


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture or says that it is one by its suffix; then the reader has the last word."""
    if has_picture_suffix(path):
        return True
    try:
        return bool(picture_format(read_head(path)))
    except OSError:
        return True  # it may be one, and whoever opens it says why it cannot be read


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: its content says so, or only its suffix says anything."""
    try:
        found = picture_format(read_head(path))
    except OSError:
        found = ""
    return found == "DICOM" or (not found and path.suffix.lower() in DICOM_SUFFIXES)


def may_be_dicom(path: Path) -> bool:
    """As `is_dicom`, but a file with the suffix of another kind of picture is not opened to find out."""
    name = path.name.lower()
    return name.endswith(DICOM_SUFFIXES) or (not name.endswith(IMAGE_SUFFIXES) and is_dicom(path))


def read_head(path: str | Path) -> bytes:
    """Return a regular file's first bytes, enough for `picture_format`; b"" of anything else.

    Raises:
        OSError: the file cannot be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, _HEAD_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def picture_format(head: bytes) -> str:
    """Name what a file's first bytes are: one of IMAGE_FORMATS, DICOM, another picture's format, or ""."""
    if head[128:132] == b"DICM" or has_bare_dicom(head):
        return "DICOM"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone begins many a text: the reserved bytes and the size of the second header must fit too.
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
        return "HEIF"
    return "PPM" if _PNM.match(head) else ""


_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))


def has_bare_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are a DICOM dataset without the preamble of 128 bytes and "DICM"."""
    return head[128:132] != b"DICM" and _BARE_DICOM.match(head) is not None
