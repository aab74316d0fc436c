"""Linear probe: freeze a model's encoder, fit logistic regression on its features, and score one split.

    python probe.py --model runs/stage1 --data_dir DATA --output_dir runs/probe
    python probe.py --model demo/phantom/stage1 --data_dir demo/phantom/raw --output_dir runs/demo-probe

The second probes what `make demo` left. MODEL is any stage or a stock Hiera: what it learned before it is
fine-tuned shows, in minutes on a CPU. Numbers, intervals and files are those of evaluate_cls.py, and
`--compare OTHER/predictions.parquet` adds the paired difference from another model on the same images.
"""

import argparse
import contextlib
import logging

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from evaluate_cls import (
    add_scoring_options,
    begin,
    compare,
    open_data,
    output_folder,
    read_other,
    write_results,
)
from medhiera.data.columns import read_column
from medhiera.data.selection import select_examples
from medhiera.data.stored_images import as_picture
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.linear_probe import fit_probe
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.hub.evaluation_record import EvaluationRecord
from medhiera.inference.encoder import Encoder
from medhiera.inference.read_ahead import read_ahead
from medhiera.layout import public_name
from medhiera.training.out_of_memory import run_or_name_batch

logger = logging.getLogger("probe")


def main(argv: list[str]) -> None:
    """Embed three splits, fit, score, write."""
    options = read_options(argv)
    device = begin(options)
    with output_folder(options.output_dir):
        probe(options, device)
    logger.info("metrics.json, predictions.parquet and figures/ → %s", options.output_dir)


def probe(options: argparse.Namespace, device: torch.device) -> None:
    """Open, embed, fit, score, write metrics.json, predictions.parquet and the figures, print the tables."""
    log_device(device)
    encoder = Encoder.open(options.model, device)
    data = open_data(options, encoder.preprocessing.resize_size, [options.model])
    names = data.cocktail.names
    other = read_other(options.compare, names, list(data.rows["image_id"]))
    training = select_examples(data.cocktail.split("train"), data.sources, options.max_train_images, seed=0)
    labels = labels_of(training)
    if not ((labels == 0).any(axis=0) & (labels == 1).any(axis=0)).any():
        raise UserError(
            f"the {len(training)} training images have no finding both with and without; name other "
            "--sources, or leave --max_train_images out"
        )

    features = embed(options, encoder, training)
    validation = None
    if data.validation is not None:
        validation = (embed(options, encoder, data.validation), labels_of(data.validation))
    fitted = fit_probe(features, labels, validation)
    for penalty, auroc in fitted.validation_auroc.items():
        mark = ", kept" if penalty == fitted.C else ""
        logger.info("C %g: validation mean AUROC %.4f%s", penalty, auroc, mark)

    scored = Predictions.of(data.rows, fitted.scores(embed(options, encoder, data.rows)), names)
    chosen_on = None
    if data.validation is not None and validation is not None:
        chosen_on = Predictions.of(data.validation, fitted.scores(validation[0]), names)
    bootstrap = Bootstrap(options.bootstrap_resamples)
    log_peak_memory(device)
    evaluation = report.report(
        scored,
        chosen_on,
        bootstrap,
        split=options.split,
        pointing_game=LocalizationReport(reason="a linear probe has no heat maps"),
        comparison=compare(scored, other, bootstrap),
    )
    record = EvaluationRecord(
        model=public_name(options.model), fingerprint=encoder.fingerprint(),
        split_scheme=data.cocktail.split_scheme, tta=False, legacy_head=False,
        is_phantom=data.cocktail.is_phantom, evaluation=evaluation,
        probe_penalty=fitted.C, probe_train_images=len(training),
    )  # fmt: skip
    write_results(options, record, scored, [], data)


def embed(options: argparse.Namespace, encoder: Encoder, rows: Dataset) -> Floats:
    """The encoder's features of some rows: (images, features), float32.

    Raises:
        UserError: a batch does not fit into memory.
    """
    images = rows.select_columns("image")

    def read(index: int) -> torch.Tensor:
        return encoder.preprocessing.pixels(as_picture(images[index]["image"]))

    def embed_batch(pixels: list[torch.Tensor]) -> torch.Tensor:
        return run_or_name_batch(
            lambda: encoder.embed(pixels), lambda count: encoder.embed(pixels[:count]), len(pixels)
        )

    with contextlib.closing(read_ahead(read, range(len(rows)), options.batch_size)) as batches:
        total = -(-len(rows) // options.batch_size)
        found = [embed_batch(batch) for batch in tqdm(batches, total=total, desc=f"{rows.split}")]
    return np.concatenate([part.numpy() for part in found])


def labels_of(rows: Dataset) -> Floats:
    """(images, findings), float64; 1, 0 or NaN."""
    return np.array(read_column(rows, "labels").to_pylist(), dtype=np.float64)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="any stage's folder or Hub id, or a stock Hiera; its encoder is used"
    )
    add_scoring_options(parser)
    parser.add_argument(
        "--max_train_images", type=int, help="at most so many training images, drawn at random (default: all)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main, "nothing of a score is written yet, built data is kept: repeat the command")
