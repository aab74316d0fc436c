"""SIGTERM: write a checkpoint, end with the shell's status for it; DataLoader workers do not hear it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


PREEMPTED = 143
"""Exit status after SIGTERM, as the shell gives it: 128 + 15."""

STEPS_BETWEEN = 10
"""From one question among the ranks to the next."""

SLOW_STEP = 1.0
"""Seconds of a step after which the ranks ask at once."""


class PreemptionCallback(TrainerCallback):
    """After SIGTERM, writes a checkpoint at the end of the current step and ends the process with 143.

    Ranks agree on the step: every tenth step reduces who has heard the signal, and the next one reads it.
    Where a step takes a second or more, each does: a launcher may kill half a minute after its SIGTERM.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_ending = False
        self._next_question = 0
        self._last_end = time.monotonic()
        self._before: Any = None
        self._group: Any = None
        self._reduction: tuple[Any, Tensor] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        if args.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")  # on the CPU: never waits for a GPU
        self._last_end = time.monotonic()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint; at an epoch's last step later, so that its evaluation is not lost."""
        self._is_ending = self._is_ending or self._all_asked(args, state.global_step)
        if self._is_ending and state.epoch is not None and not float(state.epoch).is_integer():
            self._save(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint of an epoch's last step."""
        if self._is_ending:
            self._save(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint is whole: end here, before anything of a finished stage is written."""
        if self._is_ending:
            raise SystemExit(PREEMPTED)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What follows training may be ended as any process."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.is_asked and state.is_world_process_zero:
            logger.warning("SIGTERM came at the last step: the stage is written before the run ends")

    def _save(self, state: TrainerState, control: TrainerControl) -> None:
        control.should_save = True
        if state.is_world_process_zero:
            logger.warning(
                "SIGTERM: writing checkpoint-%d and ending; resume with --resume_from_checkpoint true",
                state.global_step,
            )

    def _all_asked(self, args: TrainingArguments, step: int) -> bool:
        if args.world_size == 1:
            return self.is_asked
        now = time.monotonic()
        seconds, self._last_end = now - self._last_end, now
        is_agreed = False
        if self._reduction is not None:
            work, answer = self._reduction
            work.wait()
            self._reduction = None
            is_agreed, is_slow = bool(answer[0]), bool(answer[1] >= SLOW_STEP)
            self._next_question = step if is_slow else step - 1 + STEPS_BETWEEN
        if step >= self._next_question:
            answer = torch.tensor([float(self.is_asked), seconds])
            work = torch.distributed.all_reduce(
                answer, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
            self._reduction = (work, answer)
        return is_agreed


class _LeaveSigterm:
    """A data loader's worker_init_fn that also leaves SIGTERM to the main process, as long as it trains."""

    def __init__(self, before: Callable[[int], None] | None, is_training: Any) -> None:
        self.before = before
        self.is_training = is_training

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, self._hear)
        if self.before is not None:
            self.before(worker)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.is_training.value:
            os._exit(0)  # Python ends a process's children so, and waits for them


def leave_sigterm_in_workers(loader: DataLoader[Any], is_training: Any) -> None:
    """A signal to the whole process group must not kill the workers while the last checkpoint is written.

    Args:
        loader: whose workers have not started.
        is_training: multiprocessing's shared value; where it is 0, SIGTERM ends a worker.
    """
    loader.worker_init_fn = _LeaveSigterm(loader.worker_init_fn, is_training)
