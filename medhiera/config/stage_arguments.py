"""The fields of a config that one stage alone has, its training defaults, and the faults it can name.

Beside arguments.py, whose fields every stage has. stages.py names one of these classes for each stage.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medhiera.config.arguments import Config, StageArguments, option
from medhiera.config.ranges import ABOVE_ZERO, BELOW_ONE, COUNT, COUNT_OR_NONE, FROM_ZERO, Range

HIDDEN_SHARE = Range(0, 1, above=True, below=True, hint="such as 0.6")


@dataclass
class MAEArguments(StageArguments):
    """Stage 1: what is masked."""

    recipes: ClassVar[str] = "mae"
    is_mae: ClassVar[bool] = True

    mask_ratio: float = option(0.6, "Share of mask units hidden from the encoder.", range=HIDDEN_SHARE)
    eval_mask_ratio: float = option(
        0.6, "The same in evaluation, fixed so that runs can be compared.", range=HIDDEN_SHARE
    )
    fixed_eval_masks: bool = option(
        True, "`false` draws new masks at each evaluation, as med-hiera.", card="where set"
    )
    mask_region: Literal["none", "rectangle", "contour"] = option(
        "none",
        "What is hidden more often than the rest: `rectangle`, the same for every picture, or the `contour` "
        "of each chest. Pictures without a chest are masked evenly.",
        card="where set",
    )
    mask_odds: float = option(
        3.0,
        "How many times likelier a unit outside mask_region is kept than one inside.",
        card="where set",
        range=ABOVE_ZERO,
    )
    mask_block: int | None = option(
        None,
        "Side, in mask units of 32 px, of the squares that are kept or hidden together; default 2 with a "
        "mask_region, 1 without.",
        card="where set",
        range=COUNT,
    )
    target: Literal["pixels", "features", "both"] = option(
        "pixels",
        "What the decoder predicts of hidden units: pixels, the `features` of a frozen teacher, or both.",
        card="where set",
    )
    teacher: str | None = option(
        None,
        "A vision model of transformers, or of timm with transformers' config.json: folder or Hub id, with "
        "safetensors.",
        card="never",
    )
    feature_loss: Literal["smooth_l1", "cosine"] = option(
        "smooth_l1",
        "Between predicted features and the teacher's, which are normalized per token.",
        card="where set",
    )
    feature_weight: float = option(
        1.0,
        "With `target: both`, what the features' loss counts beside the pixels'.",
        card="where set",
        range=ABOVE_ZERO,
    )
    teacher_license: str | None = option(
        None, "The teacher's licence, where its card or record does not say it.", card="never"
    )
    teacher_datasets: list[str] | None = option(
        None, "What the teacher was trained on, in place of what its card says.", card="never"
    )
    reconstruction_rows: int = option(6, "Images in the reconstruction figure.", range=Range(1, 1000))
    reconstruction_steps: int = option(
        0, "Also draw it every so many steps; 0: at evaluations only.", card="never", range=COUNT_OR_NONE
    )

    @property
    def block_side(self) -> int:
        """Side, in mask units, of the squares that are kept or hidden together."""
        return self.mask_block or (1 if self.mask_region == "none" else 2)

    @property
    def wants_contours(self) -> bool:
        """Masks that follow each chest."""
        return self.mask_region == "contour"

    def faults(self, config: Config[Any]) -> list[str]:
        """What only a classifier has, and masks that would not follow the picture."""
        faults = []
        if config.model.reset_head:
            faults.append("reset_head is for stage 2; the masked autoencoder has no classifier")
        if self.mask_region != "none" and config.augmentation.rand_augment:
            faults.append(
                f"mask_region: {self.mask_region} and rand_augment are both set; RandAugment moves the "
                "picture away from under its mask: set one to none or false"
            )
        return faults + self._target_faults()

    def _target_faults(self) -> list[str]:
        """A teacher without a target, or the other way about."""
        faults = []
        if self.target != "pixels" and self.teacher is None:
            faults.append(f"target: {self.target} needs a teacher: --teacher FOLDER or a Hub id")
        if self.target == "pixels":
            of_teacher = ("teacher", "teacher_license", "teacher_datasets")
            asked = [name for name in of_teacher if getattr(self, name) is not None]
            if self.feature_loss != "smooth_l1":
                asked.append("feature_loss")
            if asked:
                faults.append(
                    f"{', '.join(asked)}: of no use to `target: pixels`; set target: features or both, or "
                    "leave this out"
                )
        if self.target != "both" and self.feature_weight != 1:
            faults.append(
                f"feature_weight {self.feature_weight:g} weighs features against pixels, and target: "
                f"{self.target} has one of them; set target: both, or leave it out"
            )
        return faults

    def mask_faults(self, grid: tuple[int, int]) -> list[str]:
        """Ratios that leave nothing visible, or hide nothing, of so few mask units; a block that is all."""
        from modeling_hiera_mae.masking import count_kept  # not at the top: --help reads this file

        faults = []
        for name, ratio in (("mask_ratio", self.mask_ratio), ("eval_mask_ratio", self.eval_mask_ratio)):
            try:
                count_kept(grid[0] * grid[1], ratio)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if self.block_side > 1 and self.block_side >= max(grid):
            said = "mask_block is" if self.mask_block else f"mask_region: {self.mask_region} makes mask_block"
            faults.append(
                f"{said} {self.block_side}, and an image has {grid[0]} × {grid[1]} mask units, one block, "
                "which cannot be kept or hidden whole; set a smaller mask_block, such as 1"
            )
        return faults


@dataclass
class FineTuningArguments(StageArguments):
    """What both kinds of stage 2 have: an encoder of before, and something new that stands on it."""

    encoder_rate: float = option(
        1.0,
        "Learning rate of the encoder as a share of what stands on it, the head or the decoder, whose is "
        "learning_rate; 0 freezes the encoder.",
        range=Range(0, 1000),
    )

    def encoder_faults(self, config: Config[Any]) -> list[str]:
        """A rate that transformers' optimizers cannot give, and a frozen encoder that has learned nothing."""
        faults = []
        if config.optimization.optimizer is None and self.encoder_rate not in (0, 1):
            faults.append("encoder_rate needs optimizer: adam or adamw; set one of them")
        if self.encoder_rate == 0 and config.model.model_name_or_path is None:
            faults.append(
                "encoder_rate 0 freezes the encoder, which without a checkpoint has random weights; give "
                "--model_name_or_path FOLDER or a Hub id, or leave encoder_rate out"
            )
        return faults


@dataclass
class ClassificationArguments(FineTuningArguments):
    """Stage 2: what is trained beside the encoder."""

    recipes: ClassVar[str] = "cls"
    training_defaults: ClassVar[dict[str, Any]] = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "selection_auroc",  # evaluation/checkpoint_selection.py
    }
    checkpoint_metrics: ClassVar[tuple[str, ...]] = ("selection_auroc", "mean_auroc", "auroc_*", "loss")

    findings: list[str] | None = option(
        None, "Learn these of the data's findings alone (default: all).", card="where set"
    )
    label_fraction: float = option(
        1.0,
        "Train on this share of the training images alone: whole patients, each finding's share kept, drawn "
        "by the seed. With one seed 0.01's images are among 0.1's.",
        card="where set",
        range=Range(0, 1, above=True),
    )
    rotation_degrees: float = option(
        0.0, "Random rotation after the crop, black fill; the paper uses 30.", range=Range(0, 180)
    )
    rotation_interpolation: Literal["bilinear", "nearest"] = option(
        "bilinear", "`nearest` takes the nearest pixel, as med-hiera.", card="where set"
    )
    classifier_dropout: float = option(
        0.0,
        "Dropout on the pooled features before the head; the paper's sweep: 0–0.5.",
        card="where set",
        range=BELOW_ONE,
    )
    mixup_alpha: float = option(
        0.0, "Mixup's Beta(α, α) on images and labels of a batch; 0: none.", card="where set", range=FROM_ZERO
    )
    label_smoothing: float = option(
        0.0, "Moves training labels towards one half by this share.", card="where set", range=BELOW_ONE
    )
    loss: Literal["bce", "asymmetric"] = option(
        "bce",
        "`bce`: binary cross-entropy. `asymmetric`: arXiv:2009.14119, in training only.",
        card="where set",
    )
    legacy_head: bool = option(
        False,
        "Score validation and test by sigmoid(softmax(logits)), med-hiera's defect.",
        card="where set",
    )
    prior_bias: bool = option(
        False, "A new head starts at each finding's share of the training images, not at one half."
    )
    score_test: bool = option(
        True,
        "`false` leaves the test split unread, as a trial of a sweep must; the report is of validation.",
        card="where set",
    )
    bootstrap_resamples: int = option(
        2000, "Patient-level resamples behind each 95 %% interval; 0: no intervals.", range=Range(0, 100_000)
    )

    def faults(self, config: Config[Any]) -> list[str]:
        """Augmentation, dropout and loss; and what only pre-training has."""
        faults = []
        if self.rotation_degrees and config.augmentation.rand_augment:
            faults.append(
                "rotation_degrees and rand_augment are both set; RandAugment rotates by itself: set one to "
                "0 or false"
            )
        if self.label_fraction < 1 and config.data.max_train_images is not None:
            faults.append(
                "label_fraction and max_train_images are both set, and each says how many images to train "
                "on; leave one of them out"
            )
        if self.mixup_alpha and config.training.per_device_train_batch_size < 2:
            faults.append(
                "mixup_alpha mixes the images of one batch; per_device_train_batch_size 1 has none to mix"
            )
        return faults + self.encoder_faults(config) + _of_stage_1(config)


def _of_stage_1(config: Config[Any]) -> list[str]:
    """What is asked of a classifier's training and only pre-training has."""
    faults = []
    if config.model.reset_decoder:
        faults.append("reset_decoder is for stage 1; the classifier has no decoder")
    if config.optimization.halt_on_explosion:
        faults.append("halt_on_explosion is for stage 1; stage 2 has early_stopping_patience")
    if config.data.source_weights:
        faults.append(
            "source_weights is for stage 1; stage 2 sees every image once, name its sources in `sources`"
        )
    return faults
