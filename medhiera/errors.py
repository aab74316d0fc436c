"""What a user can cause, and how a command shows it: one message. Anything else keeps its trace."""

import sys
from collections.abc import Callable
from pathlib import Path

from dataset_scripts.errors import UserError

__all__ = ["CheckpointError", "PublishError", "RunEndedError", "RunFailedError", "UserError", "run_script"]


class CheckpointError(UserError):
    """No checkpoint to resume from, or one in the way."""


class RunEndedError(UserError):
    """A training run cannot continue."""


class RunFailedError(UserError):
    """A run of an experiment did not come to its end, or cannot start."""


class PublishError(UserError):
    """A folder cannot be published as it is, or the Hub does not take it."""


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's main on the command line's arguments; a user's error ends it with its message."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
