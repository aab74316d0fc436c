"""A stage's folder: where a model starts from, and what a finished stage leaves behind.

    config.json  model.safetensors  preprocessor_config.json  README.md  metrics.json  figures/*.png

Both scripts begin with `start_model` and end with `write_stage`; classifier.py opens the result.
"""

import importlib.metadata
import json
import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedModel, Trainer
from transformers.trainer_utils import TrainOutput

from medhiera.cards import card_of
from medhiera.classifier import read_config
from medhiera.examples import write_examples
from medhiera.lineage import RANDOM, lineage_of, stage_record
from medhiera.options import MAEOptions
from medhiera.recipe import ModelOptions, Recipe, RecipeError
from medhiera.rows import OpenCocktail, by_source
from medhiera.transforms import Preprocessing
from modeling_hiera_mae import HieraMAEConfig

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm")


def check_source(options: ModelOptions) -> None:
    """Refuse a checkpoint that is not there before any data is built, which may take hours.

    Args:
        options: names a folder, a Hub id, or nothing.

    Raises:
        RecipeError: no such folder, no such model on the Hub (or none that can be reached), no Hiera.
    """
    if options.model_name_or_path is None:
        return
    try:
        read_config(options.model_name_or_path)
    except RecipeError as error:
        raise RecipeError(f"--model_name_or_path {error}") from error


def start_model(
    model_class: type[PreTrainedModel], options: ModelOptions, **config_fields: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model a stage starts from, and where its weights come from.

    Args:
        model_class: HieraMAEForPreTraining or HieraMAEForImageClassification.
        options: a folder or Hub id, or the geometry of a model with random weights.
        **config_fields: what this stage sets in the config (image_size, labels).

    Returns:
        The model, and its lineage for metrics.json: `new_weights`, and what lineage.lineage_of says.

    Raises:
        RecipeError: no checkpoint, or one of another architecture or size.
    """
    if options.model_name_or_path is None:
        config = HieraMAEConfig.from_size(options.model_size, **(config_fields | options.overrides()))
        logger.warning("no --model_name_or_path: all weights are RANDOM (%s geometry)", options.model_size)
        return model_class._from_config(config), dict(RANDOM)

    source = options.model_name_or_path
    try:
        model, loading = model_class.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=options.new_head, **config_fields
        )
    except (ValueError, OSError) as error:
        hint = " (in a recipe: new_head: true)" if "ignore_mismatched_sizes" in str(error) else ""
        raise RecipeError(f"--model_name_or_path {source} cannot be loaded: {error}{hint}") from error
    missing = set(loading["missing_keys"])
    if options.new_head:
        model.classifier = torch.nn.Linear(model.classifier.in_features, model.classifier.out_features)
        model._init_weights(model.classifier)
        missing |= {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    new = sorted(missing)
    unused = sorted(loading["unexpected_keys"])
    logger.info("weights from %s", source)
    logger.info("new, not in the checkpoint: %s", ", ".join(new) or "none")
    if unused:
        logger.info("left out, no place in this model: %s", _by_module(unused))
    return model, lineage_of(source) | {"new_weights": new}


def set_prior_bias(head: torch.nn.Linear, labels: Tensor) -> None:
    """Let a new head predict each finding's share of the annotated images before it has learned anything.

    Without it the first steps are spent on learning how rare findings are.

    Args:
        head: the classifier's last layer; its bias is set in place.
        labels: (images, findings); 1, 0 or NaN.

    Source: Lin et al. 2017, arXiv:1708.02002, section 4.1, one prior for all; here one each.
    """
    images = (~labels.isnan()).sum(dim=0)
    share = (labels.nansum(dim=0) + 0.5) / (images + 1)  # half an image more on each side: never 0 or 1
    with torch.no_grad():
        head.bias.copy_(torch.logit(share))


def _by_module(keys: list[str]) -> str:
    """`decoder (120 tensors), …`: keys counted by their first name."""
    counts: dict[str, int] = {}
    for key in keys:
        module = key.split(".")[0]
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count} tensors)" for module, count in counts.items())


def choose_preprocessing(
    source: str | None, image_size: int, resize_size: int, mean: float, std: float
) -> Preprocessing:
    """Stage 2 keeps the normalisation of the stage (1 or 2) it starts from; otherwise the data's own.

    Args:
        source: the folder or Hub id that training starts from, or None.
        image_size: side of the crop in pixels.
        resize_size: shorter side before it.
        mean: of the data, in units of [0, 1].
        std: of the data.
    """
    if source:
        stage = (stage_record(source) or {}).get("stage")
        if stage:  # stage 0's is of photographs
            inherited = Preprocessing.from_processor(AutoImageProcessor.from_pretrained(source))
            mean, std = inherited.mean, inherited.std
            logger.info("normalisation of stage %d: mean %.4f, std %.4f", stage, mean, std)
    return Preprocessing(image_size, resize_size, mean, std)


def start_record(
    recipe: Recipe,
    lineage: Mapping[str, Any],
    cocktail: OpenCocktail,
    used: Mapping[str, Dataset],
    preprocessing: Preprocessing,
) -> dict[str, Any]:
    """The part of metrics.json that is known before training; made then, so that a fault shows at once.

    Args:
        recipe: what was asked for.
        lineage: from start_model.
        cocktail: the data.
        used: rows by use: `trained_on`, `validated_on`, `tested_on`.
        preprocessing: resize, crop and normalisation.
    """
    return {
        "stage": 1 if isinstance(recipe.stage, MAEOptions) else 2,
        "kind": recipe.optimization.recipe_kind,
        "lineage": dict(lineage),
        "data": cocktail.record() | {use: by_source(rows) for use, rows in used.items()},
        "preprocessing": vars(preprocessing),
        "recipe": recipe.as_json(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "commit": code_commit(),
    }


def code_commit() -> str | None:
    """The commit of this clone, with `-dirty` where files were changed; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def training_record(trainer: Trainer, result: TrainOutput) -> dict[str, Any]:
    """The part of metrics.json that says how training went."""
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seconds": result.metrics["train_runtime"],
        "images_per_second": result.metrics["train_samples_per_second"],
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "best_step": trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
        "best_validation": trainer.state.best_metric,
    }


def write_stage(
    folder: Path,
    model: PreTrainedModel,
    preprocessing: Preprocessing,
    metrics: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a finished stage; figures are drawn beforehand. The card is last: it marks completion.

    Args:
        folder: the stage's folder.
        model: the best or last model, on any device.
        preprocessing: goes into preprocessor_config.json.
        metrics: the whole record; the card renders it and nothing else.
        weights: the model's, where it holds a part of them alone (`MedHieraTrainer.whole_weights`).
    """
    model.save_pretrained(folder, state_dict=weights)
    preprocessing.to_processor().save_pretrained(folder)
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    if metrics["stage"] == 2 and "ChestX-ray14" in metrics["data"]["trained_on"]:
        write_examples(folder / "examples")
    (folder / "README.md").write_text(card_of(folder), encoding="utf-8")
