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

from medhiera.command_line import add_device_option, new_parser


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", required=True, help="the folder or Hub id of a model that writes reports")
    parser.add_argument(
        "--data_dir", required=True, help="folder that holds the sources, a built cocktail, or its Hub id"
    )
    parser.add_argument("--build_dir", help="where built data is kept (default: cocktail beside the model)")
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder for all results")
    parser.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="scored (default: test)"
    )
    parser.add_argument("--split_scheme", help="default: as when the model was trained, else official")
    parser.add_argument("--nih_mapping", help="as in training")
    parser.add_argument("--sources", nargs="+", help="default: those with reports")
    parser.add_argument(
        "--report_section", choices=("findings", "impression"), help="default: what the model was trained on"
    )
    parser.add_argument("--clean", choices=("iu", "none"), help="default: as when the model was trained")
    parser.add_argument("--batch_size", type=int, default=16, help="studies at a time (default: 16)")
    add_device_option(parser)
    parser.add_argument(
        "--bootstrap_resamples", type=int, default=2000, help="of studies, for intervals (default: 2000)"
    )
    parser.add_argument("--compare", type=Path, help="another model's reports.csv on the same split")
    return parser.parse_args(argv)


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import csv
import logging
from dataclasses import fields, replace

import torch
from tqdm.auto import tqdm

from medhiera.config.report_arguments import ReportArguments
from medhiera.data.cocktail import BuiltDataset
from medhiera.data.report_dataset import (
    ReportDataset,
    ReportSplit,
    default_report_sources,
    read_studies,
    rows_of,
)
from medhiera.data.selection import select_examples, warn_of_small_images
from medhiera.data.trained_images import check_unseen
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.captions import clean_iu, compare_captions
from medhiera.evaluation.report_tables import difference_lines, report_lines
from medhiera.evaluation.written_reports import clean_report, collect_reports, write_table
from medhiera.hub.evaluation_record import ReportEvaluationRecord
from medhiera.hub.lineage import find_record
from medhiera.hub.record import ReportRecord
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import REPORTS_FILE, public_name
from medhiera.output import write_error
from medhiera.scoring import begin, open_built, output_folder, warn_of_model

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
    record = find_record(options.model)
    task = task_of(record, options, int(writer.model.config.report_views))
    data = open_built(options, writer.preprocessing.resize_size, [options.model], [record])
    warn_of_model(record, data.is_phantom)
    sources = options.sources or (record.recipe.get("sources") if isinstance(record, ReportRecord) else None)
    seed = int(record.recipe["seed"]) if isinstance(record, ReportRecord) else 0
    splits = {
        name: read_split(data, name, task, sources, seed) for name in {"train", "validation", options.split}
    }
    scored = splits[options.split]
    warn_of_small_images(scored.rows, writer.preprocessing.resize_size)
    if options.split != "train" and options.split_scheme is None:
        check_unseen(options.model, **{options.split: rows_of(scored.rows, scored.studies)})
    other = None if options.compare is None else read_written(options.compare, scored)

    dataset = ReportDataset(scored.rows, scored.studies, writer.preprocessing, task.views)
    batches = tqdm(
        writer.write_dataset(dataset, options.batch_size), total=-(-len(dataset) // options.batch_size)
    )
    written = [report for batch in batches for report in batch]
    log_peak_memory(device)
    reports = collect_reports(writer, written, splits, options.split, task, data, options.batch_size)
    bootstrap = Bootstrap(options.bootstrap_resamples)
    result = reports.evaluate(bootstrap)
    made = ReportEvaluationRecord(
        model=public_name(options.model),
        fingerprint=writer.fingerprint(),
        split_scheme=data.split_scheme,
        is_phantom=data.is_phantom,
        evaluation=result,
    )
    try:
        write_table(reports, options.output_dir / REPORTS_FILE)
        made.write(options.output_dir)
    except OSError as error:
        raise write_error("--output_dir", options.output_dir, error) from error
    lines = report_lines(result)
    if other is not None:
        references, own, others = (
            {study: clean_report(text, task.clean) for study, text in those.items()}
            for those in (reports.references, reports.written, other)
        )
        lines += ["", f"this model minus {options.compare}, paired:"]
        lines += difference_lines(compare_captions(references, own, others, bootstrap))
    for line in lines:
        logger.info("%s", line)


def task_of(record: object, options: argparse.Namespace, views: int) -> ReportArguments:
    """What the model was trained to write, by its record; the command line wins."""
    recipe = record.recipe if isinstance(record, ReportRecord) else {}
    known = {one.name for one in fields(ReportArguments)}
    named = {name: getattr(options, name) for name in ("report_section", "clean") if getattr(options, name)}
    of_recipe = {name: value for name, value in recipe.items() if name in known and name in KEPT}
    return ReportArguments(**{**of_recipe, **named, "views": views})


KEPT = ("report_section", "clean", "legacy_vocabulary", "max_train_studies")
"""Of a model's recipe: what its reports are."""


def read_split(
    data: BuiltDataset, name: str, task: ReportArguments, sources: list[str] | None, seed: int
) -> ReportSplit:
    """The studies of a split; of the training split those that the model was trained on, drawn by its seed.

    Raises:
        UserError: there is no such split, or no such study.
    """
    rows = data.split(name)
    rows = select_examples(rows, sources or default_report_sources(rows), None, seed=0)
    at_most = task.max_train_studies if name == "train" else None
    studies = read_studies(rows, task.report_section, task.views, at_most, seed)
    if task.legacy_vocabulary:
        studies = [replace(study, report=clean_iu(study.report)) for study in studies]
    return ReportSplit(rows, studies)


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
