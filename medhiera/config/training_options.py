"""Options of transformers' Trainer that ours does not take, and what follows from those that it takes.

Stands beside validation.py, which asks. TrainingArguments have more than a hundred fields; each one that
would reach the evaluation, the order of images or the checkpoints in a way that the record does not show is
refused here, as is each that has no effect.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from fnmatch import fnmatch
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from torch.optim import SGD, Optimizer
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.utils import is_torch_tf32_available

from medhiera.config.arguments import Config, OptimizationArguments, StageArguments
from medhiera.config.refused_options import NOT_TAKEN, OF_THE_SCRIPTS

SET_BY_US = {"remove_unused_columns": False, "logging_nan_inf_filter": False}
"""Fields that a stage sets whatever a recipe says: the value that is set."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Those that are a package of the same name."""

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

OF_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
"""Those that replay a recorded step, with its memory."""


def training_faults(
    training: TrainingArguments, optimization: OptimizationArguments, stage: StageArguments, given: set[str]
) -> list[str]:
    """Whatever is wrong with transformers' own options: a sentence each, with its fix.

    Args:
        training: parsed.
        optimization: what takes the place of their optimizer and schedule.
        stage: knows by which numbers its checkpoints can be compared.
        given: names that the file or the command line set, as against defaults.
    """
    defaults = {field.name: field.default for field in fields(TrainingArguments)}
    faults = [
        f"{name} is not taken: {reason}; leave it out"
        for name, reason in NOT_TAKEN.items()
        if name in given and (getattr(training, name) != defaults[name] or reason == OF_THE_SCRIPTS)
    ]
    faults += [*_selection_faults(training, stage), *_tracker_faults(training), *_hub_faults(training)]
    faults += [
        *_compile_faults(training),
        *_optimizer_faults(training, optimization),
        *_launch_faults(training),
    ]
    if training.ddp_static_graph and training.gradient_accumulation_steps > 1:
        faults.append(
            "ddp_static_graph fails inside torch where gradients are accumulated; leave it out, or set "
            "gradient_accumulation_steps to 1"
        )
    are_steps = (
        training.eval_strategy == IntervalStrategy.STEPS and training.save_strategy == SaveStrategy.STEPS
    )
    if (
        training.load_best_model_at_end
        and are_steps
        and (training.save_steps < 1) != (training.eval_steps < 1)
    ):
        faults.append(unevaluated_checkpoints(vars(training)))  # transformers lets some such pairs pass
    if training.dataloader_persistent_workers and not training.dataloader_num_workers:
        faults.append("dataloader_persistent_workers needs workers; set dataloader_num_workers above 0 too")
    return faults


def _selection_faults(training: TrainingArguments, stage: StageArguments) -> Iterator[str]:
    """By which number the best checkpoint is chosen, and in which direction."""
    if training.metric_for_best_model is None:
        if training.save_strategy == SaveStrategy.BEST:
            yield (
                "save_strategy best needs metric_for_best_model, one of "
                f"{', '.join(stage.checkpoint_metrics)}"
            )
        return
    metric = training.metric_for_best_model.removeprefix("eval_")
    if not any(fnmatch(metric, known) for known in stage.checkpoint_metrics):
        yield (
            f"metric_for_best_model is {training.metric_for_best_model}; wanted one of "
            f"{', '.join(stage.checkpoint_metrics)}"
        )
    elif training.greater_is_better == (metric == "loss"):
        yield (
            f"greater_is_better {str(training.greater_is_better).lower()} would keep the checkpoint of the "
            f"worst {metric}; leave it out"
        )
    if training.save_strategy == SaveStrategy.BEST and training.eval_strategy == IntervalStrategy.NO:
        yield "save_strategy best needs eval_strategy steps or epoch: nothing is evaluated now"


def unevaluated_checkpoints(asked: Mapping[str, Any]) -> str:
    """Why the best checkpoint cannot be chosen where some are saved without an evaluation, and what to type.

    Args:
        asked: eval_strategy, eval_steps, save_strategy and save_steps, as argparse gives them.
    """
    each: dict[str, str] = {}
    for what in ("save", "eval"):
        strategy = asked[f"{what}_strategy"]
        each[what] = str(getattr(strategy, "value", strategy))
    save_steps, eval_steps = asked["save_steps"], asked["eval_steps"] or asked["logging_steps"]
    steps = {"save": save_steps, "eval": eval_steps}
    words_of = {"no": "never", "epoch": "each epoch"}
    spans = {
        what: f"every {each:g} {'steps' if each >= 1 else 'of all steps'}" for what, each in steps.items()
    }
    saved, validated = (words_of.get(each[what], spans[what]) for what in ("save", "eval"))
    are_of_a_kind = (save_steps < 1) == (eval_steps < 1)  # both a number of steps, or both a share of them
    if each["save"] == each["eval"] == "steps" and save_steps > eval_steps and are_of_a_kind:
        words = f"--save_steps {max(1, round(save_steps / eval_steps)) * eval_steps:g}"
    elif each["save"] == "steps":
        words = f"--eval_strategy steps --eval_steps {save_steps:g}"
    elif each["eval"] == "steps":
        words = f"--save_strategy steps --save_steps {eval_steps:g}"
    else:
        words = f"--eval_strategy {each['save']}"
    return (
        f"a checkpoint is saved {saved} and validated {validated}, and the best one is to be kept, so that "
        f"each must be validated when it is saved; add {words}, or, to keep the last one, "
        "--load_best_model_at_end false"
    )


def _launch_faults(training: TrainingArguments) -> Iterator[str]:
    started = int(os.environ.get("WORLD_SIZE") or 1)
    if started > training.world_size:
        yield (
            f"{started} processes were started and this one would train alone, as it finds no GPU and was "
            "not told to do without: add --use_cpu true, or start one process"
        )


def _tracker_faults(training: TrainingArguments) -> Iterator[str]:
    """Trackers that do not exist, or are not installed."""
    for name in training.report_to or ():
        if name not in INTEGRATION_TO_CALLBACK:
            yield f"report_to is {name}; wanted some of {', '.join(INTEGRATION_TO_CALLBACK)}, or none"
        elif name in TRACKERS and importlib.util.find_spec(name) is None:
            yield f"report_to {name} needs the package {name}: pip install {name}, or leave it out"
        elif name not in TRACKERS and name not in get_available_reporting_integrations():
            yield f"report_to {name} needs its package, which is not installed; install it, or leave it out"


def _hub_faults(training: TrainingArguments) -> list[str]:
    """What is for publishing, where nothing is published."""
    if training.push_to_hub:
        return []
    return [
        f"{name} is set without push_to_hub; add --push_to_hub true"
        for name in ("hub_model_id", "hub_private_repo", "hub_token")
        if getattr(training, name)
    ]


def _compile_faults(training: TrainingArguments) -> Iterator[str]:
    """What torch.compile does not know."""
    backend, mode = training.torch_compile_backend, training.torch_compile_mode
    known = [name.lower() for name in DynamoBackend.list() if name != "NO"]
    if backend is not None and backend.lower() not in known:
        yield f"torch_compile_backend is {backend}; wanted one of {', '.join(known)}"
    if mode is not None and mode not in COMPILE_MODES:
        yield f"torch_compile_mode is {mode}; wanted one of {', '.join(COMPILE_MODES)}"
    if mode in OF_CUDA_GRAPHS and training.gradient_accumulation_steps > 1:
        yield (  # pytorch issue 169545
            f"torch_compile_mode {mode} replays a step in the memory of the one before, where gradients are "
            f"still to be added up with gradient_accumulation_steps {training.gradient_accumulation_steps}; "
            "set it to 1 and a larger batch, or torch_compile_mode: default"
        )


def _optimizer_faults(training: TrainingArguments, optimization: OptimizationArguments) -> Iterator[str]:
    """Makes transformers' optimizer and schedule of a small layer: a package or argument may be missing."""
    layer = torch.nn.Linear(1, 1)
    optimizer: Optimizer = SGD(layer.parameters(), lr=1.0)
    if optimization.optimizer is None and training.optim_target_modules is None:
        try:
            optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training, layer)
            optimizer_class(layer.parameters(), **options)
        except (ImportError, TypeError, ValueError, KeyError) as error:
            yield f"optim {training.optim.value} cannot be used: {error}"
    if optimization.schedule is None:
        steps = 100
        try:
            get_scheduler(
                training.lr_scheduler_type, optimizer, training.get_warmup_steps(steps), steps,
                scheduler_specific_kwargs=training.lr_scheduler_kwargs,
            )  # fmt: skip
        except (TypeError, ValueError, KeyError) as error:
            yield (
                f"lr_scheduler_type {training.lr_scheduler_type.value} with lr_scheduler_kwargs "
                f"{training.lr_scheduler_kwargs} cannot be used: {error}"
            )


def fill_in(training: TrainingArguments) -> None:
    """Decide what transformers leaves open or decides for models that it does not know."""
    if training.ddp_find_unused_parameters is None:
        training.ddp_find_unused_parameters = False  # every parameter has a gradient in every step
    if training.ddp_static_graph is None:
        # DDP then fails where it is told not to reduce yet, and where the compiler splits the graph.
        training.ddp_static_graph = training.gradient_accumulation_steps == 1 and not training.torch_compile
    if training.torch_compile_mode in OF_CUDA_GRAPHS:
        # torch prefers cuDNN's attention on a Hopper GPU, and it has failed in recorded graphs (pytorch issue
        # 169849). Without it, flash attention computes what our own kernels do not.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if training.tf32 is None and not training.use_cpu and is_torch_tf32_available():
        training.tf32 = True
    if training.tf32 is not None:
        use_tf32(training.tf32)


def use_tf32(is_on: bool) -> None:
    """Whether float32 is multiplied as TF32 on a GPU.

    In torch's new words, and then in its old ones: torch raises where it is asked in the old ones and the two
    differ. transformers' own switch says the new ones alone, and works once for each value (it is cached).
    """
    if hasattr(torch.backends, "fp32_precision"):  # torch 2.9
        torch.backends.fp32_precision = "tf32" if is_on else "ieee"
    torch.backends.cuda.matmul.allow_tf32 = is_on
    torch.backends.cudnn.allow_tf32 = is_on


def unused_options(recipe: Config[Any], given: set[str]) -> list[str]:
    """What was set and has no effect, or not the effect that it has elsewhere; a sentence each."""
    training, optimization, stage = recipe.training, recipe.optimization, recipe.stage
    names = {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"} & given
    unused = [
        f"{name} has no effect with schedule: one_cycle; leave schedule out" for name in sorted(names)
        if optimization.schedule
    ]  # fmt: skip
    unused += [
        f"{name} has no effect with optimizer: {optimization.optimizer}; leave optimizer out"
        for name in ("optim", "optim_args", "optim_target_modules")
        if name in given and optimization.optimizer
    ]
    for what, strategy in (("save", training.save_strategy), ("eval", training.eval_strategy)):
        if f"{what}_steps" in given and strategy.value != "steps":
            unused.append(
                f"{what}_steps has no effect with {what}_strategy: {strategy.value}; add --{what}_strategy "
                "steps"
            )
    falls = bool(optimization.schedule) or "cosine" in SchedulerType(training.lr_scheduler_type).value
    if optimization.early_stopping_patience and falls:
        unused.append(
            "early_stopping_patience can end this run before its learning rate has fallen, where the best "
            "weights are found; fewer epochs (num_train_epochs) let the whole schedule run"
        )
    for name, value in SET_BY_US.items():
        if name in given and getattr(training, name) != value:
            unused.append(f"{name} has no effect: it is always {str(value).lower()} here; leave it out")
    if optimization.size_rate_factor != 1:
        unused += [
            f"size_rate_factor {optimization.size_rate_factor:g} has no effect with {name}: it multiplies "
            "the rate that size_defaults gives"
            for name in ("learning_rate", "base_learning_rate")
            if name in given
        ]
    if "mask_odds" in given and getattr(stage, "mask_region", "") == "none":
        unused.append("mask_odds has no effect with mask_region: none")
    if getattr(stage, "rotation_interpolation", "") == "nearest" and not getattr(
        stage, "rotation_degrees", 0
    ):
        unused.append("rotation_interpolation has no effect without rotation_degrees")
    if recipe.model.model_name_or_path is None:
        unused += [
            f"{name} has no effect without model_name_or_path: all weights are new"
            for name in ("reset_head", "reset_decoder")
            if getattr(recipe.model, name)
        ]
    return unused
