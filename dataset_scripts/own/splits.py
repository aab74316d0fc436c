"""Who of the user's own patients is held out, where the folder does not say so or says it of too few.

A layout's rows → here → the split of each image. Where the folder says the splits, `check_training` first.
"""

from collections.abc import Collection, Mapping

from dataset_scripts.build.label_rows import LabelRow
from dataset_scripts.build.records import SourceListing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.splits import stratified_patients

SPLIT_NAMES = ("train", "validation", "test")

SPLIT_WORDS = {**{name: name for name in SPLIT_NAMES}, "val": "validation", "valid": "validation"}
"""A split as a table or a folder may name it, in lower case."""

SPLIT_FOLDERS = {**SPLIT_WORDS, "training": "train", "testing": "test"}

FEWEST_PATIENTS = 10
"""Fewer of one class are too few to choose a checkpoint and thresholds by, as medhiera/evaluation says."""


_NAMED_AT_MOST = 5


def check_training(name: str, pictures: Collection[tuple[str, str]], otherwise: str) -> None:
    """Refuse a class that stands in another split and has nothing to learn from.

    Args:
        name: of the folder or table that says so.
        pictures: (split, class) of each that has a class, as the folder says it; "" for no split. Where
            none is in train, all are to evaluate on.
        otherwise: what else can be done than to give train such pictures.

    Raises:
        DataLayoutError: as said.
    """
    trained = {label for split, label in pictures if split in ("", "train")}
    untaught = sorted({label for _, label in pictures} - trained)
    if trained and untaught:
        elsewhere = sorted({split for split, label in pictures if label in untaught})
        raise DataLayoutError(
            f"{name}: {untaught[:_NAMED_AT_MOST]} have pictures in {' and '.join(elsewhere)}, and "
            f"none in train, whose classes are {sorted(trained)[:_NAMED_AT_MOST]}. Name a class alike in "
            f"each split, add pictures of it to train, or {otherwise}."
        )


def assign_splits(rows: Mapping[str, LabelRow], fraction: float) -> dict[str, str]:
    """Return the split of each image: a share of the patients is held out for test and for validation."""
    test = choose_patients(rows, fraction)
    rest = {key: row for key, row in rows.items() if row.patient not in test}
    validation = choose_patients(rest, fraction / (1 - fraction))
    return {
        key: "test" if row.patient in test else "validation" if row.patient in validation else "train"
        for key, row in rows.items()
    }


def draw_splits(rows: Mapping[str, LabelRow], fraction: float, listing: SourceListing) -> dict[str, str]:
    """The splits of `assign_splits` where neither a column nor folders name any, reported to `listing`."""
    listing.is_split_drawn = True
    splits = assign_splits(rows, fraction)
    held_out = []
    for name in ("test", "validation"):
        keys = [key for key, split in splits.items() if split == name]
        held_out.append(f"{len(keys):,} of {len({rows[key].patient for key in keys}):,} patients for {name}")
    patients = len({row.patient for row in rows.values()})
    if set(splits.values()) == {"train"}:
        return splits  # too few patients, as who wants another split is told
    listing.report(
        "split_cut",
        "splits",
        f"no split is named, so some were drawn by patient and label: of {len(rows):,} images of "
        f"{patients:,} patients {' and '.join(held_out)}. A column split, or a folder for each, chooses them",
    )
    return splits


def choose_patients(rows: Mapping[str, LabelRow], fraction: float) -> frozenset[str]:
    """Choose a share of the patients, stratified by label."""
    counts: dict[str, list[float]] = {}
    for row in rows.values():
        sums = counts.setdefault(row.patient, [0.0] * (len(row.labels) + 1))
        sums[-1] += 1  # images without any label are shared out too
        for index, value in enumerate(row.labels):
            sums[index] += value == 1.0
    return stratified_patients(counts, fraction)


def complete_splits(
    rows: Mapping[str, LabelRow], given: Mapping[str, str], fraction: float, listing: SourceListing
) -> dict[str, str]:
    """Return the split of each image, where the folder has split folders, perhaps not all or too small ones.

    A split without an image is cut from train, by patient. So is validation where its folder holds fewer than
    FEWEST_PATIENTS patients of a label and a cut would hold twice as many: its images join train first. The
    test folder stays as it is.

    Args:
        rows: of each image.
        given: the split of each image by its folder.
        fraction: share of the training images to cut.
        listing: takes a report of each cut.
    """
    splits = dict(given)
    if "train" not in given.values():
        return splits  # data to evaluate on
    if "test" not in given.values():
        _cut(rows, splits, "test", fraction, listing, "there is no test folder")
    if "validation" not in given.values():
        _cut(rows, splits, "validation", fraction, listing, "there is no validation folder")
        return splits
    joined = {key: "train" if split == "validation" else split for key, split in splits.items()}
    chosen = choose_patients({key: rows[key] for key, split in joined.items() if split == "train"}, fraction)
    offered = {key for key, split in splits.items() if split == "validation"}
    cut = {key for key, split in joined.items() if split == "train" and rows[key].patient in chosen}
    few, more = (_fewest_patients(rows, keys) for keys in (offered, cut))
    if few >= FEWEST_PATIENTS or more < 2 * few:
        return splits
    reason = f"its folder holds {len(offered)} images, too few to choose by ({few} patients of one label)"
    _cut(rows, joined, "validation", fraction, listing, f"{reason}, which join train")
    return joined


def _cut(
    rows: Mapping[str, LabelRow],
    splits: dict[str, str],
    name: str,
    fraction: float,
    listing: SourceListing,
    reason: str,
) -> None:
    """Move a share of the training patients to the split `name`, and report it."""
    listing.is_split_drawn = True
    train = {key: rows[key] for key, split in splits.items() if split == "train"}
    chosen = choose_patients(train, fraction)
    moved = [key for key, row in train.items() if row.patient in chosen]
    splits.update(dict.fromkeys(moved, name))
    held_out = f"{len(moved):,} images of {len(chosen):,} training patients are held out for {name}"
    if not moved:
        patients = len({row.patient for row in train.values()})
        held_out = (
            f"no image could be held out for {name}, since {patients:,} training patients are too few to "
            "share out by label: a label needs three. Add patients, or a folder for it"
        )
    listing.report("split_cut", name, f"{reason}: {held_out}")


def _fewest_patients(rows: Mapping[str, LabelRow], keys: set[str]) -> int:
    """Return how many patients among `keys` have the rarest of all labels; all where no row has a label."""
    labels = {index for row in rows.values() for index, value in enumerate(row.labels) if value == 1.0}
    counts = [len({rows[key].patient for key in keys if rows[key].labels[index] == 1.0}) for index in labels]
    return min(counts, default=len({rows[key].patient for key in keys}))
