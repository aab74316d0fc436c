"""What ends a run before it wastes a night: a loss that is no number, memory, an explosion, a preemption.

The Trainer of training.py asks these; each says in words what happened and what to do next.
"""

import gc
import json
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medhiera.checkpoints import newest_whole

logger = logging.getLogger(__name__)

PREEMPTED = 143
"""Exit status after SIGTERM, as the shell gives it: 128 + 15."""


class RunEndedError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


class LossGuard:
    """Ends the run at a loss that is NaN or infinite, with the names of the batch's images.

    A step's loss is looked at when the next one has been started, so no step waits for the GPU.

    Args:
        output: the run's folder; nonfinite_batch.json is written there.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "nonfinite_batch.json"
        self._pending: tuple[Tensor, torch.cuda.Event | None, Sequence[str], int, float] | None = None

    def note(self, loss: Tensor, image_ids: Sequence[str], step: int, learning_rate: float) -> None:
        """Hand over a batch's loss; looks at the one before it."""
        is_finite = torch.isfinite(loss.detach()).to("cpu", non_blocking=True)
        arrived = None
        if loss.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self.check()
        self._pending = (is_finite, arrived, image_ids, step, learning_rate)

    def check(self) -> None:
        """Look at the last loss now; called before anything is logged, evaluated or saved.

        Raises:
            RunEndedError: it is not finite.
        """
        if self._pending is None:
            return
        is_finite, arrived, image_ids, step, learning_rate = self._pending
        self._pending = None
        if arrived is not None:
            arrived.synchronize()
        if not bool(is_finite):
            self._end(image_ids, step, learning_rate)

    def _end(self, image_ids: Sequence[str], step: int, learning_rate: float) -> None:
        record = {"step": step, "learning_rate": learning_rate, "image_ids": list(image_ids)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("x", encoding="utf-8") as file:  # the first rank to see it knows the batch
                json.dump(record, file, indent=1)
        except FileExistsError:
            pass
        raise RunEndedError(
            f"the loss of step {step} is not a finite number (learning rate {learning_rate:.3g}); the images "
            f"of that batch are named in {self.path}. Look at them; if they are sound, lower the learning "
            "rate, or set precision: fp32. No checkpoint was written after it: --resume_from_checkpoint true "
            "goes on from the last one"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU's allocator ran out; the latter says so in words only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
    is_raw = isinstance(error, RuntimeError) and not isinstance(error, RunEndedError)
    return is_raw and any(phrase in text for phrase in phrases)


def largest_fitting(attempt: Callable[[int], None], size: int) -> int:
    """The largest half of a half of … a batch that fits, found by trying.

    Args:
        attempt: runs a step on so many images of the batch.
        size: images of the batch that did not fit.

    Returns:
        A number of images, or 0 where not even one fits.
    """
    while size > 1:
        size //= 2
        free_memory()
        try:
            attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            continue
        return size
    return 0


def free_memory() -> None:
    """Let go of what a failed step left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def first_images(batch: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The same batch with its first images only."""
    return {
        name: value[:count] if isinstance(value, (Tensor, list)) else value for name, value in batch.items()
    }


def out_of_memory_message(batch_size: int, fitting: int, accumulation: int | None) -> str:
    """What to write in the recipe instead.

    Args:
        batch_size: images that did not fit.
        fitting: images that did, 0 for none.
        accumulation: batches of an optimiser step; None in evaluation.
    """
    if fitting and accumulation is None:
        return (
            f"out of memory in evaluation: a batch of {batch_size} images does not fit; {fitting} of the "
            f"same images do (tried). Set per_device_eval_batch_size: {fitting}; the result is the same"
        )
    if not fitting:
        return (
            f"out of memory: a batch of {batch_size} images does not fit, and neither does one image. Take a "
            "smaller image_size or model_size, or gradient_checkpointing: true"
        )
    assert accumulation is not None
    steps = -(-batch_size * accumulation // fitting)
    return (
        f"out of memory: a batch of {batch_size} images does not fit; {fitting} of the same images do "
        f"(tried). Set per_device_train_batch_size: {fitting} and gradient_accumulation_steps: {steps}; the "
        "result is the same, for the loss is divided over the whole step"
    )


def refuse_nonfinite(model: torch.nn.Module, step: int) -> None:
    """Never write a checkpoint that nothing can go on from.

    Raises:
        RunEndedError: a weight is NaN or infinite.
    """
    norms = torch._foreach_norm([parameter.detach() for parameter in model.parameters()])
    if not bool(torch.isfinite(torch.stack(norms)).all()):
        raise RunEndedError(
            f"after step {step} weights of the model are not finite numbers: the gradients overflowed. Lower "
            "the learning rate, set max_grad_norm: 1, or precision: fp32; --resume_from_checkpoint true goes "
            "on from the last checkpoint, which is sound"
        )


def is_failed_write(error: BaseException) -> bool:
    """Whether a disk did not take a file: Python, torch and safetensors each say it in their own way."""
    text = str(error).lower()
    phrases = ("no space left", "file too large", "quota", "file write failed", "unexpected pos", "i/o error")
    return isinstance(error, OSError) or any(phrase in text for phrase in phrases)


def failed_write_message(checkpoint: Path, error: BaseException) -> str:
    """Where the run can go on from."""
    before = newest_whole(checkpoint.parent)
    reason = str(error).splitlines()[0]
    if "inline_container" in reason:  # torch.save counts bytes and does not say what the disk said
        reason = "the disk took only a part of it"
    rest = f"{before.name} before it is whole" if before else "there is none before it"
    return (
        f"{checkpoint.name} could not be written ({reason}) and was removed; {rest}. "
        "Make room on the disk, then go on with --resume_from_checkpoint true"
    )


class ExplosionWatch(TrainerCallback):
    """Says when the evaluation loss stands above its start after warm-up, and ends the run if asked to.

    Args:
        warmup_share: share of the steps in which a loss above the start is still borne, where the schedule
            has no `warmup_steps` of its own (OneCycleLR rises for 0.3).
        halts: end the run.

    Source: MedTransformer, Fig. 5: at too high a learning rate the loss jumps and never recovers.
    """

    def __init__(self, warmup_share: float | None, halts: bool) -> None:
        self.warmup_share = warmup_share
        self.halts = halts

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare with the first evaluation of the run, which a resumed run still has in its history."""
        evaluations = [entry for entry in state.log_history if "eval_loss" in entry]
        if not metrics or "eval_loss" not in metrics or not evaluations or evaluations[0]["step"] > 0:
            return  # no evaluation before training, nothing to compare with
        if self.warmup_share is None:
            warmup = args.get_warmup_steps(state.max_steps)
        else:
            warmup = round(self.warmup_share * state.max_steps)
        start, now = evaluations[0]["eval_loss"], metrics["eval_loss"]
        if state.global_step <= warmup or now <= start:
            return
        message = (
            f"exploding loss: the evaluation loss is {now:.4f} at step {state.global_step}, above the "
            f"{start:.4f} before training, and the warm-up is over: the model has lost what it started from, "
            "and rarely recovers. "
            f"The likely cause is the learning rate ({args.learning_rate:.3g}); try a third of it"
        )
        if self.halts:
            raise RunEndedError(message)
        if state.is_world_process_zero:
            logger.warning("%s. halt_on_explosion: true would end the run here", message)


class Preemption(TrainerCallback):
    """After SIGTERM, writes a checkpoint at the end of the current step and ends the process with 143.

    Ranks agree on the step: each step reduces who has heard the signal, and the next one reads it.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_ending = False
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

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint; at an epoch's last step later, so that its evaluation is not lost."""
        self._is_ending = self._is_ending or self._all_asked(args)
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
                "SIGTERM: writing checkpoint-%d and ending; --resume_from_checkpoint true goes on from it",
                state.global_step,
            )

    def _all_asked(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self.is_asked
        is_agreed = False
        if self._reduction is not None:
            self._reduction[0].wait()
            is_agreed = bool(self._reduction[1])
        heard = torch.tensor(int(self.is_asked))
        work = torch.distributed.all_reduce(
            heard, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._reduction = (work, heard)
        return is_agreed


class _Shielded:
    """A data loader's worker_init_fn that also leaves SIGTERM to the main process."""

    def __init__(self, before: Callable[[int], None] | None) -> None:
        self.before = before

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.before is not None:
            self.before(worker)


def shield_workers(loader: Any) -> None:
    """A signal to the whole process group must not kill the workers while the last checkpoint is written."""
    inner: DataLoader[Any] = getattr(loader, "base_dataloader", loader)
    inner.worker_init_fn = _Shielded(inner.worker_init_fn)
