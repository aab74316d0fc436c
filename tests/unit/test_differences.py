"""The table of docs/differences.md: each switch exists, is off by default, is in its recipes."""

import dataclasses
import re

import pytest
import yaml

from medhiera.config import arguments, stage_arguments

DEFAULTS = {
    field.name: field.default
    for module in (arguments, stage_arguments)
    for group in vars(module).values()
    if dataclasses.is_dataclass(group)
    for field in dataclasses.fields(group)
}


@pytest.fixture(scope="module")
def table(root):
    lines = (root / "docs" / "differences.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|")][2:]


def switches(rows):
    return {name: yaml.safe_load(value) for name, value in re.findall(r"`(\w+): (\w+)`", "\n".join(rows))}


def test_every_switch_is_there_and_off_by_default(table):
    found = switches(table)
    assert {"rotation_interpolation", "legacy_std", "rand_augment", "legacy_head"} <= set(found)
    for name, value in found.items():
        assert type(value) is type(DEFAULTS[name]) and value != DEFAULTS[name], name


def test_the_papers_recipes_have_the_marked_ones(table, root):
    texts = [(root / "configs" / f"{stage}_paper.yaml").read_text() for stage in ("mae", "cls")]
    on = yaml.safe_load(texts[0]) | yaml.safe_load(texts[1])
    marked = switches(row for row in table if "(*)" in row)
    assert marked and marked == {name: on[name] for name in switches(table) if name in on}
