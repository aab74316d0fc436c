"""`encoder_rate` of a classifier: which of its weights learn, and how fast."""

from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import make_trainer, weights
from transformers import TrainingArguments

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.parser import parse_config
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments
from medhiera.errors import UserError

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


KNOWN = {field.name for field in fields(TrainingArguments)}
CHECKPOINTING = ("activation" if "activation_checkpointing" in KNOWN else "gradient") + "_checkpointing"
HEAD = {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", None])
def test_of_a_frozen_encoder_no_bit_changes_and_the_head_learns(optimizer, checkpointing, tmp_path):
    optimization = OptimizationArguments(optimizer=optimizer, ema_decay=0.3)
    options = SAVING | {"weight_decay": 0.1, CHECKPOINTING: checkpointing}
    trainer = make_trainer(tmp_path, optimization, encoder_rate=0.0, **options)
    before = weights(trainer.model)
    trainer.train()
    assert changed(before, weights(trainer.model)) == HEAD
    assert changed(before, load_file(tmp_path / "raw" / "model.safetensors")) == HEAD
    resumed = make_trainer(tmp_path, optimization, encoder_rate=0.0, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not changed(weights(trainer.model), weights(resumed.model))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_classifiers_encoder_has_its_share_of_the_heads_rate(optimizer, tmp_path):
    trainer = make_trainer(tmp_path, OptimizationArguments(optimizer=optimizer), encoder_rate=0.1)
    rates = {
        id(one): group["lr"] for group in trainer.create_optimizer().param_groups for one in group["params"]
    }
    for name, parameter in trainer.model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-2 if name in HEAD else 1e-3), name


@pytest.mark.parametrize("stage", [ClassificationArguments, ReportArguments])
def test_an_encoders_rate_that_cannot_be_is_refused(stage, tmp_path):
    own = ["--data_dir", "data", "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    with pytest.raises(UserError, match="encoder_rate needs optimizer: adam or adamw"):
        parse_config(stage, [*own, "--encoder_rate", "0.1"])
    with pytest.raises(UserError, match="encoder_rate 0 freezes the encoder, which without a checkpoint has"):
        parse_config(stage, [*own, "--encoder_rate", "0"])
    words = ["--encoder_rate", "0.1", "--optimizer", "adamw"]
    assert parse_config(stage, [*own, *words]).stage.encoder_rate == 0.1
