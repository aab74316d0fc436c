"""The largest resident memory of a process and its children while something runs.

Stands below the other benchmarks. A process's own `ru_maxrss` will not do: it starts at what the process that
started it held.
"""

import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory(threading.Thread):
    """Look ten times a second, between `with` and its end.

    Attributes:
        before: MiB resident when it began.
        peak: the largest sum of the process and its children, in MiB; memory they share counts for each.
    """

    def __init__(self, process_id: int | None = None) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process_id)
        self._is_over = threading.Event()
        self.before = self.peak = self._resident_mib()

    def _resident_mib(self) -> float:
        total = 0
        try:
            for process in (self._process, *self._process.children(recursive=True)):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended while we looked; the next look counts the others
            return 0.0
        return total / 2**20

    def run(self) -> None:
        """Look until it is over."""
        while not self._is_over.wait(0.1):
            self.peak = max(self.peak, self._resident_mib())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self.join()
