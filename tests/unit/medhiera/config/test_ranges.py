"""Every number of a config has a range, and what lies outside is refused with key, value and range."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from transformers import TrainingArguments

from medhiera.config.arguments import (
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
)
from medhiera.config.parser import parse_config
from medhiera.config.ranges import TRAINING_RANGES, Range
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.data.preprocessing import Preprocessing
from medhiera.errors import UserError
from medhiera.loading import load_processor

OURS = (
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    AugmentationArguments,
    MAEArguments,
    ClassificationArguments,
)


def numbers(group):
    """The fields of a dataclass that hold one number, by name: whether it is whole."""
    hints = get_type_hints(group)
    kinds = {field.name: {hints[field.name], *get_args(hints[field.name])} for field in fields(group)}
    mappings = {field.name for field in fields(group) if field.metadata.get("is_mapping")}
    return {name: int in kind for name, kind in kinds.items() if kind & {int, float} and name not in mappings}


def ranges():
    """Every number of every stage's config: stage, field, whether it is whole, its range."""
    for group in OURS:
        stage = MAEArguments if group is MAEArguments else ClassificationArguments
        declared = {field.name: field.metadata.get("range") for field in fields(group)}
        yield from ((stage, name, whole, declared[name]) for name, whole in numbers(group).items())
    for name, whole in numbers(TrainingArguments).items():
        yield ClassificationArguments, name, whole, TRAINING_RANGES.get(name)


ALL = [pytest.param(*entry, id=entry[1]) for entry in ranges()]


def read(stage, tmp_path, *words):
    own = ["--data_dir", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    return parse_config(stage, [*own, *words])


@pytest.mark.parametrize(("stage", "name", "whole", "allowed"), ALL)
def test_every_number_has_a_range_and_what_is_outside_is_refused(stage, name, whole, allowed, tmp_path):
    assert isinstance(allowed, Range), f"{name} has no range: declare one"
    outside = ["nan", "inf", "-inf", "-1e-3", "-7", "9" * 30 if whole else "1e400", "much", ""]
    outside += [str(int(allowed.least))] if allowed.above else []
    outside += ["0"] if 0 not in allowed else []
    outside += ["1.5"] if whole or allowed.share else []
    outside += [str(int(allowed.most))] if allowed.below else []
    for text in outside:
        with pytest.raises(UserError) as caught:
            read(stage, tmp_path, f"--{name}={text}")
        assert f"{name} is {text}; wanted {allowed.in_words(whole)}" in str(caught.value)
    assert "wanted a" in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "whole", "words"),
    [
        (Range(1, 64), True, "a whole number from 1 to 64"),
        (Range(0, 1, above=True, below=True), False, "a share between 0 and 1"),
        (Range(0, 1, below=True), False, "a share from 0 to below 1"),
        (Range(0, 1, above=True), False, "a share above 0 and at most 1"),
        (Range(0, float("inf"), above=True), False, "a finite number above 0"),
        (Range(0, float("inf"), hint="0: off"), False, "a finite number from 0 up (0: off)"),
    ],
)
def test_a_range_says_its_ends(allowed, whole, words):
    assert allowed.in_words(whole) == words


@pytest.mark.parametrize("spelling", [["--learning_rate", "-1e-3"], ["--learning-rate", "-inf"]])
def test_a_negative_number_is_a_number_in_every_spelling(spelling, tmp_path):
    with pytest.raises(UserError, match=rf"learning_rate is {spelling[1]}; wanted a finite number above 0"):
        read(ClassificationArguments, tmp_path, *spelling)


def test_the_recipes_numbers_are_judged_all_at_once(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: -1\nmask_ratio: .nan\nmax_steps: 0\nlearning_rate: -2e-4\nimage_size: 1e3\n")
    with pytest.raises(UserError) as caught:
        parse_config(MAEArguments, [str(recipe), "--data_dir", "d", "--output_dir", str(tmp_path)])
    assert [line.split(";")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  - seed is -1",
        "  - mask_ratio is nan",
        "  - max_steps is 0",
        "  - learning_rate is -2e-4",
        "  - image_size is 1e3",
    ]


def test_no_recipe_has_a_size_that_loading_refuses_at_its_end(tmp_path):
    sizes = ("--image_size=9984", "--resize_size=10000")
    data = read(ClassificationArguments, tmp_path, *sizes).data
    processor = Preprocessing(data.image_size, data.resize_size, 0.5, 0.25).to_processor()
    processor.save_pretrained(tmp_path)
    assert load_processor(str(tmp_path)).size["shortest_edge"] == data.resize_size
    with pytest.raises(UserError, match="resize_size is 10016; wanted a whole number from 1 to 10000"):
        read(ClassificationArguments, tmp_path, "--resize_size=10016")
    with pytest.raises(
        UserError, match="makes resize_size 11410 by default, above 10000; add --resize_size 9984"
    ):
        read(ClassificationArguments, tmp_path, "--image_size=9984")


def test_ends_that_belong_to_a_range_are_taken(tmp_path):
    words = ("--max_steps=-1", "--warmup_steps=0.1", "--eval_delay=0", "--seed=4294967295", "--stored_size=0")
    training = read(ClassificationArguments, tmp_path, *words).training
    assert (training.max_steps, training.warmup_steps, training.seed) == (-1, 0.1, 2**32 - 1)
