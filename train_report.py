r"""Stage 2 for reports: a decoder learns to write what a radiologist would, from a study's pictures.

On a GPU, and on a CPU:

    accelerate launch train_report.py configs/report_modern.yaml --data_dir DATA --output_dir runs/report \
        --model_name_or_path runs/stage1
    python train_report.py configs/report_smoke.yaml --data_dir DATA --output_dir runs/report --use_cpu true
"""

from medhiera.config.before_imports import answer_before_imports
from medhiera.config.report_arguments import ReportArguments

if __name__ == "__main__":  # answered before PyTorch is imported, which takes seconds
    answer_before_imports(ReportArguments, __doc__)

import logging
from pathlib import Path
from typing import Any

from dataset_scripts.findings import REPORT_COLUMNS
from medhiera.config.arguments import Config
from medhiera.data.augmentation import Augmentation
from medhiera.data.report_dataset import (
    ReportCollator,
    ReportDataset,
    ReportSplit,
    default_report_sources,
    read_studies,
    rows_of,
)
from medhiera.data.report_tokenizer import (
    R2GEN_THRESHOLDS,
    decode_reports,
    digest_tokens,
    encode_report,
    open_tokenizer,
    train_byte_tokenizer,
    train_word_tokenizer,
)
from medhiera.errors import run_script
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.chexbert import Chexbert
from medhiera.evaluation.report_cleaning import CLEANERS
from medhiera.evaluation.report_tables import report_lines
from medhiera.evaluation.written_reports import (
    ValidationReports,
    choose_cleaning,
    collect_reports,
    write_table,
)
from medhiera.hub.record import ReportRecord
from medhiera.hub.training_record import TrainingRecord
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import FIGURES_FOLDER, REPORTS_FILE, public_name
from medhiera.run import Run, begin_run
from medhiera.run_folder import how_to_go_on
from medhiera.stages import REPORTS
from medhiera.training import figures
from medhiera.training.callbacks import FigureCallback
from medhiera.training.report_model import merge_lora, start_report_model
from medhiera.training.report_trainer import ReportTrainer

logger = logging.getLogger("train_report")

LOSS_NAME = "cross-entropy a token"


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    run = begin_run(REPORTS, argv, check=check_chexbert)
    config, options = run.config, run.config.stage
    training = read_split(run, "train", options.max_train_studies)
    validation = read_split(run, "validation", options.max_eval_studies)
    scored = read_split(run, "test") if options.score_test else validation
    clean = choose_cleaning(options, training, scored)
    if options.legacy_vocabulary:  # R2Gen's words are of cleaned reports, and so is what is learned
        cleaned = [split.change_reports(CLEANERS[clean]) for split in (training, validation, scored)]
        training, validation, scored = cleaned

    tokenizer = choose_tokenizer(options, training.reports, clean)
    encoder = run.start_model(num_query_pool=3)  # tokens in raster order, one a mask unit
    model = start_report_model(encoder, tokenizer, options)
    run.lineage.new_weights = new_weights(run)
    used = {"trained_on": training, "validated_on": validation}
    used |= {"tested_on": scored} if options.score_test else {}
    run.describe(*REPORT_COLUMNS, **{use: rows_of(split.rows, split.studies) for use, split in used.items()})
    learned = make_dataset(
        run, training, tokenizer, Augmentation.of(config.augmentation, options.rotation_degrees)
    )
    run.digests["digest of the training reports' tokens"] = digest_tokens(tokenizer, learned.tokens or [])
    trainer = run.make_trainer(
        model,
        trainer_class=ReportTrainer,
        callbacks=[FigureCallback(run.output, LOSS_NAME, run.figure_mark)],
        data_collator=ReportCollator(),
        train_dataset=learned,
        eval_dataset=make_dataset(run, validation, tokenizer),
        compute_metrics=ValidationReports(tokenizer, validation.reports, clean),
    )
    result = trainer.train(resume_from_checkpoint=run.resume)
    trainer.disable_autocast()
    trainer.compute_metrics = None  # from here on the evaluation says what is reached
    written = decode_reports(tokenizer, trainer.predict(make_dataset(run, scored, tokenizer)).predictions)
    if not trainer.is_world_process_zero():
        return

    curves = run.output / FIGURES_FOLDER / "loss.png"
    figures.training_curves(trainer.state.log_history, curves, loss_name=LOSS_NAME, mark=run.figure_mark)
    merge_lora(model)
    writer = ReportWriter(model.eval(), tokenizer, run.preprocessing)
    split = "test" if options.score_test else "validation"
    splits = {"train": training, "validation": validation, split: scored}
    size = config.training.per_device_eval_batch_size
    reports = collect_reports(writer, written, splits, split, options, clean, run.data, size)
    write_table(reports, run.output / REPORTS_FILE)
    labeler = None if options.chexbert is None else Chexbert.open(Path(options.chexbert), trainer.args.device)
    evaluation = reports.evaluate(Bootstrap(options.bootstrap_resamples), labeler)
    for line in report_lines(evaluation):
        logger.info("%s", line)
    record = ReportRecord(
        **run.facts,
        training=TrainingRecord.of(trainer, result),
        decoder=options.decoder_name_or_path and public_name(options.decoder_name_or_path),
        vocabulary=len(tokenizer), views=options.views, evaluation=evaluation,
    )  # fmt: skip
    run.finish(record, model, save=writer.save)


def check_chexbert(config: Config[ReportArguments]) -> None:
    """Refuse a folder without CheXbert's weights before hours of training.

    Raises:
        UserError: see Chexbert.open.
    """
    if config.stage.chexbert is not None:
        Chexbert.open(Path(config.stage.chexbert))


def read_split(run: Run[ReportArguments], name: str, at_most: int | None = None) -> ReportSplit:
    """The studies of a split that have the section which is written.

    Raises:
        UserError: there is no such split, or no such study.
    """
    options, rows = run.config.stage, run.data.split(name)
    sources = run.config.data.sources or default_report_sources(rows)
    rows = run.select(name, sources)
    studies = read_studies(rows, options.report_section, options.views, at_most, run.config.training.seed)
    logger.info("%s: %d studies with %s", name, len(studies), options.report_section)
    return ReportSplit(rows, studies)


def choose_tokenizer(options: ReportArguments, reports: list[str], clean: str) -> Any:
    """The decoder's own tokenizer, or one that is trained on the training reports."""
    if options.decoder_name_or_path:
        return open_tokenizer(options.decoder_name_or_path)
    if options.legacy_vocabulary:
        return train_word_tokenizer(reports, R2GEN_THRESHOLDS[clean])
    return train_byte_tokenizer(reports, options.vocabulary_size)


def new_weights(run: Run[ReportArguments]) -> Any:
    """What no checkpoint has filled in; the encoder's pooling is not used."""
    new = run.lineage.new_weights
    if new == "all":
        return new
    return [name for name in new if not name.startswith("pooler.")] + (
        ["cross-attention"] if run.config.stage.decoder_name_or_path else ["decoder"]
    )


def make_dataset(
    run: Run[ReportArguments], split: ReportSplit, tokenizer: Any, augmentation: Augmentation | None = None
) -> ReportDataset:
    """A split as batches of studies."""
    options = run.config.stage
    return ReportDataset(
        split.rows,
        split.studies,
        run.preprocessing,
        options.views,
        [encode_report(tokenizer, report, options.max_tokens) for report in split.reports],
        seed=run.config.training.seed,
        augmentation=augmentation,
    )


if __name__ == "__main__":
    run_script(main, how_to_go_on)
