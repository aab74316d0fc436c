"""Probabilities of each finding for your own images, as a CSV.

    python predict.py --model runs/stage2 --output predictions.csv chest1.png chest2.jpg study.dcm
    python predict.py --model demo/phantom/stage2 --output predictions.csv demo/phantom/raw/COVIDx_CXR/test

The second uses the folder that `make demo` wrote. Repeating a command that was killed resumes it, from any
folder: a relative path in the CSV starts at the CSV's own folder.
"""

import argparse
import contextlib
import csv
import io
import logging
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES, is_picture, is_system_file, walk_folder
from dataset_scripts.reading.images import read_image
from medhiera.errors import UserError, run_script
from medhiera.inference.classifier import Classifier, check_finite
from medhiera.output import check_output_file, make_folder, one_writer, write_error

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
    looked_at = done & files.keys()
    bad: list[tuple[Path, str]] = []
    remaining = [path for place, path in files.items() if place not in done]
    try:
        with contextlib.closing(read_ahead(remaining, batch_size)) as batches:
            for batch in batches:
                looked_at |= {canonical_path(path) for path in batch}
                bad += [(path, str(got)) for path, got in batch.items() if isinstance(got, BadImageError)]
                images = {path: got for path, got in batch.items() if not isinstance(got, BadImageError)}
                if images:
                    scores = check_finite(classifier.probabilities(list(images.values())), list(images))
                    numbers = [[f"{p:.6f}" for p in row] for row in scores.tolist()]
                    names = [name_in_csv(path, output.parent) for path in images]
                    append_rows(
                        output, [[n, fingerprint, *row] for n, row in zip(names, numbers, strict=True)]
                    )
    finally:  # Ctrl-C too: what is known of the files so far is kept, as their rows are
        report_bad(bad, looked_at, output)
    return len(bad)


def canonical_path(path: Path) -> Path:
    """The same path however the file's folder is named; a link counts as a file of its own."""
    return path.parent.resolve() / path.name


def name_in_csv(path: Path, folder: Path) -> str:
    """A file as the CSV names it, the same from whichever folder the command is run.

    Args:
        path: as it was named; an absolute path stays one, a relative path comes to start at the CSV's folder.
        folder: the CSV's, a canonical path.
    """
    name = str(path)
    if not path.is_absolute():
        with contextlib.suppress(ValueError):  # another drive of Windows
            name = os.path.relpath(canonical_path(path), folder)
    # A spreadsheet takes a cell that begins like this for a formula.
    return f"./{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


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
    """The images that a CSV of the same model holds; an incomplete last row is removed.

    Writes the header if the file is new or empty.

    Raises:
        UserError: the file is something else, or of another model, or cannot be written.
    """
    text = output.read_bytes() if output.is_file() else b""
    whole = text[: end_of_rows(text)]
    if not whole:
        if text:
            with written(output):
                os.truncate(output, 0)
        append_rows(output, [header])
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
        with written(output):
            os.truncate(output, len(whole))
    return {row[0] for row in rows if len(row) == len(header)}


def end_of_rows(text: bytes) -> int:
    """Where the last complete row of a CSV ends; a line end between quotes belongs to a file's name."""
    end = text.rfind(b"\n") + 1
    while end and text.count(b'"', 0, end) % 2:
        end = text.rfind(b"\n", 0, end - 1) + 1
    return end


def append_rows(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows at a CSV's end, all of them or none.

    Raises:
        UserError: the disk is full, or the file cannot be written any more.
    """
    text = csv_text(rows)
    with written(file), file.open("ab", buffering=0) as raw:  # no buffer that would be written at the end
        before = raw.seek(0, os.SEEK_END)
        try:
            done = 0
            while done < len(text):
                done += raw.write(text[done:])
        except OSError:
            raw.truncate(before)
            raise


def csv_text(rows: Sequence[Sequence[str]]) -> bytes:
    """Rows as bytes, each ended by a line feed; a name with a line end of any kind is quoted."""
    text = io.StringIO()
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(row)  # quotes what holds a part of this
        text.write(line.getvalue().removesuffix("\r\n") + "\n")
    return text.getvalue().encode(**AS_NAMED)


@contextlib.contextmanager
def written(file: Path) -> Iterator[None]:
    """What keeps a CSV from being written, in words.

    Raises:
        UserError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        message = (
            f"{write_error('--output', file, error)}. Finished rows are kept: repeat the command to resume"
        )
        raise UserError(message) from error


def warn_of_old_rows(
    done: Collection[Path], files: Collection[Path], output: Path, written_at: float
) -> None:
    """Say which rows may be of other pictures than the files now hold.

    Args:
        done: files that have a row.
        files: those asked for.
        output: the CSV.
        written_at: when it was written last, in seconds as `stat` has them.
    """
    newer = sorted(place for place in files if place in done and place.stat().st_mtime > written_at)
    if newer:
        logger.warning(
            "%d images have changed since %s was written, and keep their old rows (%s …); delete these rows, "
            "or name another CSV", len(newer), output.name, newer[0],
        )  # fmt: skip
    if done and not any(place.exists() for place in done):
        logger.warning(
            "none of the images that %s names is there any more; was it moved? Paths in it start at its own "
            "folder", output,
        )  # fmt: skip


def report_bad(bad: list[tuple[Path, str]], looked_at: Collection[Path], output: Path) -> None:
    """Report the files that could not be read, in the log and in a CSV, which is deleted if there is none.

    Args:
        bad: unreadable files of this run, and why.
        looked_at: all files of this run. What an older list says of others is kept while they are there.
        output: the CSV beside which the list stands.
    """
    listing = output.with_suffix(".unreadable.csv")
    older: list[list[str]] = []
    if listing.is_file():
        with listing.open(newline="", **AS_NAMED) as file:
            older = [row for row in csv.reader(file) if len(row) == 2][1:]
    places = [canonical_path(output.parent / name) for name, _ in older]
    kept = zip(older, places, strict=True)
    rows = [row for row, place in kept if place not in looked_at and place.is_file()]
    rows += [[name_in_csv(path, output.parent), reason] for path, reason in bad]
    if not rows:
        listing.unlink(missing_ok=True)
        return
    with written(listing):
        listing.write_bytes(csv_text([["path", "reason"], *rows]))
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
    run_script(main, "finished rows are kept: repeat the command to resume")
