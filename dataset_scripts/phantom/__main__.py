"""The phantom cohort as a command, and studies with reports.

    python -m dataset_scripts.phantom FOLDER --patients 600
    python -m dataset_scripts.phantom FOLDER --reports 400 --image_size 128

Stands above cohort.py and reports.py, which draw them.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m dataset_scripts.phantom",
        description="Write a synthetic cohort in the sources' layouts.",
    )
    parser.add_argument(
        "root", type=Path, help="the folder to write; it must be new, empty or a phantom cohort"
    )
    parser.add_argument(
        "--patients", type=int, help="of ChestX-ray14 (default: 600, or no cohort where --reports is given)"
    )
    parser.add_argument(
        "--reports", type=int, default=0, help="studies with a report, as FOLDER/iu_xray (default: none)"
    )
    parser.add_argument("--image_size", type=int, default=256, help="height and width (default: 256 pixels)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other people (default: 0)")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import logging
from collections.abc import Sequence

from dataset_scripts.phantom.cohort import write_phantom_cohort
from dataset_scripts.phantom.reports import IU_XRAY, write_phantom_reports

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sizes = {"image_size": options.image_size, "seed": options.seed}
    try:
        if options.patients is not None or not options.reports:
            _write_cohort(options.root, 600 if options.patients is None else options.patients, **sizes)
        if options.reports:
            summary = write_phantom_reports(options.root, studies=options.reports, **sizes)
            logger.info("%s: %d studies with reports", IU_XRAY, len(summary["studies"]))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))


def _write_cohort(root: Path, patients: int, image_size: int, seed: int) -> None:
    summary = write_phantom_cohort(root, patients=patients, image_size=image_size, seed=seed)
    counted = [("images", summary["images"]), ("findings (ChestX-ray14)", summary["findings"])]
    for title, numbers in counted:
        logger.info("%s: %s", title, ", ".join(f"{name} {number}" for name, number in numbers.items()))
    logger.info(
        "planted leakage: %d images of other sources are ChestX-ray14's", len(summary["planted_leakage"])
    )


if __name__ == "__main__":
    main()
