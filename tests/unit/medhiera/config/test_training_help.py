"""The help of the training scripts names what their parser takes: ours first, then transformers' own."""

from dataclasses import MISSING, fields

import pytest
from transformers import TrainingArguments

from medhiera.config.help import OUR_GROUPS, help_text, our_options, training_options
from medhiera.config.refused_options import NOT_TAKEN
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments

STAGES = (MAEArguments, ClassificationArguments, ReportArguments)


def test_transformers_options_are_read_from_its_source():
    known = {field.name: field for field in fields(TrainingArguments) if field.init}
    shown = list(training_options())
    assert [option.name for option in shown] == list(known)
    for option in shown:
        field = known[option.name]
        assert option.text == field.metadata["help"]
        computed = field.default is MISSING or option.default is None
        assert computed or option.default == field.default
    assert {"learning_rate": 5e-05, "max_steps": -1}.items() <= {o.name: o.default for o in shown}.items()
    kinds = {option.name: option.values for option in shown}
    assert (kinds["bf16"], kinds["seed"], kinds["weight_decay"]) == ("true|false", "INT", "FLOAT")


@pytest.mark.parametrize("stage", STAGES)
def test_ours_come_first_by_subject(stage):
    text = help_text(stage)
    groups = [*(stage, *OUR_GROUPS), TrainingArguments]
    all_names = [field.name for group in groups for field in fields(group) if field.init]
    assert not [name for name in NOT_TAKEN if f"\n  --{name} " in text]
    names = [name for name in all_names if name not in NOT_TAKEN]
    places = [text.index(f"\n  --{name} ") for name in names]
    assert places == sorted(places)
    for group in OUR_GROUPS:
        assert f"\n{group.__doc__.splitlines()[0].rstrip('.')}:\n" in text
    flat = " ".join(text.split())
    assert "(default here: 50)" in flat  # logging_steps
    ours = stage.training_defaults.get("metric_for_best_model")
    assert ours is None or f"(default here: {ours})" in flat


def test_an_option_shows_what_it_takes_and_its_default():
    shown = {option.name: option for option in our_options(OUR_GROUPS[0])}
    assert shown["compression"].values == "auto|fast|none|raw"
    assert shown["source_weights"].values == "JSON"
    assert (shown["image_size"].values, shown["image_size"].default) == ("INT", 224)
    text = " ".join(help_text(MAEArguments).split())
    assert "(default: 224)" in text and "95 % interval" not in text
    assert "95 % interval" in " ".join(help_text(ClassificationArguments).split())
