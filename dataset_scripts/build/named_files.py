"""Files beside the sources that options of a build name: their paths made whole, and what they hold now.

Options → `find_named_files` → the hash that a build goes by: it is built anew when one of them changes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_scripts.build.chest_column import full_path, scan_contours
from dataset_scripts.build.records import FolderScan, as_text
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.reading.image_files import walk_folder


def check_paths(options: Mapping[str, Any]) -> None:
    """Refuse a path that is no text: the datasets library makes the name of a build of all options.

    Raises:
        DataLayoutError: names the option.
    """
    for name, value in options.items():
        if isinstance(value, str | Path) and as_text(str(value)) != str(value):
            raise DataLayoutError(
                f"{name} is {as_text(str(value))}, of bytes that are no UTF-8; names below it may be so, its "
                "own not. Rename it."
            )


def find_named_files(options: dict[str, Any]) -> list[FolderScan]:
    """Scan the files that `contours` and `protect` name; both become whole paths in `options`.

    Raises:
        DataLayoutError: one of them is not there.
    """
    options["contours"] = full_path(options.get("contours", ""))
    scans = scan_contours(options["contours"])
    if protect := options.get("protect"):
        path = Path(protect).expanduser().resolve()
        if path.is_dir():
            scans.append(FolderScan(path, walk_folder(path, follow_links_out=True).files))
        elif path.suffix.lower() == ".parquet" and path.is_file():
            status = path.stat()
            scans.append(FolderScan(path.parent, {path.name: (status.st_size, status.st_mtime_ns)}))
        else:
            raise DataLayoutError(
                f"protect is {protect}: not there, or neither a folder of images nor Parquet with a column "
                "`image`. Name the images that nothing may be trained on."
            )
        options["protect"] = str(path)
    return scans
