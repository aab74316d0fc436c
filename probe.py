"""Linear probe: freeze a model's encoder, fit logistic regression on its features, and score one split.

    python probe.py --model runs/stage1 --data_dir DATA --output_dir runs/probe
    python probe.py --model demo/phantom/stage1 --data_dir demo/phantom/raw --output_dir runs/demo-probe
    python probe.py --features features.parquet --output_dir runs/probe

The second probes what `make demo` left. MODEL is any stage, a stock Hiera, or another vision model that
`medhiera embed` opens: what it learned before it is fine-tuned shows, in minutes on a CPU. The third takes
features that `medhiera embed` wrote of a dataset. Numbers, intervals and files are those of `medhiera
evaluate`, and beside them what the same features give with few labels: of 1, 5, 10 and 50 patients with each
finding and as many without, and of 1 and 10 % of the training patients. `--compare OTHER/predictions.parquet`
adds the difference from another model on the same images, paired.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import sys
from pathlib import Path

from medhiera.command_line import add_scoring_options, new_parser


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="any stage, a stock Hiera or another vision model; its encoder is used")
    what.add_argument(
        "--features", type=Path, help="the Parquet file that `medhiera embed` wrote of a dataset"
    )
    add_scoring_options(parser, is_probe=True)
    parser.add_argument(
        "--max_train_images", type=int, help="at most so many training images, drawn at random (default: all)"
    )
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 5, 10, 50],
        help="patients with each finding, and as many without (default: 1 5 10 50)",
    )  # fmt: skip
    parser.add_argument(
        "--draws",
        type=int,
        default=5,
        help="of few labels, for each number of shots and share; 0 leaves both out (default: 5)",
    )
    parser.add_argument(
        "--update_card", action="store_true",
        help="write the probe into the record and card of MODEL, the folder of a stage 1",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if (options.data_dir is None) == (options.features is None):
        parser.error("--data_dir goes with --model, and --features has its data in it")
    if options.update_card and options.features is not None:
        parser.error("--update_card goes with --model, the folder whose card it is")
    if options.draws < 0 or min(options.shots) < 1:
        parser.error("--draws: wanted 0 or more; --shots: wanted 1 or more")
    return options


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from datasets import Dataset

from medhiera.data.cocktail import are_drawn
from medhiera.data.columns import read_labels
from medhiera.data.selection import select_examples
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.few_labels import fit_by_patient, score_few_labels
from medhiera.evaluation.label_figures import draw_few_labels
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.probe_data import ProbeData, ProbeSplit, read_probe_data
from medhiera.evaluation.probe_results import ProbeFit
from medhiera.evaluation.tables import few_labels_lines
from medhiera.hub.evaluation_record import EvaluationRecord
from medhiera.hub.model_card import add_probe, check_probe_fits
from medhiera.hub.probe_record import ProbeRecord, ranking_of
from medhiera.inference.embedding import embed_in_memory
from medhiera.inference.encoder import Encoder
from medhiera.layout import FIGURES_FOLDER, public_name
from medhiera.scoring import OtherModel, begin, compare, open_data, output_folder, read_other, write_results

logger = logging.getLogger("probe")


@dataclass(frozen=True)
class Probed:
    """What is probed.

    Attributes:
        model: a folder's own name or a Hub id.
        fingerprint: of its weights and preprocessing.
        split_scheme: how the data was split.
        is_phantom: the images are synthetic.
        data: features of three splits.
        figure_mark: what figures say of the model and the data.
        other: another model's probabilities of the scored images; None where none is named.
    """

    model: str
    fingerprint: str
    split_scheme: str
    is_phantom: bool
    data: ProbeData
    figure_mark: str
    other: OtherModel | None


def main(argv: list[str]) -> None:
    """Embed three splits or read their features, fit, score, write."""
    options = read_options(argv)
    device = begin(options)
    if options.update_card:
        check_probe_fits(Path(options.model))
    with output_folder(options.output_dir):
        probe(options, device)
    logger.info("metrics.json, predictions.parquet and figures/ → %s", options.output_dir)


def probe(options: argparse.Namespace, device: torch.device) -> None:
    """Fit, score, write metrics.json, predictions.parquet and the figures, print the tables."""
    probed = probe_file(options) if options.features is not None else probe_model(options, device)
    data, bootstrap = probed.data, Bootstrap(options.bootstrap_resamples)
    labels = data.training.labels
    if not ((labels == 0).any(axis=0) & (labels == 1).any(axis=0)).any():
        raise UserError(
            f"the {len(labels)} training images have no finding both with and without; name other "
            "--sources, or leave --max_train_images out"
        )
    if options.split != "train" and data.shared_patients:
        logger.warning(
            "%d patients have training images and %s images: scores are too high",
            data.shared_patients, options.split,
        )  # fmt: skip
    fitted, fit = fit_by_patient(data.training, data.validation)
    for line in penalty_lines(fitted.validation_auroc, fit):
        logger.info("%s", line)

    scored = data.scored.predictions(fitted.scores(data.scored.features), data.names)
    chosen_on = None
    if data.validation is not None:
        chosen_on = data.validation.predictions(fitted.scores(data.validation.features), data.names)
    evaluation = report.report(
        scored,
        chosen_on,
        bootstrap,
        split=options.split,
        pointing_game=LocalizationReport(reason="a linear probe has no heat maps"),
        comparison=compare(scored, probed.other, bootstrap),
    )
    fit = dataclasses.replace(fit, shared_patients=data.shared_patients if options.split != "train" else 0)
    if options.draws:
        few = score_few_labels(
            data.training, data.validation, data.scored, scored, bootstrap,
            shots=sorted(set(options.shots)), draws=options.draws,
        )  # fmt: skip
        fit = dataclasses.replace(fit, few_labels=few, intervals_over="patients and draws")
    record = EvaluationRecord(
        model=probed.model, fingerprint=probed.fingerprint, split_scheme=probed.split_scheme, tta=False,
        legacy_head=False, is_phantom=probed.is_phantom, evaluation=evaluation, probe_penalty=fitted.C,
        probe_train_images=len(labels), probe=fit,
    )  # fmt: skip
    write_results(options, record, scored, [], probed.figure_mark)
    finish(options, probed, record, fit)


def penalty_lines(aurocs: Mapping[float, float], fit: ProbeFit) -> list[str]:
    """What each penalty reached, and where.

    Args:
        aurocs: C → mean AUROC where the penalty was chosen; NaN where no finding has one.
        fit: names that place, and the penalty that was chosen.
    """
    if fit.chosen_on == "nothing":
        return [f"C {fit.penalty:g}: by default, as no labels were left to choose it on"]
    return [
        f"C {penalty:g}: mean AUROC {auroc:.4f} on {fit.chosen_on}{', kept' * (penalty == fit.penalty)}"
        for penalty, auroc in aurocs.items()
    ]


def finish(options: argparse.Namespace, probed: Probed, record: EvaluationRecord, fit: ProbeFit) -> None:
    """Draw and print what few labels give, and update the stage's card where that is asked for."""
    figures = options.output_dir / FIGURES_FOLDER
    title = f"Few labels, {options.split} split"
    draw_few_labels(fit, probed.model, figures, title=title, mark=probed.figure_mark)
    for line in few_labels_lines(fit):
        logger.info("%s", line)
    if options.update_card:
        entry = ProbeRecord(
            split=options.split, split_scheme=probed.split_scheme, is_phantom=probed.is_phantom,
            tested_on=probed.data.scored.sources, fit=fit, ranking=ranking_of(record.evaluation),
        )  # fmt: skip
        add_probe(Path(options.model), entry, figures)
        logger.info("the record and card of %s show this probe", options.model)


def probe_file(options: argparse.Namespace) -> Probed:
    """Features that embed.py wrote.

    Raises:
        UserError: see read_probe_data.
    """
    header, data = read_probe_data(
        options.features, options.split, options.sources, options.max_train_images, options.findings
    )
    scored = data.scored
    other = read_other(
        options.compare, data.names, scored.rows["image_id"].tolist(), scored.patient_ids, scored.labels
    )
    return Probed(
        header.model, header.fingerprint, header.split_scheme, header.is_phantom, data, header.figure_mark,
        other,
    )  # fmt: skip


def probe_model(options: argparse.Namespace, device: torch.device) -> Probed:
    """Embed the rows of built data.

    Raises:
        UserError: see Encoder.from_pretrained, open_data and embed_in_memory.
    """
    log_device(device)
    encoder = Encoder.from_pretrained(options.model, device)
    data = open_data(options, encoder.preprocessing.resize_size, [options.model])
    other = read_other(
        options.compare, data.cocktail.names, list(data.rows["image_id"]), list(data.rows["patient_id"]),
        read_labels(data.rows),
    )  # fmt: skip
    training = select_examples(data.cocktail.split("train"), data.sources, options.max_train_images, seed=0)

    def embed(rows: Dataset) -> ProbeSplit:
        return ProbeSplit.of(rows, embed_in_memory(encoder, rows, options.batch_size).numpy())

    validation = None if data.validation is None else embed(data.validation)
    splits = ProbeData(data.cocktail.names, embed(training), validation, embed(data.rows))
    log_peak_memory(device)
    return Probed(
        public_name(options.model), encoder.fingerprint(), data.cocktail.split_scheme,
        are_drawn(data.rows), splits, data.figure_mark, other,
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main, "nothing of a score is written yet, built data is kept: repeat the command")
