"""What the parsers of all commands have in common. Imports no library that takes time.

A command reads its command line before it imports PyTorch, so that --help and a mistyped option are answered
at once: its parser stands at the top of its file, above the other imports. The very floor of medhiera.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataset_scripts.mistyped import did_you_mean
from dataset_scripts.own.column_options import add_column_options

started_as: str | None = None
"""What was typed where a command runs as part of `medhiera`, such as "medhiera predict"."""

started_from = ""
"""What stands after `python` in the examples of its own file: "predict.py" or "-m package.module"."""


_UNBALANCED = (
    "classes have no weights: --prior_bias true, --loss asymmetric and thresholds that validation chooses "
    "are for rare ones (docs/questions.md)"
)

INSTEAD = (
    ("freeze", "encoder_rate", "--encoder_rate 0 freezes the encoder"),
    ("freeze", "mask_ratio", "stage 1 trains its encoder; in stage 2 --encoder_rate 0 freezes it"),
    ("class_weight", "prior_bias", _UNBALANCED),
    ("pos_weight", "prior_bias", _UNBALANCED),
    ("weighted_", "prior_bias", _UNBALANCED),
    ("focal", "prior_bias", _UNBALANCED),
    ("lora", "prior_bias", "a classifier's adapters: docs/transformers.md#adapters"),
    ("seeds", "seed", "a run has one --seed; for a table over seeds there is `medhiera reproduce labels`"),
    ("tta", "", "`medhiera evaluate --tta` scores with each image's mirror image too"),
)
"""How an option begins that is often tried; an option of the commands that the answer is for; the answer."""


def nearest_option(name: str, known: Iterable[str]) -> str:
    """`; …`: what there is in place of an option that does not exist, or nothing.

    Args:
        name: as typed, with or without dashes before it.
        known: the command's options, written alike.
    """
    known = list(known)
    plain = name.lstrip("-").replace("-", "_")
    has = {option.lstrip("-").replace("-", "_") for option in known} | {""}
    answers = (text for begins, of, text in INSTEAD if plain.startswith(begins) and of in has)
    answer = next(answers, None)
    return did_you_mean(name, known) if answer is None else f"; {answer}"


def program() -> str:
    """What was typed to start this process: "predict.py" or "medhiera predict"."""
    return started_as or Path(sys.argv[0]).name


class _Parser(argparse.ArgumentParser):
    """Names an option that it does not know before those that are missing, with the nearest one it knows."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See argparse."""
        for word in sys.argv[1:] if args is None else args:
            name = word.split("=")[0]
            if word == "--":
                break
            if name.startswith("--") and name not in self._option_string_actions:
                self.error(f"no option {name}{nearest_option(name, self._option_string_actions)}")
        return super().parse_args(args, namespace)


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and shows a file's docstring as it stands.

    Args:
        description: the docstring; its examples show the command as it was started.
    """
    return _Parser(
        prog=program(), allow_abbrev=False, description=with_examples(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def with_examples(description: str) -> str:
    """The docstring of a command's file with `python FILE` as it was started: `medhiera COMMAND`."""
    if started_as is None:
        return description
    launched = description.replace(f"accelerate launch {started_from}", f"accelerate launch -m {started_as}")
    return launched.replace(f"python {started_from}", started_as)


def show_progress(*names: str) -> None:
    """Log what a command says of its work, without the libraries' chatter; their warnings are shown.

    Args:
        names: of the script's own loggers; those of our packages are shown in any case.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in (*names, "medhiera", "dataset_scripts"):
        logging.getLogger(name).setLevel(logging.INFO)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, a word for `device.choose_device`."""
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps",
        help="where the model runs (default auto: a CUDA GPU where there is one, else the CPU)",
    )  # fmt: skip


def add_data_options(parser: argparse.ArgumentParser, needs_data: bool = True) -> None:
    """Which data are read and how they are split: `scoring.open_built` opens them.

    Args:
        parser: gets them, as a group.
        needs_data: False where a command has something else to read.
    """
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_dir",
        required=needs_data,
        help="folder of the sources, of your own images or of a built cocktail, or a dataset's Hub id",
    )
    data.add_argument(
        "--build_dir",
        help="where built data is kept (default: cocktail beside the model, where training left it, else "
        "cocktail in the folder that is written to)",
    )
    data.add_argument(
        "--split_scheme", choices=("official", "medtransformer", "mrm", "r2gen"),
        help="how ChestX-ray14, RSNA or IU X-Ray is split (default: as when the model was trained, else "
        "official)",
    )  # fmt: skip
    data.add_argument("--nih_mapping", help="as in training: names the NIH image behind RSNA's identifiers")


ALL = "all"
"""Of `--split`: every image of the data."""


def add_scoring_options(parser: argparse.ArgumentParser, is_probe: bool = False) -> None:
    """What is scored, how, and where the results go; evaluate_cls.py and probe.py.

    Args:
        parser: gets them.
        is_probe: of probe.py, which learns from one split, and whose data may be in a file of features.
    """
    splits = ("train", "validation", "test")
    add_data_options(parser, needs_data=not is_probe)
    add_column_options(parser)
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder for all results")
    more = "" if is_probe else f"; {ALL}: every image, of a test set that is none of the training's"
    parser.add_argument(
        "--split", default="test" if is_probe else None, choices=splits if is_probe else (*splits, ALL),
        help=f"scored (default: test{more})",
    )  # fmt: skip
    parser.add_argument("--sources", nargs="+", help="default: ChestX-ray14 where the data has it, else all")
    parser.add_argument("--findings", nargs="+", help="these of the data's alone (default: all)")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (default: 32)")
    add_device_option(parser)
    parser.add_argument(
        "--bootstrap_resamples", type=int, default=2000, help="of patients, for intervals (default: 2000)"
    )
    parser.add_argument(
        "--compare", type=Path, help="another model's predictions.parquet on the same split, or a CSV"
    )


def positive(text: str) -> int:
    """An option's whole number from 1; argparse shows the ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def not_negative(text: str) -> int:
    """An option's whole number from 0; argparse shows the ValueError."""
    if (number := int(text)) < 0:
        raise ValueError(text)
    return number
