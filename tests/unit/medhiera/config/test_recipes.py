"""What docs/recipe.md promises of the modern recipes, by the real parser; and the paper's by its code."""

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from medhiera.config.parser import parse_config
from medhiera.config.size_defaults import author_values, fill_in
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.errors import UserError
from modeling_hiera_mae import HieraMAEConfig

CONFIGS = Path(__file__).parents[4] / "configs"


def recipe(name, folder, *words):
    stage = MAEArguments if name.startswith("mae") else ClassificationArguments
    own = ["--data_dir", "d", "--output_dir", str(folder / "out"), "--use_cpu", "true"]
    return parse_config(stage, [str(CONFIGS / f"{name}.yaml"), *own, *words])


@pytest.mark.parametrize("name", ["cls_modern", "cls_512"])
def test_fine_tuning_is_plain_and_is_not_ended_inside_its_cosine(name, tmp_path):
    config = recipe(name, tmp_path)
    stage, optimization = config.stage, config.optimization
    assert optimization.early_stopping_patience == 0
    assert config.training.lr_scheduler_type == "cosine_with_min_lr"
    assert stage.loss == "bce" and stage.mixup_alpha == stage.label_smoothing == 0
    assert optimization.size_defaults and set(config.left_to_size) == {
        "layer_decay", "drop_path_rate", "base_learning_rate"
    }  # fmt: skip
    assert optimization.optimizer == "adamw" and optimization.ema_decay == 0.9998
    assert config.augmentation.random_crop_scale == 0.5
    for scale in ("0.5", "0.08"):  # the two that docs/recipe.md has validation choose from
        assert recipe(name, tmp_path, "--random_crop_scale", scale).augmentation.random_crop_scale == float(
            scale
        )


@pytest.mark.parametrize(
    ("name", "lowest"),
    [
        ("cls_modern", 1e-5),
        ("cls_512", 1e-6),
        ("cls_hd", 1e-5),
        ("cls_rsna", 1e-5),
        ("cls_modern_smoke", 1e-5),
    ],
)
def test_the_cosine_falls_at_any_batch(name, lowest, tmp_path):
    """To the paper's lowest rate at the recipe's own batch, and to the same share of the rate at another."""
    for words in (), ("--per_device_train_batch_size", "1"):
        config = recipe(name, tmp_path, *words)
        fill_in(config)
        training = config.training
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
        schedule = get_scheduler(
            training.lr_scheduler_type,
            optimizer,
            0,
            10,
            scheduler_specific_kwargs=training.lr_scheduler_kwargs,
        )
        rates = [schedule.get_last_lr()[0]]
        for _ in range(10):
            optimizer.step()
            schedule.step()
            rates += schedule.get_last_lr()
        assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 10
        if not words:
            assert rates[-1] == pytest.approx(lowest)


@pytest.mark.parametrize("epochs", ["10", "20", "30"])
def test_each_length_has_its_whole_cosine(epochs, tmp_path):
    training = recipe("cls_modern", tmp_path, "--num_train_epochs", epochs).training
    assert training.num_train_epochs == int(epochs) and training.max_steps == -1


def test_a_recipe_at_512_pixels_cuts_no_margin_off_and_keeps_positions_in_their_windows(tmp_path):
    data, model = recipe("cls_512", tmp_path).data, recipe("cls_512", tmp_path).model
    assert data.image_size == data.resize_size == data.stored_size == 512
    assert model.model_overrides == {"position_interpolation": "windowed"}
    larger = recipe("cls_512", tmp_path, "--image_size", "768", "--resize_size", "768").data
    assert larger.image_size == larger.resize_size == larger.stored_size == 768


@pytest.mark.parametrize("size", ["tiny", "small", "base", "base_plus", "large", "huge"])
def test_the_rate_at_512_pixels_is_a_tenth_of_the_sizes_own(size, tmp_path):
    """By cls_modern's, and by the author's: 5e-5 for T, S, B and 2.5e-5 for B+, L, H."""
    author = author_values(HieraMAEConfig.from_size(size))["base_learning_rate"]
    rates = {}
    for name in ("cls_modern", "cls_512"):
        config = recipe(name, tmp_path, "--model_size", size)
        fill_in(config)
        rates[name] = config.optimization.base_learning_rate
        step = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
        assert config.training.learning_rate == pytest.approx(rates[name] * step / 256)
    assert rates == pytest.approx({"cls_modern": author, "cls_512": author / 10})


def test_a_rate_that_is_given_is_not_multiplied(tmp_path):
    for word, read in (("base_learning_rate", 3e-4), ("learning_rate", 3e-4)):
        config = recipe("cls_512", tmp_path, f"--{word}", "3e-4")
        fill_in(config)
        assert config.training.learning_rate == pytest.approx(read)  # 64 images in 4 parts are 256


@pytest.mark.parametrize("name", ["mae_modern", "mae_features"])
def test_stage_1_from_imagenet_weights_has_hieras_own_rate(name, tmp_path):
    config = recipe(name, tmp_path, *(["--teacher", "t"] if name == "mae_features" else []))
    assert config.optimization.base_learning_rate == 5e-5  # 8e-4 at a batch of 4,096
    assert config.training.learning_rate == pytest.approx(
        5e-5 * config.training.per_device_train_batch_size / 256
    )
    assert config.optimization.early_stopping_patience == 0 and not config.optimization.size_defaults
    assert config.augmentation.random_crop_scale == 0.5 and config.augmentation.horizontal_flip
    assert config.stage.target == ("features" if name == "mae_features" else "pixels")


def test_pre_training_does_not_take_what_fine_tuning_has(tmp_path):
    with pytest.raises(UserError, match="size_defaults gives values of fine-tuning, and this is pre-train"):
        recipe("mae_modern", tmp_path, "--size_defaults", "true")


def test_a_factor_of_a_rate_that_nobody_gives_is_refused(tmp_path):
    with pytest.raises(UserError, match="size_rate_factor 0.1 multiplies the rate that size_defaults gives"):
        recipe("cls_512", tmp_path, "--size_defaults", "false")


@pytest.mark.parametrize("name", ["mae_paper", "cls_paper"])
def test_the_papers_recipes_compute_in_float32_as_its_code(name, tmp_path):
    config = recipe(name, tmp_path)
    assert config.optimization.precision == "fp32" and not config.training.bf16 and config.data.legacy_std
