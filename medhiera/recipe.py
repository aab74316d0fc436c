"""The YAML recipe: dataclasses, one strict parser, one check of the whole before any data is read.

A recipe is one flat YAML mapping whose keys are the fields of the dataclasses below and of
transformers' TrainingArguments. The command line overrides the file, key by key.
"""

import difflib
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from medhiera.checkpoints import CheckpointError, find_checkpoint, refuse_finished
from medhiera.contradictions import contradictions, missing_validation, unused_options
from medhiera.options import AugmentationOptions, ClassifierOptions, MAEOptions, OptimizationOptions
from modeling_hiera_mae.masking import count_kept

logger = logging.getLogger(__name__)

MASKED_UNIT_PIXELS = 32
"""Side of one mask unit in pixels: patch stride 4 times 8 tokens (arXiv:2306.00989, section 3.2)."""


SWITCHES = frozenset(
    "layer_decay base_learning_rate drop_path_rate ema_decay keep early_stopping_patience random_crop_scale "
    "horizontal_flip rand_augment fixed_eval_masks classifier_dropout mixup_alpha label_smoothing loss "
    "legacy_head new_head".split()
)
"""What a recipe may add to the paper's; not recorded where it is as by default."""


class RecipeError(ValueError):
    """A recipe that cannot be run; the message lists every fault with its fix."""


@dataclass
class DataOptions:
    """Which images, and how they reach the model."""

    data_dir: str = field(
        default="",
        metadata={"help": "Folder that holds one or more of the four sources in their own layout."},
    )
    build_dir: str | None = field(
        default=None,
        metadata={"help": "Where the built cocktail is kept (default: `cocktail` beside output_dir)."},
    )
    build_size: int | None = field(
        default=None,
        metadata={
            "help": "Shorter side of the built images in pixels; default resize_size, nothing shrinks twice; "
            "0 keeps the native size."
        },
    )
    build_num_proc: int = field(default=1, metadata={"help": "Processes that build the cocktail."})
    split: Literal["official", "medtransformer"] = field(
        default="official",
        metadata={
            "help": "`official`: the whole official test list and a patient-disjoint validation. "
            "`medtransformer`: the paper's thirds of the test list."
        },
    )
    allow_leakage: bool = field(
        default=False,
        metadata={
            "help": "Keep training images that show held-out ones, as the paper does; the card says so."
        },
    )
    nih_mapping: str | None = field(
        default=None,
        metadata={"help": "File that names the NIH image behind RSNA's identifiers, if you have it."},
    )
    max_bad_fraction: float = field(
        default=0.01,
        metadata={"help": "Stop the build when more than this share of the files is unreadable."},
    )
    sources: list[str] | None = field(
        default=None,
        metadata={"help": "Train on these sources only (names of the `source` column). Default: stage 1 all, "
                          "stage 2 ChestX-ray14."},
    )  # fmt: skip
    mixing: str | None = field(
        default=None,
        metadata={
            "help": "Stage 1: weight of each source in the training rows, a YAML mapping or JSON text. "
            "Sources not named are left out; small ones repeat. Default: every image once."
        },
    )
    image_size: int = field(default=224, metadata={"help": "Side of the model's input in pixels."})
    resize_size: int | None = field(
        default=None,
        metadata={"help": "Shorter side before the centre crop; default image_size × 256/224, as the paper."},
    )
    max_train_images: int | None = field(
        default=None, metadata={"help": "Use only this many training images, drawn by the seed."}
    )
    max_eval_images: int | None = field(
        default=None, metadata={"help": "Use only this many validation images, drawn by the seed."}
    )

    def weights(self) -> dict[str, float]:
        """The source weights in `mixing`, parsed; empty without it."""
        return {str(name): weight for name, weight in json.loads(self.mixing or "{}").items()}


@dataclass
class ModelOptions:
    """Which weights to start from, or which geometry to start anew."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A stage's folder or a Hub id. Without it the weights are random."}
    )
    model_size: Literal["tiny", "small", "base", "base_plus", "large", "huge"] = field(
        default="tiny", metadata={"help": "Geometry of a model with random weights."}
    )
    model_overrides: str | None = field(
        default=None,
        metadata={"help": "Config fields that differ from model_size, as a YAML mapping or JSON text."},
    )

    new_head: bool = field(
        default=False,
        metadata={
            "help": "Stage 2: leave the checkpoint's own classifier out, as where it names other findings or "
            "is supervised ImageNet's, which med-hiera took for its MAE weights."
        },
    )

    def overrides(self) -> dict[str, Any]:
        """The config fields in `model_overrides`, parsed."""
        return dict(json.loads(self.model_overrides)) if self.model_overrides else {}


@dataclass
class Recipe:
    """One parsed recipe: ours and transformers' arguments side by side."""

    data: DataOptions
    model: ModelOptions
    optimization: OptimizationOptions
    augmentation: AugmentationOptions
    stage: MAEOptions | ClassifierOptions
    training: TrainingArguments
    hub_id: str | None = None
    """The repository that the finished stage is published in."""

    def as_json(self) -> dict[str, Any]:
        """What the card and metrics.json show: our fields, and the training fields that shape the result.

        A switch that is off is left out: a recipe says what it does.
        """
        record: dict[str, Any] = {}
        off: set[str] = set()
        for options in (self.data, self.model, self.optimization, self.augmentation, self.stage):
            record |= {f.name: getattr(options, f.name) for f in fields(options)}
            off |= {f.name for f in fields(options) if f.name in SWITCHES and record[f.name] == f.default}
        hidden = off | {
            "data_dir",
            "build_dir",
            "build_num_proc",
            "nih_mapping",
            "model_name_or_path",
            "precision",
            "halt_on_explosion",
            "reconstruction_steps",
        }
        if self.model.model_name_or_path:  # the geometry is the checkpoint's
            hidden |= {"model_size", "model_overrides"}
        shown = (
            "learning_rate per_device_train_batch_size gradient_accumulation_steps world_size weight_decay "
            "adam_beta1 adam_beta2 max_grad_norm seed bf16"
        ).split()
        shown.append("max_steps" if self.training.max_steps > 0 else "num_train_epochs")
        if self.optimization.optimizer == "trainer":
            shown.append("optim")
        if self.optimization.schedule == "trainer":
            shown += ["lr_scheduler_type", "warmup_steps"]
        record |= {name: getattr(self.training, name) for name in shown}
        return {
            key: value.value if isinstance(value, Enum) else value
            for key, value in record.items()
            if key not in hidden
        }


def read_recipe(stage: type[MAEOptions] | type[ClassifierOptions], argv: Sequence[str]) -> Recipe:
    """Read `CONFIG.yaml [--field value …]` into a recipe.

    Args:
        stage: MAEOptions for stage 1, ClassifierOptions for stage 2.
        argv: the command line without the program's name; the YAML file is optional and comes first.

    Raises:
        RecipeError: no such file, not a mapping, an unknown or abbreviated key, a value of the wrong type,
            or values that contradict each other.
    """
    groups = (DataOptions, ModelOptions, OptimizationOptions, AugmentationOptions, stage, TrainingArguments)
    parser = HfArgumentParser(groups, allow_abbrev=False, exit_on_error=False)
    # TrainingArguments take one tracker or several; HfArgumentParser makes that an option of one word.
    next(action for action in parser._actions if action.dest == "report_to").nargs = "+"
    known = {f.name for group in groups for f in fields(group) if f.init}
    words = list(argv)
    if not words or "-h" in words or "--help" in words:
        parser.print_help()
        sys.exit(0)
    from_file: list[str] = []
    if not words[0].startswith("--"):
        from_file = _yaml_words(Path(words.pop(0)), known)
    try:
        parsed = parser.parse_args_into_dataclasses(from_file + words, return_remaining_strings=True)
    except RecipeError:
        raise
    except (SystemExit, Exception) as error:  # argparse ends the process on some faults; we answer instead
        raise RecipeError(f"the recipe cannot be read: {error}") from error
    *options, unknown = parsed
    if unknown:
        raise RecipeError(_unknown_keys([w for w in unknown if w.startswith("--")] or unknown, known))
    recipe = Recipe(*options)
    given = {word.lstrip("-").split("=")[0] for word in from_file + words}
    _check(recipe, given)
    _finish(recipe, given)
    return recipe


def _yaml_words(path: Path, known: set[str]) -> list[str]:
    """The YAML file as command-line words, so that file and command line pass one parser."""
    if not path.is_file():
        raise RecipeError(f"no recipe at {path}; the ones we ship lie in configs/")
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(mapping, dict):
        raise RecipeError(
            f"{path} holds {type(mapping).__name__}; wanted one mapping of `field: value` lines"
        )
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise RecipeError(f"{path}: " + _unknown_keys(unknown, known))
    words: list[str] = []
    for key, value in mapping.items():
        if value is None:
            continue
        words.append(f"--{key}")
        if isinstance(value, list):
            words += [str(item) for item in value]
        else:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


def _unknown_keys(keys: Sequence[str], known: set[str]) -> str:
    """One sentence per unknown key, with the nearest known one."""
    sentences = []
    for key in keys:
        name = key.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [
            candidate for candidate in sorted(known) if candidate.startswith(name)
        ]
        hint = f"; did you mean {near[0]!r}?" if near else "; see --help for all keys"
        sentences.append(f"unknown key {name!r}{hint}")
    return "\n".join(sentences)


def _check(recipe: Recipe, given: set[str]) -> None:
    """Refuse values that cannot work, all at once; `given` are the words of the file and the command line."""
    faults = contradictions(recipe.optimization, recipe.augmentation, recipe.stage, recipe.training, given)
    data, training = recipe.data, recipe.training
    if not data.data_dir:
        faults.append("data_dir is empty; give --data_dir FOLDER, a folder that holds the sources")
    faults += missing_validation(Path(data.data_dir))
    if data.image_size % MASKED_UNIT_PIXELS or data.image_size < MASKED_UNIT_PIXELS:
        lower = max(1, data.image_size // MASKED_UNIT_PIXELS) * MASKED_UNIT_PIXELS
        faults.append(
            f"image_size is {data.image_size}; wanted a multiple of {MASKED_UNIT_PIXELS}, "
            f"such as {lower} or {lower + MASKED_UNIT_PIXELS}"
        )
    elif isinstance(recipe.stage, MAEOptions):
        faults += _mask_faults(recipe.stage, (data.image_size // MASKED_UNIT_PIXELS) ** 2)
    if data.build_size and data.build_size < (data.resize_size or data.image_size):
        faults.append(
            f"build_size {data.build_size} is below what is read; raise it, or 0 for the native size"
        )
    if data.resize_size is not None and data.resize_size < data.image_size:
        faults.append(f"resize_size {data.resize_size} is below image_size {data.image_size}; raise it")
    try:
        recipe.model.overrides()
    except (ValueError, TypeError) as error:
        faults.append(f"model_overrides is not a mapping ({error}); write it as YAML or JSON fields")
    faults += _mixing_faults(data, recipe.stage)
    if recipe.model.new_head and isinstance(recipe.stage, MAEOptions):
        faults.append("new_head is for stage 2; the masked autoencoder has no classifier")
    if training.output_dir in (None, "", "trainer_output"):
        faults.append("output_dir is not set; give --output_dir FOLDER for this stage")
    else:
        try:
            refuse_finished(Path(training.output_dir), training.resume_from_checkpoint)
            find_checkpoint(Path(training.output_dir), training.resume_from_checkpoint)
        except CheckpointError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("this recipe cannot run:\n  - " + "\n  - ".join(faults))


def _mask_faults(stage: MAEOptions, units: int) -> list[str]:
    """Ratios within their range that leave nothing visible, or hide nothing, of so few mask units."""
    faults = []
    for name in ("mask_ratio", "eval_mask_ratio"):
        ratio = getattr(stage, name)
        if not 0 < ratio < 1:
            continue  # contradictions() has said so
        try:
            count_kept(units, ratio)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return faults


def _mixing_faults(data: DataOptions, stage: MAEOptions | ClassifierOptions) -> list[str]:
    """What is wrong with `mixing`, apart from names that only the data knows."""
    if data.mixing is None:
        return []
    wanted = 'wanted source: weight, such as {"ChestX-ray14": 0.5, "BraTS 2020": 0.1}'
    try:
        weights = data.weights()
    except (ValueError, AttributeError) as error:
        return [f"mixing is not a mapping ({error}); {wanted}"]
    faults = [
        f"mixing gives {name!r} the weight {weight!r}; wanted a positive number, or the name left out"
        for name, weight in weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf
    ]
    if not weights:
        faults.append(f"mixing is empty; {wanted}")
    if isinstance(stage, ClassifierOptions):
        faults.append("mixing is for stage 1; stage 2 sees every image once, name its sources in `sources`")
    outside = sorted(weights.keys() - set(data.sources or weights))
    if outside:
        faults.append(
            f"mixing names {outside}, which `sources` leaves out; name them there too, or drop `sources`"
        )
    return faults


def _finish(recipe: Recipe, given: set[str]) -> None:
    """Fill in what depends on other fields and on the machine."""
    data, training, optimization = recipe.data, recipe.training, recipe.optimization
    data.resize_size = data.resize_size or round(data.image_size * 256 / 224)
    data.build_size = data.resize_size if data.build_size is None else data.build_size
    data.build_dir = data.build_dir or str(Path(training.output_dir).parent / "cocktail")
    if optimization.precision == "auto":
        training.bf16 = machine_computes_bf16(training.use_cpu) and not training.fp16
    else:
        training.bf16 = optimization.precision == "bf16"
    # What the Trainer hands to accelerate; transformers fills it in before our options are known.
    training.mixed_precision = "bf16" if training.bf16 else "fp16" if training.fp16 else "no"
    if optimization.base_learning_rate:
        training.learning_rate = optimization.base_learning_rate * images_per_step(training) / 256
    if optimization.keep == "last":
        training.load_best_model_at_end = False
    if optimization.early_stopping_patience:
        training.restore_callback_states_from_checkpoint = True  # a resumed run has not lost its patience
    training.logging_nan_inf_filter = (
        False  # it hides what the guard stops at, and waits for the GPU each step
    )
    training.dataloader_pin_memory = training.dataloader_pin_memory and torch.cuda.is_available()
    _choose_repository(recipe)
    for warning in unused_options(optimization, given):
        logger.warning("%s", warning)
    training.remove_unused_columns = False  # the dataset is ours; the collator names what the model takes


def _choose_repository(recipe: Recipe) -> None:
    """Publish with medhiera.publish what `push_to_hub` asks for; the Trainer would upload all there is."""
    training = recipe.training
    if training.push_to_hub:
        recipe.hub_id = training.hub_model_id or Path(training.output_dir).resolve().name
        training.push_to_hub = False


def images_per_step(training: TrainingArguments) -> int:
    """Images of one optimiser step: all ranks and accumulated batches together."""
    return int(training.train_batch_size * training.gradient_accumulation_steps * training.world_size)


def machine_computes_bf16(use_cpu: bool) -> bool:
    """Whether bf16 autocast pays here: a GPU with bf16 units, or a CPU with AMX or AVX-512 BF16."""
    if torch.cuda.is_available() and not use_cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
