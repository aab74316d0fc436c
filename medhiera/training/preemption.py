"""SIGTERM and Ctrl-C: write a checkpoint, then end; DataLoader workers do not hear them."""

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

WORDS: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

PASSED_ON = 1.0
"""Seconds after a Ctrl-C in which another one is the same: torchrun passes on what the terminal has sent."""

STEPS_BETWEEN = 10
"""From one question among the ranks to the next."""

SLOW_STEP = 1.0
"""Seconds of a step after which the ranks ask at once."""


_TOLD = "\nCtrl-C: a checkpoint is written at the end of this step; press again, or kill {}, to end at once\n"
"""With the process's number: `accelerate launch` of one process ends at once, before what it launched."""


class PreemptionCallback(TrainerCallback):
    """After SIGTERM or Ctrl-C, writes a checkpoint at the end of the current step and ends the run.

    SIGTERM ends the process with 143. Ctrl-C raises KeyboardInterrupt, as Python does, but behind the
    checkpoint; a second one raises it at once. Whoever handles Ctrl-C in another way keeps that.

    Ranks agree on the step: every tenth step reduces who has heard the signal, and the next one reads it.
    Where a step takes a second or more, each does: a launcher may kill half a minute after its SIGTERM.
    """

    def __init__(self) -> None:
        self._heard = 0  # SIGTERM, SIGINT or nothing
        self._ending = 0  # what all ranks have agreed on, of these
        self._pressed = 0.0
        self._is_told = False
        self._next_question = 0
        self._last_end = time.monotonic()
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._reduction: tuple[Any, Tensor] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._hear)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._is_told = state.is_world_process_zero
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._hear_interrupt)
        if args.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")  # on the CPU: never waits for a GPU
        self._last_end = time.monotonic()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = signal.SIGTERM

    def _hear_interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._pressed and now - self._pressed > PASSED_ON:
            raise KeyboardInterrupt
        if not self._pressed and self._is_told:
            # Not print: a signal may come in the middle of another one.
            os.write(2, _TOLD.format(os.getpid()).encode())
        self._pressed = self._pressed or now
        self._heard = self._heard or signal.SIGINT

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint; at an epoch's last step later, so that its evaluation is not lost."""
        self._ending = self._ending or self._all_heard(args, state.global_step)
        if self._ending and state.epoch is not None and not float(state.epoch).is_integer():
            self._save(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint of an epoch's last step."""
        if self._ending:
            self._save(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint is whole: end here, before anything of a finished stage is written."""
        if self._ending == signal.SIGINT:
            raise KeyboardInterrupt
        if self._ending:
            raise SystemExit(PREEMPTED)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What follows training may be ended as any process."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._heard and state.is_world_process_zero:
            logger.warning(
                "%s came at the last step: the stage is written before the run ends", WORDS[self._heard]
            )

    def _save(self, state: TrainerState, control: TrainerControl) -> None:
        control.should_save = True
        if state.is_world_process_zero:
            logger.warning(
                "%s: writing checkpoint-%d and ending; resume with --resume_from_checkpoint true",
                WORDS[self._ending],
                state.global_step,
            )

    def _all_heard(self, args: TrainingArguments, step: int) -> int:
        if args.world_size == 1:
            return self._heard
        now = time.monotonic()
        seconds, self._last_end = now - self._last_end, now
        agreed = 0
        if self._reduction is not None:
            work, answer = self._reduction
            work.wait()
            self._reduction = None
            agreed, is_slow = int(answer[0]), bool(answer[1] >= SLOW_STEP)
            self._next_question = step if is_slow else step - 1 + STEPS_BETWEEN
        if step >= self._next_question:
            answer = torch.tensor([float(self._heard), seconds])
            work = torch.distributed.all_reduce(
                answer, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
            self._reduction = (work, answer)
        return agreed


class _LeaveSignals:
    """A data loader's worker_init_fn that also leaves Ctrl-C to the main process, and SIGTERM in training."""

    def __init__(self, before: Callable[[int], None] | None, is_training: Any) -> None:
        self.before = before
        self.is_training = is_training

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.before is not None:
            self.before(worker)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.is_training.value:
            os._exit(0)  # Python ends a process's children so, and waits for them


def leave_signals_in_workers(loader: DataLoader[Any], is_training: Any) -> None:
    """A signal to the whole process group must not kill the workers while the last checkpoint is written.

    Args:
        loader: whose workers have not started.
        is_training: multiprocessing's shared value; where it is 0, SIGTERM ends a worker.
    """
    loader.worker_init_fn = _LeaveSignals(loader.worker_init_fn, is_training)
