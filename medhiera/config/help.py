"""What --help of a training script prints: our options by subject, then those of transformers' Trainer.

It is printed before PyTorch is imported, which takes seconds, so transformers' options are read from the
source of its TrainingArguments. parser.py reads a command line; the fields are those of arguments.py.
"""

import argparse
import ast
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medhiera.command_line import program, with_examples
from medhiera.config.arguments import (
    TRAINING_DEFAULTS,
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    StageArguments,
)
from medhiera.config.refused_options import NOT_TAKEN

OUR_GROUPS = (DataArguments, ModelArguments, OptimizationArguments, AugmentationArguments)
"""The options that every stage has, by subject; each class's docstring is its heading."""


@dataclass(frozen=True)
class Option:
    """One option as --help shows it.

    Attributes:
        name: of the field.
        values: what may stand behind it, such as "INT" or "auto|fast".
        text: what it does.
        default: its value where nothing sets it.
    """

    name: str
    values: str
    text: str
    default: Any = None


def answer_help(stage: type[StageArguments], description: str | None, argv: Sequence[str]) -> None:
    """Print the help and end the process where it is asked for, or where nothing is asked for.

    Args:
        stage: the options that this script alone has.
        description: the script's docstring.
        argv: the command line without the program's name.
    """
    if argv and not {"-h", "--help"} & set(argv):
        return
    print(help_text(stage, description))
    sys.exit(0)


def help_text(stage: type[StageArguments], description: str | None = None) -> str:
    """The whole help of a training script: every option that a recipe may set."""
    parser = argparse.ArgumentParser(
        prog=program(), usage="%(prog)s [RECIPE.yaml] [--option value ...]", add_help=False,
        description=with_examples(description or ""), formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="RECIPE is a YAML file of these options: yours by its path, or one of ours by its name, such\n"
        "as mae_paper.yaml. The command line overrides it, key by key.",
    )  # fmt: skip
    parser.add_argument("-h", "--help", action="help", help="print this and end")
    for one in (stage, *OUR_GROUPS):
        heading = (one.__doc__ or "").partition("\n")[0].rstrip(".")
        _add(parser, heading, our_options(one))
    ours = TRAINING_DEFAULTS | stage.training_defaults
    theirs = (
        replace(each, text=f"{each.text} (default here: {_as_typed(ours[each.name])})", default=None)
        if each.name in ours
        else each
        for each in training_options()
        if each.name not in NOT_TAKEN
    )
    _add(parser, "transformers.TrainingArguments, for experts", theirs)
    return parser.format_help()


def our_options(group: type[Any]) -> Iterator[Option]:
    """The options of one of our dataclasses."""
    hints = get_type_hints(group)
    for field in fields(group):
        choices = field.metadata.get("choices")
        values = "|".join(choices) if choices else _values(hints[field.name])
        default = None if field.default is MISSING else field.default
        is_mapping = field.metadata.get("is_mapping", False)
        yield Option(field.name, "JSON" if is_mapping else values, field.metadata["help"], default)


def training_options() -> Iterator[Option]:
    """The options of transformers' TrainingArguments, in their order.

    Raises:
        AssertionError: this version of transformers defines them in another way (a test compares them).
    """
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin is not None, "transformers is a dependency"
    source = Path(package.origin).with_name("training_args.py").read_text(encoding="utf-8")
    [body] = [
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    ]
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        assert isinstance(node.target, ast.Name), "a field has a name"
        given = {word.arg: word.value for word in node.value.keywords}
        if "init" in given and not ast.literal_eval(given["init"]):
            continue
        metadata = given["metadata"]
        assert isinstance(metadata, ast.Dict), "a mapping, of which some entries are computed"
        entries = {_constant(key): value for key, value in zip(metadata.keys, metadata.values, strict=True)}
        text = ast.literal_eval(entries["help"])
        yield Option(node.target.id, _annotated(node.annotation), text, _constant(given.get("default")))


def _constant(node: ast.expr | None) -> Any:
    """The value of a literal; None where it is computed."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _annotated(node: ast.expr) -> str:
    """What a type of transformers' takes, from its text: `int | None` is INT."""
    names = [name.strip() for name in ast.unparse(node).split("|")]
    kinds = {"bool": "true|false", "int": "INT", "float": "FLOAT"}
    return next((kinds[name] for name in names if name in kinds), "VALUE")


def _values(hint: Any) -> str:
    """What may stand behind an option of this type."""
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if isinstance(hint, types.UnionType) or type(None) in get_args(hint):
        return "|".join(_values(each) for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is list:
        return "VALUE ..."
    return {bool: "true|false", int: "INT", float: "FLOAT"}.get(hint, "VALUE")


def _add(parser: argparse.ArgumentParser, heading: str, options: Iterator[Option]) -> None:
    group = parser.add_argument_group(heading)
    for option in options:
        is_said = option.default in (None, "") or "default" in option.text.lower()
        shown = "" if is_said else f" (default: {_as_typed(option.default)})"
        group.add_argument(f"--{option.name}", metavar=option.values, help=option.text + shown)


def _as_typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
