"""How a command that scores a model begins and ends: its checks, the data that are scored, what it writes.

As run.py is for training. On evaluation/ and hub/, below evaluate_cls.py, evaluate_report.py and probe.py.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from pyarrow import parquet

from dataset_scripts.build.atomic_files import whole_file
from dataset_scripts.own.dataset_rows import refuse_mistyped
from medhiera.command_line import ALL, show_progress
from medhiera.config.arguments import DataArguments
from medhiera.data.build_reports import is_test_drawn
from medhiera.data.cocktail import BuiltDataset, are_drawn, figure_mark, lies_in_data, open_cocktail
from medhiera.data.kept_findings import keep_findings
from medhiera.data.selection import default_sources, select_examples, warn_of_small_images
from medhiera.data.training_images import (
    check_unseen,
    known_names,
    list_images,
    read_training_images,
    trained_on,
)
from medhiera.device import choose_device
from medhiera.errors import UserError
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.comparison_results import Comparison
from medhiera.evaluation.ensemble import member_lines
from medhiera.evaluation.localization import HeatMapExample
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.predictions_files import read_predictions
from medhiera.evaluation.published_results import compare_with_published
from medhiera.evaluation.tables import (
    call_lines,
    chance_warning,
    comparison_lines,
    format_table,
    sensitivity_lines,
    threshold_lines,
)
from medhiera.hub.evaluation_record import EvaluationRecord
from medhiera.hub.lineage import find_record
from medhiera.hub.record import AnyRecord, TrainedRecord
from medhiera.layout import (
    CONFIG_FILE,
    FIGURES_FOLDER,
    METRICS_FILE,
    REPORTS_FILE,
    TRAINING_IMAGES_FILE,
    present,
    public_file_name,
    read_json_file,
)
from medhiera.output import make_folder, one_writer, write_error

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions.parquet"
OUTPUT = (METRICS_FILE, PREDICTIONS_FILE, REPORTS_FILE, FIGURES_FOLDER)
"""What these commands write into their folder."""


def begin(options: argparse.Namespace) -> torch.device:
    """Set the logging up, check what is asked for, and choose the device.

    Raises:
        UserError: a number out of range, an output folder that holds a model or files of the user's, or lies
            in the data, a device that is not there, or a folder of data that is not.
    """
    show_progress("evaluate_cls", "evaluate_report", "probe")
    for name, least in (("batch_size", 1), ("bootstrap_resamples", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: wanted {least} or more")
    if (options.output_dir / CONFIG_FILE).is_file():
        raise UserError(
            f"--output_dir {options.output_dir} holds a model, and its metrics.json and figures would be "
            "overwritten; name another folder"
        )
    if not _is_of_scoring(options.output_dir) and (others := present(options.output_dir, OUTPUT)):
        raise UserError(
            f"--output_dir {options.output_dir} holds {', '.join(others)}, which no evaluation of ours wrote "
            "and this one would overwrite; name another folder"
        )
    if options.data_dir is not None:
        refuse_mistyped(options.data_dir)
        if lies_in_data(options.output_dir, Path(options.data_dir)):
            raise UserError(
                f"--output_dir {options.output_dir} is --data_dir {options.data_dir}, or lies among its "
                "images, and figures would be taken for images; name another folder"
            )
    return choose_device(options.device)


def _is_of_scoring(folder: Path) -> bool:
    """Whether one of these commands wrote into a folder, to its end or not."""
    keys, columns, header = set[str](), list[str](), ""
    with contextlib.suppress(UserError):
        keys = set(read_json_file(folder / METRICS_FILE))
    with contextlib.suppress(OSError, ValueError):
        columns = parquet.read_schema(folder / PREDICTIONS_FILE).names
    with contextlib.suppress(OSError, ValueError), (folder / REPORTS_FILE).open(encoding="utf-8") as file:
        header = file.readline()
    return keys >= {"fingerprint", "evaluation"} or "image_id" in columns or header.startswith("study,")


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """The folder for all results, made where it is not there, and this process's alone."""
    is_new = make_folder(folder, "--output_dir")
    with one_writer(folder, "--output_dir", is_new):
        yield


@dataclasses.dataclass(frozen=True)
class ScoredData:
    """What a model is scored on.

    Attributes:
        cocktail: the built data.
        split: that is scored; "all" for every image of the data.
        sources: those that are read; None for all.
        rows: of the split that is scored.
        validation: where thresholds are chosen; None where that is scored, or the data has none.
        records: of the models; None of one that was not trained here.
        figure_mark: what figures say of the models and the data.
    """

    cocktail: BuiltDataset
    split: str
    sources: list[str] | None
    rows: Dataset
    validation: Dataset | None
    records: list[AnyRecord | None]
    figure_mark: str


def open_data(options: argparse.Namespace, stored_size: int, models: Sequence[str]) -> ScoredData:
    """The rows to score, refused where a model was trained on some of them.

    Args:
        options: the command line.
        stored_size: the shorter side at which the models' images are read, in pixels.
        models: folders or Hub ids.

    Raises:
        UserError: see open_built, open_cocktail, check_unseen and _check_chosen_split; or no row is left.
    """
    records = [find_record(model, is_kept=True) for model in models]
    built = open_built(options, stored_size, models, records, keeps_all=options.split == ALL)
    cocktail = keep_findings(built, options.findings)
    sources = options.sources or sources_of(cocktail)
    if options.split is None:
        _check_chosen_split(cocktail, models)
    split = options.split or "test"
    chosen = concatenate_datasets([*cocktail.rows.values()]) if split == ALL else cocktail.split(split)
    rows = select_examples(chosen, sources, None, seed=0)
    if split == ALL:
        logger.info("--split all: %s images are scored, of all splits named above", f"{len(rows):,}")
        if lost := cocktail.leakage().dropped:
            logger.warning(
                "%s images that show another were left out when these data were built; give the sources' own "
                "folder to score them too", f"{lost:,}",
            )  # fmt: skip
    for record in records:
        warn_of_model(record, are_drawn(rows))
    warn_of_small_images(rows, stored_size, is_exported=cocktail.is_exported)
    held_out = {} if split == "train" else {"scored" if split == ALL else split: rows}
    if split not in ("validation", ALL) and "validation" in cocktail.rows:
        held_out["validation"] = select_examples(cocktail.split("validation"), sources, None, seed=0)
    check_models_unseen(options.split_scheme, models, records, **held_out)
    validation = None if split == "validation" else held_out.get("validation")
    is_smoke_run = any(record is not None and record.kind == "smoke" for record in records)
    mark = figure_mark(rows, is_smoke_run=is_smoke_run)
    return ScoredData(cocktail, split, sources, rows, validation, records, mark)


def _check_chosen_split(cocktail: BuiltDataset, models: Sequence[str]) -> None:
    """Refuse to score a test split that nobody chose, of images that no model was trained on.

    Raises:
        UserError: the split was drawn from your own images, and the models' lists name none of these.
    """
    if not cocktail.is_own_alone() or not is_test_drawn(cocktail.folder):
        return
    trained = [trained_on(model) for model in models]
    asked = [list_images(rows, name) for name, rows in cocktail.rows.items()]
    if any(known_names(seen, rows).to_numpy().any() for seen in trained for rows in asked):
        return
    said = (
        f"the data names no test split, so {len(cocktail.split('test')):,} of its images were drawn for one. "
        "--split all scores every image, as is right for a test set of another hospital; --split test those "
        "alone"
    )
    if all(map(len, trained)):
        raise UserError(f"{' and '.join(models)}: trained on none of these images, and {said}")
    logger.warning("%s. Nothing says which images the model was trained on", said)


def check_models_unseen(
    asked: str | None, models: Sequence[str], records: Sequence[AnyRecord | None], **held_out: Dataset
) -> None:
    """Refuse to score models on images that they were trained on, but where another split is asked for.

    Args:
        asked: the split scheme of the command line; open_built warns where a model has another.
        models: folders or Hub ids.
        records: theirs; None of a model that was not trained here.
        **held_out: rows by split.

    Raises:
        UserError: see check_unseen.
    """
    for model, record in zip(models, records, strict=True):
        is_other = isinstance(record, TrainedRecord) and asked not in (None, record.data.split_scheme)
        if is_other:
            continue
        seen = read_training_images(model)
        if seen.empty and record is not None and record.trained_on:
            logger.warning(
                "no %s says which images %s was trained on: whether those it is scored on are among them is "
                "not checked", TRAINING_IMAGES_FILE, model,
            )  # fmt: skip
        check_unseen(model, seen, **held_out)


@dataclasses.dataclass(frozen=True, eq=False)
class OtherModel:
    """What another model said of the scored images.

    Attributes:
        scores: (images, findings), in the order that was asked for.
        name: of the file that they were read from, see public_file_name.
        sha256: of its content, in hexadecimal digits.
    """

    scores: Floats
    name: str
    sha256: str


def compare(predictions: Predictions, other: OtherModel | None, bootstrap: Bootstrap) -> Comparison | None:
    """The paired difference from another model's scores of the same images; None where there are none."""
    if other is None:
        return None
    found = compare_models(predictions, dataclasses.replace(predictions, scores=other.scores), bootstrap)
    return dataclasses.replace(found, other=other.name, other_sha256=other.sha256)


def write_results(
    options: argparse.Namespace,
    record: EvaluationRecord,
    predictions: Predictions,
    examples: list[HeatMapExample],
    mark: str,
) -> None:
    """Write predictions.parquet, the figures and at last metrics.json, and print the tables.

    Raises:
        UserError: the folder cannot be written to.
    """
    scored = record.evaluation
    where = "all images" if scored.split == ALL else f"the {scored.split} split"
    title = where.removeprefix("the ").capitalize()
    try:
        with whole_file(options.output_dir / PREDICTIONS_FILE) as part:
            predictions.table().to_parquet(part)
        folder = options.output_dir / FIGURES_FOLDER
        report.draw(scored, predictions, examples, folder, title, mark)
        record.write(options.output_dir)
    except OSError as error:
        raise write_error("--output_dir", options.output_dir, error) from error
    lines = [*format_table(scored), "", *call_lines(scored.exclusive)]
    lines += [*sensitivity_lines(scored.operating_points), *threshold_lines(scored.operating_points), ""]
    assert predictions.rows is not None, "predict names the images"
    lines += [*compare_with_published(scored, predictions.rows["image_id"], record.is_phantom), ""]
    if record.members:
        lines += [*member_lines(record.members, scored), ""]
    if scored.comparison is not None:
        lines += [f"this model minus {options.compare}, paired:", *comparison_lines(scored.comparison)]
    for line in lines:
        logger.info("%s", line)
    for warning in chance_warning(scored, f"On {where}"):
        logger.warning("%s", warning)


def open_built(
    options: argparse.Namespace,
    stored_size: int,
    models: Sequence[str],
    records: Sequence[AnyRecord | None],
    keeps_all: bool = False,
) -> BuiltDataset:
    """The data, split as it was when the model was trained: other held-out images would be no held-out ones.

    Args:
        options: the command line; `split_scheme` there wins, with a warning where it differs.
        stored_size: the shorter side at which the models' images are read, in pixels.
        models: folders or Hub ids.
        records: theirs; None of a model that was not trained here.
        keeps_all: leave no image out that shows another one, as nothing is learned from any.

    Raises:
        UserError: models of several splits, built data of another one, or see open_cocktail.
    """
    trained = sorted({record.data.split_scheme for record in records if isinstance(record, TrainedRecord)})
    if len(trained) > 1 and options.split_scheme is None:
        raise UserError(
            f"these models were trained with different splits ({', '.join(trained)}), so one of them was "
            "trained on what another holds out; average models of one split"
        )
    scheme: Any = options.split_scheme or (trained[0] if trained else "official")
    for other in trained:
        if other != scheme:
            logger.warning(
                "the model was trained with the %s split and is scored on the %s one, as asked for: images "
                "it was trained on may be among them", other, scheme,
            )  # fmt: skip
    beside = Path(models[0]).parent / "cocktail"  # where training built, if it was here
    build_dir = options.build_dir or str(beside if beside.is_dir() else options.output_dir / "cocktail")
    return open_cocktail(
        DataArguments(
            options.data_dir,
            build_dir,
            stored_size=stored_size,
            split_scheme=scheme,
            nih_mapping=options.nih_mapping,
            allow_leakage=keeps_all,
            # Of your own table or dataset; evaluate_report.py has no such options.
            dataset_config=getattr(options, "dataset_config", None),
            image_column=getattr(options, "image_column", None),
            label_column=getattr(options, "label_column", None),
            patient_column=getattr(options, "patient_column", None),
        )  # fmt: skip
    )


def read_other(
    path: Path | None,
    names: Sequence[str],
    image_ids: Sequence[str],
    patient_ids: Sequence[str],
    labels: Floats,
) -> OtherModel | None:
    """Another model's probabilities of the same images; None where no file is named.

    Args:
        path: of its predictions.parquet, see read_predictions for all of these.
        names: of the findings that are compared.
        image_ids: of the images that are scored.
        patient_ids: one an image.
        labels: (images, findings); 1, 0 or NaN.

    Raises:
        UserError: it cannot be read, or is of other images.
    """
    if path is None:
        return None
    try:
        scores = read_predictions(path, names, image_ids, patient_ids, labels)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return OtherModel(scores, public_file_name(path), digest)
    except (ValueError, OSError) as error:
        raise UserError(f"--compare {error}") from error


def sources_of(cocktail: BuiltDataset) -> list[str] | None:
    """Those of the test split, whichever split is scored."""
    return default_sources(cocktail.rows["test" if "test" in cocktail.rows else "train"])


def warn_of_model(record: AnyRecord | None, is_phantom: bool) -> None:
    """Say so where the numbers to come mean nothing because of what the model was trained on."""
    if record is None:
        return
    if record.is_phantom and not is_phantom:
        logger.warning("this model was trained on synthetic phantoms, and these images are none")
    if record.kind == "smoke":
        logger.warning("this model is a smoke run's: it proves the software and is no trained model")
