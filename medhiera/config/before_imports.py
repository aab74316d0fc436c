"""What a training script answers before PyTorch is imported, which takes seconds.

--help; and a recipe that is not there or not YAML, an option that does not exist, a mistyped folder.
parser.py reads the same words again with all else that can be wrong, and takes the recipe's mapping and the
spelling of options from here. Beside help.py, which knows all options without importing them.
"""

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from dataset_scripts.mistyped import folder_fault
from medhiera.command_line import nearest_option
from medhiera.config.arguments import StageArguments
from medhiera.config.help import OUR_GROUPS, answer_help, training_options
from medhiera.errors import UserError, run_script
from medhiera.shipped_files import RECIPES, find_recipe

logger = logging.getLogger(__name__)

MEANT = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "model": "model_name_or_path",
    "output": "output_dir",
}
"""What is often typed → the option."""

FOLDERS = ("data_dir", "model_name_or_path", "teacher")
"""Options that name a folder, or what the Hub has."""


def answer_before_imports(stage: type[StageArguments], description: str | None) -> None:
    """Print the help or refuse the command line, which ends the process; return where a run may begin.

    Args:
        stage: the options that this script alone has.
        description: the script's docstring.
    """

    def answer(argv: list[str]) -> None:
        answer_help(stage, description, argv)
        refuse_early(stage, argv)

    run_script(answer)


def refuse_early(stage: type[StageArguments], argv: Sequence[str]) -> None:
    """Refuse a command line for what can be told of it without PyTorch.

    Args:
        stage: as above.
        argv: the command line without the program's name, not empty.

    Raises:
        UserError: see read_recipe; an option that does not exist; or a folder that does not.
    """
    known = {option.name for option in training_options()}
    known |= {field.name for group in (*OUR_GROUPS, stage) for field in fields(group)}
    words = list(argv)
    recipe: dict[str, Any] = {}
    if words[0].startswith("--"):
        logger.warning("no recipe is named: transformers' own defaults hold, of which few suit this model")
    else:
        path = find_recipe(words.pop(0))
        _refuse_other_stage(stage, path)
        recipe = read_recipe(path)
        if unknown := [str(key) for key in recipe if key not in known]:
            raise UserError(f"{path}: " + unknown_keys(unknown, known))
    words = current_names(words, known)
    options = [word for word in words if word.startswith("--")]
    if unknown := [word for word in options if not set_keys([word], known) <= known]:
        raise UserError(unknown_keys(unknown, known))
    named = {name: _value(name, words) or recipe.get(name) for name in FOLDERS}
    if faults := folder_faults(named):
        raise UserError("this recipe cannot run:\n  - " + "\n  - ".join(faults))


def _refuse_other_stage(stage: type[StageArguments], path: Path) -> None:
    """Refuse one of our recipes that is another stage's: most of its keys would be taken.

    Raises:
        UserError: with our recipes of this stage.
    """
    if path.parent.resolve() != RECIPES or path.stem.partition("_")[0] == stage.recipes:
        return
    ours = ", ".join(sorted(file.stem for file in RECIPES.glob(f"{stage.recipes}_*.yaml")))
    raise UserError(f"{path.name} is a recipe of another stage; this command's are {ours}")


def folder_faults(named: Mapping[str, Any]) -> list[str]:
    """A sentence for each of FOLDERS that names neither a folder here nor what may be a Hub id.

    Args:
        named: option → what it names, empty where nothing does.
    """
    return [
        f"--{name} {value}: {fault}"
        for name, value in named.items()
        if isinstance(value, str) and value and (fault := folder_fault(value))
    ]


def _value(name: str, words: Sequence[str]) -> str | None:
    """What stands behind the last `--name` of a command line; None without one."""
    value = None
    for word, after in itertools.zip_longest(words, words[1:]):
        option, joined, behind = word.partition("=")
        if option.startswith("--") and option[2:].replace("-", "_") == name:
            value = behind if joined else after
    return value


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML's loader would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader.

        Raises:
            ConstructorError: a key stands there twice.
        """
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key is not None and lines.setdefault(key, line) != line:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key!r} is set twice, in lines {lines[key]} and {line}; leave one of them out"
                )
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[Any, Any]:
    """The mapping in a recipe's file.

    Raises:
        UserError: no such file, not UTF-8, not YAML, or not one mapping.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; wanted a recipe, a YAML file such as those in configs/")
    try:
        mapping = yaml.load(path.read_text(encoding="utf-8-sig"), _StrictLoader)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x} at position {error.start}); "
            "save it as UTF-8 in your editor"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2020-13-45
        raise UserError(f"{path} is not YAML: {error}") from error
    if mapping is None:
        raise UserError(f"{path} is empty; wanted `field: value` lines, as in configs/")
    if not isinstance(mapping, dict):
        raise UserError(f"{path} holds {type(mapping).__name__}; wanted one mapping of `field: value` lines")
    return mapping


def unknown_keys(keys: Sequence[str], known: set[str]) -> str:
    """One sentence per unknown key, with the nearest known one."""
    sentences = []
    for key in keys:
        name = key.lstrip("-").split("=")[0]
        if name.endswith((".yaml", ".yml")):
            sentences.append(f"{name} stands among the options: the recipe comes first")
            continue
        meant = MEANT.get(name.replace("-", "_"))
        hint = f"; did you mean {meant!r}?" if meant in known else nearest_option(name, known)
        hint = hint or "; see --help for all keys"
        sentences.append(f"unknown key {name!r}{hint}")
    return "\n".join(sentences)


def current_names(words: Sequence[str], known: set[str]) -> list[str]:
    """`--gradient_checkpointing` by its later name where transformers has that, and warns of the former."""
    if "activation_checkpointing" not in known:
        return list(words)
    return [re.sub(r"^--gradient([-_]checkpointing)", r"--activation\1", word) for word in words]


def set_keys(words: Sequence[str], known: set[str]) -> set[str]:
    """The fields that words set: `--max-steps=4` sets max_steps, `--no_score_test` sets score_test."""
    names = {word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    return {name if name in known else name.removeprefix("no_") for name in names}
