"""Score a classifier's folder or Hub id on one split: every number with its interval, figures, predictions.

    python evaluate_cls.py --model runs/stage2 --data_dir DATA --output_dir runs/stage2-test
    python evaluate_cls.py --model demo/phantom/stage2 --data_dir demo/phantom/raw --output_dir runs/demo-test

The second scores what `make demo` left. `--compare runs/other/predictions.parquet` adds the paired difference
from another model on the same images.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from medhiera.config.arguments import DataOptions
from medhiera.data.cocktail import OpenCocktail, open_cocktail
from medhiera.data.selection import choose_rows, default_sources, warn_of_small_images
from medhiera.errors import RecipeError, run_script
from medhiera.evaluation import predictions, report
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.comparison import compare_models
from medhiera.evaluation.localization import evaluate_localization
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.published_results import compare_with_published
from medhiera.evaluation.tables import comparison_lines, format_table
from medhiera.inference.classifier import Classifier
from medhiera.layout import public_name

logger = logging.getLogger("evaluate_cls")


def main(argv: list[str]) -> None:
    """Open, score, write metrics.json, predictions.parquet and the figures, print the tables."""
    options = read_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if (options.output_dir / "config.json").is_file():
        raise RecipeError(
            f"--output_dir {options.output_dir} holds a model, and its metrics.json and figures would be "
            "overwritten; name another folder"
        )
    classifier = Classifier.open(options.model)
    beside = Path(options.model).parent / "cocktail"  # where training built, if it was here
    build_dir = options.build_dir or str(beside if beside.is_dir() else options.output_dir / "cocktail")
    size = classifier.preprocessing.resize_size
    cocktail = open_cocktail(DataOptions(options.data_dir, build_dir, build_size=size))
    columns = match_findings(classifier.names, cocktail.names)
    warn_of_model(options.model, cocktail.is_phantom)
    sources = options.sources or sources_of(cocktail)
    rows = choose_rows(cocktail.split(options.split), sources, None, seed=0)
    warn_of_small_images(rows, size)
    other = None
    if options.compare:
        try:
            other = predictions.read_predictions(options.compare, cocktail.names, list(rows["image_id"]))
        except ValueError as error:
            raise RecipeError(f"--compare {error}") from error

    def predict(rows: Dataset) -> Predictions:
        batches = tqdm(rows.iter(options.batch_size), total=-(-len(rows) // options.batch_size))
        scores = [
            classifier.probabilities(batch["image"], options.tta, options.legacy_head) for batch in batches
        ]
        return Predictions.of(rows, np.concatenate(scores)[:, columns], cocktail.names)

    test = predict(rows)
    validation = None
    if options.split != "validation" and "validation" in cocktail.rows:
        validation = predict(choose_rows(cocktail.split("validation"), sources, None, seed=0))
    bootstrap = Bootstrap(options.bootstrap_resamples)
    game, examples = evaluate_localization(classifier, rows, bootstrap, options.batch_size)
    comparison = None
    if other is not None:
        # Without intervals there is still a difference to tell, and its p-value wants one resample.
        paired = bootstrap if bootstrap.resamples else Bootstrap(1)
        comparison = compare_models(test, dataclasses.replace(test, scores=other), paired)
    scored = report.report(
        test, validation, bootstrap, split=options.split, pointing_game=game, comparison=comparison
    )

    output = options.output_dir
    output.mkdir(parents=True, exist_ok=True)
    test.table().to_parquet(output / "predictions.parquet")
    title = cocktail.caption(f"{options.split.capitalize()} split")
    report.draw(scored, test, examples, output / "figures", title)
    how = {"model": public_name(options.model), "fingerprint": classifier.fingerprint()}
    how |= {"tta": options.tta, "legacy_head": options.legacy_head, "is_phantom": cocktail.is_phantom}
    lines = [*format_table(scored), "", *compare_with_published(scored, cocktail.is_phantom), ""]
    if comparison is not None:
        lines += [f"this model minus {options.compare}, paired:", *comparison_lines(comparison)]
    text = json.dumps(how | dataclasses.asdict(scored), indent=2, allow_nan=False)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")
    for line in lines:
        logger.info("%s", line)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="a classifier's folder or Hub id, stock Hiera included"
    )
    parser.add_argument(
        "--data_dir", required=True, help="folder that holds the sources, a built cocktail, or its Hub id"
    )
    parser.add_argument(
        "--build_dir",
        help="where built data is kept (default: cocktail beside the model, where training "
        "left it, or OUTPUT_DIR/cocktail)",
    )
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--sources", nargs="+", help="default: ChestX-ray14 where the data has it, else all")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--bootstrap_resamples", type=int, default=2000)
    parser.add_argument(
        "--tta", action="store_true", help="mean probability of each image and its mirror image"
    )
    parser.add_argument(
        "--legacy_head", action="store_true", help="rank by sigmoid(softmax(logits)), med-hiera's defect"
    )
    parser.add_argument("--compare", type=Path, help="another model's predictions.parquet on the same split")
    return parser.parse_args(argv)


def sources_of(cocktail: OpenCocktail) -> list[str] | None:
    """Those of the test split, whichever split is scored."""
    return default_sources(cocktail.rows["test" if "test" in cocktail.rows else "train"])


def warn_of_model(model: str, is_phantom: bool) -> None:
    """Say so where the numbers to come mean nothing because of what the model was trained on."""
    file = Path(model) / "metrics.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if record.get("data", {}).get("is_phantom") and not is_phantom:
        logger.warning("this model was trained on synthetic phantoms, and these images are none")
    if record.get("kind") == "smoke":
        logger.warning("this model is a smoke run's: it proves the software and is no trained model")


def match_findings(model_names: list[str], data_names: list[str]) -> list[int]:
    """Which output of the model is each finding of the data; spaces, underscores and case do not count.

    Raises:
        RecipeError: the model lacks one of them.
    """
    outputs = {name.replace("_", " ").casefold(): index for index, name in enumerate(model_names)}
    absent = [name for name in data_names if name.replace("_", " ").casefold() not in outputs]
    if absent:
        found = f"{model_names[:5]} and {len(model_names) - 5} more" if len(model_names) > 9 else model_names
        raise RecipeError(
            f"the model has no output for {absent}, which the data labels; its outputs are {found}"
        )
    if len(model_names) > len(data_names):
        logger.info(
            "%d outputs of the model are not in the data: left out", len(model_names) - len(data_names)
        )
    return [outputs[name.replace("_", " ").casefold()] for name in data_names]


if __name__ == "__main__":
    run_script(main)
