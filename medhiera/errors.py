"""What a user can cause, and how a command tells of it: one message; anything else keeps its trace."""

import sys
from collections.abc import Callable
from pathlib import Path

from dataset_scripts.errors import DataLayoutError, LabelFileError, TooManyBadFilesError


class RecipeError(ValueError):
    """A recipe that cannot be run; the message lists every fault with its fix."""


class RunFailedError(RuntimeError):
    """A run did not come to its end, or cannot start; the message says why and where to look."""


class PublishError(RuntimeError):
    """The folder cannot be published as it is, or the Hub does not take it; the message says what to do."""


class ExportError(ValueError):
    """Nothing was exported; the message says why and what to do."""


class CheckpointError(ValueError):
    """No checkpoint to go on from, or one in the way; the message says what to do."""


class RunEndedError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


USER_ERRORS = (
    RecipeError,
    RunEndedError,
    DataLayoutError,
    LabelFileError,
    TooManyBadFilesError,
    PublishError,
)
"""What the user can mend: shown as one message. Anything else is our fault and keeps its trace."""


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's main on the command line's words; a user's error ends it with its message."""
    try:
        main(sys.argv[1:])
    except USER_ERRORS as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
