"""Worker processes that never outlive the process that started them.

A process that is killed can tell its workers nothing, so each worker watches: ours hold the reading end of a
pipe that only the parent can write, those that the datasets library forks look at their parent's id.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from dataset_scripts.errors import WorkerEndedError

_SECONDS_BETWEEN_LOOKS = 0.2

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_proc: int
) -> Generator[Result, None, None]:
    """Yield the result of each task as it is done.

    Where the caller stops early, by an exception, Ctrl-C or `close`, the workers are ended at once. They also
    end when this process is killed.

    Args:
        function: of a module, as it is pickled; so are tasks and results.
        tasks: what it is called with.
        num_proc: worker processes; up to 1, the work is done in this process.

    Raises:
        WorkerEndedError: the system has killed a worker.
        Exception: whatever the function raises.
    """
    if num_proc <= 1:
        yield from map(function, tasks)
        return
    # Spawned, for this process has threads (the progress bar's, Arrow's, BLAS's) that a fork would lose.
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(num_proc, context, initializer=_end_with_pipe, initargs=(reader,))
    try:
        with _interrupts_ignored():  # Ctrl-C reaches the whole group: a worker is born deaf to it
            futures = [pool.submit(function, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        writer.close()
        raise WorkerEndedError(
            "A worker process was ended from outside: most often the system was out of memory. What is "
            "written stays: run the same command again with a smaller --num_proc. (A script of your own must "
            'build below `if __name__ == "__main__":`, as each worker imports it.)'
        ) from error
    except BaseException:
        writer.close()  # ends workers in the middle of a task
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set it
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_pipe(reader: "Connection[bytes, bytes]") -> None:
    """End this process once the other end of the pipe is closed, by its owner or by the system."""

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            reader.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_with(parent: int) -> None:
    """End this process once the process `parent`, which started it, is gone; in that process do nothing."""
    if os.getpid() == parent:
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


_watched_parent: int | None = None  # set while this process' forks are to be watched


def _watch_in_child() -> None:
    global _watched_parent
    if _watched_parent is not None:
        parent, _watched_parent = _watched_parent, None
        end_with(parent)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch_in_child)


@contextlib.contextmanager
def forks_end_with_this_process() -> Iterator[None]:
    """Every process forked inside, by whatever library, ends with this one, idle or at work."""
    global _watched_parent
    _watched_parent = os.getpid()
    try:
        yield
    finally:
        _watched_parent = None
