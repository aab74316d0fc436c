"""Probabilities of each finding for your own images, as a CSV.

    python predict.py --model runs/stage2 --output predictions.csv chest1.png chest2.jpg study.dcm
    python predict.py --model demo/phantom/stage2 --output predictions.csv demo/phantom/raw/COVIDx_CXR/test

The second uses the folder that `make demo` wrote. Repeating a command that was killed resumes it.
"""

import argparse
import csv
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES, is_picture, is_system_file, walk_folder
from dataset_scripts.reading.images import read_image
from medhiera.errors import UserError, run_script
from medhiera.inference.classifier import Classifier

logger = logging.getLogger("predict")

AS_NAMED: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How every CSV is opened: file names that are not UTF-8 are kept byte for byte."""


def main(argv: list[str]) -> None:
    """Read each image, write one row; unreadable files have no row and are listed beside the CSV."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a classifier's folder or Hub id")
    parser.add_argument("--output", required=True, type=Path, help="the CSV to write, or to append to")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER_OR_FILES")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    files: dict[Path, Path] = {}
    for path in find_images(options.paths):
        files.setdefault(canonical_path(path), path)
    if not files:
        raise UserError(
            f"no image in {[str(p) for p in options.paths]}; wanted {sorted(IMAGE_SUFFIXES)} files"
        )
    if options.output.is_dir():
        raise UserError(f"--output {options.output} is a folder; name the CSV to write in it")
    classifier = Classifier.open(options.model)
    fingerprint = classifier.fingerprint()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = rows_done(options.output, ["path", "model", *classifier.names], fingerprint)
    done = {canonical_path(Path(name)) for name in rows}
    if done:
        logger.info("%s already holds %d images: resuming", options.output, len(done))
    remaining = [path for place, path in files.items() if place not in done]
    bad: list[tuple[Path, str]] = []
    with options.output.open("a", newline="", **AS_NAMED) as file:
        writer = csv.writer(file, lineterminator="\n")
        for batch in read_ahead(remaining, options.batch_size):
            bad += [(path, str(got)) for path, got in batch.items() if isinstance(got, BadImageError)]
            images = {path: got for path, got in batch.items() if not isinstance(got, BadImageError)}
            if images:
                scores = classifier.probabilities(list(images.values())).tolist()
                writer.writerows(
                    [str(path), fingerprint, *(f"{p:.6f}" for p in row)]
                    for path, row in zip(images, scores, strict=True)
                )
                file.flush()  # so that a killed run keeps its rows
    report_bad(bad, files.keys(), options.output.with_suffix(".unreadable.csv"))
    logger.info("%d images → %s; not for clinical use", len(files) - len(bad), options.output)
    if len(bad) == len(files):
        raise UserError("none of the images could be read")


def canonical_path(path: Path) -> Path:
    """The same path however the file's folder is named; a link counts as a file of its own."""
    return path.parent.resolve() / path.name


def read_ahead(paths: list[Path], batch_size: int) -> Iterator[dict[Path, Image.Image | BadImageError]]:
    """Batches of images, or of what is wrong with them; threads read a batch ahead of the model."""

    def read(path: Path) -> Image.Image | BadImageError:
        try:
            return Image.fromarray(read_image(path))
        except BadImageError as error:
            return error

    batches = [paths[begin : begin + batch_size] for begin in range(0, len(paths), batch_size)]
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # read_image does too, but its filter is shared by all threads
        coming = pool.map(read, paths[:batch_size])
        for batch, following in zip(tqdm(batches), [*batches, []][1:], strict=True):
            images, coming = dict(zip(batch, coming, strict=True)), pool.map(read, following)
            yield images


def rows_done(output: Path, header: list[str], fingerprint: str) -> set[str]:
    """The images that a CSV of the same model holds; an incomplete last line is removed.

    Writes the header if the file is new or empty.

    Raises:
        UserError: the file is something else, or of another model.
    """
    text = output.read_bytes() if output.is_file() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if not whole:
        with output.open("w", newline="", **AS_NAMED) as file:
            csv.writer(file, lineterminator="\n").writerow(header)
        return set()
    try:
        whole.split(b"\n", 1)[0].decode("utf-8")  # only file names may hold other bytes
        first, *rows = csv.reader(io.StringIO(whole.decode(**AS_NAMED), newline=""))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"--output {output} exists and is not a CSV; name another file") from error
    if first != header:
        raise UserError(
            f"--output {output} exists with the columns {first[:4]} …, not those of this model; name "
            "another file or delete it"
        )
    others = {row[1] for row in rows if len(row) == len(header)} - {fingerprint}
    if others:
        raise UserError(
            f"--output {output} holds predictions of another model ({sorted(others)[0]}, this one is "
            f"{fingerprint}); name another file or delete it"
        )
    if len(whole) < len(text):
        with output.open("r+b") as file:
            file.truncate(len(whole))
    return {row[0] for row in rows if len(row) == len(header)}


def report_bad(bad: list[tuple[Path, str]], looked_at: Collection[Path], listing: Path) -> None:
    """Report the files that could not be read, in the log and in a CSV, which is deleted if there is none.

    Args:
        bad: unreadable files of this run, and why.
        looked_at: all files of this run; what an older CSV says of other files is kept.
        listing: the CSV.
    """
    older: list[list[str]] = []
    if listing.is_file():
        with listing.open(newline="", **AS_NAMED) as file:
            older = [row for row in csv.reader(file) if len(row) == 2][1:]
    rows = [row for row in older if canonical_path(Path(row[0])) not in looked_at]
    rows += [[str(path), reason] for path, reason in bad]
    if not rows:
        listing.unlink(missing_ok=True)
        return
    with listing.open("w", newline="", **AS_NAMED) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["path", "reason"], *rows])
    if not bad:
        return
    files_word = "file" if len(bad) == 1 else "files"
    named = "\n  ".join(f"{path}: {reason}" for path, reason in bad[:20])
    logger.warning("%d %s could not be read (all in %s):\n  %s", len(bad), files_word, listing, named)


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
    run_script(main)
