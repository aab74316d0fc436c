"""What a long run says while it runs: a CSV, a line with speed and time left, figures at evaluations.

Callbacks of the Trainer; only the main process speaks.
"""

import contextlib
import csv
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_scripts.build.atomic_files import whole_file
from medhiera.errors import UserError
from medhiera.formatting import duration
from medhiera.layout import FIGURES_FOLDER
from medhiera.training import figures

logger = logging.getLogger(__name__)


class CSVLoggerCallback(TrainerCallback):
    """Writes training_log.csv as the run goes: one row a logged step, one a validation.

    Args:
        path: the CSV; a resumed run continues it, from the step of its checkpoint.
        metrics: the numbers of an evaluation that it has beside the loss.
        checkpoint: what the run resumes from; in another folder, the CSV there knows the times before it.
    """

    columns: tuple[str, ...] = (
        "step",
        "epoch",
        "seconds",
        "loss",
        "learning_rate",
        "grad_norm",
        "eval_loss",
        "eval_selection_auroc",
        "eval_mean_auroc",
    )

    def __init__(
        self, path: Path, metrics: Sequence[str] | None = None, checkpoint: str | None = None
    ) -> None:
        self.path = path
        self.earlier = path if checkpoint is None else Path(checkpoint).resolve().parent / path.name
        if metrics is not None:
            plain = self.columns[: self.columns.index("eval_loss") + 1]
            self.columns = (*plain, *(f"eval_{metric}" for metric in metrics))
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what the checkpoint's run had logged: all rows of a resumed run, none of one from scratch.

        The checkpoint knows every row but its time; a killed run's CSV may be torn, or be ahead of it.
        """
        if not state.is_world_process_zero:
            return
        times = self._read_times()
        rows = [entry for entry in state.log_history if _is_row(entry)]
        with whole_file(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            for row in rows:
                writer.writerow({**row, "seconds": times.get(_what(row), "")})
        before = [times[_what(row)] for row in rows if _what(row) in times]
        self.started = time.monotonic() - max(before, default=0.0)

    def _read_times(self) -> dict[tuple[int, bool], float]:
        """When the rows of a killed run were logged, by what they are; what is torn is left out."""
        times: dict[tuple[int, bool], float] = {}
        if self.earlier.exists():
            with self.earlier.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in csv.DictReader(file):
                    with contextlib.suppress(TypeError, ValueError, KeyError):
                        what = (int(row["step"]), bool(row["eval_loss"]))
                        times.setdefault(what, float(row["seconds"]))
        return times

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append what the Trainer just logged, where it holds a loss."""
        if not state.is_world_process_zero or not logs or not _is_row(logs):
            return
        is_new = not self.path.exists()
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self.started, 1)} | logs
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def _is_row(logs: Mapping[str, float]) -> bool:
    return not {"loss", "eval_loss"}.isdisjoint(logs)


def _what(row: Mapping[str, float]) -> tuple[int, bool]:
    """The step, and whether it is a validation."""
    return int(row["step"]), "eval_loss" in row


class ThroughputCallback(TrainerCallback):
    """One line at each logging step, also where there is no terminal: step, loss, images/s, time left.

    Args:
        images_per_step: of all ranks and accumulated batches together.
        unit: what they are.
    """

    def __init__(self, images_per_step: int, unit: str = "images") -> None:
        self.images_per_step = images_per_step
        self.unit = unit
        self._from = (0, 0.0)  # step and time of the first one counted
        self._last = (0, 0.0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count from the first step of this process: a resumed run has been fast before."""
        if not self._from[1]:
            self._from = self._last = (state.global_step, time.monotonic())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Speed since the last line; time left by the speed of the whole run, evaluations included."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        now = (state.global_step, time.monotonic())
        steps, seconds = now[0] - self._last[0], max(now[1] - self._last[1], 1e-9)
        all_steps, all_seconds = now[0] - self._from[0], now[1] - self._from[1]
        left = (state.max_steps - now[0]) * all_seconds / max(all_steps, 1)
        self._last = now
        logger.info(
            "step %d of %d, loss %.4f, %.4g %s/s, %s left",
            now[0], state.max_steps, logs["loss"], steps * self.images_per_step / seconds, self.unit,
            duration(left),
        )  # fmt: skip


REDRAWN_AFTER = 10.0
"""Seconds for which the figures of a run that goes on are recent enough: drawing was most of a short run."""


class FigureCallback(TrainerCallback):
    """Refreshes figures/loss.png at evaluations, and what else is to be drawn of the model.

    It draws at the first evaluation and at the last ones, and between them where ten seconds have passed: in
    a thread, while training goes on.

    Args:
        output: the run's folder.
        loss_name: what the loss is, for the axis.
        mark: at the bottom of the curves, see plotting.save.
        show: asks the model as it is now, and returns what draws its answer into a PNG; or None.
        every: also draw that every so many steps, into figures/steps/; 0 for never.
    """

    def __init__(
        self,
        output: Path,
        loss_name: str,
        mark: str,
        show: Callable[[], Callable[[Path], None]] | None = None,
        every: int = 0,
    ) -> None:
        self.folder = output / FIGURES_FOLDER
        self.loss_name = loss_name
        self.mark = mark
        self.show = show
        self.every = every
        self._drawn: float | None = None
        self._thread: threading.Thread | None = None

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The curves so far, and the model's picture."""
        if not state.is_world_process_zero:
            return
        is_over = control.should_training_stop or state.global_step >= state.max_steps
        is_recent = self._drawn is not None and time.monotonic() - self._drawn < REDRAWN_AFTER
        if is_recent and not is_over:
            return
        drawings: list[Callable[[], None]] = []
        if any("loss" in entry for entry in state.log_history):
            curves = partial(figures.training_curves, loss_name=self.loss_name, mark=self.mark)
            drawings.append(partial(curves, list(state.log_history), self.folder / "loss.png"))
        if self.show is not None:
            drawings.append(partial(self.show(), self.folder / "reconstructions.png"))
        self._start(drawings)
        if is_over:
            self._wait()
        self._drawn = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model's picture on the way, one file a time."""
        if self.show is None or not self.every or state.global_step % self.every:
            return
        if state.is_world_process_zero:
            path = self.folder / "steps" / f"reconstructions-{state.global_step:07d}.png"
            self._start([partial(self.show(), path)])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What follows finds the figures."""
        self._wait()

    def _start(self, drawings: Sequence[Callable[[], None]]) -> None:
        self._wait()  # one at a time: a slow one slows training, and none pile up
        is_first = self._thread is None
        self._thread = threading.Thread(target=_draw, args=(drawings,), name="figures")
        self._thread.start()
        if is_first:  # it imports modules, in which no worker must be forked
            self._wait()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()


def _draw(drawings: Sequence[Callable[[], None]]) -> None:
    for drawing in drawings:
        try:
            drawing()
        except Exception as error:  # of matplotlib or the disk: a picture is not worth the run
            logger.warning("a figure could not be drawn: %s: %s", type(error).__name__, error)


class DivergenceCallback(TrainerCallback):
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
            raise UserError(message)
        if state.is_world_process_zero:
            logger.warning("%s. halt_on_explosion: true would end the run here", message)


class BeginningCallback(TrainerCallback):
    """Writes into a run's folder when it begins, for its checkpoints too: a list, a record, a figure.

    Args:
        *writes: each writes one of them.
        before_steps: called first where steps are left to train, as in a run that resumes they may not be.
    """

    def __init__(
        self, *writes: Callable[[], object], before_steps: Callable[[], object] | None = None
    ) -> None:
        self.writes = writes
        self.before_steps = before_steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write them: here no run that resumes is refused any more."""
        if not state.is_world_process_zero:
            return
        if self.before_steps is not None and state.global_step < state.max_steps:
            self.before_steps()
        for write in self.writes:
            write()
