"""What a user can cause, and how a command shows it: one message. Anything else keeps its trace."""

import gc
import os
import sys
import time
from collections.abc import Callable

from dataset_scripts.errors import UserError
from medhiera.command_line import program

__all__ = [
    "RunFailedError",
    "UserError",
    "one_line",
    "run_script",
]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as the shell gives it: 128 + 2."""


class RunFailedError(UserError):
    """A run of an experiment did not come to its end, or cannot start."""


def one_line(error: BaseException) -> str:
    """What an error says, whole, with its line ends as spaces; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _let_threads_finish(has_succeeded: bool) -> None:
    """Wait for the threads of a training on several ranks before Python ends; nothing in a single process.

    After a collective, Gloo's thread releases the tensors and needs Python's lock for it. Where the
    interpreter has begun to shut down by then, the process aborts ("terminate called without an active
    exception", status -6) and a finished run counts as failed: with torch 2.15, 13 of 74 runs of two ranks
    that ended right after a barrier. `destroy_process_group` does not wait for that thread (3 of 55); a
    moment's sleep does (0 of 60).

    Args:
        has_succeeded: leave the process group too, without which NCCL warns. Not after an error: that could
            wait for ranks that wait for this one.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        if has_succeeded:
            distributed.destroy_process_group()
        time.sleep(0.1)


def run_script(
    main: Callable[[list[str]], None],
    if_interrupted: str | Callable[[], str] = "repeat the command to start again",
) -> None:
    """Run a script's main on the command line's arguments; a user's error or Ctrl-C ends it with one message.

    Args:
        main: takes the arguments.
        if_interrupted: what to do after Ctrl-C, or gives it when it is known; said by the first rank.
    """
    name = program()
    try:
        main(sys.argv[1:])
    except UserError as error:
        _let_threads_finish(has_succeeded=False)
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        _let_threads_finish(has_succeeded=False)
    else:
        _let_threads_finish(has_succeeded=True)
        return
    gc.collect()  # progress bars close now, and not behind the message
    if os.environ.get("RANK", "0") == "0":
        advice = if_interrupted if isinstance(if_interrupted, str) else if_interrupted()
        print(f"\n{name}: interrupted; {advice}", file=sys.stderr)
    sys.exit(INTERRUPTED)
