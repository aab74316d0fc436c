"""What metrics.json holds of a run: its recipe, data, lineage, libraries and how training went."""

import importlib.metadata
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from medhiera.config.arguments import MAEOptions, Recipe
from medhiera.data.cocktail import OpenCocktail, by_source
from medhiera.data.preprocessing import Preprocessing

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm")


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
