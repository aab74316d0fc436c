"""The YAML recipe, read strictly: unknown keys are refused with the nearest known one.

A recipe is one flat YAML mapping whose keys are the fields of arguments.py and of transformers'
TrainingArguments. The command line overrides the file, key by key.
"""

import argparse
import copy
import difflib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from medhiera.config.arguments import (
    TRAINING_DEFAULTS,
    AugmentationArguments,
    Config,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    S,
    images_per_step,
    machine_computes_bf16,
)
from medhiera.config.validation import check_config, unused_options
from medhiera.errors import UserError

logger = logging.getLogger(__name__)


class _Parser(HfArgumentParser):
    """HfArgumentParser hands all of a field's metadata to argparse; some of ours are for others."""

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field[Any]) -> None:
        known = copy.copy(field)
        own = {"card", "is_mapping"}
        known.metadata = MappingProxyType({key: field.metadata[key] for key in field.metadata.keys() - own})
        HfArgumentParser._parse_dataclass_field(parser, known)


def parse_config(
    stage: type[S], argv: Sequence[str], checks: Sequence[Callable[[Config[S]], list[str]]] = ()
) -> Config[S]:
    """Read `CONFIG.yaml [--field value …]` into a recipe.

    Args:
        stage: the dataclass of the stage's own fields.
        argv: the command line without the program's name; the YAML file is optional and comes first.
        checks: what is to be refused beside what validation.py knows: each gives a sentence a fault, and all
            faults are told at once.

    Raises:
        UserError: no such file, not a mapping, an unknown or abbreviated key, a value of the wrong type,
            or values that contradict each other.
    """
    groups = (
        DataArguments,
        ModelArguments,
        OptimizationArguments,
        AugmentationArguments,
        stage,
        TrainingArguments,
    )
    parser = _Parser(groups, allow_abbrev=False, exit_on_error=False)
    # TrainingArguments take one tracker or several; HfArgumentParser makes that an option of one word.
    next(action for action in parser._actions if action.dest == "report_to").nargs = "+"
    mappings = {f.name for group in groups for f in fields(group) if f.metadata.get("is_mapping")}
    for action in parser._actions:
        if action.dest in mappings:
            action.type = _parse_mapping
    parser.set_defaults(**TRAINING_DEFAULTS, **stage.training_defaults)
    known = {f.name for group in groups for f in fields(group) if f.init}
    args = list(argv)
    if not args or "-h" in args or "--help" in args:
        parser.print_help()
        sys.exit(0)
    from_file: list[str] = []
    if not args[0].startswith("--"):
        from_file = _yaml_args(Path(args.pop(0)), known)
    try:
        parsed = parser.parse_args_into_dataclasses(from_file + args, return_remaining_strings=True)
    except UserError:
        raise
    except (SystemExit, Exception) as error:  # argparse ends the process on some faults; we answer instead
        raise UserError(f"the recipe cannot be read: {error}") from error
    *options, unknown = parsed
    if unknown:
        raise UserError(_unknown_keys([w for w in unknown if w.startswith("--")] or unknown, known))
    recipe = Config(*options)
    given = {word.lstrip("-").split("=")[0] for word in from_file + args}
    check_config(recipe, given, [fault for check in checks for fault in check(recipe)])
    _finish(recipe, given)
    return recipe


def _yaml_args(path: Path, known: set[str]) -> list[str]:
    """The YAML file as command-line args, so that file and command line pass one parser."""
    if not path.is_file():
        raise UserError(f"no recipe at {path}; the ones we ship lie in configs/")
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path} holds {type(mapping).__name__}; wanted one mapping of `field: value` lines")
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise UserError(f"{path}: " + _unknown_keys(unknown, known))
    args: list[str] = []
    for key, value in mapping.items():
        if value is None:
            continue
        if value is False and key.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        args.append(f"--{key}")
        if isinstance(value, list):
            args += [str(item) for item in value]
        else:
            args.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return args


def _parse_mapping(text: str) -> dict[str, Any]:
    """A mapping from JSON text, as a YAML mapping becomes on its way to the parser."""
    try:
        mapping = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping ({error}); write JSON fields") from error
    if not isinstance(mapping, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping; write JSON fields, such as {{}}")
    return mapping


def _unknown_keys(keys: Sequence[str], known: set[str]) -> str:
    """One sentence per unknown key, with the nearest known one."""
    sentences = []
    for key in keys:
        name = key.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [
            candidate for candidate in sorted(known) if candidate.startswith(name)
        ]
        hint = f"; did you mean {near[0]!r}?" if near else "; see --help for all keys"
        sentences.append(f"unknown key {name!r}{hint}")
    return "\n".join(sentences)


def _finish(recipe: Config[S], given: set[str]) -> None:
    """Fill in what depends on other fields and on the machine."""
    data, training, optimization = recipe.data, recipe.training, recipe.optimization
    data.resize_size = data.resize_size or round(data.image_size * 256 / 224)
    data.stored_size = data.resize_size if data.stored_size is None else data.stored_size
    data.build_dir = data.build_dir or str(Path(training.output_dir).parent / "cocktail")
    if optimization.precision == "auto":
        training.bf16 = machine_computes_bf16(training.use_cpu) and not training.fp16
    else:
        training.bf16 = optimization.precision == "bf16"
    # What the Trainer hands to accelerate; transformers fills it in before our options are known.
    training.mixed_precision = "bf16" if training.bf16 else "fp16" if training.fp16 else "no"
    if optimization.base_learning_rate:
        training.learning_rate = optimization.base_learning_rate * images_per_step(training) / 256
    if optimization.keep_checkpoint == "last":
        training.load_best_model_at_end = False
    if optimization.early_stopping_patience:
        training.restore_callback_states_from_checkpoint = True  # a resumed run has not lost its patience
    training.logging_nan_inf_filter = (
        False  # it hides what the guard stops at, and waits for the GPU each step
    )
    training.dataloader_pin_memory = training.dataloader_pin_memory and torch.cuda.is_available()
    _choose_repository(recipe)
    for warning in unused_options(optimization, given):
        logger.warning("%s", warning)
    training.remove_unused_columns = False  # the dataset is ours; the collator names what the model takes


def _choose_repository(recipe: Config[S]) -> None:
    """What `push_to_hub` asks for is ours to publish; the Trainer would upload all there is."""
    training = recipe.training
    if training.push_to_hub:
        recipe.hub_id = training.hub_model_id or Path(training.output_dir).resolve().name
        training.push_to_hub = False
