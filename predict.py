"""Probabilities of each finding for your own images, as a CSV.

    python predict.py --model runs/stage2 --output predictions.csv chest1.png chest2.jpg study.dcm
    python predict.py --model demo/phantom/stage2 --output predictions.csv demo/phantom/raw/COVIDx_CXR/test

The second uses the folder that `make demo` wrote. Repeating a command that was killed resumes it, from any
folder: a relative path in the CSV starts at the CSV's own folder.

The CSV holds the model's own probabilities. The page of `make app` shows them rescaled where the model's
record holds a rescaling, so its numbers differ, and its thresholds belong to rescaled numbers alone.
"""

import argparse
import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES, is_picture, is_system_file, walk_folder
from dataset_scripts.reading.images import read_image
from medhiera.errors import UserError, run_script
from medhiera.inference.classifier import Classifier
from medhiera.inference.predictions_csv import (
    append_rows,
    canonical_path,
    list_beside,
    name_in_csv,
    rows_done,
    warn_of_old_rows,
)
from medhiera.output import check_output_file, make_folder, one_writer

logger = logging.getLogger("predict")


def main(argv: list[str]) -> None:
    """Read each image, write one row; unreadable files have no row and are listed beside the CSV."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a classifier's folder or Hub id")
    parser.add_argument("--output", required=True, type=Path, help="the CSV to write, or to append to")
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time (default: 16)")
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="FOLDER_OR_FILES", help="images, or folders of images"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the libraries' chatter stays away
    for name in ("predict", "medhiera", "dataset_scripts"):
        logging.getLogger(name).setLevel(logging.INFO)
    if options.batch_size < 1:
        raise UserError(f"--batch_size {options.batch_size}: wanted 1 or more images")
    check_output_file(options.output, "--output")

    files: dict[Path, Path] = {}
    for path in find_images(options.paths):
        files.setdefault(canonical_path(path), path)
    if not files:
        raise UserError(
            f"no image in {[str(p) for p in options.paths]}; wanted {sorted(IMAGE_SUFFIXES)} files"
        )
    make_folder(options.output.parent, "--output")
    output = options.output.resolve()  # one CSV has one lock, however it is named
    with one_writer(output, "--output"):
        unreadable = score(files, Classifier.open(options.model), output, options.batch_size)
    logger.info("%d images → %s; not for clinical use", len(files) - unreadable, options.output)
    if unreadable == len(files):
        raise UserError("none of the images could be read")


def score(files: dict[Path, Path], classifier: Classifier, output: Path, batch_size: int) -> int:
    """Append a row for each image that has none yet, and list the unreadable ones.

    Args:
        files: what to read, as it was named, by canonical path.
        classifier: the model.
        output: the CSV, an absolute path.
        batch_size: images at a time.

    Returns:
        How many could not be read.

    Raises:
        UserError: the CSV is something else or of another model, or cannot be written; or the model gives
            no finite numbers. Rows of the batches before stay.
    """
    fingerprint = classifier.fingerprint()
    written_at = output.stat().st_mtime if output.is_file() else 0.0
    rows = rows_done(output, ["path", "model", *classifier.names], fingerprint)
    done = {canonical_path(output.parent / name) for name in rows}
    if done:
        logger.info("%s already holds %d images: resuming", output, len(done))
    warn_of_old_rows(done, files, output, written_at)
    read_now: set[Path] = set()
    bad: list[tuple[Path, str]] = []
    remarks: list[tuple[Path, str]] = []
    remaining = [path for place, path in files.items() if place not in done]
    try:
        with contextlib.closing(read_ahead(remaining, batch_size, remarks)) as batches:
            for batch in batches:
                read_now |= {canonical_path(path) for path in batch}
                bad += [(path, str(got)) for path, got in batch.items() if isinstance(got, BadImageError)]
                images = {path: got for path, got in batch.items() if not isinstance(got, BadImageError)}
                if images:
                    scores = classifier.probabilities(list(images.values()))
                    numbers = [[f"{p:.6f}" for p in row] for row in scores.tolist()]
                    names = [name_in_csv(path, output.parent) for path in images]
                    append_rows(
                        output, [[n, fingerprint, *row] for n, row in zip(names, numbers, strict=True)]
                    )
    finally:  # Ctrl-C too: what is known of the files so far is kept, as their rows are
        remarks = [remark for remark in remarks if canonical_path(remark[0]) in read_now]
        list_beside(output, "unreadable", bad, read_now | (done & files.keys()), "could not be read")
        list_beside(output, "remarks", remarks, read_now, "read in another way than the header says")
    return len(bad)


def read_ahead(
    paths: list[Path], batch_size: int, remarks: list[tuple[Path, str]]
) -> Iterator[dict[Path, Image.Image | BadImageError]]:
    """Batches of images, or of what is wrong with them; threads read a batch ahead of the model.

    Args:
        paths: what to read.
        batch_size: images at a time.
        remarks: gets (path, remark) of pictures that were read, such as a window that shows nothing.
    """

    def remark(path: Path, kind: str, detail: str) -> None:
        remarks.append((path, f"{kind}: {detail}"))

    def read(path: Path) -> Image.Image | BadImageError:
        try:
            return Image.fromarray(read_image(path, note=functools.partial(remark, path)))
        except BadImageError as error:
            return error

    batches = [paths[begin : begin + batch_size] for begin in range(0, len(paths), batch_size)]
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # read_image does too, but its filter is shared by all threads
        coming = pool.map(read, paths[:batch_size])
        for batch, following in zip(tqdm(batches), [*batches, []][1:], strict=True):
            images, coming = dict(zip(batch, coming, strict=True)), pool.map(read, following)
            yield images


def find_images(paths: list[Path]) -> Iterator[Path]:
    """The files among `paths`, and the pictures below its folders, behind links too.

    Pictures of a kind that cannot be read are among them, so that they are named. Hidden files, files of the
    operating system and files that are no pictures are passed over; the log counts them.

    Raises:
        UserError: a path that is neither a file nor a folder, or a folder that may not be listed.
    """
    passed_over: dict[str, list[str]] = {"hidden or of the system": [], "no pictures": []}
    for path in paths:
        if is_system_file(path.name):
            passed_over["hidden or of the system"].append(path.name)
        elif path.is_dir():
            walk = walk_folder(path, follow_links_out=True)
            passed_over["hidden or of the system"] += walk.hidden
            for name in walk.files:
                if is_picture(path / name):
                    yield path / name
                else:
                    passed_over["no pictures"].append(name)
        elif path.is_file():
            yield path
        else:
            raise UserError(f"{path} is neither a file nor a folder")
    for reason, names in passed_over.items():
        if names:
            logger.info("passed over, %s: %d, for example %s", reason, len(names), ", ".join(names[:3]))


if __name__ == "__main__":
    run_script(main, "finished rows are kept: repeat the command to resume")
