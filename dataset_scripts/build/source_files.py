"""What the reader of any published source says of its files: one that is missing, pictures by their name."""

from collections.abc import Callable, Iterable, Mapping, Set

from dataset_scripts.build.records import FolderScan, Source, SourceListing
from dataset_scripts.errors import DataLayoutError


def missing_file(
    source: Source, files: Iterable[str], fault: str, wanted: str, advice: str = ""
) -> DataLayoutError:
    """What to raise where a source's table or list is not there.

    Args:
        source: whose folder it is.
        files: relative paths of those that are there; the message names the first of their folders.
        fault: such as `train.csv is missing`.
        wanted: what was looked for, and where.
        advice: what to do; "" names the source's homepage.
    """
    found = sorted({path.split("/", 1)[0] for path in files})[:12]
    advice = advice or f"Get it from {source.homepage}, or point data_dir at the folder that holds it."
    return DataLayoutError(f"{source.folder}: {fault}. Wanted {wanted}; found {found}. {advice}")


def index_images(
    scan: FolderScan,
    listing: SourceListing,
    key: Callable[[str], str | None],
    advice: str = "",
    same: str = "image",
) -> dict[str, str]:
    """Map a picture's name, as the source's lists have it, to its relative path.

    The second of two files of one name is reported, as is one that the source cannot hold.

    Args:
        scan: of the folder.
        listing: takes the reports.
        key: a relative path → the name; None where the source has no such file.
        advice: which pictures were wanted, said where there is none; "": a folder without any is taken.
        same: what two files share, for messages.

    Raises:
        DataLayoutError: no picture is there.
    """
    paths: dict[str, str] = {}
    for path in scan.images():
        name = key(path)
        if name is None:
            listing.report("not_listed", path, f"its path is none of {listing.source.name}'s")
        elif (known := paths.setdefault(name, path)) != path:
            listing.report("same_name", path, f"the same {same} as {known}, which is used")
    if advice and not paths:
        raise DataLayoutError(
            f"{listing.source.folder}: no image found among {len(scan.files)} files. "
            f"{advice}{scan.links_advice()}"
        )
    return paths


def report_unlisted(
    listing: SourceListing,
    paths: Mapping[str, str],
    used: Set[str],
    detail: str,
    key: Callable[[str], str] = str,
) -> None:
    """Report each picture that no list names, in the order of their paths; not one whose rows contradict.

    Args:
        listing: takes the reports, and has those of the rows.
        paths: name → relative path (`index_images`).
        used: paths of the pictures that were listed.
        detail: for the report.
        key: the name of a reported row → that in `paths`.
    """
    left_out = {key(problem.name) for problem in listing.problems if problem.kind == "conflicting_row"}
    for path in sorted(path for name, path in paths.items() if name not in left_out and path not in used):
        listing.report("not_listed", path, detail)
