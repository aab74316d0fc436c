"""The merge as a command: raw folders → Parquet that `load_dataset` reads, here or on the Hub.

    python -m dataset_scripts --data_dir DATA --output_dir COCKTAIL --stored_size 256

The sources' raw folders lie below --data_dir as they were downloaded; docs/data.md names them.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.own.column_options import add_column_options

_PROGRAM = globals().get("started_as", "python -m dataset_scripts")
"""What was typed: `medhiera` runs this file with started_as set."""


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=_PROGRAM,
        description=(__doc__ or "").replace("python -m dataset_scripts ", f"{_PROGRAM} "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        help="folder above the sources' folders, or your own, or a dataset's Hub id (docs/data.md)",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="where Parquet and card go")
    parser.add_argument(
        "--split_scheme",
        default="official",
        choices=["official", "medtransformer", "mrm", "r2gen"],
        help="how ChestX-ray14 is split: by its official test list, or that list in thirds, as in the paper; "
        "mrm: RSNA by the lists of a published model, which leak; r2gen: IU X-Ray by R2Gen's split "
        "(docs/data.md)",
    )
    parser.add_argument("--stored_size", type=int, default=256, help="shorter side in pixels; 0 is native")
    parser.add_argument("--slices_per_volume", type=int, default=10, help="axial slices of each MRI volume")
    parser.add_argument(
        "--num_proc", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    parser.add_argument(
        "--max_bad_fraction", type=float, default=0.01, help="share of unreadable files allowed, of 1"
    )
    _add_guard_options(parser)
    parser.add_argument(
        "--compression",
        default="auto",
        choices=["auto", "fast", "none", "raw"],
        help="of the stored PNGs: none is read several times faster than fast and takes twice the space; "
        "auto is fast at native size, else none; raw stores pixels in place of PNGs, which training reads "
        "fastest and the Hub does not show",
    )
    parser.add_argument(
        "--contours",
        default="",
        metavar="learned|FILE_OR_FOLDER",
        help="also store where each chest lies, for masks that follow it: by our network, or from CheXmask's "
        "CSV or a folder of lung masks, whose gaps the network fills",
    )
    add_column_options(parser)
    parser.add_argument("--push_to_hub", metavar="ID", help="upload as a private dataset repository")
    return parser.parse_args(arguments)


def _add_guard_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nih_mapping", default="", help="RSNA's mapping to ChestX-ray14, JSON or CSV")
    parser.add_argument("--allow_leakage", action="store_true", help="keep leaking images, as in the paper")
    parser.add_argument(
        "--protect",
        default="",
        metavar="FOLDER_OR_PARQUET",
        help="images of your own that are held out, though no part of the data: what shows one is left out",
    )
    parser.add_argument(
        "--keep_duplicates",
        nargs="?",
        const="all",
        default="all",
        choices=["all", "once"],
        help="of near-duplicates in one source's training images keep all (default), or each picture once",
    )


if __name__ == "__main__":  # --help and mistyped options are answered now
    _read_options(None)

import logging
import tempfile

from huggingface_hub import constants

from dataset_scripts.build.build_log import summary_lines
from dataset_scripts.build.config import check_options
from dataset_scripts.build.layout import BUILD_FILE
from dataset_scripts.build.parquet_export import check_place, export_parquet, push_to_hub
from dataset_scripts.cocktail import SOURCES, Cocktail
from dataset_scripts.errors import DataLayoutError, UserError
from dataset_scripts.findings import labels_line
from dataset_scripts.image_folder import ImageFolder, is_own_folder
from dataset_scripts.own.dataset_rows import extract_dataset, is_dataset
from dataset_scripts.own.labels import Columns, check_named

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _read_options(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the libraries' chatter stays away
    logging.getLogger("dataset_scripts").setLevel(logging.INFO)
    logger.setLevel(logging.INFO)  # which is __main__
    try:
        check_options(vars(options))
        if options.push_to_hub:
            _check_upload(Path(options.data_dir))
        data_dir, columns = _raw_folder(options)
        with tempfile.TemporaryDirectory() as unused_cache:
            builder_class = ImageFolder if is_own_folder(data_dir, SOURCES) else Cocktail
            builder = builder_class(
                data_dir=data_dir,
                split_scheme=options.split_scheme,
                build_dir=unused_cache,
                stored_size=options.stored_size,
                slices_per_volume=options.slices_per_volume,
                max_bad_fraction=options.max_bad_fraction,
                nih_mapping=options.nih_mapping,
                allow_leakage=options.allow_leakage,
                protect=options.protect,
                keep_duplicates=options.keep_duplicates,
                compression=options.compression,
                contours=options.contours,
                **columns.named(),
            )
            labels = (
                labels_line(builder.info.features) if builder.has_labels else "none, so for stage 1 alone"
            )
            logger.info("labels: %s", labels)
            export_parquet(builder, options.output_dir, options.num_proc)
        for line in summary_lines(options.output_dir):
            logger.info("%s", line)
        logger.info("Built: %s", options.output_dir)
        if options.push_to_hub:
            logger.info("Uploaded: %s", push_to_hub(options.output_dir, options.push_to_hub))
    except (UserError, OSError) as error:
        logger.error("%s: %s", _PROGRAM, error)
        return 1
    except KeyboardInterrupt:
        logger.error("\n%s: interrupted; finished files are kept: repeat the command to resume", _PROGRAM)
        return 130
    return 0


def _raw_folder(options: argparse.Namespace) -> tuple[Path, Columns]:
    """Return the folder that is built, and the columns of its table; a dataset is copied into one first.

    The copy lies beside the output and is kept: an interrupted build resumes, a finished one is known again.

    Raises:
        UserError: the folder is built already, or has no table of which a column could be named.
        DataLayoutError: no such folder or dataset, or it cannot be opened; or the output may not go there.
        LabelFileError: the dataset's columns cannot be meant.
    """
    given, output = Path(options.data_dir), options.output_dir.absolute()
    config, columns = options.dataset_config or "", Columns.of(options)
    if (given / BUILD_FILE).is_file():
        raise UserError(
            f"--data_dir {given} is built data, which training and every other command read as it is. To "
            "build it with other options, give what it was built from."
        )
    place = output.with_name(f"{output.name}.datasets")
    if is_dataset(options.data_dir, config, columns, place, SOURCES):
        check_place(output, given)
        found = extract_dataset(options.data_dir, config, columns, place)
        return found.folder, Columns(label=found.label_column)
    if not given.is_dir():
        offline = " (HF_HUB_OFFLINE is set, so the Hub was not asked)" if constants.HF_HUB_OFFLINE else ""
        raise DataLayoutError(
            f"--data_dir {given}: no such folder here, and no dataset on the Hub that can be reached and is "
            f"not built already{offline}. Wanted the folder above the sources' folders "
            f"{[source.folder for source in SOURCES]}, your own folder of images, or a dataset's id such as "
            "ORG/NAME."
        )
    check_named(given, config, columns, is_own_folder(given, SOURCES))
    return given, columns


def _check_upload(data_dir: Path) -> None:
    """Refuse, before anything is built, to upload what may not be passed on."""
    kept = [
        source for source in SOURCES if not source.may_be_uploaded and (data_dir / source.folder).is_dir()
    ]
    if kept:
        raise UserError(
            f"--push_to_hub would upload {' and '.join(source.name for source in kept)}, whose terms forbid "
            f"to pass it on ({kept[0].homepage}). Leave --push_to_hub out, or move {kept[0].folder} out of "
            "--data_dir."
        )


if __name__ == "__main__":
    sys.exit(main())
