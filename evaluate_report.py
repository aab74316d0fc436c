"""Score a model that writes reports on one split: measures with intervals, constants, copies, sides.

    python evaluate_report.py --model runs/report --data_dir DATA --output_dir runs/report-test
    python evaluate_report.py --model demo/report/stage2 --data_dir demo/report/raw --output_dir runs/demo

The second scores what `make demo-report` left. reports.csv in the folder holds texts: the data's terms
apply to it, and it is never published. `--compare runs/other/reports.csv` adds the paired difference from
another model on the same studies.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import sys
from pathlib import Path

from medhiera.command_line import add_data_options, add_device_option, new_parser


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", required=True, help="the folder or Hub id of a model that writes reports")
    add_data_options(parser)
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder for all results")
    parser.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="scored (default: test)"
    )
    parser.add_argument("--sources", nargs="+", help="default: those with reports")
    parser.add_argument(
        "--report_section", choices=("findings", "impression"), help="default: what the model was trained on"
    )
    parser.add_argument(
        "--clean", choices=("source", "iu", "mimic", "none"), help="default: as when the model was trained"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="studies at a time (default: 16)")
    add_device_option(parser)
    parser.add_argument(
        "--bootstrap_resamples", type=int, default=2000, help="of studies, for intervals (default: 2000)"
    )
    parser.add_argument(
        "--chexbert", type=Path, metavar="FOLDER", help="chexbert.pth and its BERT's files: CheXbert F1"
    )
    parser.add_argument(
        "--radgraph", type=Path, nargs=2, metavar=("REFERENCES", "WRITTEN"),
        help="annotations that the package radgraph wrote of reports.csv: RadGraph F1",
    )  # fmt: skip
    parser.add_argument(
        "--update_card", action="store_true",
        help="write the scores into the model's own metrics.json and card too",
    )  # fmt: skip
    parser.add_argument("--compare", type=Path, help="another model's reports.csv on the same split")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import contextlib
import csv
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from medhiera.config.report_arguments import ReportArguments
from medhiera.data.cocktail import BuiltDataset, are_drawn
from medhiera.data.report_dataset import (
    ReportDataset,
    ReportSplit,
    default_report_sources,
    read_studies,
    rows_of,
)
from medhiera.data.selection import select_examples, warn_of_small_images
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.caption_metrics import MEASURES
from medhiera.evaluation.caption_results import CaptionReport
from medhiera.evaluation.captions import compare_captions, read_json
from medhiera.evaluation.chexbert import Chexbert
from medhiera.evaluation.radgraph import check_annotations
from medhiera.evaluation.report_cleaning import CLEANERS
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.evaluation.report_tables import difference_lines, report_lines
from medhiera.evaluation.written_reports import choose_cleaning, collect_reports, write_table
from medhiera.fitting_batch import run_or_name_batch
from medhiera.hub.evaluation_record import ReportEvaluationRecord
from medhiera.hub.lineage import find_record
from medhiera.hub.model_card import card_of, check_unchanged
from medhiera.hub.record import ReportRecord, read_record
from medhiera.inference.report_writer import ReportWriter, batches
from medhiera.layout import CARD_FILE, METRICS_FILE, REPORTS_FILE, public_name
from medhiera.output import write_error
from medhiera.scoring import begin, check_models_unseen, open_built, output_folder, warn_of_model

logger = logging.getLogger("evaluate_report")


def main(argv: list[str]) -> None:
    """Check what is asked for, then score; nothing is loaded before the output folder is this process's."""
    options = read_options(argv)
    device = begin(options)
    logger.setLevel(logging.INFO)
    with output_folder(options.output_dir):
        evaluate(options, device)
    logger.info("metrics.json and %s → %s", REPORTS_FILE, options.output_dir)


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Open, write, score; write metrics.json and the texts, print the table."""
    log_device(device)
    writer = ReportWriter.open(options.model, device)
    record = find_record(options.model, is_kept=True)
    task = task_of(record, options, int(writer.model.config.report_views))
    if options.update_card:
        check_card(options, record)
    for path in options.radgraph or ():
        check_annotations(read_json(path), path)  # not only when all is written
    data = open_built(options, writer.preprocessing.resize_size, [options.model], [record])
    splits, clean = read_splits(options, record, task, data)
    scored = splits[options.split]
    warn_of_model(record, are_drawn(scored.rows))
    warn_of_small_images(scored.rows, writer.preprocessing.resize_size, is_exported=data.is_exported)
    if options.split != "train":
        held_out = {options.split: rows_of(scored.rows, scored.studies)}
        check_models_unseen(options.split_scheme, [options.model], [record], **held_out)
    other = None if options.compare is None else read_written(options.compare, scored)
    labeler = None if options.chexbert is None else Chexbert.open(options.chexbert, device)

    written = write_split(writer, scored, task.views, options.batch_size)
    log_peak_memory(device)
    reports = collect_reports(writer, written, splits, options.split, task, clean, data, options.batch_size)
    with refused_writing(options.output_dir):
        write_table(reports, options.output_dir / REPORTS_FILE)
    bootstrap = Bootstrap(options.bootstrap_resamples)
    result = reports.evaluate(bootstrap, labeler, options.radgraph)
    made = ReportEvaluationRecord(
        model=public_name(options.model),
        fingerprint=writer.fingerprint(),
        split_scheme=data.split_scheme,
        is_phantom=are_drawn(scored.rows),
        evaluation=result,
    )
    with refused_writing(options.output_dir):
        made.write(options.output_dir)
    lines = report_lines(result)
    if other is not None:
        lines += ["", f"this model minus {options.compare}, paired:"]
        cleaned = (reports.cleaned(texts) for texts in (reports.references, reports.written, other))
        references, own, others = cleaned
        lines += difference_lines(compare_captions(references, own, others, bootstrap))
    for line in lines:
        logger.info("%s", line)
    if options.update_card:
        update_card(Path(options.model), result)


@contextlib.contextmanager
def refused_writing(folder: Path) -> Iterator[None]:
    """Inside, a file that cannot be written is a user's error."""
    try:
        yield
    except OSError as error:
        raise write_error("--output_dir", folder, error) from error


def write_split(writer: ReportWriter, split: ReportSplit, views: int, batch_size: int) -> list[str]:
    """The model's reports of a split's studies, in their order.

    Raises:
        UserError: a batch does not fit into memory.
    """
    dataset = ReportDataset(split.rows, split.studies, writer.preprocessing, views)

    def write(batch: dict[str, Any]) -> list[str]:
        pixels, has_view = batch["pixel_values"], batch["has_view"]

        def write_first(count: int) -> list[str]:
            return writer.write_batch(pixels[:count], has_view[:count])

        return run_or_name_batch(lambda: write_first(len(pixels)), write_first, len(pixels), unit="studies")

    shown = tqdm(batches(dataset, batch_size), total=-(-len(dataset) // batch_size))
    return [report for batch in shown for report in write(batch)]


def check_card(options: argparse.Namespace, record: object) -> None:
    """Refuse to put scores on a card that is of something else.

    Raises:
        UserError: the model is no folder here that train_report.py finished, or its card is of another split;
            see also check_unchanged.
    """
    if not isinstance(record, ReportRecord) or not Path(options.model).is_dir():
        raise UserError(
            f"--update_card: {options.model} is no folder with the record of train_report.py; name one, or "
            "leave the option out"
        )
    of_card = record.evaluation.split
    if options.split != of_card or options.split_scheme not in (None, record.data.split_scheme):
        raise UserError(
            f"--update_card: the card of {options.model} is of the {of_card} split "
            f"({record.data.split_scheme}); score that (--split {of_card}), or leave the option out"
        )
    check_unchanged(Path(options.model))


def update_card(folder: Path, result: ReportEvaluation) -> None:
    """Write what was scored into the model's own record and card.

    CheXbert's and RadGraph's scores that are there of the same texts stay, where they were not asked for now.

    Raises:
        UserError: it is of other studies or cleaned otherwise, or has fewer resamples behind its intervals;
            or the folder cannot be written to.
    """
    record = read_record(folder)
    assert isinstance(record, ReportRecord), "check_card has seen it"
    before, after = (
        (one.section, one.clean, one.written.scores.studies, one.training_studies, one.references_verbatim)
        for one in (record.evaluation, result)
    )
    if before != after:
        raise UserError(
            f"--update_card: the card of {folder} is of {before[2]} studies ({before[0]}, clean {before[1]}) "
            f"beside {before[3]} training reports, and what was scored is not of the same "
            f"({after[2]} studies, {after[0]}, clean {after[1]}, {after[3]} training reports); the card "
            "stays as it was"
        )
    resamples = [one.written.bootstrap_resamples for one in (record.evaluation, result)]
    if resamples[1] < resamples[0]:
        raise UserError(
            f"--update_card: the intervals on the card of {folder} are of {resamples[0]} resamples; score "
            f"with --bootstrap_resamples {resamples[0]} or more, or leave --update_card out"
        )
    record.evaluation = keep_clinical(record.evaluation, result)
    with refused_writing(folder):
        record.write(folder)
        (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
    logger.info("%s and %s in %s hold these scores", METRICS_FILE, CARD_FILE, folder)


def keep_clinical(before: ReportEvaluation, after: ReportEvaluation) -> ReportEvaluation:
    """What was scored now, with the clinical scores that an earlier call made of the same texts."""

    def merged(old: CaptionReport, new: CaptionReport) -> CaptionReport:
        if any(getattr(old.scores, name) != getattr(new.scores, name) for name in MEASURES):
            return new  # of other texts: another device or batch may round a word away
        return replace(new, chexbert=new.chexbert or old.chexbert, radgraph=new.radgraph or old.radgraph)

    return replace(
        after,
        written=merged(before.written, after.written),
        nearest=merged(before.nearest, after.nearest),
        constants=[
            replace(new, scores=merged(old.scores, new.scores))
            for old, new in zip(before.constants, after.constants, strict=True)
        ],
    )


def task_of(record: object, options: argparse.Namespace, views: int) -> ReportArguments:
    """What the model was trained to write, by its record; the command line wins."""
    recipe = record.recipe if isinstance(record, ReportRecord) else {}
    known = {one.name for one in fields(ReportArguments)}
    named = {name: getattr(options, name) for name in ("report_section", "clean") if getattr(options, name)}
    of_recipe = {name: value for name, value in recipe.items() if name in known and name in KEPT}
    return ReportArguments(**{**of_recipe, **named, "views": views})


KEPT = ("report_section", "clean", "legacy_vocabulary", "max_train_studies", "max_eval_studies")
"""Of a model's recipe: what its reports are."""


def read_splits(
    options: argparse.Namespace, record: object, task: ReportArguments, data: BuiltDataset
) -> tuple[dict[str, ReportSplit], str]:
    """The studies of training, validation and the scored split, and how their reports are cleaned.

    Of training and validation those that the model was trained and chosen on, drawn by its seed.

    Raises:
        UserError: there is no such split, or no such study.
    """
    recipe = record.recipe if isinstance(record, ReportRecord) else {}
    sources, seed = options.sources or recipe.get("sources"), int(recipe.get("seed", 0))
    at_most = {"train": task.max_train_studies, "validation": task.max_eval_studies}
    if options.split == "validation":
        del at_most["validation"]  # scored whole
    splits = {}
    for name in {"train", "validation", options.split}:
        rows = data.split(name)
        rows = select_examples(rows, sources or default_report_sources(rows), None, seed=0)
        studies = read_studies(rows, task.report_section, task.views, at_most.get(name), seed)
        splits[name] = ReportSplit(rows, studies)
    clean = choose_cleaning(task, splits["train"], splits[options.split])
    if task.legacy_vocabulary:
        splits = {name: split.change_reports(CLEANERS[clean]) for name, split in splits.items()}
    return splits, clean


def read_written(path: Path, scored: ReportSplit) -> dict[str, str]:
    """Another model's reports of the same studies.

    Raises:
        UserError: the file cannot be read, or is of other studies.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        written = {row["study"]: row["written"] or "" for row in rows}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise UserError(
            f"--compare {path} cannot be read ({error}); name the {REPORTS_FILE} of another evaluation"
        ) from error
    if written.keys() != {study.name for study in scored.studies}:
        raise UserError(
            f"--compare {path} holds {len(written)} studies, which are not the {len(scored.studies)} that "
            "are scored; evaluate both models on the same split and section"
        )
    others = {row["study"]: row.get("reference") for row in rows}
    differing = [study.name for study in scored.studies if others[study.name] != study.report]
    if differing:
        raise UserError(
            f"--compare {path} was scored against other references ({len(differing)} of {len(rows)}, such as "
            f"that of {differing[0]}); evaluate both models on the same section, with the same vocabulary"
        )
    return written


if __name__ == "__main__":
    run_script(main, "nothing of a score is written yet, built data is kept: repeat the command")
