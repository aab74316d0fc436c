"""The options of optimisation, augmentation and of each stage: dataclasses whose fields are a recipe's keys.

What the paper does is the default; what the modern recipes add is off until a recipe names it. recipe.py
parses them, contradictions.py says which of them cannot stand together.
"""

from dataclasses import dataclass, field
from typing import Literal


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
class MAEOptions:
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
class ClassifierOptions:
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
    bootstrap_resamples: int = field(
        default=2000, metadata={"help": "Patient-level resamples behind each 95 %% interval."}
    )
