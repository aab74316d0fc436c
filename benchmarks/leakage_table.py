"""How sure the leakage guard's pixels are, on real images. leakage_scale.py says how long they take.

    python -m benchmarks.leakage_table ../shared/mini_cocktail/ChestXray-NIHCC/images
    python -m benchmarks.leakage_table FOLDER_OF_CHEST_XRAYS --others ANOTHER_FOLDER A_THIRD

Recall: every image is changed as a copy in another dataset would be, and looked for among all. Precision: the
images, as they are and changed, are looked for among other patients' images; whatever is found is false. The
guard was built on the first folder, so what its even-numbered patients would choose as the threshold is shown
beside what the odd-numbered measure. `--others` are folders that nothing was chosen on: their changed copies
are looked for, and each folder is looked for in the first; what is found there is named, as it may be true,
and what comes next. File names of the first folder start with the patient's number, as in ChestX-ray14.
"""

import argparse
import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.near_duplicates import THUMBNAIL_SIDE, aligned_correlation, best_matches
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES
from dataset_scripts.reading.images import read_image

FOLDS = 4
NEXT = 3  # pairs named below the threshold
TWINS = 0.9  # correlation of the fine detail of two originals

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and decompress."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def gamma(image: Image.Image, power: float) -> Image.Image:
    """Apply a gray-level curve."""
    return image.point([round(255 * (level / 255) ** power) for level in range(256)])


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keep nine tenths of each side, anywhere."""
    left, top = rng.random() * 0.1 * image.width, rng.random() * 0.1 * image.height
    box = (left, top, left + 0.9 * image.width, top + 0.9 * image.height)
    return image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))


def turn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn by up to three degrees; corners become black."""
    return image.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC)


def resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resize each side on its own."""
    width, height = (int(side) for side in rng.integers(150, 400, 2))
    return image.resize((width, height), Image.Resampling.BICUBIC)


CHANGES: dict[str, Change] = {
    "resize": resize,
    "JPEG quality 50": lambda image, rng: jpeg(image, 50),
    "gamma 0.7": lambda image, rng: gamma(image, 0.7),
    "gamma 1.4": lambda image, rng: gamma(image, 1.4),
    "crop of a tenth": crop,
    "turn within ±3°": turn,
    "crop and turn": lambda image, rng: crop(turn(image, rng), rng),
    "all of these": lambda image, rng: jpeg(gamma(resize(crop(turn(image, rng), rng), rng), 1.4), 50),
}


def thumbnails(path: Path) -> np.ndarray:
    """Return the thumbnail of an image and of every changed copy, (1 + changes, 64, 64)."""
    rng = np.random.default_rng(int.from_bytes(path.name.encode()[-8:], "big"))
    image = Image.fromarray(read_image(path))
    copies = [image, *(change(image, rng) for change in CHANGES.values())]
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = [copy.convert("L").resize(side, Image.Resampling.BILINEAR) for copy in copies]
    return np.stack([np.asarray(picture) for picture in small])


def read_folder(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Return the image files below a folder and their thumbnails (images, 1 + changes, 64, 64)."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    with ProcessPoolExecutor() as pool:
        return paths, np.stack(list(pool.map(thumbnails, paths, chunksize=16)))


def look_for(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best reference of each query and its correlation."""
    matches = best_matches(queries, references)
    return np.array([match.reference for match in matches]), np.array([m.correlation for m in matches])


def recall(pictures: np.ndarray, among: np.ndarray, is_reported: np.ndarray) -> np.ndarray:
    """Look for changed copies, print the table of those reported and return the others' correlations.

    Args:
        pictures: (images, 1 + changes, 64, 64).
        among: (references, 64, 64), of which the first are the pictures as they are.
        is_reported: (images,); the rest were there to choose a threshold by.
    """
    print(f"\n{is_reported.sum()} images, each looked for among {len(among)}\n")
    print("| change | found | lowest correlation | 1st percentile |\n|---|---|---|---|")
    rest = []
    for number, change in enumerate(CHANGES, start=1):
        best, values = look_for(pictures[:, number], among)
        is_right = best == np.arange(len(pictures))
        if (other := np.flatnonzero(~is_right)).size:  # a set may hold a picture twice: its twin is as right
            no_warp = np.tile(np.eye(2, 3), (len(other), 1, 1))
            is_right[other] = aligned_correlation(among[best[other]], among[other], no_warp) >= TWINS
        found = is_right & (values >= THRESHOLD)
        low, first = np.percentile(values[is_right & is_reported], [0, 1])
        print(f"| {change} | {found[is_reported].mean():.2%} | {low:.3f} | {first:.3f} |", flush=True)
        rest.append(np.where(is_right, values, 0)[~is_reported])
    return np.concatenate(rest)


def strangers(pictures: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, int]:
    """Look for every picture, as it is and changed, among other patients' pictures, in four parts.

    Returns:
        The best correlation of each (images, 1 + changes), and the number of pairs compared.
    """
    highest = np.zeros(pictures.shape[:2])
    pairs = 0
    part = patients // 2 % FOLDS
    for fold in range(FOLDS):
        queries = pictures[part == fold]
        references = pictures[part != fold, 0]
        flat = queries.reshape(-1, *queries.shape[2:])
        highest[part == fold] = look_for(flat, references)[1].reshape(queries.shape[:2])
        pairs += len(flat) * len(references)
    return highest, pairs


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders nothing was chosen on")
    options = parser.parse_args()
    paths, pictures = read_folder(options.folder)
    patients = np.array([int(path.name.split("_")[0]) for path in paths])
    is_odd = patients % 2 == 1
    print(f"Copies of {options.folder}, odd patients alone", end="")
    copies = recall(pictures, pictures[:, 0], is_odd)
    highest, pairs = strangers(pictures, patients)
    even, odd = highest[~is_odd].max(), highest[is_odd].max()
    print(f"\nEven patients: lowest copy {copies.min():.3f}, highest stranger {even:.3f}, midway ", end="")
    print(f"{(copies.min() + even) / 2:.3f}; odd patients: highest stranger {odd:.3f}.")
    false = int((highest >= THRESHOLD).sum())
    highest_three = np.sort(highest, axis=None)[-3:].round(3).tolist()
    print(f"Other patients: {highest.size:,} queries ({len(paths):,} images, each also changed),")
    print(f"{pairs:,} pairs: {false} at {THRESHOLD} or more, highest {highest_three}.")
    for folder in options.others:
        others, changed = read_folder(folder)
        print(f"\nCopies of {folder}", end="")
        recall(changed, np.concatenate([changed[:, 0], pictures[:, 0]]), np.ones(len(others), bool))
        best, values = look_for(changed[:, 0], pictures[:, 0])
        found = int((values >= THRESHOLD).sum())
        print(f"\nThe {len(others)} as they are, among {len(paths)}: {found} at {THRESHOLD} or more")
        for number, row in enumerate(np.argsort(-values)[: found + NEXT]):
            verb = "shows" if number < found else "is next, like"
            print(f"- {others[row].name} {verb} {paths[best[row]].name} ({values[row]:.4f})")


if __name__ == "__main__":
    main()
