"""The leakage guard at its real size: seconds, memory, and what it finds among distinct pictures.

    python -m benchmarks.leakage_scale ../shared/mini_cocktail/ChestXray-NIHCC/images
    python -m benchmarks.leakage_scale FOLDER_OF_CHEST_XRAYS --held_out 2000 --others 4000

No public set of that size lies on every machine, so pictures are made: three real chests, each mirrored or
not and bent, are blended region by region and given a gray-level curve and noise. Some of the others are
copies of held-out pictures, each changed in one of the ways of leakage_table.py.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.peak_memory import PeakMemory
from benchmarks.picture_changes import CHANGES
from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.near_duplicates import best_matches
from dataset_scripts.leakage.thumbnails import make_thumbnails
from dataset_scripts.leakage.warps import THUMBNAIL_SIDE
from dataset_scripts.reading.images import read_image

SIDE = 128  # of the real chests and of what is changed
BLENDED = 3
AT_ONCE = 128


def read_square(path: Path) -> np.ndarray:
    """Read an image squeezed into a square."""
    image = Image.fromarray(read_image(path, SIDE))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def smooth_noise(rng: np.random.Generator, count: int, side: int, waves: int = 4) -> np.ndarray:
    """Return (count, side, side): a few random values a side, cubically in between, of variance about 1/3."""
    from_coarse = np.stack(
        [
            np.asarray(Image.fromarray(row).resize((side, 1), Image.Resampling.BICUBIC))[0]
            for row in np.eye(waves, dtype=np.float32)[:, None]
        ]
    )
    coarse = rng.standard_normal((count, waves, waves)).astype(np.float32)
    return from_coarse.T @ coarse @ from_coarse


def bend(pictures: np.ndarray, rng: np.random.Generator, side: int) -> np.ndarray:
    """Sample (count, SIDE, SIDE) pictures at side x side points of a random smooth warp."""
    count = len(pictures)
    line = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    y, x = np.meshgrid(line, line, indexing="ij")
    angle = rng.normal(0, 0.08, (count, 1, 1)).astype(np.float32)
    scale = rng.uniform(0.8, 1.1, (2, count, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.05, 0.05, (2, count, 1, 1)).astype(np.float32)
    bent = 0.03 * smooth_noise(rng, 2 * count, side).reshape(2, count, side, side)
    across = (np.cos(angle) * x + np.sin(angle) * y) * scale[0] + shift[0] + bent[0]
    down = (np.cos(angle) * y - np.sin(angle) * x) * scale[1] + shift[1] + bent[1]
    across, down = (np.clip((at + 0.5) * SIDE - 0.5, 0, SIDE - 1.001) for at in (across, down))
    left, top = across.astype(np.intp), down.astype(np.intp)
    right_share, low_share = across - left, down - top
    rows = np.arange(count)[:, None, None]
    upper, lower = (
        pictures[rows, line, left] * (1 - right_share) + pictures[rows, line, left + 1] * right_share
        for line in (top, top + 1)
    )
    return upper * (1 - low_share) + lower * low_share


def make(chests: np.ndarray, seed: int, count: int, side: int) -> np.ndarray:
    """Return (count, side, side), uint8: blends of bent chests, no two alike."""
    rng = np.random.default_rng([seed, side])
    total = np.zeros((count, side, side), np.float32)
    shares = np.exp(2.5 * smooth_noise(rng, BLENDED * count, side).reshape(BLENDED, count, side, side))
    for share in shares / shares.sum(axis=0):
        drawn = chests[rng.integers(0, len(chests), count)]
        is_mirrored = rng.random(count) < 0.5
        drawn[is_mirrored] = drawn[is_mirrored, :, ::-1]
        total += share * bend(drawn, rng, side)
    curve = rng.uniform(0.7, 1.4, (count, 1, 1)).astype(np.float32)
    shown = 255 * (total / 255) ** curve + 2 * rng.standard_normal(total.shape, np.float32)
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def make_many(chests: np.ndarray, count: int, side: int, seed: int) -> np.ndarray:
    """Make any number of pictures on all cores."""
    sizes = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
    made = np.empty((count, side, side), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(partial(make, chests), range(seed, seed + len(sizes)), sizes, repeat(side))
        for number, part in enumerate(parts):
            made[number * AT_ONCE : number * AT_ONCE + len(part)] = part
    return made


def as_thumbnails(pictures: np.ndarray) -> np.ndarray:
    """Return (count, 2, 64, 64), as the guard reads them."""
    return np.stack([make_thumbnails(Image.fromarray(picture)) for picture in pictures])


def main() -> None:
    """Make the pictures, run the guard's comparison, print what it took and found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held_out", type=int, default=25_596)
    parser.add_argument("--others", type=int, default=60_000)
    parser.add_argument("--copied", type=float, default=0.05, help="share of the others that are copies")
    options = parser.parse_args()
    chests = np.stack([read_square(path) for path in sorted(options.folder.glob("*.png"))])
    copies = round(options.copied * options.others)
    held_out = as_thumbnails(make_many(chests, options.held_out, THUMBNAIL_SIDE, seed=0))
    others = as_thumbnails(make_many(chests, options.others, THUMBNAIL_SIDE, seed=1_000_000))
    rng = np.random.default_rng(0)
    shown = np.sort(rng.choice(options.held_out, copies, replace=False))
    names = rng.choice(list(CHANGES), copies)
    places = rng.choice(options.others, copies, replace=False)
    originals = make_many(chests, copies, SIDE, seed=2_000_000)
    for picture, reference, place, name in zip(originals, shown, places, names, strict=True):
        image = Image.fromarray(picture)
        held_out[reference] = make_thumbnails(image)
        others[place] = make_thumbnails(CHANGES[name](image, rng).convert("L"))

    started, worked = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        matches = best_matches(others, held_out)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    grown = memory.peak - memory.before
    print(f"{len(others):,} images among {len(held_out):,} held out, {os.cpu_count()} cores:")
    print(
        f"{seconds:.0f} s, {worked:.0f} s of CPU time, {grown:.0f} MiB beyond the {memory.before:.0f} MiB "
        "of program and pictures.\n"
    )
    print("| change | copies | found | lowest correlation |\n|---|---|---|---|")
    references = np.array([match.reference for match in matches])
    values = np.array([match.correlation for match in matches])
    for name in CHANGES:
        of_name = names == name
        right = references[places[of_name]] == shown[of_name]
        found = values[places[of_name]][right]
        share = (found >= THRESHOLD).sum() / max(of_name.sum(), 1)
        print(f"| {name} | {of_name.sum()} | {share:.2%} | {found.min(initial=1):.3f} |")
    is_copy = np.zeros(len(others), bool)
    is_copy[places] = True
    wrong = (references[places] != shown) & (values[places] >= THRESHOLD)
    false = int((values[~is_copy] >= THRESHOLD).sum() + wrong.sum())
    print(f"\n{len(others) - copies:,} that are no copies: {false} false pairs at {THRESHOLD} or more,")
    print(f"highest {np.sort(values[~is_copy])[-3:].round(3).tolist()}.")


if __name__ == "__main__":
    main()
