"""What an own folder's listing says, for the tests of how it is read."""

from pathlib import Path

from dataset_scripts import ImageFolder
from dataset_scripts.build.records import SourceListing


def listed(root: Path, **options: object) -> SourceListing:
    """The listing of an own folder."""
    (listing,) = ImageFolder(data_dir=root, build_dir=root.parent / "cache", **options).list_records(None)
    return listing


def labels(listing: SourceListing) -> dict[str, tuple[float, ...]]:
    """Each picture's labels, by its path."""
    return {record.path: record.labels for part in listing.splits.values() for record in part}
