"""Score a classifier's folder or Hub id on one split: AUROC per finding, intervals, ROC curves.

    python evaluate_cls.py --model runs/stage2 --data_dir DATA --output_dir runs/stage2-test
    python evaluate_cls.py --model demo/phantom/stage2 --data_dir demo/phantom/raw --output_dir runs/demo-test

The second scores what `make demo` left.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medhiera import figures
from medhiera.metrics import as_lines, rank_findings
from medhiera.recipe import DataOptions, RecipeError
from medhiera.rows import choose_rows, default_sources, open_cocktail
from medhiera.stage import Classifier
from medhiera.training import run_script

logger = logging.getLogger("evaluate_cls")


def main(argv: list[str]) -> None:
    """Open, score, write metrics.json, predictions.parquet and the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a stage-2 folder or a Hub id")
    parser.add_argument("--data_dir", required=True, help="folder that holds the sources")
    parser.add_argument("--build_dir", help="where built data is kept (default: OUTPUT_DIR/cocktail)")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--sources", nargs="+", help="default: ChestX-ray14 where the data has it, else all")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--bootstrap_resamples", type=int, default=2000)
    parser.add_argument(
        "--tta", action="store_true", help="mean probability of each image and its mirror image"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    classifier = Classifier.open(options.model)
    build_dir = options.build_dir or str(options.output_dir / "cocktail")
    size = classifier.preprocessing.resize_size
    cocktail = open_cocktail(DataOptions(options.data_dir, build_dir, build_size=size))
    if classifier.names != cocktail.names:
        raise RecipeError(
            f"the model's findings are {classifier.names}, the data's {cocktail.names}; they must be the "
            "same, in the same order"
        )
    split_rows = cocktail.split(options.split)
    rows = choose_rows(split_rows, options.sources or default_sources(split_rows), None, seed=0)
    scores = np.concatenate(
        [
            classifier.probabilities(batch["image"], with_flip=options.tta).numpy()
            for batch in tqdm(rows.iter(options.batch_size), total=-(-len(rows) // options.batch_size))
        ]
    )
    labels = np.array(rows["labels"], dtype=np.float64)
    result = rank_findings(scores, labels, cocktail.names, rows["patient_id"], options.bootstrap_resamples)
    output = options.output_dir
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(
        json.dumps({"split": options.split, "tta": options.tta} | result, indent=2) + "\n"
    )
    table = pd.DataFrame(scores, columns=cocktail.names)
    table.insert(0, "image_id", rows["image_id"])
    table.to_parquet(output / "predictions.parquet")
    title = cocktail.caption(f"{options.split.capitalize()} split")
    figures.roc_curves(scores, labels, result, output / "figures" / "roc.png", title=title)
    figures.auroc_bars(result, output / "figures" / "auroc.png", title=title)
    for line in as_lines(result):
        logger.info("%s", line)


if __name__ == "__main__":
    run_script(main)
