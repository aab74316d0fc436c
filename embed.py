"""Features of your own images or of a dataset, from any vision model, as one Parquet file.

    python embed.py --model runs/stage1 --output features.parquet FOLDER chest.png study.dcm
    python embed.py --model demo/phantom/stage1 --output runs/features.parquet --data_dir demo/phantom/raw

MODEL is any stage, a stock Hiera, or any model of single images that transformers' AutoModel opens (RAD-DINO,
a ViT, timm's). One row an image: `path`, `content`, and `features`, a list of float32; of a dataset image_id,
source, split, patient_id and labels in the place of the first two, so that probe.py can score them.
`--tokens` writes the grid of the last layer's tokens too. Repeating a command that was killed resumes it.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
import sys
from pathlib import Path

from dataset_scripts.mistyped import is_repository
from dataset_scripts.own.column_options import add_column_options
from dataset_scripts.reading.image_files import has_picture_suffix
from medhiera.command_line import add_data_options, add_device_option, new_parser

SPLITS = ("train", "validation", "test")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line; a dataset that stands among the files is moved to data_dir."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "--model", required=True, help="any stage's folder or Hub id, or that of another vision model"
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="the Parquet file to write, or to go on with"
    )
    parser.add_argument(
        "--tokens", action="store_true",
        help="write the last layer's tokens too, as grids: safetensors in OUTPUT's name with .tokens",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (default: 32)")
    add_device_option(parser)
    add_data_options(parser, needs_data=False)
    add_column_options(parser)
    data = parser.add_argument_group("which images of a dataset")
    data.add_argument("--splits", nargs="+", choices=SPLITS, help="which are embedded (default: all it has)")
    data.add_argument("--sources", nargs="+", help="which are embedded (default: all)")
    data.add_argument("--max_images", type=int, help="at most so many of each split, drawn at random")
    parser.add_argument(
        "paths", nargs="*", metavar="FILES_OR_FOLDER_OR_DATASET",
        help="images, folders of images, or one dataset: its folder (built, of Parquet, of save_to_disk) or "
        "Hub id",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if len(options.paths) == 1 and options.data_dir is None and may_be_dataset(options.paths[0]):
        options.data_dir = options.paths.pop()
    if bool(options.paths) == (options.data_dir is not None):
        parser.error("name either FILES_OR_FOLDER_OR_DATASET, or --data_dir")
    if options.output.suffix.lower() != ".parquet":
        parser.error(f"--output {options.output}: the file is Parquet; give it a name that ends in .parquet")
    options.paths = [Path(name) for name in options.paths]
    options.output_dir = options.output.parent
    return options


def may_be_dataset(name: str) -> bool:
    """Whether it is built data, or a Hub id; a picture's suffix is that of a mistyped file."""
    return (Path(name) / "build.json").is_file() or (is_repository(name) and not has_picture_suffix(name))


if __name__ == "__main__":  # --help and mistyped options are answered now
    read_options(sys.argv[1:])

import logging

from dataset_scripts.own.dataset_rows import holds_dataset, refuse_mistyped
from medhiera.data.cocktail import are_drawn, figure_mark
from medhiera.data.selection import select_examples, warn_of_small_images
from medhiera.data.training_images import trained_on
from medhiera.errors import UserError, run_script
from medhiera.hub.lineage import find_record
from medhiera.inference.embedding import (
    check_splits,
    data_fingerprint,
    embed_files,
    embed_rows,
    header_of_encoder,
)
from medhiera.inference.encoder import Encoder
from medhiera.inference.features_writer import FeaturesWriter
from medhiera.inference.picture_files import find_images
from medhiera.resuming import resumable_output
from medhiera.scoring import open_built

logger = logging.getLogger("embed")


def main(argv: list[str]) -> None:
    """Open the model, embed what has no row yet, write the file; unreadable files are listed beside it."""
    options = read_options(argv)
    if len(options.paths) == 1 and options.paths[0].is_dir() and holds_dataset(options.paths[0]):
        options.data_dir = str(options.paths.pop())  # no picture lies there
    if options.data_dir is not None:
        refuse_mistyped(options.data_dir)
    with resumable_output(options, "embed") as (output, device):
        encoder = Encoder.from_pretrained(options.model, device)
        if options.data_dir is None:
            embed_own_files(options, encoder, output)
        else:
            embed_dataset(options, encoder, output)


def embed_own_files(options: argparse.Namespace, encoder: Encoder, output: Path) -> None:
    """Files and folders.

    Raises:
        UserError: there is no image, or none that can be read; see embed_files.
    """
    files = find_images(options.paths)
    writer = FeaturesWriter(output, header_of_encoder(options.model, encoder, options.tokens))
    unreadable, pace = embed_files(encoder, files, writer, options.batch_size)
    logger.info("%s; %d of %d files → %s", pace, len(files) - unreadable, len(files), options.output)
    if unreadable == len(files):
        raise UserError("none of the images could be read")


def embed_dataset(options: argparse.Namespace, encoder: Encoder, output: Path) -> None:
    """Built data, or raw sources that are built first.

    Raises:
        UserError: see open_built, select_examples and embed_rows; or a split that the data lacks.
    """
    stored_size = encoder.preprocessing.resize_size
    record = find_record(options.model, is_kept=True)
    data = open_built(options, stored_size, [options.model], [record])
    splits = options.splits or [name for name in SPLITS if name in data.rows]
    check_splits(splits, data)
    rows = {
        name: select_examples(data.split(name), options.sources, options.max_images, seed=0)
        for name in splits
    }
    warn_of_small_images(rows[splits[0]], stored_size, is_exported=data.is_exported)
    header = header_of_encoder(
        options.model, encoder, options.tokens, data=data_fingerprint(data), finding_names=data.names,
        is_exclusive=data.is_exclusive, is_phantom=all(are_drawn(chosen) for chosen in rows.values()),
        split_scheme=data.split_scheme,
        figure_mark=figure_mark(*rows.values(), is_smoke_run=record is not None and record.kind == "smoke"),
    )  # fmt: skip
    pace = embed_rows(
        encoder, rows, trained_on(options.model), FeaturesWriter(output, header), options.batch_size
    )
    counts = ", ".join(f"{name} {len(chosen):,}" for name, chosen in rows.items())
    logger.info("%s; %s → %s", pace, counts, options.output)


if __name__ == "__main__":
    run_script(main, "finished rows are kept: repeat the command to resume")
