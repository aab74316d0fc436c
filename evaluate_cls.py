"""Score a classifier's folder or Hub id on one split: every number with its interval, figures, predictions.

    python evaluate_cls.py --model runs/stage2 --data_dir DATA --output_dir runs/stage2-test
    python evaluate_cls.py --model demo/phantom/stage2 --data_dir demo/phantom/raw --output_dir runs/demo-test

The second scores what `make demo` left. `--model A B C` scores the mean of several models' probabilities, and
each of them beside it. `--compare runs/other/predictions.parquet` adds the paired difference from another
model on the same images.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import sys

from medhiera.command_line import add_scoring_options, new_parser


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model", required=True, nargs="+", metavar="MODEL",
        help="classifiers' folders or Hub ids, stock Hiera included; of several the mean is scored",
    )  # fmt: skip
    add_scoring_options(parser)
    parser.add_argument(
        "--tta", action="store_true", help="mean probability of each image and its mirror image"
    )
    parser.add_argument(
        "--legacy_head", action="store_true", help="rank by sigmoid(softmax(logits)), med-hiera's defect"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import contextlib
import logging
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from medhiera.data.cocktail import are_drawn
from medhiera.data.columns import read_labels
from medhiera.data.finding_names import find_names
from medhiera.data.stored_images import as_picture
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.ensemble import compare_members, mean_predictions
from medhiera.evaluation.localization import HeatMapExample, evaluate_localization
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions, check_column_names
from medhiera.evaluation.results import ModelChoice
from medhiera.fitting_batch import run_or_name_batch
from medhiera.hub.evaluation_record import EvaluationRecord
from medhiera.hub.operation import choice_of
from medhiera.inference.classifier import Classifier, absent_classes, match_findings
from medhiera.inference.ensemble import Ensemble
from medhiera.inference.heat_maps import heat_maps
from medhiera.inference.read_ahead import read_ahead
from medhiera.layout import public_name
from medhiera.scoring import (
    ScoredData,
    begin,
    compare,
    open_data,
    output_folder,
    read_other,
    write_results,
)

logger = logging.getLogger("evaluate_cls")


def main(argv: list[str]) -> None:
    """Check what is asked for, then score; nothing is loaded before the output folder is this process's."""
    options = read_options(argv)
    device = begin(options)
    with output_folder(options.output_dir):
        evaluate(options, device)
    logger.info("metrics.json, predictions.parquet and figures/ → %s", options.output_dir)


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Open, score, write metrics.json, predictions.parquet and the figures, print the tables."""
    log_device(device)
    ensemble = Ensemble.open(options.model, device)
    if options.legacy_head and ensemble.classifiers[0].is_exclusive:
        raise UserError(
            "--legacy_head is of several labels alone; this model gives an image exactly one, so leave it out"
        )
    models = [
        (public_name(name), one.fingerprint())
        for name, one in zip(options.model, ensemble.classifiers, strict=True)
    ]
    data = open_data(options, ensemble.resize_size, options.model)
    other = read_other(
        options.compare, data.cocktail.names, list(data.rows["image_id"]), list(data.rows["patient_id"]),
        read_labels(data.rows),
    )  # fmt: skip

    # Of classes the model's others are scored too: an image that is called by one of them is called wrongly.
    names = [*data.cocktail.names]
    if data.cocktail.is_exclusive:
        names += absent_classes(ensemble.classifiers[0], data.cocktail.names)
    check_column_names(names)

    members = [predict(options, one, names, data.rows) for one in ensemble.classifiers]
    test, validation = mean_predictions(members), None
    if data.validation is not None:
        validation = mean_predictions(
            [predict(options, one, names, data.validation) for one in ensemble.classifiers]
        )
    bootstrap = Bootstrap(options.bootstrap_resamples)
    game = LocalizationReport(reason="the mean of several models has no heat maps")
    examples: list[HeatMapExample] = []
    if len(models) == 1:
        game, examples = localize(ensemble.classifiers[0], data.rows, bootstrap, options.batch_size)
    log_peak_memory(device)
    scored = report.report(
        test, validation, bootstrap, split=data.split, pointing_game=game,
        of_model=own_choice(options, ensemble.classifiers, data),
        comparison=compare(test.select(np.full(len(test), True), data.cocktail.names), other, bootstrap),
    )  # fmt: skip
    record = EvaluationRecord(
        model=" + ".join(name for name, _ in models), fingerprint=ensemble.fingerprint(),
        split_scheme=data.cocktail.split_scheme, tta=options.tta, legacy_head=options.legacy_head,
        is_phantom=are_drawn(data.rows), evaluation=scored,
        members=compare_members(models, members, bootstrap),
    )  # fmt: skip
    write_results(options, record, test, examples, data.figure_mark)


def own_choice(
    options: argparse.Namespace, classifiers: Sequence[Classifier], data: ScoredData
) -> ModelChoice | None:
    """Thresholds and rescaling of the model's record, where the data has no validation split for them.

    None of the mean of several models or of mirror images, whose probabilities they are not for.
    """
    is_own = len(classifiers) == 1 and not options.tta and not options.legacy_head
    if not is_own or data.validation is not None or data.split == "validation":
        return None
    own, names = classifiers[0].names, data.cocktail.names
    columns = zip(names, find_names(names, own), strict=True)
    names_of = {name: own[at] for name, at in columns if at is not None}
    return choice_of(options.model[0], data.records[0], names_of)


def predict(
    options: argparse.Namespace, classifier: Classifier, names: list[str], rows: Dataset
) -> Predictions:
    """The model's probabilities of some rows.

    Args:
        options: the command line.
        classifier: the model.
        names: the data's findings, in order; then classes that only the model has, see Predictions.of.
        rows: of the data.

    Raises:
        UserError: the model lacks one of the names, or computes NaN, or memory runs out.
    """
    columns = match_findings(classifier.names, names, classifier.is_exclusive)
    images = rows.select_columns("image")

    def read(index: int) -> torch.Tensor:
        return classifier.preprocessing.pixels(as_picture(images[index]["image"]))

    def score(pixels: list[torch.Tensor]) -> torch.Tensor:
        def score_first(count: int) -> torch.Tensor:
            inputs = classifier.pixel_values(pixels[:count])
            return classifier.score(inputs, options.tta, options.legacy_head)

        return run_or_name_batch(lambda: score_first(len(pixels)), score_first, len(pixels))

    with contextlib.closing(read_ahead(read, range(len(rows)), options.batch_size)) as batches:
        scores = [score(batch) for batch in tqdm(batches, total=-(-len(rows) // options.batch_size))]
    return Predictions.of(rows, np.concatenate(scores)[:, columns], names)


def localize(
    classifier: Classifier, rows: Dataset, bootstrap: Bootstrap, batch_size: int
) -> tuple[LocalizationReport, list[HeatMapExample]]:
    """The pointing game, see evaluate_localization.

    Raises:
        UserError: a batch does not fit into memory.
    """
    return run_or_name_batch(
        lambda: evaluate_localization(classifier, rows, bootstrap, batch_size),
        lambda count: heat_maps(classifier.model, blank_images(classifier, count)),
        batch_size,
    )


def blank_images(classifier: Classifier, count: int) -> torch.Tensor:
    """As many inputs of the model as asked for, to see whether they fit."""
    blank = classifier.preprocessing.pixels(Image.new("L", (64, 64)))
    return classifier.pixel_values([blank] * count)


if __name__ == "__main__":
    run_script(main, "nothing of a score is written yet, built data is kept: repeat the command")
