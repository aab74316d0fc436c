"""The Trainer of all stages: transformers' own, with our optimizers, keyed order, average and guards.

Stands between the model and the metrics; it never reads a file of the data's.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers.trainer_utils import SaveStrategy

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.training_options import use_tf32
from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.fitting_batch import is_out_of_memory
from medhiera.layout import RAW_FOLDER, share_weights
from medhiera.training.best_step import PatienceCallback
from medhiera.training.callbacks import DivergenceCallback
from medhiera.training.checkpoints import (
    failed_write_message,
    find_best,
    is_failed_write,
    mark_complete,
    rotate,
)
from medhiera.training.ema import EMA, EMACallback
from medhiera.training.evaluation_loss import EvaluationLoss, forget_repeated_images
from medhiera.training.loaders import LoadingTrainer
from medhiera.training.losses import countable_labels
from medhiera.training.nonfinite import NonFiniteLossGuard, check_finite_weights
from medhiera.training.optimizers import build_optimizer, encoder_of
from medhiera.training.out_of_memory import end_run
from medhiera.training.preemption import PreemptionCallback
from medhiera.training.settings import check_schedule, check_settings, run_settings, write_settings
from medhiera.training.sharding import keep_float32_inputs
from medhiera.training.working_weights import WorkingWeights

ONE_CYCLE_RISE = 0.3
"""OneCycleLR's default pct_start: share of the steps in which the learning rate rises."""


class MedHieraTrainer(LoadingTrainer):
    """transformers' Trainer with what it lacks for our recipes.

    - `adam` with coupled L2, `one_cycle` with momentum (Tables 4 and 1), `adamw` with a rate for each depth.
    - an order of images keyed by (seed, epoch), the same for every number of workers.
    - a loss divided by the *annotated* labels in the global batch: NaN does not count.
    - a moving average of the weights that is evaluated and kept.
    - guards: a NaN or infinite loss, memory, divergence, preemption; incomplete checkpoints do not count.

    Args:
        optimization: the recipe's.
        preprocessing: makes the model's input of a batch of bytes, on the device.
        encoder_rate: the encoder's learning rate as a share of what stands on it; 0 freezes it.
        recipe: what else a run that resumes must have as before (`Config.shaping_a_step`).
        **kwargs: transformers' own.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None

    def __init__(
        self,
        *,
        optimization: OptimizationArguments,
        preprocessing: Preprocessing,
        encoder_rate: float = 1.0,
        recipe: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.is_fsdp_enabled:
            keep_float32_inputs(self.accelerator.state.fsdp_plugin)
        self.optimization = optimization
        self.preprocessing = preprocessing
        self.encoder_rate = encoder_rate
        if not encoder_rate:
            encoder_of(self.model).requires_grad_(False)
        self.average: EMA | None = None
        self.working: WorkingWeights | None = None
        self._evaluated = EvaluationLoss()
        self._items: Tensor | int | None = None  # what the loss of the step at hand is divided by
        self._settings, self._reports = dict(recipe or {}), False
        taken = signature(self.model.forward).parameters
        self._has_optional_logits = "output_logits" in taken  # a masked autoencoder's loss needs none
        self.model_accepts_loss_kwargs = "num_items_in_batch" in taken  # here NaN does not count in it
        self.loss_guard = NonFiniteLossGuard(Path(self.args.output_dir))
        if self.args.should_save:
            self.loss_guard.path.unlink(missing_ok=True)  # of a run before this one
        warmup_share = ONE_CYCLE_RISE if optimization.schedule == "one_cycle" else None
        self.add_callback(DivergenceCallback(warmup_share, optimization.halt_on_explosion))
        self._patience: PatienceCallback | None = None
        if optimization.early_stopping_patience:
            self._patience = PatienceCallback(optimization.early_stopping_patience)
            self.add_callback(self._patience)
        self.add_callback(PreemptionCallback())

    # The model as it runs

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        arguments = super()._build_accelerator_args(**kwargs)
        # Left open, the compiler answers an epoch's shorter last batch with code for any batch size, slower
        # for all that follow. Now that batch has code of its own.
        arguments["dynamo_plugin"].dynamic = False
        return arguments

    def _wrap_model(
        self, model: torch.nn.Module, training: bool = True, dataloader: Any = None
    ) -> torch.nn.Module:
        wrapped = super()._wrap_model(model, training, dataloader)
        if training or self._reports:
            return wrapped
        # transformers evaluates the model that is not compiled.
        return self.model_wrapped if self.args.torch_compile else self._computing(wrapped)

    def _computing(self, model: torch.nn.Module) -> torch.nn.Module:
        # What runs in the model's place: its copy in half precision, where there is one.
        return model if self.working is None else self.working.model

    # Optimization

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Adam over all parameters, or AdamW over groups, or what TrainingArguments say."""
        model = model or self.model
        if self.optimizer is None:
            self.optimizer = build_optimizer(model, self.optimization, self.args, self.encoder_rate)
        optimizer = super().create_optimizer(model)
        if self.working is not None:
            self.working.follow(optimizer)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        """OneCycleLR with torch's defaults where the recipe says so: β1 runs .95 → .85 → .95 with it."""
        if self.lr_scheduler is None and self.optimization.schedule == "one_cycle":
            optimizer = optimizer or self.optimizer
            assert optimizer is not None, "the Trainer makes the optimizer first"
            self.lr_scheduler = OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=max(num_training_steps, 2),  # one step alone leaves no way up and down
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_learning_rate(self) -> float:
        """What is logged: the head's, the largest; transformers takes the first group's, the lowest."""
        assert self.optimizer is not None
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        # transformers measures all gradients where none is clipped, and multiplies each by 1.
        return super()._get_grad_norm(model, grad_norm) if self.args.max_grad_norm > 0 else None

    # Batches

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._model_inputs(super()._prepare_inputs(inputs))

    def _model_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device, and only there as normalized pixels of all the model's channels."""
        return self.preprocessing.model_inputs(batch, self.model.config.num_channels)

    def _get_num_items_in_batch(
        self, batch_samples: list[Mapping[str, Tensor]], device: torch.device
    ) -> Tensor | int | None:
        counted: list[Any] = [countable_labels(batch, self.model.config) for batch in batch_samples]
        count = self._items = super()._get_num_items_in_batch(counted, device)
        return count.clamp(min=1) if isinstance(count, Tensor) else count  # nothing annotated: a loss of 0

    # Steps, guarded

    def _run_epoch(self, **kwargs: Any) -> None:
        if self._order is not None:
            # Neither transformers nor accelerate reaches it where a run resumes mid-epoch on several ranks.
            self._order.set_epoch(kwargs["epoch"])
        is_stopped = self._patience is not None and self._patience.is_spent
        if is_stopped or self.state.global_step >= self.state.max_steps:
            # Resumed from the last checkpoint of all: transformers would train at least one step more.
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One batch, as transformers does it; hands its loss to the guard, and memory's end to the user.

        Raises:
            UserError: the batch before had a NaN or infinite loss, or this one does not fit.
        """
        image_ids = inputs.pop("image_ids", [])
        # transformers divides the loss by it where the model does not: each image counts alike, in the last
        # step of an epoch too, where batches are unequal.
        self.current_gradient_accumulation_steps = self._images_of_step / len(inputs["pixel_values"])
        kept = dict(inputs)
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            loss = None
        if loss is None:  # outside the handler, so that the failed step's tensors are gone
            self._end_out_of_memory(kept, is_training=True)
        self.loss_guard.note(loss, image_ids, self.state.global_step + 1, self._get_learning_rate())
        return loss

    def _end_out_of_memory(self, batch: dict[str, Any], is_training: bool) -> NoReturn:
        """Try halves of the batch, then end the run with the largest that fits."""
        model = self._computing(self.model)
        model.zero_grad(set_to_none=True)

        def loss_of(part: dict[str, Any]) -> Tensor:
            with self.accelerator.autocast(), torch.set_grad_enabled(is_training):
                loss: Tensor = model(**self._prepare_inputs(part)).loss
            return loss

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad and is_training]
        has_moments = self.optimizer is None or bool(self.optimizer.state_dict()["state"])
        end_run(loss_of, batch, trained, [] if has_moments else trained, self.args if is_training else None)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.loss_guard.check()
        if self.control.should_save:
            self.control.should_log = True  # or a resumed run's next mean loss would lack the steps before
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own; other settings are told before weights are loaded, which may not fit."""
        if resume_from_checkpoint is not None:
            known = {name: value for name, value in self._settings.items() if value is not None}  # yet
            check_settings(Path(resume_from_checkpoint), known)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    # The moving average

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any
    ) -> Any:
        counts = len(self.train_dataset), len(train_dataloader), max_steps
        self._settings = run_settings(self._settings, self.args, self.optimization, *counts)
        check_schedule(self.args, self.optimization, max_steps, max_steps / self._settings["steps an epoch"])
        if resume_from_checkpoint is not None:
            check_settings(Path(resume_from_checkpoint), self._settings)
            find_best(Path(resume_from_checkpoint), self.args, self.state)
        if self.optimization.precision == "bf16_weights":
            self.working = WorkingWeights(self.model)
            self.model_wrapped = self.accelerator.prepare_model(self.working.model)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self.optimization.ema_decay:
            self.average = EMA(self.model, self.optimization.ema_decay)
            if resume_from_checkpoint is not None:
                self.average.load(Path(resume_from_checkpoint))
            self.add_callback(EMACallback(self.average))
        return prepared

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside, the model has the weights that count: the average's, where there is one."""
        with contextlib.nullcontext() if self.average is None else self.average.lent():
            self._refresh_working()
            yield
        self._refresh_working()

    def _refresh_working(self) -> None:
        if self.working is not None:
            self.working.refresh()

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate the weights that count; the loss is over all labels or images, see EvaluationLoss."""
        self._evaluated = EvaluationLoss()
        with self.averaged_weights():
            found = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        loss = self._evaluated.mean(self.accelerator)
        if loss is not None:
            found.metrics[f"{metric_key_prefix}_loss"] = loss
        return found

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """As transformers; the model does not take the images' names, and computes what is asked for alone.

        Raises:
            UserError: the batch does not fit.
        """
        inputs.pop("image_ids", None)
        if prediction_loss_only and self._has_optional_logits:
            inputs["output_logits"] = False
        images = forget_repeated_images(inputs, self.accelerator)
        kept = dict(inputs)
        try:
            loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            items = self._items if isinstance(self._items, Tensor) else loss.new_tensor(images)
            self._evaluated.add(loss, items)
            if self.args.torch_compile and isinstance(logits, Tensor):
                logits = logits.clone()  # a replayed CUDA graph writes the next batch's into the same memory
            return loss, logits, labels
        self._end_out_of_memory(kept, is_training=False)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # A step between two checkpoints cannot be kept, nor may it hide the best of those that can.
        is_kept = self.control.should_save or self.args.save_strategy == SaveStrategy.BEST
        return is_kept and super()._determine_best_metric(metrics, trial)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average is not None:
            self.average.load(Path(self.state.best_model_checkpoint))

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """After the last step the model is the average for good; the raw weights go to raw/."""
        self.loss_guard.check()
        result = super()._finalize_training(*args, **kwargs)
        if self.average is not None:
            if self.args.should_save:
                raw = Path(self.args.output_dir) / RAW_FOLDER
                self.model.save_pretrained(raw)
                share_weights(raw)
            self.average.copy_to_model()
            self.average = None
        self._refresh_working()
        return result

    def disable_autocast(self) -> None:
        """From here on compute in single precision, as evaluate_cls.py does; a sharded model stays as it is.

        Half precision would give images with nearly equal scores the same one. What was compiled is of the
        precision before.
        """
        self._reports = True
        if self.args.tf32:
            use_tf32(False)
        if not self.is_fsdp_enabled:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    # Checkpoints

    def gather_state_dict(self) -> dict[str, Tensor] | None:
        """The weights where each rank holds a part (FSDP), gathered on the CPU of the first; else None.

        Every rank must call it.
        """
        if not self.is_fsdp_enabled:
            return None
        return dict[str, Tensor](self.accelerator.get_state_dict(self.model))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint, seal it, and only then remove older ones.

        Raises:
            UserError: the weights are not finite; or the disk is full, and what was written is removed.
        """
        output = Path(self.args.output_dir)
        checkpoint = output / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(checkpoint, ignore_errors=True)  # what a run that was ended left under this name
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # rotated when it is whole
        try:
            if not self.is_fsdp_enabled:
                check_finite_weights(self.model, self.state.global_step)
            super()._save_checkpoint(model, trial)
            if self.average is not None and self.args.should_save:
                self.average.save(checkpoint)
            if self.args.should_save:
                write_settings(checkpoint, self._settings)
        except (OSError, RuntimeError, SafetensorError) as error:
            if not is_failed_write(error):
                raise
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise UserError(failed_write_message(checkpoint, error)) from error
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each rank writes its random state
        if self.args.should_save:
            mark_complete(checkpoint)
            rotate(output, limit, self.state.best_model_checkpoint)
