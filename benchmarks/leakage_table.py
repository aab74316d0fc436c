"""How sure the leakage guard's pixels are, on real images, and how long it takes at the real size.

    python benchmarks/leakage_table.py ../shared/mini_cocktail/ChestXray-NIHCC/images
    python benchmarks/leakage_table.py FOLDER_OF_CHEST_XRAYS --images 200 --held_out 2000

Every image is changed as a copy in another dataset would be, and looked for among all images. For precision,
the images of every second patient are looked for among the other patients': whatever is found is false. File
names start with the patient, as in ChestX-ray14.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_scripts.images import read_image
from dataset_scripts.leakage import THRESHOLD
from dataset_scripts.same_picture import THUMBNAIL_SIDE, best_matches

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


def main() -> None:
    """Print the table and the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=368, help="images that are changed and looked for")
    parser.add_argument("--held_out", type=int, default=34_000, help="references of the timing")
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.png"))
    with ProcessPoolExecutor() as pool:
        pictures = np.stack(list(pool.map(thumbnails, paths, chunksize=16)))
    originals = pictures[:, 0]
    chosen = np.arange(0, len(paths), max(1, len(paths) // options.images))
    print("| change | images | found | lowest correlation | 1st percentile |\n|---|---|---|---|---|")
    for number, name in enumerate(CHANGES, start=1):
        matches = best_matches(pictures[chosen, number], originals)
        right = np.array([match.reference for match in matches]) == chosen
        values = np.array([match.correlation for match in matches])
        found = right & (values >= THRESHOLD)
        low, first = np.percentile(values[right], [0, 1])
        print(f"| {name} | {len(chosen)} | {found.mean():.2%} | {low:.3f} | {first:.3f} |", flush=True)
    patients = np.array([int(path.name.split("_")[0]) for path in paths])
    queries, references = originals[patients % 2 == 0], originals[patients % 2 == 1]
    values = np.array([match.correlation for match in best_matches(queries, references)])
    false = int((values >= THRESHOLD).sum())
    print(f"\nOther patients: {len(queries)} images among {len(references)}: {false} at {THRESHOLD} or more,")
    print(f"highest {np.sort(values)[-3:].round(3).tolist()}; precision {1 - false / len(queries):.2%}.")
    rng = np.random.default_rng(0)
    many = originals[rng.integers(0, len(originals), options.held_out)].astype(np.int16)
    many = np.clip(many + rng.integers(-12, 13, many.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    few = originals[rng.integers(0, len(originals), 2048)]
    started = time.perf_counter()
    best_matches(few, many)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n2,048 images among {len(many)}: {seconds:.0f} s, so 60,000 take {seconds / 2.048:.0f} min;")
    print(f"peak memory {peak:.1f} GiB.")


if __name__ == "__main__":
    main()
