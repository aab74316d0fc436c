"""The Trainer of both stages: transformers' own, with the paper's optimiser and keyed order.

Stands between the model and the metrics; it never reads a file of the data's.
"""

import csv
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from dataset_scripts.errors import DataLayoutError, LabelFileError, TooManyBadFilesError
from medhiera.publish import PublishError
from medhiera.recipe import OptimizationOptions, RecipeError
from medhiera.transforms import KeyedSampler

logger = logging.getLogger(__name__)


class MedHieraTrainer(Trainer):
    """transformers' Trainer with what it lacks for the paper's recipe.

    - `adam` with coupled L2 and `one_cycle` per step, momentum cycling included (Table 4 and Table 1).
    - an order of images keyed by (seed, epoch), the same for every number of workers.
    - a loss divided by the number of *annotated* labels in the global batch: NaN does not count.

    Args:
        optimization: which of the paper's optimiser and schedule to use.
        **kwargs: transformers' own.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None

    def __init__(self, *, optimization: OptimizationOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimization = optimization

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Plain Adam over all parameters where the recipe says so, else what TrainingArguments say."""
        if self.optimizer is None and self.optimization.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                [p for p in (model or self.model).parameters() if p.requires_grad],
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                weight_decay=self.args.weight_decay,
            )
        return super().create_optimizer(model)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        """OneCycleLR with torch's defaults where the recipe says so: β1 runs .95 → .85 → .95 with it."""
        if self.lr_scheduler is None and self.optimization.schedule == "one_cycle":
            optimizer = optimizer or self.optimizer
            assert optimizer is not None, "the Trainer makes the optimizer first"
            self.lr_scheduler = OneCycleLR(
                optimizer,
                max_lr=self.args.learning_rate,
                total_steps=max(num_training_steps, 2),  # one step alone leaves no way up and down
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[Any] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return None if dataset is None else KeyedSampler(len(dataset), self.args.seed)

    def _get_num_items_in_batch(
        self, batch_samples: list[Mapping[str, Tensor]], device: torch.device
    ) -> Tensor | int | None:
        # transformers counts every label that is not -100; ours are floats and NaN means "not annotated".
        counted: list[Any] = [
            {"labels": batch["labels"].nan_to_num(nan=-100.0)} if "labels" in batch else batch
            for batch in batch_samples
        ]
        return super()._get_num_items_in_batch(counted, device)


class TrainingLog(TrainerCallback):
    """Writes training_log.csv as the run goes: one row a logged step, one a validation.

    Args:
        path: the CSV; a resumed run goes on in it, from the step of its checkpoint.
    """

    columns = (
        "step",
        "epoch",
        "seconds",
        "loss",
        "learning_rate",
        "grad_norm",
        "eval_loss",
        "eval_mean_auroc",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop what a killed run logged after the checkpoint that this one goes on from."""
        if not state.is_world_process_zero or not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= state.global_step]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append what the Trainer just logged, where it holds a loss."""
        if not state.is_world_process_zero or not logs or not {"loss", "eval_loss"} & logs.keys():
            return
        is_new = not self.path.exists()
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self.started, 1)} | logs
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            writer.writerow(row)


USER_ERRORS = (RecipeError, DataLayoutError, LabelFileError, TooManyBadFilesError, PublishError)
"""What the user can mend: shown as one message. Anything else is our fault and keeps its trace."""


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's main on the command line's words; a user's error ends it with its message."""
    try:
        main(sys.argv[1:])
    except USER_ERRORS as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def start_logging(args: TrainingArguments) -> None:
    """Our messages on the main process only, the libraries' warnings everywhere."""
    level = logging.INFO if args.should_log else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("medhiera", "dataset_scripts", "modeling_hiera_mae", "train_mae", "train_cls"):
        logging.getLogger(name).setLevel(level)


def last_checkpoint(args: TrainingArguments) -> str | None:
    """The checkpoint to go on from: the one named, or for `true` the newest in output_dir.

    Raises:
        RecipeError: `--resume_from_checkpoint true` where there is no checkpoint, or a folder that is none;
            or an output_dir that already holds checkpoints, without resuming.
    """
    output = Path(args.output_dir)
    newest = get_last_checkpoint(str(output)) if output.is_dir() else None
    wanted = args.resume_from_checkpoint
    if wanted in (None, False, "false", "False"):
        if newest is not None:
            raise RecipeError(
                f"{output} already holds {Path(newest).name} of another run; go on from it with "
                "--resume_from_checkpoint true, or choose another --output_dir"
            )
        return None
    if wanted in (True, "true", "True"):
        if newest is None:
            raise RecipeError(
                f"nothing to resume: {output} holds no checkpoint-N folder; start without the flag"
            )
        return newest
    if not (Path(wanted) / "trainer_state.json").is_file():
        raise RecipeError(
            f"{wanted} is no checkpoint (it has no trainer_state.json); name a checkpoint-N folder"
        )
    return str(wanted)
