"""What a user can cause, and how a command shows it: one message. Anything else keeps its trace."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dataset_scripts.errors import UserError

__all__ = [
    "CheckpointError",
    "PublishError",
    "RunEndedError",
    "RunFailedError",
    "UserError",
    "one_line",
    "run_script",
]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as the shell gives it: 128 + 2."""


class CheckpointError(UserError):
    """No checkpoint to resume from, or one in the way."""


class RunEndedError(UserError):
    """A training run cannot continue."""


class RunFailedError(UserError):
    """A run of an experiment did not come to its end, or cannot start."""


class PublishError(UserError):
    """A folder cannot be published as it is, or the Hub does not take it."""


def one_line(error: BaseException) -> str:
    """What an error says, whole, with its line ends as spaces; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def run_script(
    main: Callable[[list[str]], None], if_interrupted: str = "repeat the command to start again"
) -> None:
    """Run a script's main on the command line's arguments; a user's error or Ctrl-C ends it with one message.

    Args:
        main: takes the arguments.
        if_interrupted: what to do after Ctrl-C, said by the first rank.
    """
    name = Path(sys.argv[0]).name
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        pass
    else:
        return
    gc.collect()  # progress bars close now, and not behind the message
    if os.environ.get("RANK", "0") == "0":
        print(f"\n{name}: interrupted; {if_interrupted}", file=sys.stderr)
    sys.exit(INTERRUPTED)
