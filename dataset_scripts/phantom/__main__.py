"""The phantom cohort as a command.

    python -m dataset_scripts.phantom FOLDER --patients 600

Stands above cohort.py, which draws it.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.phantom.cohort import write_phantom_cohort

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m dataset_scripts.phantom",
        description="Write a synthetic cohort in the sources' layouts.",
    )
    parser.add_argument(
        "root", type=Path, help="the folder to write; it must be new, empty or a phantom cohort"
    )
    parser.add_argument("--patients", type=int, default=600, help="of ChestX-ray14 (default: 600)")
    parser.add_argument("--image_size", type=int, default=256, help="height and width (default: 256 pixels)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other people (default: 0)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = write_phantom_cohort(
            options.root, patients=options.patients, image_size=options.image_size, seed=options.seed
        )
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    counted = [("images", summary["images"]), ("findings (ChestX-ray14)", summary["findings"])]
    for title, numbers in counted:
        logger.info("%s: %s", title, ", ".join(f"{name} {number}" for name, number in numbers.items()))
    logger.info(
        "planted leakage: %d images of other sources are ChestX-ray14's", len(summary["planted_leakage"])
    )


if __name__ == "__main__":
    main()
