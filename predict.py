"""Probabilities of each finding for your own images, as a CSV.

    python predict.py --model runs/stage2 --output predictions.csv chest1.png chest2.jpg
    python predict.py --model demo/phantom/stage2 --output predictions.csv demo/phantom/raw/COVIDx_CXR/test

The second reads a folder that `make demo` left.
"""

import argparse
import csv
import logging
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from dataset_scripts.errors import BadImageError
from dataset_scripts.images import read_image
from dataset_scripts.listing import IMAGE_SUFFIXES
from medhiera.recipe import RecipeError
from medhiera.stage import Classifier
from medhiera.training import run_script

logger = logging.getLogger("predict")


def main(argv: list[str]) -> None:
    """Read each image, write one row; unreadable files are named at the end and have no row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a stage-2 folder or a Hub id")
    parser.add_argument("--output", required=True, type=Path, help="the CSV to write")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER_OR_FILES")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    files = list(find_images(options.paths))
    if not files:
        raise RecipeError(
            f"no image in {[str(p) for p in options.paths]}; wanted {sorted(IMAGE_SUFFIXES)} files"
        )
    if options.output.is_dir():
        raise RecipeError(f"--output {options.output} is a folder; name the CSV to write in it")
    classifier = Classifier.open(options.model)
    bad: list[str] = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *classifier.names])
        for begin in tqdm(range(0, len(files), options.batch_size)):
            images: dict[Path, Image.Image] = {}
            for path in files[begin : begin + options.batch_size]:
                try:
                    images[path] = Image.fromarray(read_image(path))
                except BadImageError as error:
                    bad.append(f"{path}: {error}")
            if images:
                scores = classifier.probabilities(list(images.values())).tolist()
                writer.writerows(
                    [str(path), *(f"{p:.6f}" for p in row)] for path, row in zip(images, scores, strict=True)
                )
    logger.info("%d images → %s; not for clinical use", len(files) - len(bad), options.output)
    if bad:
        files_word = "file" if len(bad) == 1 else "files"
        logger.warning("%d %s could not be read:\n  %s", len(bad), files_word, "\n  ".join(bad))
    if len(bad) == len(files):
        raise RecipeError("not one image could be read")


def find_images(paths: list[Path]) -> Iterator[Path]:
    """Files as named, folders searched through.

    Raises:
        RecipeError: a path that is neither.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(
                p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
            )
        elif path.is_file():
            yield path
        else:
            raise RecipeError(f"{path} is neither a file nor a folder")


if __name__ == "__main__":
    run_script(main)
