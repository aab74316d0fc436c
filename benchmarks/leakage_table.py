"""How sure the leakage guard's pixels are, on real images, beside perceptual hashes.

    python -m benchmarks.leakage_table ../shared/mini_cocktail/ChestXray-NIHCC/images
    python -m benchmarks.leakage_table FOLDER_OF_CHEST_XRAYS --others ANOTHER_FOLDER A_THIRD --every 2

leakage_scale.py says how long it takes. Recall: every image is changed as a copy in another dataset would be
(picture_changes.py), and looked for among all. Precision: the images, as they are and changed, are looked for
among other patients' images; whatever is found is false. The guard was built on the first folder's patients
of even number; those of odd number are reported. `--others` are folders that nothing was chosen on: their
changed copies are looked for, and each folder is looked for in the first; what is found there is named, as it
may be true, and what comes next. File names of the first folder start with the patient's number, as in
ChestX-ray14. ImageHash and imagededup stand beside it where they are installed (image_hashes.py).
"""

import argparse
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.image_hashes import MOST_BITS, available, distances, hashes
from benchmarks.picture_changes import CHANGES, WANTED
from dataset_scripts.errors import BadImageError
from dataset_scripts.leakage.alignment import correlate_detail
from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.near_duplicates import best_matches
from dataset_scripts.leakage.thumbnails import make_thumbnails
from dataset_scripts.leakage.warps import NO_WARP
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES
from dataset_scripts.reading.images import read_image

FOLDS = 4
NEXT = 3  # pairs named below the threshold
LONGEST = 512  # of the shorter side: what re-releases store at most
TWINS = 0.9  # correlation of the fine detail of two originals

Pictures = tuple[list[Path], np.ndarray, np.ndarray]


def copies(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the thumbnails (n, 2, 64, 64) and hashes (n, hashes, 8) of an image and its changed copies."""
    try:
        image = Image.fromarray(read_image(path))
    except BadImageError:
        return None
    if (side := min(image.size)) > LONGEST:
        size = (image.width * LONGEST // side, image.height * LONGEST // side)
        image = image.resize(size, Image.Resampling.BICUBIC)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    changed = [image, *(change(image, rng).convert("L") for change in CHANGES.values())]
    return np.stack([make_thumbnails(copy) for copy in changed]), np.stack(
        [hashes(copy, names) for copy in changed]
    )


def read_folder(folder: Path, names: list[str], every: int) -> Pictures:
    """Return some of the image files below a folder, their thumbnails and their hashes."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[::every]
    with ProcessPoolExecutor() as pool:
        read = list(pool.map(partial(copies, names=names), paths, chunksize=16))
    kept = [(path, *both) for path, both in zip(paths, read, strict=True) if both is not None]
    return (
        [path for path, _, _ in kept],
        np.stack([row[1] for row in kept]),
        np.stack([row[2] for row in kept]),
    )


def look_for(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best reference of each query and its correlation."""
    matches = best_matches(queries, references)
    return np.array([match.reference for match in matches]), np.array([m.correlation for m in matches])


def interval(share: float, count: int) -> str:
    """Return a share with its 95 % interval, in percent.

    Source: Wilson 1927, JASA 22(158).
    """
    middle = (share + 1.92 / count) / (1 + 3.84 / count)
    half = 1.96 / (1 + 3.84 / count) * (share * (1 - share) / count + 0.96 / count**2) ** 0.5
    return f"{100 * share:.1f} ({100 * max(middle - half, 0):.1f}-{100 * min(middle + half, 1):.1f})"


def recall(
    pictures: np.ndarray, bits: np.ndarray, among: np.ndarray, is_reported: np.ndarray, names: list[str]
) -> np.ndarray:
    """Look for changed copies, print the table of those reported and return the others' correlations.

    Args:
        pictures: (images, 1 + changes, 2, 64, 64).
        bits: (images, 1 + changes, hashes, 8).
        among: (references, 2, 64, 64), of which the first are the pictures as they are.
        is_reported: (images,); the rest were there to choose a threshold by.
        names: of the hashes.
    """
    reported = int(is_reported.sum())
    print(f"\n{reported} images, each looked for among {len(among)}; found, % (95 % interval)\n")
    print(f"| change | wanted | found | ranked first | lowest | {' | '.join(names)} |".replace("|  |", "|"))
    print("|---" * (5 + len(names)) + "|")
    rest = []
    for number, change in enumerate(CHANGES, start=1):
        best, values = look_for(pictures[:, number], among)
        is_right = best == np.arange(len(pictures))
        if (other := np.flatnonzero(~is_right)).size:  # a set may hold a picture twice: its twin is as right
            no_warp = np.tile(NO_WARP, (len(other), 1, 1))
            is_right[other] = correlate_detail(among[best[other], 1], among[other, 1], no_warp) >= TWINS
        found = is_right & (values >= THRESHOLD)
        lowest = values[is_right & is_reported].min(initial=1)
        near = (np.bitwise_count(bits[:, number] ^ bits[:, 0]).sum(axis=2) <= MOST_BITS).T
        cells = [
            change,
            f">= {100 * WANTED[change]:g}",
            interval(found[is_reported].mean(), reported),
            f"{100 * is_right[is_reported].mean():.1f}",
            f"{lowest:.3f}",
            *(f"{100 * row[is_reported].mean():.1f}" for row in near),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
        rest.append(np.where(is_right, values, 0)[~is_reported])
    return np.concatenate(rest)


def strangers(pictures: np.ndarray, bits: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look for every picture, as it is and changed, among other patients' pictures, in four parts.

    Returns:
        The best correlation of each (images, 1 + changes), and which each hash finds (images, 1 + changes,
        hashes).
    """
    highest = np.zeros(pictures.shape[:2])
    hashed = np.zeros(bits.shape[:3], bool)
    part = patients // 2 % FOLDS
    for fold in range(FOLDS):
        is_query = part == fold
        queries = pictures[is_query]
        flat = queries.reshape(-1, *queries.shape[2:])
        highest[is_query] = look_for(flat, pictures[~is_query, 0])[1].reshape(queries.shape[:2])
        for image in np.flatnonzero(is_query):
            for number in range(bits.shape[2]):
                apart = distances(bits[image, :, number], bits[~is_query, 0, number])
                hashed[image, :, number] = (apart <= MOST_BITS).any(axis=1)
    return highest, hashed


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders nothing was chosen on")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image of each folder")
    options = parser.parse_args()
    names = available()
    if not names:
        print("Neither ImageHash nor imagededup is installed: see benchmarks/image_hashes.py.")
    paths, pictures, bits = read_folder(options.folder, names, options.every)
    patients = np.array([int(path.name.split("_")[0]) for path in paths])
    is_odd = patients % 2 == 1
    print(f"Copies of {options.folder}, odd patients alone", end="")
    chosen_by = recall(pictures, bits, pictures[:, 0], is_odd, names)
    highest, hashed = strangers(pictures, bits, patients)
    even, odd = highest[~is_odd].max(), highest[is_odd].max()
    first = np.percentile(chosen_by, 1)
    print(f"\nEven patients: 1st percentile of copies {first:.3f}, highest stranger {even:.3f};", end="")
    print(f" odd patients: highest stranger {odd:.3f}.")
    false = int((highest >= THRESHOLD).sum())
    highest_three = np.sort(highest, axis=None)[-3:].round(3).tolist()
    print(f"Other patients: {highest.size:,} queries ({len(paths):,} images, each also changed):")
    print(f"{false} at {THRESHOLD} or more, highest {highest_three}.")
    for number, name in enumerate(names):
        print(f"{name} finds another patient's image for {100 * hashed[..., number].mean():.1f} % of them.")
    for folder in options.others:
        others, changed, other_bits = read_folder(folder, names, options.every)
        print(f"\nCopies of {folder}", end="")
        among = np.concatenate([changed[:, 0], pictures[:, 0]])
        recall(changed, other_bits, among, np.ones(len(others), bool), names)
        best, values = look_for(changed[:, 0], pictures[:, 0])
        found = int((values >= THRESHOLD).sum())
        print(f"\nThe {len(others)} as they are, among {len(paths)}: {found} at {THRESHOLD} or more")
        for number, row in enumerate(np.argsort(-values)[: found + NEXT]):
            verb = "shows" if number < found else "is next, like"
            print(f"- {others[row].name} {verb} {paths[best[row]].name} ({values[row]:.4f})")


if __name__ == "__main__":
    main()
