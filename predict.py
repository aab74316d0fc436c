"""Probabilities of each finding for your own images, or a written report of each, as a CSV.

    python predict.py --model runs/stage2 --output predictions.csv chest1.png chest2.jpg study.dcm
    python predict.py --model demo/phantom/stage2 --output predictions.csv demo/phantom/raw/COVIDx_CXR/test

What is written depends on the model: a classifier gives probabilities, and `--model A B C` the mean of
several's; a model that writes reports writes one of each picture by itself. The second uses the folder that
`make demo` wrote. Repeating a command that was killed resumes it, from any folder: a relative path in the CSV
starts at the CSV's own folder.

The CSV has one row an image and four columns a finding: `Effusion` is the model's own probability, as the
stock pipeline gives it; `Effusion calibrated` the same rescaled as validation images showed; `Effusion
threshold`, of the model's own probability, Youden's on validation; `Effusion is_above` 1 where it is reached,
else 0. They come from the model's record, and the page of `make app` shows the same. Without calibration and
thresholds, as for the mean of several models, the CSV has the probabilities alone. Of labels that exclude
each other it has the probabilities and one column `predicted`: the label with the highest.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import add_device_option, new_parser


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model", required=True, nargs="+", metavar="MODEL",
        help="a classifier's folder or Hub id, or that of a model that writes reports; of several "
        "classifiers of the same findings, the mean is written",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, help="the CSV to write, or to append to")
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time (default: 16)")
    add_device_option(parser)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="FOLDER_OR_FILES", help="images, or folders of images"
    )
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from medhiera.errors import UserError, run_script
from medhiera.fitting_batch import run_or_name_batch
from medhiera.hub.operation import Finding, Operation
from medhiera.inference.ensemble import Ensemble
from medhiera.inference.picture_files import canonical_path, changed_files, find_images, read_pictures
from medhiera.inference.predictions_csv import (
    append_rows,
    drop_rows,
    list_beside,
    name_in_csv,
    rows_done,
    warn_of_moved_files,
)
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import CONFIG_FILE, LOG_FILE, METRICS_FILE, writes_reports
from medhiera.resuming import resumable_output

logger = logging.getLogger("predict")


def main(argv: list[str]) -> None:
    """Read each image, write one row; unreadable files have no row and are listed beside the CSV."""
    parser = build_parser()
    options = parser.parse_args(argv)
    models, paths = part_models(options.model, options.paths)
    if not paths:
        parser.error("the following arguments are required: FOLDER_OR_FILES")
    with resumable_output(options, "predict") as (output, device):
        model = open_models(models, device)  # before a folder of many pictures is listed
        files = find_images(paths)
        unreadable = score(files, model, output, options.batch_size)
    logger.info("%d images → %s; not for clinical use", len(files) - unreadable, options.output)
    if unreadable == len(files):
        raise UserError("none of the images could be read")


def part_models(named: list[str], paths: list[Path]) -> tuple[list[str], list[Path]]:
    """What follows --model as models and pictures: `--model A B chest.png` names two models and a picture.

    Args:
        named: what follows --model; the first is a model. A folder with a file of a run, finished or not, is
            one too: nobody's pictures.
        paths: pictures that stand elsewhere.
    """
    first, *others = named
    of_runs = (CONFIG_FILE, METRICS_FILE, LOG_FILE)
    pictures = [
        name
        for name in others
        if Path(name).exists() and not any((Path(name) / file).is_file() for file in of_runs)
    ]
    models = [first, *(name for name in others if name not in pictures)]
    return models, [*map(Path, pictures), *paths]


@dataclass(frozen=True)
class Predictor:
    """One model, or several that answer as one, as this command sees them.

    Attributes:
        pixels: a picture → what each model is given of it.
        fingerprint: that rows name the models by.
        columns: of the CSV, after FILE_COLUMNS.
        cells: prepared pictures → for each one the texts of these columns.
    """

    pixels: Callable[[Image.Image], list[Tensor]]
    fingerprint: str
    columns: list[str]
    cells: Callable[[list[list[Tensor]]], list[list[str]]]


FILE_COLUMNS = ["path", "model", "content"]
"""Which picture a row is of, and by which model."""
MORE_COLUMNS = ("calibrated", "threshold", "is_above")
"""Of each finding, after the columns of all probabilities."""
PREDICTED = "predicted"
"""Of labels that exclude each other, after the columns of all probabilities."""


def columns_of(names: list[str], is_exclusive: bool, has_more: bool) -> list[str]:
    """The columns of a classifier's CSV after FILE_COLUMNS: all probabilities, and what goes with them.

    Args:
        names: of the labels.
        is_exclusive: each image has exactly one of them: PREDICTED follows.
        has_more: of labels that do not: MORE_COLUMNS of each follow, all of one kind after the other.

    Raises:
        UserError: two of the CSV's columns have one name.
    """
    more = [f"{name} {kind}" for kind in MORE_COLUMNS for name in names] if has_more else []
    columns = [*names, *([PREDICTED] if is_exclusive else more)]
    header = FILE_COLUMNS + columns
    if len({*header}) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UserError(
            f"the CSV would have two columns {twice!r}, as a label is named so; rename it in the model's "
            "config.json (id2label)"
        )
    return columns


def cells_of(findings: list[Finding], has_more: bool) -> list[str]:
    """One image's cells under `columns_of`; empty where the model's record holds no such number."""
    probabilities = [_digits(finding.probability) for finding in findings]
    called = [finding.name for finding in findings if finding.is_called]
    if called or not has_more:
        return probabilities + called
    values = [*(finding.calibrated for finding in findings), *(finding.threshold for finding in findings)]
    answers = [finding.is_above for finding in findings]
    return [
        *probabilities,
        *("" if value is None else _digits(value) for value in values),
        *("" if answer is None else str(int(answer)) for answer in answers),
    ]


def _digits(value: float) -> str:
    """As many as tell two float32 apart: the numbers in a row are above each other as `is_above` says."""
    return f"{value:.9g}"


def open_models(sources: list[str], device: torch.device) -> Predictor:
    """Open classifiers, or a model that writes reports.

    Raises:
        UserError: see Ensemble.open, Operation.find and ReportWriter.open; or several models, of which one
            writes reports.
    """
    writers = [source for source in sources if writes_reports(source)]
    if not writers:
        ensemble = Ensemble.open(sources, device)
        # What one model's validation showed says nothing of a mean of several.
        operation = Operation.find(sources[0]) if len(sources) == 1 else Operation.none()
        names, is_exclusive = ensemble.names, ensemble.classifiers[0].is_exclusive
        # A record that was evaluated anew gives other cells: its rows are not mixed with older ones.
        reading = "" if is_exclusive else operation.fingerprint()

        def scored(pixels: list[list[Tensor]]) -> list[list[str]]:
            rows = ensemble.score(pixels).tolist()
            return [cells_of(operation.findings(names, row, is_exclusive), bool(reading)) for row in rows]

        if worse := operation.worse_calibrated():
            logger.warning("%s; `calibrated` is no better than the probability", worse)
        fingerprint = ensemble.fingerprint() + (f".{reading}" if reading else "")
        columns = columns_of(names, is_exclusive, bool(reading))
        return Predictor(ensemble.pixels, fingerprint, columns, scored)
    if len(sources) > 1:
        raise UserError(
            f"--model {writers[0]} writes reports, which have no mean; name it alone, or classifiers alone"
        )
    writer = ReportWriter.open(writers[0], device)

    def written(pixels: list[list[Tensor]]) -> list[list[str]]:
        return [[report] for report in writer.write(pixels)]

    def prepare(image: Image.Image) -> list[Tensor]:
        return [writer.preprocessing.pixels(image)]

    return Predictor(prepare, writer.fingerprint(), ["report"], written)


def score(files: dict[Path, Path], model: Predictor, output: Path, batch_size: int) -> int:
    """Append a row for each image that has none yet, and list the unreadable ones.

    Args:
        files: what to read, as it was named, by canonical path.
        model: what is asked.
        output: the CSV, an absolute path.
        batch_size: images at a time.

    Returns:
        How many could not be read.

    Raises:
        UserError: the CSV is something else or of another model, or cannot be written; or the model gives
            no finite numbers, or memory runs out. Rows of the batches before stay.
    """
    rows = rows_done(output, FILE_COLUMNS + model.columns, model.fingerprint)
    before = {canonical_path(output.parent / name): content for name, content in rows.items()}
    if before:
        logger.info("%s already holds %d images: resuming", output, len(before))
    changed = changed_files(before, files)
    drop_rows(output, changed)
    done = before.keys() - changed
    warn_of_moved_files(done, output)
    read_now: set[Path] = set()
    bad: list[tuple[Path, str]] = []
    remarks: list[tuple[Path, str]] = []
    remaining = [path for place, path in files.items() if place not in done]
    try:
        with contextlib.closing(read_pictures(remaining, model.pixels, batch_size)) as batches:
            for batch in tqdm(batches, total=-(-len(remaining) // batch_size)):
                read_now |= {canonical_path(reading.path) for reading in batch}
                bad += [(reading.path, reading.fault) for reading in batch if reading.pixels is None]
                remarks += [(reading.path, remark) for reading in batch for remark in reading.remarks]
                shown = [reading for reading in batch if reading.pixels is not None]
                if shown:
                    pixels = [reading.pixels for reading in shown if reading.pixels is not None]
                    cells = score_batch(model, pixels)
                    append_rows(
                        output,
                        [
                            [name_in_csv(reading.path, output.parent), model.fingerprint, reading.content]
                            + row
                            for reading, row in zip(shown, cells, strict=True)
                        ],
                    )
    finally:  # Ctrl-C too: what is known of the files so far is kept, as their rows are
        list_beside(output, "unreadable", bad, read_now | (done & files.keys()), "could not be read")
        list_beside(output, "remarks", remarks, read_now, "read in another way than the header says")
    return len(bad)


def score_batch(model: Predictor, pixels: list[list[Tensor]]) -> list[list[str]]:
    """The cells of some pictures.

    Raises:
        UserError: the batch does not fit into memory.
    """

    def first(count: int) -> list[list[str]]:
        return model.cells(pixels[:count])

    return run_or_name_batch(lambda: first(len(pixels)), first, len(pixels))


if __name__ == "__main__":
    run_script(main, "finished rows are kept: repeat the command to resume")
