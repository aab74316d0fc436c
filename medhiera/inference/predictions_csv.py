"""The CSV that `predict.py` writes: one row an image, whatever it is called, resumable after a kill anywhere.

`predict.py` → here. A file is known by its place, not by its name as typed, and by what it holds: a relative
path in the CSV starts at the CSV's own folder, and a file that holds other bytes than its row is of is scored
again.
"""

import contextlib
import csv
import io
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from dataset_scripts.build.atomic_files import whole_file
from medhiera.errors import UserError
from medhiera.inference.picture_files import canonical_path
from medhiera.output import write_error

logger = logging.getLogger(__name__)

_BYTE_FOR_BYTE = "surrogateescape"  # how file names that are not UTF-8 come through

_NAMED_IN_LOG = 20

LISTS = ("unreadable", "remarks")
"""Kinds of lists beside a CSV, `OUTPUT.KIND.csv`."""

_LIST_HEADER = ["path", "reason"]


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


def rows_done(output: Path, header: list[str], fingerprint: str) -> dict[str, str]:
    """The images that a CSV of the same model holds; an incomplete last row is removed.

    Writes the header if the file is new or empty.

    Returns:
        File as named → `file_digest` of what it held.

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
        return {}
    try:
        whole.split(b"\n", 1)[0].decode("utf-8")  # only file names may hold other bytes
        first, *rows = csv.reader(io.StringIO(whole.decode("utf-8", _BYTE_FOR_BYTE), newline=""))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"--output {output} exists and is not a CSV; name another file") from error
    if first != header:
        raise UserError(
            f"--output {output} exists with columns that are not those of this model: "
            f"{_differing(first, header)}; name another file or delete it"
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
    return {row[0]: row[2] for row in rows if len(row) == len(header)}


def _differing(first: list[str], header: list[str]) -> str:
    """How a CSV's columns differ from those wanted, in words; at most four names of each kind."""
    said = []
    for verb, columns, others in (("it has", first, header), ("it lacks", header, first)):
        named = [repr(name) for name in columns if name not in others]
        if named:
            said.append(f"{verb} {', '.join(named[:4])}{' …' if len(named) > 4 else ''}")
    return " and ".join(said) or "they stand in another order"


def drop_rows(output: Path, files: Collection[Path]) -> None:
    """Take the rows of some files out of the CSV, whole or not at all.

    Args:
        output: the CSV, a canonical path.
        files: canonical paths.

    Raises:
        UserError: it cannot be written.
    """
    if not files:
        return
    number = "1 image has" if len(files) == 1 else f"{len(files)} images have"
    logger.warning("%s changed since they were scored, and are scored again", number)
    text = output.read_bytes().decode("utf-8", _BYTE_FOR_BYTE)
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    kept = [row for row in rows if canonical_path(output.parent / row[0]) not in files]
    _replace(output, [header, *kept])


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
    return text.getvalue().encode("utf-8", _BYTE_FOR_BYTE)


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


def _replace(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV anew, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with written(file), whole_file(file) as part:
        part.write_bytes(csv_text(rows))
        if file.is_file():
            shutil.copymode(file, part)


def warn_of_moved_files(done: Collection[Path], output: Path) -> None:
    """Say so where none of the files that have a row is where the CSV names it.

    Args:
        done: files that have a row.
        output: the CSV.
    """
    if done and not any(place.exists() for place in done):
        logger.warning(
            "none of the images that %s names is there any more; was it moved? Paths in it start at its own "
            "folder", output,
        )  # fmt: skip


def check_lists(output: Path) -> None:
    """Refuse to write where a file of the user's own has the name of a list.

    Raises:
        UserError: one does.
    """
    for listing in (output.with_suffix(f".{kind}.csv") for kind in LISTS):
        if listing.exists() and listing.stat().st_size and _read_list(listing)[:1] != [_LIST_HEADER]:
            raise UserError(
                f"{listing} is there and is not a list of this command's, which it would be overwritten by; "
                "move it, or name another --output"
            )


def _read_list(listing: Path) -> list[list[str]]:
    """The rows of a list with its header; none where there is no such file, or it is something else."""
    if not listing.is_file():
        return []
    with listing.open(newline="", encoding="utf-8", errors=_BYTE_FOR_BYTE) as file:
        try:
            return [row for row in csv.reader(file) if len(row) == len(_LIST_HEADER)]
        except csv.Error:
            return []


def list_beside(
    output: Path, kind: str, found: list[tuple[Path, str]], looked_at: Collection[Path], what: str
) -> None:
    """List files beside a CSV and in the log, under `OUTPUT.KIND.csv`, which is deleted if there is none.

    Args:
        output: the CSV, an absolute path.
        kind: of list, one of LISTS.
        found: files of this run, and what there is to say.
        looked_at: all files of this run. What an older list says of others is kept while they are there.
        what: of the files, for the log: "could not be read".
    """
    listing = output.with_suffix(f".{kind}.csv")
    older = _read_list(listing)[1:]
    places = [canonical_path(output.parent / name) for name, _ in older]
    kept = zip(older, places, strict=True)
    rows = [row for row, place in kept if place not in looked_at and place.is_file()]
    rows += [[name_in_csv(path, output.parent), reason] for path, reason in found]
    if not rows:
        listing.unlink(missing_ok=True)
        return
    _replace(listing, [_LIST_HEADER, *rows])
    if found:
        files_word = "file" if len(found) == 1 else "files"
        named = "\n  ".join(f"{path}: {reason}" for path, reason in found[:_NAMED_IN_LOG])
        logger.warning("%d %s %s (all in %s):\n  %s", len(found), files_word, what, listing, named)
