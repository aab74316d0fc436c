"""The YAML recipe, read strictly: unknown keys are refused with the nearest known one.

A recipe is one flat YAML mapping whose keys are the fields of arguments.py and of transformers'
TrainingArguments. The command line overrides the file, key by key.
"""

import argparse
import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.training_args import OptimizerNames

from medhiera.config.arguments import (
    TRAINING_DEFAULTS,
    Config,
    DataArguments,
    S,
    images_per_step,
    machine_computes_bf16,
)
from medhiera.config.before_imports import current_names, read_recipe, set_keys, unknown_keys
from medhiera.config.help import OUR_GROUPS, answer_help
from medhiera.config.ranges import TRAINING_RANGES, Range
from medhiera.config.size_defaults import FILLED_IN
from medhiera.config.training_options import fill_in, unevaluated_checkpoints, unused_options
from medhiera.config.validation import check_config
from medhiera.errors import UserError
from medhiera.shipped_files import find_recipe

logger = logging.getLogger(__name__)


class _Parser(HfArgumentParser):
    """HfArgumentParser hands all of a field's metadata to argparse; some of ours are for others."""

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field[Any]) -> None:
        known = copy.copy(field)
        own = {"card", "is_mapping", "range"}
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
    groups = (*OUR_GROUPS, stage, TrainingArguments)
    parser = _Parser(groups, allow_abbrev=False, exit_on_error=False)
    out_of_range: list[str] = []
    _set_types(parser, groups, out_of_range)
    parser.set_defaults(**TRAINING_DEFAULTS, **stage.training_defaults)
    known = {f.name for group in groups for f in fields(group) if f.init}
    args = list(argv)
    answer_help(stage, None, args)
    from_file: list[str] = []
    if not args[0].startswith("--"):
        lists = {action.dest for action in parser._actions if action.nargs == "+"}
        from_file = _file_words(find_recipe(args.pop(0)), known, lists)
    args, from_file = (current_names(words, known) for words in (_joined(args), from_file))
    try:
        parsed = parser.parse_args_into_dataclasses(from_file + args, return_remaining_strings=True)
    except UserError:
        raise
    except (SystemExit, Exception) as error:  # argparse ends the process on some faults; we answer instead
        told = [f"the recipe cannot be read: {error}", *out_of_range]
        if "load_best_model_at_end" in str(error):
            told[0] = unevaluated_checkpoints(vars(parser.parse_known_args(from_file + args)[0]))
        raise UserError("\n  - ".join(told)) from error
    *options, unknown = parsed
    if unknown:
        raise UserError(unknown_keys([w for w in unknown if w.startswith("--")] or unknown, known))
    recipe = Config(*options)
    typed, in_file = set_keys(args, known), set_keys(from_file, known)
    more_faults = out_of_range + _choose_length(recipe.training, typed, in_file)
    if "image_size" in typed and "resize_size" in in_file - typed:
        more_faults += _crop_faults(recipe.data, parser.parse_known_args(from_file)[0].image_size)
    check_config(
        recipe, typed | in_file, more_faults + [fault for check in checks for fault in check(recipe)]
    )
    _finish(recipe, typed | in_file)
    return recipe


def _set_types(parser: argparse.ArgumentParser, groups: Sequence[type[Any]], faults: list[str]) -> None:
    """Have argparse read mappings as such, and numbers within their ranges alone.

    Args:
        parser: HfArgumentParser's.
        groups: the dataclasses of the fields.
        faults: takes a sentence for each number that is none, or lies outside of its range.
    """
    metadata = {f.name: f.metadata for group in groups for f in fields(group)}
    for action in parser._actions:
        own: Mapping[str, Any] = metadata.get(action.dest, {})
        if action.dest == "report_to":
            action.nargs = "+"  # one tracker or several; HfArgumentParser makes it an option of one word
        elif own.get("is_mapping"):
            action.type = _parse_mapping
        elif allowed := own.get("range") or TRAINING_RANGES.get(action.dest):
            action.type = _NumberType(action, allowed, faults)


class _NumberType:
    """Reads one number for argparse; where it is outside of its range, notes so and gives the default.

    So all of a recipe's numbers are judged at once, and before transformers sees any of them.
    """

    def __init__(self, action: argparse.Action, allowed: Range, faults: list[str]) -> None:
        self.name, self.default, self.kind = action.dest, action.default, action.type
        self.allowed, self.faults = allowed, faults

    def __call__(self, text: str) -> Any:
        is_whole = self.kind is int
        try:
            number = int(text) if is_whole else float(text)
            if number in self.allowed:
                return number
        except ValueError:
            pass
        self.faults.append(f"{self.name} is {text}; wanted {self.allowed.in_words(is_whole)}")
        return self.default


def _joined(args: Sequence[str]) -> list[str]:
    """`--rate -1e-3` as `--rate=-1e-3`: argparse takes some negative numbers for options."""
    words: list[str] = []
    for word in args:
        if words and words[-1].startswith("--") and "=" not in words[-1] and _is_negative(word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _is_negative(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def _choose_length(training: TrainingArguments, typed: set[str], in_file: set[str]) -> list[str]:
    """Let the command line say how long a run is, by steps or by epochs, whichever way the file says it.

    Args:
        training: transformers takes max_steps where both are set; here it loses it to epochs that were typed.
        typed: fields of the command line.
        in_file: fields of the file.

    Returns:
        A sentence where one of the two sets both.
    """
    both = {"max_steps", "num_train_epochs"}
    if training.max_steps < 0:
        return []
    if both <= typed or (both <= in_file and not both & typed):
        return [
            "max_steps and num_train_epochs are both set, and a run has one length; leave one of them out"
        ]
    if both <= in_file | typed:
        [winner] = both & typed
        [loser] = both - {winner}
        logger.warning(
            "%s %s of the command line takes the place of the recipe's %s",
            winner, getattr(training, winner), loser,
        )  # fmt: skip
        if loser == "max_steps":
            training.max_steps = -1
    return []


def _crop_faults(data: DataArguments, of_file: int) -> list[str]:
    """Refuse an image_size that was typed alone and makes the crop smaller within the recipe's resize_size.

    Args:
        data: parsed; its resize_size is the file's.
        of_file: the file's image_size.
    """
    if data.resize_size is None or data.image_size >= of_file:
        return []
    share = min(1.0, data.image_size / data.resize_size) ** 2
    return [
        f"image_size {data.image_size} of the command line is cropped from the recipe's resize_size "
        f"{data.resize_size}, so that evaluation sees {share:.0%} of a square picture; add --resize_size "
        f"{round(data.image_size * data.resize_size / of_file)} to see as much as the recipe does, or "
        f"--resize_size {data.resize_size} if this is meant"
    ]


def _file_words(path: Path, known: set[str], lists: set[str]) -> list[str]:
    """The YAML file as words of a command line, so that file and command line pass one parser.

    Args:
        path: of the recipe.
        known: every field.
        lists: the fields that take several values.

    Raises:
        UserError: see read_recipe; an unknown key; or a value of a kind that no command line has.
    """
    mapping = read_recipe(path)
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise UserError(f"{path}: " + unknown_keys(unknown, known))
    words: list[str] = []
    for key, value in mapping.items():
        if value is None:
            continue
        if value is False and key.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        if isinstance(value, list) and key in lists:
            words += [f"--{key}", *(str(item) for item in value)]
        elif isinstance(value, list):
            raise UserError(f"{path}: {key} is the list {value}; wanted one value")
        else:
            words.append(f"--{key}={_as_word(path, key, value)}")
    return words


def _as_word(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {key} holds what is no plain YAML value: {error}") from error


def _parse_mapping(text: str) -> dict[str, Any]:
    """A mapping from JSON text, as a YAML mapping becomes on its way to the parser."""
    try:
        mapping = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping ({error}); write JSON fields") from error
    if not isinstance(mapping, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping; write JSON fields, such as {{}}")
    return mapping


def _finish(recipe: Config[S], given: set[str]) -> None:
    """Fill in what depends on other fields and on the machine."""
    data, training, optimization = recipe.data, recipe.training, recipe.optimization
    for warning in unused_options(recipe, given):
        logger.warning("%s", warning)
    data.resize_size = data.read_size
    data.stored_size = data.resize_size if data.stored_size is None else data.stored_size
    data.build_dir = data.build_dir or str(Path(training.output_dir).parent / "cocktail")
    if optimization.precision == "auto":
        if "bf16" not in given:
            training.bf16 = machine_computes_bf16(training.use_cpu) and not training.fp16
    else:
        training.bf16 = optimization.precision == "bf16"
    # What the Trainer hands to accelerate; transformers fills it in before our options are known.
    training.mixed_precision = "bf16" if training.bf16 else "fp16" if training.fp16 else "no"
    if optimization.size_defaults:
        left = [name for name in FILLED_IN if name not in given]
        if "learning_rate" in given and "base_learning_rate" in left:
            left.remove("base_learning_rate")
        recipe.left_to_size = tuple(left)
    if optimization.base_learning_rate:
        training.learning_rate = optimization.base_learning_rate * images_per_step(training) / 256
    if optimization.optimizer:
        training.optim = OptimizerNames.ADAMW_TORCH  # for some others the Trainer takes steps of another kind
    if optimization.keep_checkpoint == "last":
        training.load_best_model_at_end = False
    training.logging_nan_inf_filter = (
        False  # it hides what the guard stops at, and waits for the GPU each step
    )
    fill_in(training)
    if "dataloader_persistent_workers" not in given:
        # New ones cost each epoch their start: seconds, where they are not forked.
        training.dataloader_persistent_workers = training.dataloader_num_workers > 0
    is_cuda = torch.cuda.is_available() and not training.use_cpu
    training.dataloader_pin_memory = training.dataloader_pin_memory and is_cuda
    # A pinned batch is copied while the GPU computes; accelerate would wait for the copy.
    training.accelerator_config.non_blocking = training.dataloader_pin_memory
    _choose_repository(recipe)
    training.remove_unused_columns = False  # the dataset is ours; the collator names what the model takes


def _choose_repository(recipe: Config[S]) -> None:
    """What `push_to_hub` asks for is ours to publish; the Trainer would upload all there is."""
    training = recipe.training
    if training.push_to_hub:
        recipe.hub_id = training.hub_model_id or Path(training.output_dir).resolve().name
        training.push_to_hub = False
