r"""Stage 1: masked-autoencoder pre-training of Hiera on the cocktail; labels are not used.

It predicts pixels of hidden parts, or the features of a frozen teacher (`target: features`), or both.

On a GPU, and on a CPU:

    accelerate launch train_mae.py configs/mae_paper.yaml --data_dir DATA --output_dir runs/stage1 \
        --model_name_or_path facebook/hiera-tiny-224-mae-hf
    python train_mae.py configs/mae_smoke.yaml --data_dir DATA --output_dir runs/stage1 --use_cpu true
"""

from medhiera.config.before_imports import answer_before_imports
from medhiera.config.stage_arguments import MAEArguments

if __name__ == "__main__":  # answered before PyTorch is imported, which takes seconds
    answer_before_imports(MAEArguments, __doc__)

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from medhiera.config.arguments import Config
from medhiera.data.augmentation import Augmentation
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.selection import mix_sources, sample_across_sources
from medhiera.errors import run_script
from medhiera.evaluation.results import ReconstructionReport
from medhiera.hub.lineage import refuse_leaky_teacher, teacher_record, with_teacher
from medhiera.hub.record import PretrainingRecord
from medhiera.hub.teachers import TeacherRecord
from medhiera.hub.training_record import TrainingRecord
from medhiera.inference.reconstruction import reconstruct
from medhiera.layout import FIGURES_FOLDER
from medhiera.run import Run, begin_run
from medhiera.run_folder import how_to_go_on
from medhiera.stages import PRETRAINING
from medhiera.training import figures
from medhiera.training.callbacks import FigureCallback
from medhiera.training.feature_trainer import FeatureTrainer
from medhiera.training.teacher import Teacher
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae import HieraMAEForPreTraining

logger = logging.getLogger("train_mae")

LOSS_NAMES = {
    "pixels": "masked pixel loss",
    "features": "masked feature loss",
    "both": "masked pixel and feature loss",
}


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    run = begin_run(PRETRAINING, argv, check_teacher)
    config, options, training = run.config, run.config.stage, run.config.training
    held_out_split = "validation_mae" if "validation_mae" in run.data.rows else "validation"
    train_rows = run.select("train", config.data.sources, config.data.max_train_images)
    train_rows = mix_sources(train_rows, config.data.source_weights, training.seed)
    eval_rows = run.select(held_out_split, config.data.sources, config.data.max_eval_images)

    model = run.start_model(mask_ratio=options.mask_ratio)
    taught = learn_from_teacher(run, model)
    run.describe(trained_on=train_rows, validated_on=eval_rows)
    masks = MaskDrawing.of(options, model.config.unit_grid)
    even = MaskDrawing(masks.grid, options.eval_mask_ratio)
    fixed, unseeded = (
        RadiographDataset(eval_rows, run.preprocessing, masks=drawn, mask_ratio=options.eval_mask_ratio)
        for drawn in (even, None)
    )
    training.label_names = ["pixel_values"]  # the target of the loss is the input
    training.prediction_loss_only = True
    training.eval_on_start = run.resume is None  # the loss before training, to compare with
    trained = RadiographDataset(
        train_rows,
        run.preprocessing,
        seed=training.seed,
        augmentation=Augmentation.of(config.augmentation),
        masks=masks,
    )
    trainer: MedHieraTrainer = run.make_trainer(
        model,
        **taught,
        at_beginning=drawing_of_masks(run, trained, train_rows),
        train_dataset=trained,
        eval_dataset=fixed if options.fixed_eval_masks else unseeded,
    )
    show = make_drawing(run, trainer, eval_rows, fixed)
    loss_name = LOSS_NAMES[options.target]
    trainer.add_callback(
        FigureCallback(run.output, loss_name, run.figure_mark, show, options.reconstruction_steps)
    )
    result = trainer.train(resume_from_checkpoint=run.resume)
    trainer.evaluate()
    as_trained = None
    if masks != even:
        own = RadiographDataset(eval_rows, run.preprocessing, masks=masks, mask_ratio=masks.mask_ratio)
        as_trained = trainer.evaluate(own, metric_key_prefix="own_masks")["own_masks_loss"]
        logger.info("with masks drawn as in training %.4f", as_trained)
    weights = forget_teacher(model, trainer.gather_state_dict())
    if trainer.is_world_process_zero():
        if show is not None:
            show()(run.output / FIGURES_FOLDER / "reconstructions.png")
        training_record = TrainingRecord.of(trainer, result)
        finish(run, model, weights, training_record, trainer.state.log_history, as_trained)


def finish(
    run: Run[MAEArguments],
    model: HieraMAEForPreTraining,
    weights: dict[str, torch.Tensor] | None,
    training: TrainingRecord,
    history: list[dict[str, Any]],
    as_trained: float | None,
) -> None:
    """Draw the curves, and write the stage's folder with its record.

    Args:
        run: of this stage.
        model: trained.
        weights: the same, gathered, where each rank holds a part.
        training: how it went.
        history: what was logged, all evaluations among it.
        as_trained: the loss with masks drawn as in training, where those are others.
    """
    options = run.config.stage
    path = run.output / FIGURES_FOLDER / "loss.png"
    figures.training_curves(history, path, loss_name=LOSS_NAMES[options.target], mark=run.figure_mark)
    evaluations = [entry for entry in history if "eval_loss" in entry]
    before, after = evaluations[0], evaluations[-1]
    logger.info("masked validation loss %.4f → %.4f", before["eval_loss"], after["eval_loss"])
    parts = {
        name: [before[f"eval_{part}"], after[f"eval_{part}"]]
        for name, part in (("pixel_losses", "pixel_loss"), ("feature_losses", "feature_loss"))
        if f"eval_{part}" in after
    }
    evaluation = ReconstructionReport(
        before["eval_loss"], after["eval_loss"], options.eval_mask_ratio, as_trained, options.target, **parts
    )
    run.finish(PretrainingRecord(**run.facts, training=training, evaluation=evaluation), model, weights)


def check_teacher(config: Config[MAEArguments]) -> None:
    """Refuse a teacher that cannot be opened, or has seen what is held out, before data are built.

    Raises:
        UserError: as said.
    """
    if config.stage.teacher is not None:
        record_of_teacher(config, Teacher(config.stage.teacher))


def record_of_teacher(config: Config[MAEArguments], teacher: Teacher) -> TeacherRecord:
    """What the stage's record says of its teacher.

    Raises:
        UserError: it has seen images that are held out, and that was not allowed.
    """
    options = config.stage
    record = teacher_record(
        teacher.source, teacher.config.model_type, teacher.fingerprint, options.teacher_license,
        options.teacher_datasets,
    )  # fmt: skip
    refuse_leaky_teacher(record, allow_leakage=config.data.allow_leakage)
    return record


def learn_from_teacher(run: Run[MAEArguments], model: HieraMAEForPreTraining) -> dict[str, Any]:
    """Give the model a head for the teacher's features, and the run its lineage.

    Returns:
        What the Trainer is made with beside what every stage's is; nothing without a teacher.
    """
    config, options = run.config, run.config.stage
    if options.teacher is None:
        return {}
    is_bf16 = config.training.bf16 or config.optimization.precision == "bf16_weights"
    teacher = Teacher(
        options.teacher,
        dtype=torch.bfloat16 if is_bf16 else torch.float32,
        device=config.training.device,
    )
    logger.info(
        "teacher %s: %s, %d features at each of %d × %d tokens of %d × %d pixels; the decoder has %d × %d",
        teacher.source, teacher.config.model_type, teacher.size, *teacher.grid, *teacher.input_size,
        *model.decoder.grid,
    )  # fmt: skip
    run.teacher = options.teacher
    run.lineage = with_teacher(run.lineage, record_of_teacher(config, teacher))
    model.predict_features(
        teacher.size, options.feature_loss, options.feature_weight, with_pixels=options.target == "both"
    )
    return {"trainer_class": FeatureTrainer, "teacher": teacher}


def forget_teacher(
    model: HieraMAEForPreTraining, weights: dict[str, torch.Tensor] | None
) -> dict[str, torch.Tensor] | None:
    """Leave the head for features out of what is saved: the stage is a masked autoencoder as any other.

    Args:
        model: trained.
        weights: the same, gathered, where each rank holds a part.
    """
    model.drop_feature_head()
    if weights is None:
        return None
    return {name: tensor for name, tensor in weights.items() if not name.startswith("feature_head.")}


def drawing_of_masks(
    run: Run[MAEArguments], trained: RadiographDataset, rows: Dataset
) -> list[Callable[[], object]]:
    """What draws the masks of a few training images; nothing where they follow no chest."""
    if run.config.stage.mask_region == "none":
        return []
    chosen = sample_across_sources(rows, run.config.stage.reconstruction_rows)
    captions = [rows[row]["source"] for row in chosen]
    path = run.output / FIGURES_FOLDER / "masks.png"
    return [partial(figures.draw_masks, trained, chosen, captions, path, mark=run.figure_mark)]


def make_drawing(
    run: Run[MAEArguments], trainer: MedHieraTrainer, rows: Dataset, table: RadiographDataset
) -> Callable[[], Callable[[Path], None]] | None:
    """What reconstructs a few validation images and returns what draws them; None where there is no picture.

    One rank draws, and a sharded model would wait for the others; without pixels there is no picture.
    """
    if trainer.is_fsdp_enabled or run.config.stage.target == "features":
        return None
    chosen = sample_across_sources(rows, run.config.stage.reconstruction_rows)
    pictures = RadiographCollator()(table.__getitems__(chosen))
    batch = run.preprocessing.model_inputs(pictures, trainer.model.config.num_channels)
    captions = [rows[row]["source"] for row in chosen]

    def show() -> Callable[[Path], None]:
        with trainer.averaged_weights():
            pictures = reconstruct(
                trainer.model, batch["pixel_values"], run.preprocessing, batch["noise"],
                run.config.stage.eval_mask_ratio,
            )  # fmt: skip
        return partial(figures.reconstruction_rows, pictures, captions, mark=run.figure_mark)

    return show


if __name__ == "__main__":
    run_script(main, how_to_go_on)
