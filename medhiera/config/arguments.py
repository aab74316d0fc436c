"""The fields of a recipe: one dataclass a subject, one field a key.

What the paper does is the default; what the modern recipes add is off until a recipe names it. parser.py
reads them, validation.py says which of them cannot stand together.
"""

import json
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Generic, Literal, TypeVar

import torch
from transformers import TrainingArguments

from modeling_hiera_mae.configuration_hiera_mae import SIZES


@dataclass
class OptimizationOptions:
    """What transformers' Trainer cannot name: optimisers, schedules, averaged weights, guards."""

    optimizer: Literal["adam", "adamw", "trainer"] = field(
        default="adam",
        metadata={
            "help": "`adam`: torch.optim.Adam, coupled L2, as the paper. `adamw`: AdamW with layer_decay, no "
            "weight decay on norms, biases, position embeddings and mask token. `trainer`: what `optim` says."
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "Learning rate of each block as a share of the block's above it; `adamw` only."},
    )
    base_learning_rate: float = field(
        default=0.0,
        metadata={"help": "Learning rate for 256 images a step; × global batch / 256. 0: unused."},
    )
    schedule: Literal["one_cycle", "trainer"] = field(
        default="one_cycle",
        metadata={"help": "`one_cycle`: OneCycleLR per step, learning_rate is its maximum, as the paper. "
                          "`trainer`: what `lr_scheduler_type` says."},
    )  # fmt: skip
    drop_path_rate: float = field(
        default=0.0, metadata={"help": "Chance that the last block's branch is left out; earlier ones less."}
    )
    ema_decay: float = field(
        default=0.0,
        metadata={"help": "Decay of the moving average of weights that is evaluated and kept; 0: none."},
    )
    keep: Literal["best", "last"] = field(
        default="best",
        metadata={"help": "`last` keeps the last weights where load_best_model_at_end is set, as med-hiera."},
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "End after so many evaluations in a row without a new best; 0: never."}
    )
    halt_on_explosion: bool = field(
        default=False,
        metadata={"help": "End the run when the evaluation loss stands above its start after warm-up."},
    )
    precision: Literal["auto", "bf16", "fp32"] = field(
        default="auto",
        metadata={"help": "`auto`: bf16 autocast where the machine computes in bf16, else fp32."},
    )
    recipe_kind: Literal["full", "smoke"] = field(
        default="full",
        metadata={"help": "`smoke` marks a run that only proves the software; its card says so at its top."},
    )


@dataclass
class AugmentationOptions:
    """What is done to a training image in either stage; every draw is keyed by (seed, epoch, image_id)."""

    random_crop_scale: float = field(
        default=0.0,
        metadata={
            "help": "Smallest share of the area that a random crop keeps, in place of resize and centre "
            "crop; 0: no random crop."
        },
    )
    horizontal_flip: bool = field(default=False, metadata={"help": "Mirror every second image."})
    rand_augment: bool = field(
        default=False,
        metadata={"help": "RandAugment, N=2, M=9 of 31, without Color; never together with rotation."},
    )


@dataclass
class StageArguments:
    """The fields that one stage alone has; a stage without any takes this."""


@dataclass
class MAEOptions(StageArguments):
    """Stage 1: what is masked."""

    mask_ratio: float = field(default=0.6, metadata={"help": "Share of mask units hidden from the encoder."})
    eval_mask_ratio: float = field(
        default=0.6, metadata={"help": "The same in evaluation, fixed so that runs can be compared."}
    )
    fixed_eval_masks: bool = field(
        default=True, metadata={"help": "`false` draws new masks at each evaluation, as med-hiera."}
    )
    reconstruction_rows: int = field(default=6, metadata={"help": "Images in the reconstruction figure."})
    reconstruction_steps: int = field(
        default=0, metadata={"help": "Also draw it every so many steps; 0: at each evaluation only."}
    )


@dataclass
class ClassifierOptions(StageArguments):
    """Stage 2: what is trained beside the encoder."""

    rotation_degrees: float = field(
        default=0.0, metadata={"help": "Random rotation after the crop, black fill; the paper uses 30."}
    )
    classifier_dropout: float = field(
        default=0.0,
        metadata={"help": "Dropout on the pooled features before the head; the paper's sweep: 0–0.5."},
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Mixup's Beta(α, α) on images and labels of a batch; 0: none."}
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Moves training labels towards one half by this share."}
    )
    loss: Literal["bce", "asymmetric"] = field(
        default="bce",
        metadata={"help": "`bce`: binary cross-entropy. `asymmetric`: arXiv:2009.14119, in training only."},
    )
    legacy_head: bool = field(
        default=False,
        metadata={"help": "Score validation and test by sigmoid(softmax(logits)), med-hiera's defect."},
    )
    prior_bias: bool = field(
        default=False,
        metadata={
            "help": "A new head starts at each finding's share of the training images, not at one half."
        },
    )
    score_test: bool = field(
        default=True,
        metadata={
            "help": "`false` leaves the test split unread, as a trial of a sweep must; the report is of "
            "validation."
        },
    )
    bootstrap_resamples: int = field(
        default=2000, metadata={"help": "Patient-level resamples behind each 95 %% interval."}
    )


SWITCHES = frozenset(
    "layer_decay base_learning_rate drop_path_rate ema_decay keep early_stopping_patience random_crop_scale "
    "horizontal_flip rand_augment fixed_eval_masks classifier_dropout mixup_alpha label_smoothing loss "
    "legacy_head new_head".split()
)
"""What a recipe may add to the paper's; not recorded where it is as by default."""


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
    model_size: str = field(
        default="tiny",
        metadata={"choices": list(SIZES), "help": "Geometry of a model with random weights."},
    )
    model_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Config fields that differ from model_size, or from the checkpoint where its weights "
            "allow it, as a YAML mapping or JSON text. {} drops the recipe's."
        },
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


S = TypeVar("S", bound=StageArguments)


@dataclass
class Recipe(Generic[S]):
    """One parsed recipe: ours and transformers' arguments side by side."""

    data: DataOptions
    model: ModelOptions
    optimization: OptimizationOptions
    augmentation: AugmentationOptions
    stage: S
    training: TrainingArguments
    hub_id: str | None = None
    """The repository that the finished stage is published in."""

    def as_json(self) -> dict[str, Any]:
        """What the card and metrics.json show: our fields, and the training fields that shape the result.

        A switch that is off is left out: a recipe says what it does.
        """
        record: dict[str, Any] = {}
        off: set[str] = set()
        groups: tuple[Any, ...] = (self.data, self.model, self.optimization, self.augmentation, self.stage)
        for options in groups:
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
            hidden |= {"model_size"} | (set() if self.model.overrides() else {"model_overrides"})
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


def images_per_step(training: TrainingArguments) -> int:
    """Images of one optimiser step: all ranks and accumulated batches together."""
    return int(training.train_batch_size * training.gradient_accumulation_steps * training.world_size)


def machine_computes_bf16(use_cpu: bool) -> bool:
    """Whether bf16 autocast pays here: a GPU with bf16 units, or a CPU with AMX or AVX-512 BF16."""
    if torch.cuda.is_available() and not use_cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
