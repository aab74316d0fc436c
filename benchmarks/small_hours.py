"""Counts the CPU seconds of small_result, also of what is killed.

Stands beside the project, on small_laboratory.py; nothing imports it but small_result. Every minute, and
whenever other work begins, hours.csv gets a line with what was used since the last one: of this process and
of all it started. So a machine that dies takes a minute with it. A run that outlives this process is not
counted further.
"""

import contextlib
import logging
import resource
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import psutil

from benchmarks.small_laboratory import HOURS, Laboratory, hours_used, note_hours

logger = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two lines."""

OWN_WORK = "small_result"
"""What is noted where no run is at work: images prepared, plans read."""


class CapReachedError(Exception):
    """The CPU hours are used."""


def cpu_seconds() -> float:
    """Of this process and of all that it started, ended or not, since its start."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass
class Session:
    """What one command does: where, who counts, and until when. A context manager.

    Attributes:
        lab: where everything lies.
        cap_hours: CPU hours of all runs together.
        every: seconds between two lines of the ledger.
    """

    lab: Laboratory
    cap_hours: float
    every: float = EVERY
    _what: tuple[str, int] = (OWN_WORK, 0)
    _noted: int = 0
    _since: float = field(default_factory=time.time)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _has_ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Session":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()
        self.note()

    def begin(self, name: str, seed: int) -> None:
        """Ask before a run or its scores are begun; what is used from here on is theirs.

        Raises:
            CapReachedError: the hours are used.
        """
        self.note((name, seed))
        if (used := hours_used(self.lab.output)) >= self.cap_hours:
            raise CapReachedError(f"{used:.1f} of {self.cap_hours:.1f} CPU hours are used")

    def note(self, then: tuple[str, int] | None = None) -> None:
        """Write what was used since the last line.

        Args:
            then: what begins now; None where the same goes on.
        """
        with self._lock:
            now, used = time.time(), round(cpu_seconds()) - self._noted
            if used > 0:
                note_hours(self.lab.output / HOURS, *self._what, used, now - self._since)
                self._noted += used
                self._since = now
            self._what = then or self._what

    def _watch(self) -> None:
        while not self._has_ended.wait(self.every):
            self.note()
