"""The folder that a training run writes to: one process holds it, and Ctrl-C leaves something in it or not.

Below run.py, which begins and ends a run.
"""

import atexit
import contextlib
from pathlib import Path

from medhiera.output import make_folder, one_writer
from medhiera.training.checkpoints import latest_complete

_held: list[Path] = []


def hold_output(folder: Path) -> None:
    """Make a run's folder and write there alone until this process ends.

    Raises:
        UserError: another run writes there, or it cannot be written to.
    """
    is_new = make_folder(folder, "output_dir")
    until_the_end = contextlib.ExitStack()
    until_the_end.enter_context(one_writer(folder, "output_dir", is_new))
    atexit.register(until_the_end.close)
    _held.append(folder)


def how_to_go_on() -> str:
    """What to type after Ctrl-C: a run resumes from its checkpoint, where one is whole."""
    checkpoint = latest_complete(_held[-1]) if _held else None
    if checkpoint is None:
        return "no checkpoint is written yet: repeat the command to start again"
    return f"{checkpoint.name} is kept: repeat the command with --resume_from_checkpoint true"
