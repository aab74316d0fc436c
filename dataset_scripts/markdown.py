"""Names and sentences from outside as inert Markdown: a card shows them and is not changed by them.

A leaf: the dataset's card (build/dataset_card.py) and the model's (medhiera/hub/model_card.py) use it.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import yaml

_LINE_START = re.compile(r"[-+*](?=\s|$)|[=~#]|-{2,}|\*{3,}|_{3,}")
"""What begins a heading, a list, a quotation, a fence or a rule."""

_ENTITY = re.compile(r"&(?=#?\w+;)")


def escape_markdown(text: str) -> str:
    """One line of Markdown that shows a text as it is, in a sentence, a cell of a table or a code span.

    HTML, entities, code, links, table marks and whatever begins a block lose their meaning; emphasis does
    not. A text without such marks comes back unchanged.

    Args:
        text: a label, a file's name, a sentence: anything that a user or a file has named.
    """
    shown = "".join(_visible(character) for character in text)
    shown = shown.replace("\\", "\\\\")
    shown = _ENTITY.sub("&amp;", shown)
    shown = shown.replace("<", "&lt;").replace(">", "&gt;")
    shown = shown.replace("`", "&#96;").replace("|", "\\|").replace("](", "]\\(")
    begins = shown.lstrip()
    if number := re.match(r"(\d{1,9})([.)](?:\s|$))", begins):
        return f"{number[1]}\\{begins[len(number[1]) :]}"
    return f"\\{begins}" if _LINE_START.match(begins) else shown


class _OneLineDumper(yaml.SafeDumper):
    """Writes a text with line breaks or controls in quotes on one line, where it can end no front matter."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLineDumper.add_representer(str, _represent_text)


def front_matter(metadata: Mapping[str, Any]) -> str:
    """The YAML block at the top of a card, with its two lines of dashes.

    Args:
        metadata: names and values; any text comes back from yaml.safe_load as it was.
    """
    text = yaml.dump(
        dict(metadata), Dumper=_OneLineDumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return f"---\n{text}---\n"


def _visible(character: str) -> str:
    """Line breaks and controls as a space; half of a surrogate pair, which no file can hold, as U+FFFD."""
    category = unicodedata.category(character)
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    # Format characters may turn the direction of what follows; joiners belong to some scripts.
    is_joiner = character in "\u200c\u200d\u00ad"
    return " " if category in {"Cc", "Cf", "Zl", "Zp"} and not is_joiner else character
