"""Which images of one set stand in another, whatever was done to them since: resized, cropped, mirrored, ...

    python -m dataset_scripts.leakage my_test_set data/raw/COVID-19_Radiography_Dataset --output_dir leaks
    python -m dataset_scripts.leakage my_images my_images --output_dir duplicates

A and B are folders of images (PNG, JPEG, TIFF, DICOM, ...), what `python -m dataset_scripts` wrote or other
Parquet with a column of images, or datasets by their name on the Hub. A twice: its own near-duplicates.
OUT/pairs.csv names the pairs with their scores (an identical file has about 0.75 to 0.9, not 1),
OUT/pairs.png shows them, OUT/verdict.json says what was compared. A command that was killed goes on where it
was when it is repeated.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = globals().get("started_as", "python -m dataset_scripts.leakage")
"""What was typed: `medhiera` runs this file with started_as set."""


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=_PROGRAM,
        description=(__doc__ or "").replace("python -m dataset_scripts.leakage ", f"{_PROGRAM} "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="the images that are looked for: folder, Parquet or dataset")
    parser.add_argument(
        "b", metavar="B", help="the images among which they are looked for, of the same kinds"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="OUT", help="where pairs, sheet and verdict go"
    )
    parser.add_argument(
        "--num_proc",
        type=int,
        default=os.cpu_count() or 1,
        help="threads that read images (default: one a core)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":  # --help and mistyped options are answered now
    _read_options(None)

import logging

from dataset_scripts.build.config import check_options
from dataset_scripts.errors import UserError
from dataset_scripts.leakage.comparison import compare
from dataset_scripts.leakage.image_sets import open_images

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 whether or not anything is found."""
    options = _read_options(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        check_options({"num_proc": options.num_proc})
        _check_output(options.output_dir, options.a, options.b)
        a = open_images(options.a)
        b = a if options.b == options.a else open_images(options.b)
        logger.warning(
            "%s: %s images; %s: %s images", a.place, f"{len(a.names):,}", b.place, f"{len(b.names):,}"
        )
        options.output_dir.mkdir(parents=True, exist_ok=True)
        verdict = compare(a, b, options.output_dir, options.num_proc)
    except (UserError, OSError) as error:
        logger.error("%s: %s", _PROGRAM, error)
        return 1
    except KeyboardInterrupt:
        logger.error(
            "\n%s: interrupted; what was read and found is kept: repeat the command to go on", _PROGRAM
        )
        return 130
    print(os.fsencode(verdict).decode("utf-8", "backslashreplace"))  # names of files can be no text
    return 0


def _check_output(output_dir: Path, *places: str) -> None:
    """Refuse a folder that is none, or whose sheet the next run would read as an image.

    Raises:
        UserError: which of them it is.
    """
    for folder in (output_dir, *output_dir.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output_dir {output_dir}: {folder} is a file. Choose another folder.")
    for place in places:
        if Path(place).is_dir() and output_dir.resolve().is_relative_to(Path(place).resolve()):
            raise UserError(
                f"--output_dir {output_dir} lies inside {place}, so the next run would compare the contact "
                "sheet with the images. Choose a folder outside of it."
            )


if __name__ == "__main__":
    sys.exit(main())
