"""Real training on a few pictures: what dropping a rest reaches, and with which settings a run resumes."""

import json

import pytest
import torch
from tiny_training import PREPROCESSING, make_rows, make_trainer, weights

from medhiera.config.arguments import OptimizationArguments
from medhiera.data.dataset import RadiographDataset
from medhiera.errors import UserError
from medhiera.training.settings import SETTINGS_FILE

LINEAR = OptimizationArguments(optimizer="adam")
SAVING = {"save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a run of two steps."""
    folder = tmp_path_factory.mktemp("run")
    recipe = {"mask_ratio": 0.6, "mixup_alpha": 0.8}
    make_trainer(folder, LINEAR, **SAVING | {"max_steps": 2, "recipe": recipe}).train()
    return folder / "checkpoint-2"


def test_a_dropped_rest_is_of_training_alone(tmp_path):
    trainer = make_trainer(
        tmp_path, dataloader_drop_last=True, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=5,
        per_device_eval_batch_size=6,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 3  # of 16 images, the last one is left out
    rows = make_rows()
    scored = trainer.predict(RadiographDataset(rows, PREPROCESSING, with_labels=True)).predictions
    with torch.no_grad():
        each = trainer.model.eval()(PREPROCESSING.pixel_values(rows["image"])).logits
    torch.testing.assert_close(torch.from_numpy(scored), each)  # 16 rows, in batches of 6


def test_an_evaluation_batch_above_the_split_scores_every_image(tmp_path):
    trainer = make_trainer(tmp_path, dataloader_drop_last=True, per_device_eval_batch_size=64)
    table = RadiographDataset(make_rows(), PREPROCESSING, with_labels=True)
    assert trainer.predict(table).predictions.shape == (16, 3)


@pytest.mark.parametrize("length", [{"max_steps": 2}, {"max_steps": -1, "num_train_epochs": 2}])
def test_fewer_images_than_a_batch_are_refused_where_the_rest_is_dropped(length, tmp_path):
    trainer = make_trainer(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=17, **length)
    with pytest.raises(UserError, match="16 training images do not fill one batch of 17"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (LINEAR, {"per_device_train_batch_size": 4}, "images a step was 8, now 4"),
        (LINEAR, {"gradient_accumulation_steps": 2}, "images a step was 8, now 16"),
        (LINEAR, {"seed": 7}, "seed was [0-9]+, now 7"),
        (LINEAR, {"learning_rate": 0.5}, "learning_rate was 0.01, now 0.5"),
        (LINEAR, {"weight_decay": 0.5}, "weight_decay was 0.0, now 0.5"),
        (LINEAR, {"rows": 12}, "training images was 16, now 12"),
        (LINEAR, {"lr_scheduler_type": "cosine"}, "schedule was linear, now cosine"),
        (OptimizationArguments(optimizer="adamw", layer_decay=0.5), {}, "optimizer was adam, now adamw"),
        (OptimizationArguments(optimizer="adam", schedule="one_cycle"), {}, "linear, now one_cycle"),
        (OptimizationArguments(optimizer="adam", ema_decay=0.9), {}, "ema_decay was 0.0, now 0.9"),
        (LINEAR, {"recipe": {"mask_ratio": 0.9}}, "mask_ratio was 0.6, now 0.9"),
        (LINEAR, {"max_steps": 6}, "steps of the whole run was 2, now 6"),
        (LINEAR, {"max_grad_norm": 1.0}, "max_grad_norm was 0, now 1.0"),
        (LINEAR, {"warmup_steps": 1}, "warmup_steps was 0, now 1"),
        (LINEAR, {"lr_scheduler_kwargs": {"a": 1}}, "lr_scheduler_kwargs was {}, now {'a': 1}"),
        (
            LINEAR,
            {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "recipe": {"mixup_alpha": 0.8},
            },
            r"settings \(images a batch, which Mixup mixes, was 8, now 4\).* with Mixup not the batch size",
        ),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(options, arguments, message, checkpoint, tmp_path):
    """Some of these would end in a trace; the others would train another run than they say."""
    rows = make_rows(arguments.pop("rows", 16))
    other = make_trainer(tmp_path, options, rows=rows, **SAVING | {"max_steps": 2} | arguments)
    with pytest.raises(UserError, match=message) as caught:
        other.train(resume_from_checkpoint=str(checkpoint))
    assert "--model_name_or_path" in str(caught.value)


def test_a_run_is_resumed_with_another_batch_size_where_a_step_has_the_same_images(tmp_path):
    """8 x 1 goes on as 2 x 4, in the middle of an epoch, to the weights of a run that was never ended."""
    steady = {"per_device_train_batch_size": 8, "max_steps": 5}
    whole = make_trainer(
        tmp_path / "whole", LINEAR, learning_rate=1e-3, **SAVING | steady | {"save_steps": 3}
    )
    whole.train()
    split = make_trainer(
        tmp_path / "split", LINEAR, learning_rate=1e-3, per_device_train_batch_size=2,
        gradient_accumulation_steps=4, max_steps=5,
    )  # fmt: skip
    split.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert split.state.epoch == whole.state.epoch == 2.5
    expected, found = weights(whole.model), weights(split.model)
    largest = max((expected[name] - found[name]).abs().max().item() for name in expected)
    assert largest < 2e-5, f"largest difference of a weight: {largest}"


def test_a_checkpoint_of_an_earlier_version_is_resumed_as_it_is(tmp_path):
    make_trainer(tmp_path, LINEAR, **SAVING | {"max_steps": 2}).train()
    settings = tmp_path / "checkpoint-2" / SETTINGS_FILE
    assert json.loads(settings.read_text())["images a step"] == 8
    settings.unlink()
    resumed = make_trainer(tmp_path, LINEAR, **SAVING)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup_steps": 4}, "warmup_steps is 4, and the whole run has 4 steps"),
        ({"eval_delay": 5, "eval_strategy": "steps", "eval_steps": 2}, "eval_delay is 5, .* has 4 steps"),
        (
            {"eval_delay": 3, "eval_strategy": "epoch", "save_strategy": "epoch"},
            "eval_delay is 3, .* 2 epochs",
        ),
    ],
)
def test_a_run_that_ends_too_soon_for_its_options_is_refused(arguments, message, tmp_path):
    best = {"load_best_model_at_end": "eval_delay" in arguments, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tmp_path, LINEAR, **best | arguments)
    with pytest.raises(UserError, match=message):
        trainer.train()
