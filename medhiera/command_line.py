"""What the parsers of all commands have in common. Imports no library that takes time.

A command reads its command line before it imports PyTorch, so that --help and a mistyped option are answered
at once: its parser stands at the top of its file, above the other imports. The very floor of medhiera.
"""

import argparse
import sys
from pathlib import Path

started_as: str | None = None
"""What was typed where a command runs as part of `medhiera`, such as "medhiera predict"."""


def program() -> str:
    """What was typed to start this process: "predict.py" or "medhiera predict"."""
    return started_as or Path(sys.argv[0]).name


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and shows a file's docstring as it stands.

    Args:
        description: the docstring; its examples show the command as it was started.
    """
    return argparse.ArgumentParser(
        prog=program(), allow_abbrev=False, description=with_examples(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def with_examples(description: str) -> str:
    """The docstring of a script with `python SCRIPT` as it was started: `medhiera COMMAND`."""
    if started_as is None:
        return description
    name = Path(sys.argv[0]).name
    for typed in (f"accelerate launch {name}", f"python {name}"):
        description = description.replace(
            typed, started_as if typed.startswith("python") else f"accelerate launch -m {started_as}"
        )
    return description


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, a word for `device.choose_device`."""
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps",
        help="where the model runs (default auto: a CUDA GPU where there is one, else the CPU)",
    )  # fmt: skip
