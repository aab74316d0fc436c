"""The fields of a config that every stage has, one dataclass a subject; and Config, all of them.

What the modern recipes add to the paper's is off until a recipe names it. stage_arguments.py has what one
stage alone has, parser.py reads a config, validation.py says what cannot stand together.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from medhiera.config.ranges import BELOW_ONE, COUNT, COUNT_OR_NONE, FROM_ZERO, SHARE, Range
from modeling_hiera_mae.sizes import LARGEST_SIDE, SIZES

if TYPE_CHECKING:  # --help reads this file, and transformers' arguments import PyTorch
    from transformers import TrainingArguments

Card = Literal["always", "where set", "never"]
"""Whether a model card's table shows a field: always, where it differs from its default, or never (paths, and
what has no influence on the result)."""


def option(default: Any, text: str, *, card: Card = "always", **metadata: Any) -> Any:
    """A field of a config.

    Args:
        default: its value where neither file nor command line name it.
        text: what --help says.
        card: whether the model card shows it.
        **metadata: `range`, the Range of a number, which every number has; or for HfArgumentParser, such as
            `choices`.
    """
    return field(default=default, metadata={"help": text, "card": card, **metadata})


def mapping(text: str, *, card: Card = "where set") -> Any:
    """A field that is a mapping: YAML in a file, JSON text on the command line; empty by default."""
    return field(default_factory=dict, metadata={"help": text, "card": card, "is_mapping": True})


@dataclass
class DataArguments:
    """Which images, and how they reach the model."""

    data_dir: str = option(
        "",
        "Folder that holds one or more of the sources in their own layout; or images of your own, as class "
        "folders, with a table or alone; or a dataset's id on the Hub (docs/data.md).",
        card="never",
    )
    build_dir: str | None = option(
        None, "Where built data is kept (default: `cocktail` beside output_dir).", card="never"
    )
    stored_size: int | None = option(
        None,
        "Shorter side of the built images in pixels; default resize_size, nothing shrinks twice; 0 keeps the "
        "native size.",
        range=Range(0, 65_535),
    )
    compression: Literal["auto", "fast", "none", "raw"] = option(
        "auto",
        "How images are stored where data is built: `raw` pixels, which the loader reads in place, or PNGs, "
        "`fast` or `none`. `auto`: `raw` for shrunk images, `fast` at native size. The pixels are the same.",
        card="never",
    )
    contours: str | None = option(
        None,
        "Where built data gets its chest regions from: `learned` (our network), CheXmask's CSV, or a folder "
        "of lung masks. Default: `learned` where mask_region is `contour`, else none.",
        card="where set",
    )
    build_num_proc: int = option(1, "Processes that build the data.", card="never", range=Range(1, 4096))
    legacy_std: bool = option(
        False,
        "Normalize by the mean of the images' own standard deviations, as med-hiera, not by that of all "
        "pixels. A stage that starts from another keeps that one's normalization.",
        card="where set",
    )
    split_scheme: Literal["official", "medtransformer", "mrm", "r2gen"] = option(
        "official",
        "`official`: the whole official test list and a patient-disjoint validation. `medtransformer`: the "
        "paper's thirds of the test list. `mrm`: RSNA by a published model's lists, which leak. "
        "`r2gen`: IU X-Ray by R2Gen's split.",
    )
    allow_leakage: bool = option(
        False,
        "Keep training images that show held-out ones, as the paper does, and start from weights that "
        "were trained on some; the card says so.",
    )
    protect: str | None = option(
        None,
        "Folder of images, or Parquet with a column `image`: your own held-out images. No training image may "
        "show one, though they are no part of the data.",
        card="never",
    )
    keep_duplicates: Literal["all", "once"] = option(
        "all",
        "Of near-duplicates among one source's training images keep `all`, or each picture `once`.",
        card="where set",
    )
    nih_mapping: str | None = option(
        None,
        "File that names the NIH image behind RSNA's identifiers, if you have it; without it RSNA's patients "
        "are not known.",
        card="never",
    )
    dataset_config: str | None = option(
        None,
        "Of a dataset on the Hub or of Parquet that has several configurations: which of them is read.",
        card="where set",
    )
    image_column: str | None = option(
        None,
        "Of a dataset on the Hub or of Parquet, or of your own table: the column of images or of their file "
        "names. Default: found by its type or name.",
        card="where set",
    )
    label_column: str | None = option(
        None,
        "The same of each image's class (one label, or of a dataset a list of them).",
        card="where set",
    )
    patient_column: str | None = option(None, "The same of the patient.", card="where set")
    max_bad_fraction: float = option(
        0.01, "Stop the build when more than this share of the files is unreadable.", range=SHARE
    )
    sources: list[str] | None = option(
        None,
        "Train on these sources only (names of the `source` column). Default: stage 1 all, stage 2 "
        "ChestX-ray14.",
    )
    source_weights: dict[str, float] = mapping(
        "Stage 1: weight of each source in the training rows. Sources not named are left out; small ones "
        "repeat. Default: every image once."
    )
    image_size: int = option(224, "Side of the model's input in pixels.", range=Range(1, LARGEST_SIDE))
    resize_size: int | None = option(
        None,
        "Shorter side before the center crop; default image_size × 256/224, as the paper.",
        range=Range(1, LARGEST_SIDE),
    )
    max_train_images: int | None = option(
        None, "Use only this many training images, drawn by the seed.", range=COUNT
    )
    max_eval_images: int | None = option(
        None, "Use only this many validation images, drawn by the seed.", range=COUNT
    )

    @property
    def read_size(self) -> int:
        """Shorter side before the center crop, in pixels."""
        return self.resize_size or round(self.image_size * 256 / 224)


@dataclass
class ModelArguments:
    """Which weights to start from, or which geometry to start anew."""

    model_name_or_path: str | None = option(
        None, "A stage's folder or a Hub id. Without it the weights are random.", card="never"
    )
    model_size: str = option("tiny", "Geometry of a model with random weights.", choices=list(SIZES))
    model_overrides: dict[str, Any] = mapping(
        "Config fields that differ from model_size, or from the checkpoint where its weights allow it. {} "
        "drops the recipe's."
    )
    reset_head: bool = option(
        False,
        "Stage 2: leave the checkpoint's own classifier out, as where it names other findings or is "
        "supervised ImageNet's, which med-hiera took for its MAE weights.",
        card="where set",
    )
    reset_decoder: bool = option(
        False,
        "Stage 1: take the checkpoint's encoder alone and begin with a new decoder, whose geometry and "
        "num_query_pool model_overrides may set.",
        card="where set",
    )


@dataclass
class OptimizationArguments:
    """What transformers' Trainer cannot name: optimizers, schedules, averaged weights, guards."""

    optimizer: Literal["adam", "adamw"] | None = option(
        None,
        "`adam`: torch.optim.Adam, coupled L2, as the paper. `adamw`: AdamW with layer_decay, no weight "
        "decay on norms, biases, position embeddings and mask token. Unset: what `optim` says.",
    )
    layer_decay: float = option(
        1.0,
        "Learning rate of each block as a share of the block's above it; `adamw` only.",
        card="where set",
        range=Range(0, 1, above=True, hint="1: none"),
    )
    base_learning_rate: float = option(
        0.0,
        "Learning rate for 256 images a step; × global batch / 256. 0: unused.",
        card="where set",
        range=FROM_ZERO,
    )
    size_defaults: bool = option(
        False,
        "Where neither file nor command line give them, layer_decay, drop_path_rate and base_learning_rate "
        "are those that Hiera's author fine-tunes this size of model with; with random weights layer_decay "
        "is 1.",
        card="never",
    )
    size_rate_factor: float = option(
        1.0,
        "The base_learning_rate that size_defaults gives is multiplied by this; 0.1: a tenth of it.",
        card="never",
        range=Range(0, 1, above=True, hint="1: as it is"),
    )
    schedule: Literal["one_cycle"] | None = option(
        None,
        "`one_cycle`: OneCycleLR per step, learning_rate is its maximum, as the paper. Unset: what "
        "`lr_scheduler_type` says.",
    )
    drop_path_rate: float = option(
        0.0,
        "Chance that the last block's branch is left out; earlier ones less.",
        card="where set",
        range=BELOW_ONE,
    )
    ema_decay: float = option(
        0.0,
        "Decay of the moving average of weights that is evaluated and kept; 0: none.",
        card="where set",
        range=Range(
            0,
            1,
            below=True,
            hint="0: off; at 1 the average would never leave the initial weights",
        ),
    )
    keep_checkpoint: Literal["best", "last"] = option(
        "best",
        "`last` keeps the last weights where load_best_model_at_end is set, as med-hiera.",
        card="where set",
    )
    early_stopping_patience: int = option(
        0,
        "End after so many evaluations in a row without a new best; 0: never.",
        card="where set",
        range=COUNT_OR_NONE,
    )
    halt_on_explosion: bool = option(
        False, "End the run when the evaluation loss stands above its start after warm-up.", card="never"
    )
    precision: Literal["auto", "bf16", "bf16_weights", "fp32"] = option(
        "auto",
        "`auto`: bf16 autocast where the machine computes in bf16, else fp32. `bf16_weights`: forward and "
        "backward on bf16 weights, which follow float32 ones. What stays float32 is multiplied as TF32 on a "
        "GPU while it trains, unless `tf32: false`.",
        card="where set",
    )
    smoke_run: bool = option(False, "Marks a run that only proves the software; its card says so at its top.")


@dataclass
class AugmentationArguments:
    """What is done to a training image in every stage; every draw is keyed by (seed, epoch, image_id)."""

    random_crop_scale: float = option(
        0.0,
        "Smallest share of the area that a random crop keeps, in place of resize and center crop; 0: no "
        "random crop.",
        card="where set",
        range=SHARE,
    )
    horizontal_flip: bool = option(False, "Mirror every second image.", card="where set")
    rand_augment: bool = option(
        False, "RandAugment, N=2, M=9 of 31, without Color; never together with rotation.", card="where set"
    )


@dataclass
class StageArguments:
    """What every stage's own arguments have; a stage without any takes this."""

    training_defaults: ClassVar[dict[str, Any]] = {}
    """Fields of TrainingArguments that the stage sets where neither file nor command line do."""

    recipes: ClassVar[str] = ""
    """What the names of our recipes of this stage begin with."""

    is_mae: ClassVar[bool] = False
    """The stage trains a masked autoencoder: decoder and query pooling are its checkpoint's."""

    checkpoint_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """What `metric_for_best_model` may name, as patterns: the numbers of each evaluation."""

    logged_metrics: ClassVar[tuple[str, ...]] = ("selection_auroc", "mean_auroc")
    """The numbers of each evaluation that training_log.csv has, beside the loss."""

    unit: ClassVar[str] = "images"
    """What a step has so many of."""

    @property
    def wants_contours(self) -> bool:
        """The stage reads where each chest lies."""
        return False

    def faults(self, config: "Config[Any]") -> list[str]:
        """What is out of range or cannot stand together with this stage: a sentence each, with its fix."""
        return []

    def mask_faults(self, grid: tuple[int, int]) -> list[str]:
        """The same of images of so many rows and columns of mask units."""
        return []


S = TypeVar("S", bound=StageArguments)

TRAINING_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "max_grad_norm": 0.0,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 50,
}
"""Where our defaults differ from transformers': med-hiera does not clip, and what was not kept is lost."""

SHOWN_OF_TRAINING = (
    "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size",
    "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "seed", "bf16",
)  # fmt: skip
"""Fields of transformers' TrainingArguments that shape a result; ours say it in their metadata."""


MAY_CHANGE = (
    "smoke_run", "keep_checkpoint", "early_stopping_patience", "max_bad_fraction", "stored_size",
    "score_test", "bootstrap_resamples", "reconstruction_rows", "precision",
)  # fmt: skip
"""Our fields that a card shows and a resumed run may have otherwise: no training step depends on them, but on
precision, which a run whose weights overflowed is told to raise."""


@dataclass
class Config(Generic[S]):
    """One parsed config: ours and transformers' arguments side by side."""

    data: DataArguments
    model: ModelArguments
    optimization: OptimizationArguments
    augmentation: AugmentationArguments
    stage: S
    training: "TrainingArguments"
    hub_id: str | None = None
    """The repository that the finished stage is published in."""
    left_to_size: tuple[str, ...] = ()
    """Options that size_defaults.py fills in when the model's size is known."""

    def as_json(self) -> dict[str, Any]:
        """What card and metrics.json show: our fields by their metadata, and those of theirs that count."""
        from medhiera.layout import public_name  # which imports PyTorch, and --help reads this file

        record: dict[str, Any] = {}
        for options, one in self._own_fields():
            value = getattr(options, one.name)
            is_set = bool(value) if isinstance(value, dict) else value != one.default
            if one.metadata["card"] == "always" or (one.metadata["card"] == "where set" and is_set):
                is_path = isinstance(value, str) and "/" in value  # or a Hub id: of a decoder, of contours
                record[one.name] = public_name(value) if is_path else value
        if self.model.model_name_or_path:
            del record["model_size"]  # the geometry is the checkpoint's
        shown = [*SHOWN_OF_TRAINING, "max_steps" if self.training.max_steps > 0 else "num_train_epochs"]
        shown += [] if self.optimization.optimizer else ["optim"]
        shown += [] if self.optimization.schedule else ["lr_scheduler_type", "warmup_steps"]
        record |= {name: getattr(self.training, name) for name in shown}
        return {key: value.value if isinstance(value, Enum) else value for key, value in record.items()}

    def shaping_a_step(self) -> dict[str, Any]:
        """Our fields that a training step depends on, defaults too: a resumed run has them as before."""
        return {
            one.name: getattr(options, one.name)
            for options, one in self._own_fields()
            if one.metadata["card"] != "never" and one.name not in MAY_CHANGE
        }

    def _own_fields(self) -> Iterator[tuple[Any, Field[Any]]]:
        groups: tuple[Any, ...] = (self.data, self.model, self.optimization, self.augmentation, self.stage)
        return ((options, one) for options in groups for one in fields(options))


def images_per_step(training: "TrainingArguments") -> int:
    """Images of one optimizer step: all ranks and accumulated batches together."""
    return int(training.train_batch_size * training.gradient_accumulation_steps * training.world_size)


def machine_computes_bf16(use_cpu: bool) -> bool:
    """Whether bf16 autocast pays here: a GPU with bf16 units, or a CPU with AMX or AVX-512 BF16."""
    import torch  # not at the top: see TYPE_CHECKING there

    if torch.cuda.is_available() and not use_cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
