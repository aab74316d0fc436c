"""Score a classifier's folder or Hub id on one split: every number with its interval, figures, predictions.

    python evaluate_cls.py --model runs/stage2 --data_dir DATA --output_dir runs/stage2-test
    python evaluate_cls.py --model demo/phantom/stage2 --data_dir demo/phantom/raw --output_dir runs/demo-test

The second scores what `make demo` left. `--model A B C` scores the mean of several models' probabilities, and
each of them beside it. `--compare runs/other/predictions.parquet` adds the paired difference from another
model on the same images.
"""

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import BuiltDataset, open_cocktail
from medhiera.data.selection import default_sources, select_examples, warn_of_small_images
from medhiera.data.stored_images import as_picture
from medhiera.data.trained_images import check_unseen
from medhiera.device import add_device_option, choose_device, log_device, log_peak_memory
from medhiera.errors import UserError, run_script
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap, Floats
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.ensemble import compare_members, mean_predictions, member_lines
from medhiera.evaluation.localization import HeatMapExample, evaluate_localization
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions, read_predictions
from medhiera.evaluation.published_results import compare_with_published
from medhiera.evaluation.results import Comparison
from medhiera.evaluation.tables import comparison_lines, format_table, threshold_lines
from medhiera.hub.evaluation_record import EvaluationRecord
from medhiera.hub.lineage import find_record
from medhiera.hub.record import AnyRecord, TrainedRecord
from medhiera.inference.classifier import Classifier
from medhiera.inference.ensemble import Ensemble
from medhiera.inference.heat_maps import heat_maps
from medhiera.inference.read_ahead import read_ahead
from medhiera.layout import CONFIG_FILE, FIGURES_FOLDER, public_name
from medhiera.output import make_folder, one_writer, write_error
from medhiera.training.out_of_memory import run_or_name_batch

logger = logging.getLogger("evaluate_cls")


def main(argv: list[str]) -> None:
    """Check what is asked for, then score; nothing is loaded before the output folder is this process's."""
    options = read_options(argv)
    device = begin(options)
    with output_folder(options.output_dir):
        evaluate(options, device)
    logger.info("metrics.json, predictions.parquet and figures/ → %s", options.output_dir)


def begin(options: argparse.Namespace) -> torch.device:
    """Set the logging up, check what is asked for, and choose the device; probe.py begins so too.

    Raises:
        UserError: a number out of range, an output folder that holds a model, a device that is not there.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the libraries' chatter stays away
    for name in (logger.name, "probe", "medhiera", "dataset_scripts"):
        logging.getLogger(name).setLevel(logging.INFO)
    for name, least in (("batch_size", 1), ("bootstrap_resamples", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: wanted {least} or more")
    if (options.output_dir / CONFIG_FILE).is_file():
        raise UserError(
            f"--output_dir {options.output_dir} holds a model, and its metrics.json and figures would be "
            "overwritten; name another folder"
        )
    return choose_device(options.device)


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """The folder for all results, made where it is not there, and this process's alone."""
    is_new = make_folder(folder, "--output_dir")
    with one_writer(folder, "--output_dir", is_new):
        yield


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Open, score, write metrics.json, predictions.parquet and the figures, print the tables."""
    log_device(device)
    ensemble = Ensemble.open(options.model, device)
    models = [
        (public_name(name), one.fingerprint())
        for name, one in zip(options.model, ensemble.classifiers, strict=True)
    ]
    data = open_data(options, ensemble.resize_size, options.model)
    other = read_other(options.compare, data.cocktail.names, list(data.rows["image_id"]))

    members = [predict(options, one, data.cocktail, data.rows) for one in ensemble.classifiers]
    test, validation = mean_predictions(members), None
    if data.validation is not None:
        validation = mean_predictions(
            [predict(options, one, data.cocktail, data.validation) for one in ensemble.classifiers]
        )
    bootstrap = Bootstrap(options.bootstrap_resamples)
    game, examples = LocalizationReport(reason="the mean of several models has no heat maps"), []
    if len(models) == 1:
        game, examples = localize(ensemble.classifiers[0], data.rows, bootstrap, options.batch_size)
    log_peak_memory(device)
    scored = report.report(
        test, validation, bootstrap, split=options.split, pointing_game=game,
        comparison=compare(test, other, bootstrap),
    )  # fmt: skip
    record = EvaluationRecord(
        model=" + ".join(name for name, _ in models), fingerprint=ensemble.fingerprint(),
        split_scheme=data.cocktail.split_scheme, tta=options.tta, legacy_head=options.legacy_head,
        is_phantom=data.cocktail.is_phantom, evaluation=scored,
        members=compare_members(models, members, bootstrap),
    )  # fmt: skip
    write_results(options, record, test, examples, data)


@dataclasses.dataclass(frozen=True)
class ScoredData:
    """What a model is scored on.

    Attributes:
        cocktail: the built data.
        sources: those that are read; None for all.
        rows: of the split that is scored.
        validation: where thresholds are chosen; None where that is what is scored, or the data has none.
        figure_mark: what figures say of the models and the data.
    """

    cocktail: BuiltDataset
    sources: list[str] | None
    rows: Dataset
    validation: Dataset | None
    figure_mark: str


def open_data(options: argparse.Namespace, stored_size: int, models: Sequence[str]) -> ScoredData:
    """The rows to score, refused where a model was trained on some of them.

    Args:
        options: the command line.
        stored_size: the shorter side at which the models' images are read, in pixels.
        models: folders or Hub ids.

    Raises:
        UserError: see open_built, open_cocktail and check_unseen; or no row is left.
    """
    records = [find_record(model) for model in models]
    cocktail = open_built(options, stored_size, models, records)
    for record in records:
        warn_of_model(record, cocktail.is_phantom)
    sources = options.sources or sources_of(cocktail)
    rows = select_examples(cocktail.split(options.split), sources, None, seed=0)
    warn_of_small_images(rows, stored_size)
    held_out = {} if options.split == "train" else {options.split: rows}
    if options.split != "validation" and "validation" in cocktail.rows:
        held_out["validation"] = select_examples(cocktail.split("validation"), sources, None, seed=0)
    if options.split_scheme is None:  # as asked for, with a warning
        for model in models:
            check_unseen(model, **held_out)
    validation = None if options.split == "validation" else held_out.get("validation")
    is_smoke_run = any(record is not None and record.kind == "smoke" for record in records)
    return ScoredData(cocktail, sources, rows, validation, cocktail.figure_mark(is_smoke_run))


def compare(predictions: Predictions, other: Floats | None, bootstrap: Bootstrap) -> Comparison | None:
    """The paired difference from another model's scores of the same images; None where there are none."""
    if other is None:
        return None
    # Without intervals there is still a difference to tell, and its p-value wants one resample.
    paired = bootstrap if bootstrap.resamples else Bootstrap(1)
    return compare_models(predictions, dataclasses.replace(predictions, scores=other), paired)


def write_results(
    options: argparse.Namespace,
    record: EvaluationRecord,
    predictions: Predictions,
    examples: list[HeatMapExample],
    data: ScoredData,
) -> None:
    """Write predictions.parquet, the figures and at last metrics.json, and print the tables.

    Raises:
        UserError: the folder cannot be written to.
    """
    scored = record.evaluation
    title = f"{options.split.capitalize()} split"
    try:
        predictions.table().to_parquet(options.output_dir / "predictions.parquet")
        folder = options.output_dir / FIGURES_FOLDER
        report.draw(scored, predictions, examples, folder, title, data.figure_mark)
        record.write(options.output_dir)
    except OSError as error:
        raise write_error("--output_dir", options.output_dir, error) from error
    lines = [*format_table(scored), "", *threshold_lines(scored.operating_points), ""]
    assert predictions.rows is not None, "predict names the images"
    lines += [*compare_with_published(scored, predictions.rows["image_id"], data.cocktail.is_phantom), ""]
    if record.members:
        lines += [*member_lines(record.members, scored), ""]
    if scored.comparison is not None:
        lines += [f"this model minus {options.compare}, paired:", *comparison_lines(scored.comparison)]
    for line in lines:
        logger.info("%s", line)


def open_built(
    options: argparse.Namespace, stored_size: int, models: Sequence[str], records: Sequence[AnyRecord | None]
) -> BuiltDataset:
    """The data, split as it was when the model was trained: other held-out images would be no held-out ones.

    Args:
        options: the command line; `split_scheme` there wins, with a warning where it differs.
        stored_size: the shorter side at which the models' images are read, in pixels.
        models: folders or Hub ids.
        records: theirs; None of a model that was not trained here.

    Raises:
        UserError: models of several splits, built data of another one, or see open_cocktail.
    """
    trained = sorted({record.data.split_scheme for record in records if isinstance(record, TrainedRecord)})
    if len(trained) > 1 and options.split_scheme is None:
        raise UserError(
            f"these models were trained with different splits ({', '.join(trained)}), so one of them was "
            "trained on what another holds out; average models of one split"
        )
    scheme = options.split_scheme or (trained[0] if trained else "official")
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
        )  # fmt: skip
    )


def read_other(path: Path | None, names: list[str], image_ids: list[str]) -> Floats | None:
    """Another model's probabilities of the same images; None where no file is named.

    Raises:
        UserError: it cannot be read, or is of other images.
    """
    try:
        return None if path is None else read_predictions(path, names, image_ids)
    except ValueError as error:
        raise UserError(f"--compare {error}") from error


def predict(
    options: argparse.Namespace, classifier: Classifier, cocktail: BuiltDataset, rows: Dataset
) -> Predictions:
    """The model's probabilities of some rows, in the order of the data's findings.

    Raises:
        UserError: the model lacks a finding of the data, or computes NaN, or memory runs out.
    """
    columns = match_findings(classifier.names, cocktail.names)
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
    return Predictions.of(rows, np.concatenate(scores)[:, columns], cocktail.names)


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


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """What is scored, how, and where the results go; probe.py has these options too."""
    parser.add_argument(
        "--data_dir", required=True, help="folder that holds the sources, a built cocktail, or its Hub id"
    )
    parser.add_argument(
        "--build_dir",
        help="where built data is kept (default: cocktail beside the model, where training "
        "left it, or OUTPUT_DIR/cocktail)",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder for all results")
    parser.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="scored (default: test)"
    )
    parser.add_argument(
        "--split_scheme", choices=("official", "medtransformer", "mrm", "r2gen"),
        help="how ChestX-ray14 or RSNA is split (default: as when the model was trained, else official)",
    )  # fmt: skip
    parser.add_argument("--nih_mapping", help="as in training: names the NIH image behind RSNA's identifiers")
    parser.add_argument("--sources", nargs="+", help="default: ChestX-ray14 where the data has it, else all")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (default: 32)")
    add_device_option(parser)
    parser.add_argument(
        "--bootstrap_resamples", type=int, default=2000, help="of patients, for intervals (default: 2000)"
    )
    parser.add_argument("--compare", type=Path, help="another model's predictions.parquet on the same split")


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


def match_findings(model_names: list[str], data_names: list[str]) -> list[int]:
    """Which output of the model is each finding of the data; spaces, underscores and case do not count.

    Raises:
        UserError: the model lacks one of them.
    """
    outputs = {name.replace("_", " ").casefold(): index for index, name in enumerate(model_names)}
    absent = [name for name in data_names if name.replace("_", " ").casefold() not in outputs]
    if absent:
        found = f"{model_names[:5]} and {len(model_names) - 5} more" if len(model_names) > 9 else model_names
        raise UserError(
            f"the model has no output for {absent}, which the data labels; its outputs are {found}"
        )
    if len(model_names) > len(data_names):
        logger.info(
            "%d outputs of the model are not in the data: left out", len(model_names) - len(data_names)
        )
    return [outputs[name.replace("_", " ").casefold()] for name in data_names]


if __name__ == "__main__":
    run_script(main, "nothing of a score is written yet, built data is kept: repeat the command")
